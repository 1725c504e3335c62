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

// Commands carries commands out. *commands.Handler does.
type Commands interface {
	Handle(ctx context.Context, r commands.Request) (commands.Result, error)
	Create(ctx context.Context, c commands.Creation) (commands.Result, error)
	CreateKey(ctx context.Context, c commands.KeyCreation) (commands.IssuedKey, error)
	// Now is the time to decide at, or why nothing may be decided now.
	Now(ctx context.Context) (time.Time, error)
}

// Views answers queries. *projections.Views does.
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

// Observer is told of requests. Several goroutines call it at once, and requests
// wait for it.
type Observer interface {
	// Received is told of a request that comes in, and returns what is served in its
	// place: r, or r with another context.
	Received(r *http.Request) *http.Request
	// Finished is told how a request ended, with what Received returned.
	Finished(r *http.Request, a Answer)
}

// Answer is how a request ended.
type Answer struct {
	Route     string // the template of the path, "" for a path that is unknown
	Status    int    // 0 when the answer never began
	Took      time.Duration
	RequestID string
}

// Histories reads what the log holds of a stream. *eventstore.Log does.
type Histories interface {
	Read(ctx context.Context, stream string, after domain.Revision) iter.Seq2[*domain.Recorded, error]
}

// Config is what the API is made of. All of it is needed but Limits, Observer and Metrics.
type Config struct {
	Commands  Commands
	Views     Views
	Histories Histories
	// CaughtUp reports whether the read models have reached the end that the log
	// had when the node started. Until then nothing is served of what
	// they hold: what they do not know yet would be told as not existing.
	CaughtUp func() bool
	// Ready looks at the parts that the node cannot serve without. It is called
	// for every /readyz, with a context that ends after two seconds.
	Ready func(ctx context.Context) []Check
	// TokenKey encrypts and authenticates cursors and positions. All nodes have the
	// same, or one node refuses what another gave out.
	TokenKey []byte
	Limits   Limits
	Clock    func() time.Time
	Log      zerolog.Logger
	// Observer is told of every request.
	Observer Observer
	// Metrics answers /metrics, which needs no key.
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

// collections are the path segments under which the kinds are found. All kinds
// together are found under the segment of anyKind.
var collections = func() map[domain.Kind]string {
	all := map[domain.Kind]string{anyKind: "/distributions"}
	for _, k := range domain.Kinds() {
		all[k] = "/" + string(k) + "s"
	}
	return all
}()

// anyKind stands for all kinds of distributions.
const anyKind domain.Kind = ""

func newServer(c Config) *server {
	s := &server{
		Config: c, router: mux.NewRouter(), console: consoleFiles(), sealer: newSealer(c.TokenKey), tokens: tokens.New(c.Views),
		bySecret: newLimiter(c.Limits.Secret), byConsumer: newLimiter(c.Limits.Consumer), byAddress: newLimiter(c.Limits.Public),
	}
	// Paths are taken literally: a redirect to a cleaner one would turn a POST
	// into a GET. ServeHTTP refuses those that are encoded without need.
	s.router.SkipClean(true)
	// The router looks at one route after the other, so those that are called
	// most come first.
	for _, k := range append(domain.Kinds(), anyKind) {
		one := s.public(methods{http.MethodGet: noQuery(s.get(k))})
		if k != anyKind {
			one[http.MethodPut] = s.secret(noQuery(s.update(k)))
			one[http.MethodDelete] = s.secret(noQuery(s.remove(k)))
		}
		s.handle(basePath+collections[k]+"/{id}", one)
	}
	for _, k := range domain.Kinds() {
		s.handleParticipants(k, participantCalls[k])
	}
	for _, k := range append(domain.Kinds(), anyKind) {
		all := methods{http.MethodGet: s.secret(s.list(k))}
		if k != anyKind {
			all[http.MethodPost] = s.secret(noQuery(s.create(k)))
		}
		s.handle(basePath+collections[k], all)
	}
	for _, k := range domain.Kinds() {
		s.handleStep(k, "open", domain.StatusOpen)
		s.handleStep(k, "close", domain.StatusClosed)
	}
	s.handleStep(domain.KindDraw, "draw", domain.StatusDrawn)
	s.handleStep(domain.KindAuction, "settle", domain.StatusSettled)
	s.handle(basePath+collections[domain.KindDraw]+"/{id}/entropy", methods{
		http.MethodPut: s.secret(noQuery(s.supplyEntropy)),
	})
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
	s.handleOwn()
	s.handleRest()
	return s
}

// handleRest handles the paths that nothing is at.
func (s *server) handleRest() {
	s.router.NotFoundHandler = s.endpoint("", func(*exchange, *http.Request) error {
		return domain.Refuse(notFound, "there is nothing at this path")
	})
}

// Starting returns the handler of a node that has no log yet. It answers what needs
// none; for all else the read models are behind. Of c it needs Ready, Clock, Log
// and what may be left out.
func Starting(c Config) http.Handler {
	s := &server{Config: c, router: mux.NewRouter(), console: consoleFiles()}
	s.router.SkipClean(true)
	s.handleOwn()
	s.router.NotFoundHandler = s.endpoint("", func(*exchange, *http.Request) error { return projections.ErrBehind })
	return s
}

// Operations returns the handler of a listener that only operators reach: the figures,
// and /readyz with all that there is to say. Of c it needs Ready, Clock, Log and
// Metrics, and Views once the node has a log. It asks for no key.
func Operations(c Config) http.Handler {
	s := &server{Config: c, router: mux.NewRouter()}
	s.router.SkipClean(true)
	s.handle("/metrics", methods{http.MethodGet: s.metrics})
	s.handle("/readyz", methods{http.MethodGet: s.readyForOperators})
	s.handleRest()
	return s
}

// handleOwn handles the paths that are about the node and its API, and need no log.
func (s *server) handleOwn() {
	s.handle("/livez", methods{http.MethodGet: s.live})
	s.handle("/readyz", methods{http.MethodGet: s.ready})
	if s.Metrics != nil {
		s.handle("/metrics", methods{http.MethodGet: s.metrics})
	}
	s.handle("/openapi.yaml", methods{http.MethodGet: document(openAPIYAML)})
	s.handle("/openapi.json", methods{http.MethodGet: document(openAPIJSON)})
	s.handle("/asyncapi.yaml", methods{http.MethodGet: document(asyncAPIYAML)})
	s.handle("/docs", methods{http.MethodGet: document(openAPIPage)})
	for _, template := range []string{consolePath, consolePath + "/", consolePath + "/{file}"} {
		s.handle(template, methods{http.MethodGet: s.serveConsole})
	}
}

func (s *server) handleStep(k domain.Kind, name string, to domain.Status) {
	s.handle(basePath+collections[k]+"/{id}/"+name, methods{
		http.MethodPost: s.secret(noQuery(s.step(k, to))),
	})
}

// handler answers a request, or returns why it cannot: a refusal or a fault,
// which is then answered and logged in one place.
type handler func(x *exchange, r *http.Request) error

// methods are what a path answers to. HEAD is answered wherever GET is.
type methods map[string]handler

// handle puts all methods of a path under one route: the router is then walked
// by path alone, and what to put into Allow is known.
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

func (s *server) endpoint(template string, h handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// The router hands on the writer that ServeHTTP gave it.
		x := w.(*exchange)
		x.template = template
		if err := h(x, r); err != nil {
			x.fail(r, err)
		}
	})
}

// noQuery refuses query parameters where none are known. One that was ignored
// would have asked for something else than what is answered.
func noQuery(h handler) handler {
	return func(x *exchange, r *http.Request) error {
		if r.URL.RawQuery == "" {
			return h(x, r)
		}
		given, err := parseQuery(r)
		if err != nil {
			return err
		}
		if wrong := unknownParameters(given, nil); len(wrong) > 0 {
			return invalid(wrong...)
		}
		return h(x, r)
	}
}
