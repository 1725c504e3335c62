package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/mux"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/lotline/lotline/cmd/lotline/claims"
	"github.com/lotline/lotline/domain"
)

// The table that a team would use instead of Lotline, and the statement by which a
// consumer enters.
const (
	tableSQL = `CREATE TABLE entries (
  position    bigint GENERATED ALWAYS AS IDENTITY,
  queue_id    text NOT NULL,
  consumer_id text NOT NULL,
  status      text NOT NULL DEFAULT 'QUEUED',
  entered_at  timestamptz NOT NULL DEFAULT now(),
  UNIQUE (queue_id, consumer_id)
)`
	insertSQL = `INSERT INTO entries (queue_id, consumer_id) VALUES ($1, $2) RETURNING position, entered_at`

	poolSize = 64
)

// postgres is a schema on a PostgreSQL server, which only this run uses.
type postgres struct {
	url, schema string
	pool        *pgxpool.Pool
	// durability is the server's version and its settings for commits.
	durability string
}

// openSchema returns a pool of connections whose search path is a schema.
func openSchema(ctx context.Context, url, schema string, connections int32) (*pgxpool.Pool, error) {
	c, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, badFlag("--postgres: %w", err)
	}
	c.ConnConfig.RuntimeParams["search_path"] = schema
	c.MaxConns, c.MinConns = connections, connections
	return pgxpool.NewWithConfig(ctx, c)
}

func openPostgres(ctx context.Context, url string) (_ *postgres, err error) {
	p := &postgres{url: url, schema: "lotline_bench_" + strings.ReplaceAll(uuid.NewString(), "-", "")}
	if p.pool, err = openSchema(context.WithoutCancel(ctx), url, p.schema, 1); err != nil {
		return nil, err
	}
	var version, fsync, commit string
	err = p.pool.QueryRow(ctx, `SELECT current_setting('server_version'), current_setting('fsync'), current_setting('synchronous_commit')`).Scan(&version, &fsync, &commit)
	if err == nil {
		_, err = p.pool.Exec(ctx, "CREATE SCHEMA "+p.schema)
	}
	if err == nil {
		_, err = p.pool.Exec(ctx, tableSQL)
	}
	if err != nil {
		return nil, errors.Join(badFlag("--postgres: %w", err), p.close())
	}
	p.durability = fmt.Sprintf("PostgreSQL %s, fsync %s, synchronous_commit %s, pool of %d", version, fsync, commit, poolSize)
	return p, nil
}

func (p *postgres) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	defer p.pool.Close()
	_, err := p.pool.Exec(ctx, "DROP SCHEMA IF EXISTS "+p.schema+" CASCADE")
	return err
}

// serve empties the table and starts the service that writes to it.
func (p *postgres) serve(ctx context.Context, r *runner) (*server, error) {
	if _, err := p.pool.Exec(ctx, "TRUNCATE entries"); err != nil {
		return nil, err
	}
	input, err := json.Marshal(tableInput{p.url, p.schema, r.api.secret})
	if err != nil {
		return nil, err
	}
	r.report.SQL, r.report.Postgres = []string{tableSQL, insertSQL}, p.durability
	return r.startServer(ctx, Table, nil, input, r.program.Err, "table")
}

// check compares the number of acknowledged entries with the rows of the table.
func (p *postgres) check(ctx context.Context, v *claims.Verdicts, acknowledged int64) error {
	var rows int64
	if err := p.pool.QueryRow(ctx, "SELECT count(*) FROM entries").Scan(&rows); err != nil {
		return err
	}
	v.Of(claims.Table).Hold(rows >= acknowledged, "%d rows, of %d", rows, acknowledged)
	return nil
}

type tableInput struct {
	URL    string `json:"url"`
	Schema string `json:"schema"`
	Secret string `json:"secret"`
}

// ServeTable runs an HTTP service that enters consumers in a PostgreSQL table. The engine
// is compared with this service. ServeTable reads its settings from the first line of in
// and serves until in ends.
func ServeTable(ctx context.Context, in io.Reader, out io.Writer, newServer func(http.Handler) *http.Server) error {
	lines := bufio.NewReader(in)
	line, err := lines.ReadBytes('\n')
	if err != nil {
		return err
	}
	var what tableInput
	if err := json.Unmarshal(line, &what); err != nil {
		return err
	}
	pool, err := openSchema(ctx, what.URL, what.Schema, poolSize)
	if err != nil {
		return err
	}
	defer pool.Close()
	router := mux.NewRouter()
	router.SkipClean(true)
	router.HandleFunc("/api/v1/queues/{id}/enter", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+what.Secret {
			http.Error(w, `{"error":"Authentication required"}`, http.StatusUnauthorized)
			return
		}
		queue, consumer := mux.Vars(r)["id"], r.Header.Get("X-Consumer-Id")
		var position int64
		var at time.Time
		// pgx prepares the statement once on each connection. A single statement is a
		// transaction.
		if err := pool.QueryRow(r.Context(), insertSQL, queue, consumer).Scan(&position, &at); err != nil {
			http.Error(w, `{"error":"`+fmt.Sprintf("%T", err)+`"}`, http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		fmt.Fprintf(w, `{"queueId":%q,"consumerId":%q,"status":"QUEUED","position":%d,"enteredAt":%q,"pollAfterMs":1000}`,
			queue, consumer, position, domain.InstantOf(at))
	})
	return serve(ctx, lines, out, router, newServer)
}
