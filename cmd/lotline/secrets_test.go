package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/lotline/lotline/domain"
)

// The engine has default settings, except that its publishable key is given.
func TestSecrets_anEngineWithDefaultSettings(t *testing.T) {
	t.Parallel()
	dir := dataDirectory(t)
	const given = "pk_live_given-by-the-operator-0001"
	e := testBinary(t).serve(t, dir, "LOTLINE_PUBLISHABLE_KEY="+given)
	key := e.secretKey()
	queue := e.must(201, "POST", "/api/v1/queues", key, `{"sequenceId":"s"}`).header.Get("Location")
	e.must(200, "POST", queue+"/open", key, "")
	guest := e.must(201, "POST", "/api/v1/auth/guest", "", "", "X-Publishable-Key", given).object(t)
	token := guest["accessToken"].(string)

	// The numbers are those of docs/operations.md.
	t.Run("limits the three levels apart", func(t *testing.T) {
		for name, c := range map[string]struct{ limit, method, path, bearer, header, value string }{
			"secret key":                {"600000", "GET", queue, key, "", ""},
			"secret key for a consumer": {"600000", "POST", queue + "/enter", key, "X-Consumer-Id", "c"},
			"consumer":                  {"600", "POST", queue + "/enter", token, "X-Publishable-Key", given},
			"publishable key":           {"60000", "GET", queue, "", "X-Publishable-Key", given},
			"guest":                     {"60000", "POST", "/api/v1/auth/guest", "", "X-Publishable-Key", given},
			"unknown key":               {"60000", "GET", queue, key + "A", "", ""},
		} {
			var more []string
			if c.header != "" {
				more = []string{c.header, c.value}
			}
			a := e.call(c.method, c.path, c.bearer, "", more...)
			if got := a.header.Get("X-RateLimit-Limit"); got != c.limit || a.header.Get("X-RateLimit-Remaining") == "" || a.header.Get("X-RateLimit-Reset") == "" {
				t.Errorf("%s: %d %v", name, a.status, a.header)
			}
		}
	})

	// The files hold only the hash of each key and its first characters, which identify it
	// to people. They hold no part of a token.
	t.Run("keeps keys as hashes only, and no tokens", func(t *testing.T) {
		keys := []string{key, given}
		for repeat, body := range map[string]string{"a": `{"level":"secret"}`, "b": `{"level":"publishable","mode":"test"}`} {
			keys = append(keys, e.must(201, "POST", "/api/v1/keys", key, body, "Idempotency-Key", repeat).object(t)["key"].(string))
		}
		tokens := []string{token, e.must(201, "POST", "/api/v1/auth/consumer", key, `{"consumerId":"d"}`).object(t)["accessToken"].(string)}
		e.must(200, "POST", queue+"/enter", token, "", "X-Publishable-Key", given)
		e.must(200, "POST", queue+"/admit", key, body(`{"consumerId":%q}`, guest["consumerId"]))
		admission := e.must(200, "GET", queue+"/status", token, "", "X-Publishable-Key", given).object(t)["admissionToken"].(string)
		if a := e.must(200, "POST", queue+"/validate", key, body(`{"consumerId":%q,"token":%q}`, guest["consumerId"], admission)).object(t); a["valid"] != true {
			t.Fatalf("it is not valid: %v", a)
		}
		tokens = append(tokens, admission)
		look := func(when string) {
			files := everyFile(t, dir)
			for _, k := range keys {
				if beyondHint := k[len(domain.KeyHint(k)):]; len(beyondHint) < 16 || strings.Contains(files, beyondHint) {
					t.Errorf("%s the key %s is there", when, k)
				}
				if !strings.Contains(files, domain.KeyHash(k)) {
					t.Errorf("%s the hash of %s is not there: is that where keys are kept?", when, k)
				}
			}
			for _, token := range tokens {
				// All tokens have the same header, so it is not looked for.
				for _, part := range strings.Split(token, ".")[1:] {
					if strings.Contains(files, part) {
						t.Errorf("%s %s of a token is there", when, part)
					}
				}
			}
		}
		look("while it runs")
		e.terminate()
		look("when it has ended")
	})
}

func everyFile(t *testing.T, dir string) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(dir, func(path string, f fs.DirEntry, err error) error {
		if err != nil || !f.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(path)
		all.Write(content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}

func TestSecrets_logsNeverHoldAKey(t *testing.T) {
	t.Parallel()
	e := testBinary(t).serve(t, dataDirectory(t), "LOTLINE_LOG_FORMAT=json")
	key := e.secretKey()
	e.must(201, "POST", "/api/v1/queues", key, `{"sequenceId":"s","encryptionSeed":"keep-me-to-yourself"}`)
	e.must(401, "GET", "/api/v1/queues", key+"x", "")
	e.terminate()
	logged := e.stderr.String()
	for _, secret := range []string{key, key[8:20], "keep-me-to-yourself"} {
		if strings.Contains(logged, secret) {
			t.Errorf("the log shows %q", secret)
		}
	}
	// The log has one line for each request, and lines about the start and the end. It has
	// no line for each message on the bus.
	for line := range strings.Lines(logged) {
		message, _ := (answer{body: []byte(line)}).object(t)["message"].(string)
		if !slices.Contains([]string{"ready", "request", "stopping", "stopped"}, message) {
			t.Errorf("logged %s", line)
		}
	}
	if strings.Count(logged, `"message":"request"`) != 2 {
		t.Errorf("two requests are logged as %s", logged)
	}
}
