package main

import (
	"net/http"
	"time"
)

// newHTTPServer returns a server whose timeouts keep slow clients from holding
// connections. A handler whose answer takes longer than the write timeout must extend
// its own deadline.
func newHTTPServer(h http.Handler) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      time.Minute,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		// h answers "OPTIONS *" too. It has no such path.
		DisableGeneralOptionsHandler: true,
	}
}
