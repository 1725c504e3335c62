package main

import (
	"fmt"
	"io"
	"net"
	"time"

	"github.com/lotline/lotline/domain"
)

// printKeys prints the keys that were made. They are not printed again.
func printKeys(out io.Writer, made map[domain.KeyLevel]string) {
	if len(made) == 0 {
		return
	}
	fmt.Fprint(out, "These keys were made now and are not shown again:\n\n")
	for _, level := range []domain.KeyLevel{domain.SecretKey, domain.PublishableKey} {
		if key, ok := made[level]; ok {
			fmt.Fprintf(out, "  %-16s %s\n", string(level)+" key", key)
		}
	}
	fmt.Fprintln(out)
}

// printBanner prints where the engine listens. If a secret key was made, it also
// prints commands that work when they are pasted into a shell.
func printBanner(out io.Writer, at net.Addr, made map[domain.KeyLevel]string) {
	url := "http://" + address(at)
	fmt.Fprintf(out, "Lotline is listening on %s\nThe console is at %s/console\n", url, url)
	secret, ok := made[domain.SecretKey]
	if !ok {
		fmt.Fprintln(out, "Keys are shown when they are made. To make another: lotline keys create")
		return
	}
	second := func(n int) string {
		return domain.InstantOf(time.Now().Add(time.Duration(n) * time.Second)).String()
	}
	headers := fmt.Sprintf("-H 'Authorization: Bearer %s' -H 'Content-Type: application/json'", secret)
	fmt.Fprint(out, "\nMake a queue, a draw and an auction that open in 15 seconds and close a minute later:\n\n")
	post := func(path, body string) {
		fmt.Fprintf(out, "  curl %s/api/v1/%s %s -d '%s'\n\n", url, path, headers, body)
	}
	post("queues", fmt.Sprintf(`{"sequenceId":"spring-drop","name":"Spring drop","openAt":%q,"closeAt":%q,"admissionRate":100}`, second(15), second(75)))
	post("draws", fmt.Sprintf(`{"sequenceId":"spring-drop","name":"Spring raffle","openAt":%q,"drawAt":%q,"winnerCount":10}`, second(15), second(75)))
	post("auctions", fmt.Sprintf(`{"sequenceId":"spring-drop","name":"Number one","openAt":%q,"settleAt":%q,"startingBid":100,"currencyCode":"EUR"}`, second(15), second(75)))
	fmt.Fprintf(out, "Watch the clock open and close them:\n\n  curl %s/api/v1/distributions -H 'Authorization: Bearer %s'\n\n", url, secret)
}

// address returns the host and port by which a program on this machine reaches at.
func address(at net.Addr) string {
	tcp, ok := at.(*net.TCPAddr)
	if !ok || !tcp.IP.IsUnspecified() {
		return at.String()
	}
	return fmt.Sprintf("localhost:%d", tcp.Port)
}
