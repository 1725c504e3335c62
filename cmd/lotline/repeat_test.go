package main

import "testing"

// A client repeats a request after its secret key was renewed and the engine was
// restarted. Nobody else is admitted.
func TestRepeat_aRenewedKeyAdmitsNobodyElse(t *testing.T) {
	t.Parallel()
	dir := dataDirectory(t)
	e := testBinary(t).serve(t, dir, "LOTLINE_SECRET_KEY="+testSecretKey)
	queue := e.must(201, "POST", "/api/v1/queues", testSecretKey, `{"sequenceId":"s"}`).header.Get("Location")
	e.must(200, "POST", queue+"/open", testSecretKey, "")
	for _, consumer := range []string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"} {
		e.must(200, "POST", queue+"/enter", testSecretKey, "", "X-Consumer-Id", consumer)
	}
	admitFive := func(e *engine, key string) answer {
		return e.must(200, "POST", queue+"/admit", key, `{"count":5}`, "Idempotency-Key", "batch-1")
	}
	admitFive(e, testSecretKey)
	made := e.must(201, "POST", "/api/v1/keys", testSecretKey, `{"level":"secret"}`).object(t)
	renewed := made["key"].(string)
	for _, restart := range []bool{false, true} {
		if restart {
			e.terminate()
			e = testBinary(t).serve(t, dir, "LOTLINE_SECRET_KEY="+testSecretKey)
		}
		if a := admitFive(e, renewed); a.header.Get("Idempotent-Replayed") != "true" {
			t.Errorf("the repeat is not taken for one: %v", a.header)
		}
		if stats := e.must(200, "GET", queue+"/stats", renewed, "").object(t); stats["admitted"] != 5.0 {
			t.Errorf("stats: %v", stats)
		}
	}
}
