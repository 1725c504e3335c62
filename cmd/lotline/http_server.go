package main

import (
	"net/http"
	"time"
)

// httpServer serves h to clients of whom none can hold a connection by being slow.
// An answer that goes on for longer than the write timeout has to move its own
// deadline.
func httpServer(h http.Handler) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      time.Minute,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		// "OPTIONS *" is for h, which has no such path.
		DisableGeneralOptionsHandler: true,
	}
}
