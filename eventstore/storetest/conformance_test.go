package storetest

import (
	"os"
	"testing"
)

func TestEmbedded(t *testing.T) {
	t.Parallel()
	conform(t, embeddedStore(t))
}

func TestServer(t *testing.T) {
	t.Parallel()
	connection := os.Getenv("LOTLINE_TEST_EVENTSTORE")
	if connection == "" {
		t.Skip("LOTLINE_TEST_EVENTSTORE names no server")
	}
	conform(t, store{connection: connection, patience: plenty})
}

func conform(t *testing.T, s store) {
	t.Helper()
	for name, run := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			run(t, s)
		})
	}
}
