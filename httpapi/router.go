package httpapi

import (
	"context"
	"iter"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/gorilla/mux"
	"github.com/rs/zerolog"

	"github.com/lotline/lotline/commands"
	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/httpapi/tokens"
	"github.com/lotline/lotline/projections"
)

// Commands carries out commands. *commands.Handler implements it.
type Commands interface {
	Handle(ctx context.Context, r commands.Request) (commands.Result, error)
	Create(ctx context.Context, c commands.Creation) (commands.Result, error)
	CreateKey(ctx context.Context, c commands.KeyCreation) (commands.IssuedKey, error)
	// Now returns the time at which a command would be decided now. An error means that
	// this node may not decide commands now.
	Now(ctx context.Context) (time.Time, error)
}

// Views answers queries. *projections.Views implements it.
type Views interface {
	Credential(hash string) (projections.Credential, bool)
	Organization(id domain.ID) (*domain.Organization, bool)
	Account(id domain.ID) (projections.Account, bool)
	SigningKeys() (*domain.SigningKeys, error)
	Get(organization, id domain.ID) (projections.Row, error)
	Participants(ctx context.Context, organization, id domain.ID) (domain.Distribution, error)
	Owned(organization, id domain.ID) (quarantine *domain.HistoryError, ok bool)
	Known(stream string) (domain.Revision, *domain.HistoryError)
	Quarantine(broken *domain.HistoryError)
	List(q projections.ListQuery) (projections.Page, error)
	Position() domain.Position
	WaitFor(ctx context.Context, p domain.Position) error
	Quarantined() []domain.HistoryError
}

// Observer is notified of requests. Several goroutines call it at once, and each request
// waits until the call returns.
type Observer interface {
	// Received is called when a request arrives. The API serves the request that it
	// returns: r itself, or r with another context.
	Received(r *http.Request) *http.Request
	// Finished is called when a request has ended. r is the request that Received
	// returned.
	Finished(r *http.Request, a Answer)
}

// Answer describes how a request was answered.
type Answer struct {
	Route     string // the path template of the route, "" for an unknown path
	Status    int    // 0 if the answer never began
	Took      time.Duration
	RequestID string
}

// Histories reads the events of a stream from the log. *eventstore.Log implements it.
type Histories interface {
	Read(ctx context.Context, stream string, after domain.Revision) iter.Seq2[*domain.Recorded, error]
}

// Config is what the API needs. Every field is required except Limits, Observer and
// Metrics.
type Config struct {
	Commands  Commands
	Views     Views
	Histories Histories
	// CaughtUp reports whether the read models have caught up with the end that the log
	// had when the node started. Before that, calls that need the read models are
	// refused: a distribution that the read models do not include yet would be answered
	// as one that does not exist.
	CaughtUp func() bool
	// Ready checks the parts that the node depends on. It is called for every request to
	// /readyz, with a context that ends after two seconds.
	Ready func(ctx context.Context) []Check
	// TokenKey encrypts and authenticates cursors and positions. All nodes must have the
	// same key, or one node refuses the cursors and positions of another.
	TokenKey []byte
	Limits   Limits
	Clock    func() time.Time
	Log      zerolog.Logger
	// Observer is notified of every request. Nil means no observer.
	Observer Observer
	// Metrics answers /metrics, which requires no key. Nil means no such path.
	Metrics http.Handler
}

// New returns the handler of the whole API. It is safe for concurrent use and
// starts no goroutines.
func New(c Config) http.Handler { return newServer(c) }

type server struct {
	Config
	router       *mux.Router
	console      map[string]consoleFile
	acknowledged acknowledged
	sealer       *sealer
	tokens       *tokens.Tokens
	bySecret     *limiter // by organization
	byConsumer   *limiter // by organization and consumer
	byAddress    *limiter
}

const basePath = "/api/v1"

// collections has the path segment of each kind. The segment of anyKind is for all kinds
// together.
var collections = func() map[domain.Kind]string {
	all := map[domain.Kind]string{anyKind: "/distributions"}
	for _, k := range domain.Kinds() {
		all[k] = "/" + string(k) + "s"
	}
	return all
}()

// anyKind means any kind of distribution.
const anyKind domain.Kind = ""

