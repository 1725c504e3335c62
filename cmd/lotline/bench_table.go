package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/mux"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/lotline/lotline/domain"
)

// The table that a team would write in the place of a queue, in a schema of its own.
const (
	benchTableSQL = `CREATE TABLE entries (
  position    bigint GENERATED ALWAYS AS IDENTITY,
  queue_id    text NOT NULL,
  consumer_id text NOT NULL,
  status      text NOT NULL DEFAULT 'QUEUED',
  entered_at  timestamptz NOT NULL DEFAULT now(),
  UNIQUE (queue_id, consumer_id)
)`
	benchInsertSQL = `INSERT INTO entries (queue_id, consumer_id) VALUES ($1, $2) RETURNING position, entered_at`

	benchPool = 64
)

// benchPostgres is a schema on a PostgreSQL server.
type benchPostgres struct {
	url, schema string
	pool        *pgxpool.Pool
	// durability is what the server says of its commits.
	durability string
}

// benchSchema is a pool whose connections are in a schema.
func benchSchema(ctx context.Context, url, schema string, connections int32) (*pgxpool.Pool, error) {
	c, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, badConfig("--postgres: %w", err)
	}
	c.ConnConfig.RuntimeParams["search_path"] = schema
	c.MaxConns, c.MinConns = connections, connections
	return pgxpool.NewWithConfig(ctx, c)
}

func openBenchPostgres(ctx context.Context, url string) (_ *benchPostgres, err error) {
	p := &benchPostgres{url: url, schema: "lotline_bench_" + strings.ReplaceAll(uuid.NewString(), "-", "")}
	if p.pool, err = benchSchema(context.WithoutCancel(ctx), url, p.schema, 1); err != nil {
		return nil, err
	}
	var version, fsync, commit string
	err = p.pool.QueryRow(ctx, `SELECT current_setting('server_version'), current_setting('fsync'), current_setting('synchronous_commit')`).Scan(&version, &fsync, &commit)
	if err == nil {
		_, err = p.pool.Exec(ctx, "CREATE SCHEMA "+p.schema)
	}
	if err == nil {
		_, err = p.pool.Exec(ctx, benchTableSQL)
	}
	if err != nil {
		return nil, errors.Join(badConfig("--postgres: %w", err), p.close())
	}
	p.durability = fmt.Sprintf("PostgreSQL %s, fsync %s, synchronous_commit %s, pool of %d", version, fsync, commit, benchPool)
	return p, nil
}

func (p *benchPostgres) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), benchPatience)
	defer cancel()
	defer p.pool.Close()
	_, err := p.pool.Exec(ctx, "DROP SCHEMA IF EXISTS "+p.schema+" CASCADE")
	return err
}

// serve starts the service that writes to an empty table.
func (p *benchPostgres) serve(ctx context.Context, b *bench) (*benchServer, error) {
	if _, err := p.pool.Exec(ctx, "TRUNCATE entries"); err != nil {
		return nil, err
	}
	input, err := json.Marshal(benchTableInput{p.url, p.schema, b.api.secret})
	if err != nil {
		return nil, err
	}
	b.report.SQL, b.report.Postgres = []string{benchTableSQL, benchInsertSQL}, p.durability
	return startBenchServer(ctx, benchTable, b.hidden, nil, input, b.to.err, "bench-server", "table")
}

// check compares how many were acknowledged with the table.
func (p *benchPostgres) check(ctx context.Context, v *benchVerdicts, acknowledged int64) error {
	var rows int64
	if err := p.pool.QueryRow(ctx, "SELECT count(*) FROM entries").Scan(&rows); err != nil {
		return err
	}
	v.of(claimTable).hold(rows >= acknowledged, "%d rows, of %d", rows, acknowledged)
	return nil
}

type benchTableCmd struct{}

type benchTableInput struct {
	URL    string `json:"url"`
	Schema string `json:"schema"`
	Secret string `json:"secret"`
}

// Run serves until the standard input ends.
func (benchTableCmd) Run(ctx context.Context, to streams) error {
	in := bufio.NewReader(os.Stdin)
	line, err := in.ReadBytes('\n')
	if err != nil {
		return err
	}
	var what benchTableInput
	if err := json.Unmarshal(line, &what); err != nil {
		return err
	}
	pool, err := benchSchema(ctx, what.URL, what.Schema, benchPool)
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
		// pgx prepares what it is asked, once on each connection; a statement alone
		// is a transaction.
		if err := pool.QueryRow(r.Context(), benchInsertSQL, queue, consumer).Scan(&position, &at); err != nil {
			http.Error(w, `{"error":"`+fmt.Sprintf("%T", err)+`"}`, http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		fmt.Fprintf(w, `{"queueId":%q,"consumerId":%q,"status":"QUEUED","position":%d,"enteredAt":%q,"pollAfterMs":1000}`,
			queue, consumer, position, domain.InstantOf(at))
	})
	return serveBench(ctx, in, router, to.out)
}