func newServer(c Config) *server {
	s := &server{
		Config: c, router: mux.NewRouter(), console: consoleFiles(), sealer: newSealer(c.TokenKey), tokens: tokens.New(c.Views),
		bySecret: newLimiter(c.Limits.Secret), byConsumer: newLimiter(c.Limits.Consumer), byAddress: newLimiter(c.Limits.Public),
	}
	// The router must not clean paths: its redirect to a clean path would turn a POST
	// into a GET. ServeHTTP refuses paths with unnecessary encoding.
	s.router.SkipClean(true)
	// The router tries one route after the other, so the routes that are called most
	// often come first.
	for _, k := range append(domain.Kinds(), anyKind) {
		one := s.public(methods{http.MethodGet: noQuery(s.get(k))})
		if k != anyKind {
			one[http.MethodPut] = s.secret(noQuery(s.update(k)))
			one[http.MethodDelete] = s.secret(noQuery(s.remove(k)))
		}
		s.handle(basePath+collections[k]+"/{id}", one)
	}
	for _, k := range domain.Kinds() {
		s.handleParticipants(k)
	}
	for _, k := range append(domain.Kinds(), anyKind) {
		all := methods{http.MethodGet: s.secret(s.list(k))}
		if k != anyKind {
			all[http.MethodPost] = s.secret(noQuery(s.create(k)))
		}
		s.handle(basePath+collections[k], all)
	}
	for _, k := range domain.Kinds() {
		s.handleSteps(k)
	}
	s.handle(basePath+collections[anyKind]+"/{id}/events", methods{http.MethodGet: s.secret(s.events, mediaLines)})
	s.handle(keysPath, methods{
		http.MethodGet:  s.secret(s.listKeys),
		http.MethodPost: s.secret(noQuery(s.createKey)),
	})
	s.handle(keysPath+"/{id}", methods{
		http.MethodGet:    s.secret(noQuery(s.getKey)),
		http.MethodDelete: s.secret(noQuery(s.revokeKey)),
	})
	s.handle(basePath+"/organization", methods{
		http.MethodGet: s.secret(noQuery(s.getOrganization)),
		http.MethodPut: s.secret(noQuery(s.updateOrganization)),
	})
	s.handle(basePath+"/auth/guest", s.public(methods{http.MethodPost: noQuery(s.openGuestSession)}))
	s.handle(basePath+"/auth/consumer", methods{http.MethodPost: s.secret(noQuery(s.openConsumerSession))})
	s.handle("/.well-known/jwks.json", methods{http.MethodGet: s.keySet})
	s.handleNodePaths()
	s.handleUnknownPaths()
	return s
}

// handleUnknownPaths answers 404 for every path without a route.
func (s *server) handleUnknownPaths() {
	s.router.NotFoundHandler = s.endpoint("", func(*exchange, *http.Request) error {
		return domain.Refuse(notFound, "there is nothing at this path")
	})
}

// Starting returns the handler of a node that is not connected to a log yet. It answers
// the calls that need no log, and refuses all others because the read models are behind.
// It needs only Ready, Clock and Log of c, and uses the optional fields.
func Starting(c Config) http.Handler {
	s := &server{Config: c, router: mux.NewRouter(), console: consoleFiles()}
	s.router.SkipClean(true)
	s.handleNodePaths()
	s.router.NotFoundHandler = s.endpoint("", func(*exchange, *http.Request) error { return projections.ErrBehind })
	return s
}

// Operations returns the handler of a listener that only operators can reach. It serves
// /metrics, and /readyz with all details. It requires no key. It needs Ready, Clock, Log
// and Metrics of c, and Views once the node has a log.
func Operations(c Config) http.Handler {
	s := &server{Config: c, router: mux.NewRouter()}
	s.router.SkipClean(true)
	s.handle("/metrics", methods{http.MethodGet: s.metrics})
	s.handle("/readyz", methods{http.MethodGet: s.readyForOperators})
	s.handleUnknownPaths()
	return s
}

// handleNodePaths serves the paths about the node and its API. They need no log.
func (s *server) handleNodePaths() {
	s.handle("/livez", methods{http.MethodGet: s.live})
	s.handle("/readyz", methods{http.MethodGet: s.ready})
	if s.Metrics != nil {
		s.handle("/metrics", methods{http.MethodGet: s.metrics})
	}
	s.handle("/openapi.yaml", methods{http.MethodGet: serveDocument(openAPIYAML)})
	s.handle("/openapi.json", methods{http.MethodGet: serveDocument(openAPIJSON)})
	s.handle("/asyncapi.yaml", methods{http.MethodGet: serveDocument(asyncAPIYAML)})
	s.handle("/docs", methods{http.MethodGet: serveDocument(openAPIPage)})
	for _, template := range []string{consolePath, consolePath + "/", consolePath + "/{file}"} {
		s.handle(template, methods{http.MethodGet: s.serveConsole})
	}
}

// handler answers a request, or returns an error: a refusal, or a fault of the engine. One
// place, fail, answers and logs all errors.
type handler func(x *exchange, r *http.Request) error

// methods has the handler of each HTTP method of a path. A path with GET also answers HEAD.
type methods map[string]handler

// handle serves all methods of a path with one route. So the router compares paths only,
// and a refusal of a method can list the others in Allow.
func (s *server) handle(template string, m methods) {
	if get, ok := m[http.MethodGet]; ok {
		m[http.MethodHead] = get
	}
	allow := strings.Join(slices.Sorted(maps.Keys(m)), ", ")
	s.router.Handle(template, s.endpoint(template, func(x *exchange, r *http.Request) error {
		h, ok := m[r.Method]
		if !ok {
			x.set("Allow", allow)
			return domain.Refuse(methodNotAllowed, "this path takes %s", allow)
		}
		if r.ContentLength != 0 && takesNoBody(r.Method) {
			if err := skipBody(x, r); err != nil {
				return err
			}
		}
		return h(x, r)
	}))
}

// endpoint makes an http.Handler of h, which answers with the error that h returns.
func (s *server) endpoint(template string, h handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// The router passes on the writer that ServeHTTP gave it.
		x := w.(*exchange)
		x.template = template
		if err := h(x, r); err != nil {
			x.fail(r, err)
		}
	})
}
