// Command openapi-clients calls a running engine with the client that oapi-codegen
// generates from httpapi/openapi.yaml. It takes the engine's address and a secret key from
// LOTLINE_TEST_ENGINE and LOTLINE_TEST_KEY, and fails when an answer is not what it
// expects. tools/openapi-clients.sh runs it.
package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"openapi-clients/client"
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := run(ctx, os.Getenv("LOTLINE_TEST_ENGINE"), os.Getenv("LOTLINE_TEST_KEY")); err != nil {
		fmt.Fprintln(os.Stderr, "the Go client:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, engine, key string) error {
	c, err := client.NewClientWithResponses(engine, client.WithRequestEditorFn(func(_ context.Context, r *http.Request) error {
		r.Header.Set("Authorization", "Bearer "+key)
		// An error can have one of two media types, and the generated code compares the whole
		// Content-Type to tell them apart. It knows "application/problem+json", but not
		// "application/json; charset=utf-8".
		r.Header.Set("Accept", "application/problem+json, application/json;q=0.9")
		return nil
	}))
	if err != nil {
		return err
	}
	return errors.Join(queue(ctx, c), auction(ctx, c), refusal(ctx, c))
}

// queue makes a queue and reads it back.
func queue(ctx context.Context, c *client.ClientWithResponses) error {
	name, rate, repeatable := "Go client", 600, "go-client-queue"
	created, err := c.CreateQueueWithResponse(ctx, &client.CreateQueueParams{IdempotencyKey: &repeatable}, client.QueueCreate{
		SequenceId: "openapi-clients", Name: &name, AdmissionRate: &rate,
	})
	if err != nil {
		return fmt.Errorf("createQueue: %w", err)
	}
	if created.JSON201 == nil {
		return fmt.Errorf("createQueue: %s: %s", created.Status(), created.Body)
	}
	read, err := c.GetQueueWithResponse(ctx, created.JSON201.Id, nil)
	if err != nil {
		return fmt.Errorf("getQueue: %w", err)
	}
	if read.JSON200 == nil {
		return fmt.Errorf("getQueue: %s: %s", read.Status(), read.Body)
	}
	q, err := read.JSON200.AsQueue()
	if err != nil {
		return fmt.Errorf("getQueue: %w", err)
	}
	if q.Id != created.JSON201.Id || q.Type != client.QueueTypeQueue || q.Status != client.QueueStatusDRAFT ||
		q.Name == nil || *q.Name != name || q.AdmissionRate == nil || *q.AdmissionRate != rate || q.OpenAt != nil {
		return fmt.Errorf("getQueue: %s", read.Body)
	}
	fmt.Println("Go: made and read", q.Id)
	return nil
}

// auction makes an auction with an amount as a number and one as a string, and finds
// it in the list of all distributions.
func auction(ctx context.Context, c *client.ClientWithResponses) error {
	var bid, reserve client.AmountInput
	if err := errors.Join(bid.FromAmount(100.5), reserve.FromAmountText("250.50")); err != nil {
		return err
	}
	created, err := c.CreateAuctionWithResponse(ctx, nil, client.AuctionCreate{
		SequenceId: "openapi-clients-go", SettleAt: time.Now().Add(time.Hour).Format(time.RFC3339),
		StartingBid: &bid, ReservePrice: &reserve,
	})
	if err != nil {
		return fmt.Errorf("createAuction: %w", err)
	}
	if created.JSON201 == nil {
		return fmt.Errorf("createAuction: %s: %s", created.Status(), created.Body)
	}
	position, sequence := created.Headers201.XPosition, "openapi-clients-go"
	status := client.Status{client.DistributionStatusDRAFT}
	list, err := c.ListDistributionsWithResponse(ctx, &client.ListDistributionsParams{
		XPosition: position, SequenceId: &sequence, Status: &status,
	})
	if err != nil {
		return fmt.Errorf("listDistributions: %w", err)
	}
	if list.JSON200 == nil || len(list.JSON200.Data) != 1 {
		return fmt.Errorf("listDistributions: %s: %s", list.Status(), list.Body)
	}
	v, err := list.JSON200.Data[0].ValueByDiscriminator()
	if err != nil {
		return fmt.Errorf("listDistributions: %w", err)
	}
	a, ok := v.(client.Auction)
	if !ok || a.Id != created.JSON201.Id || a.StartingBid == nil || *a.StartingBid != 100.5 ||
		a.ReservePrice == nil || *a.ReservePrice != 250.5 {
		return fmt.Errorf("listDistributions: %s", list.Body)
	}
	fmt.Println("Go: made and listed", a.Id)
	return nil
}

// refusal requests a queue that does not exist, and checks the error in the answer.
func refusal(ctx context.Context, c *client.ClientWithResponses) error {
	refused, err := c.GetQueueWithResponse(ctx, "queue_00000000000000000000000000", nil)
	if err != nil {
		return fmt.Errorf("getQueue: %w", err)
	}
	p := refused.ApplicationproblemJSON404
	if p == nil || p.Code != string(client.QUEUENOTFOUND) || p.Status != http.StatusNotFound {
		return fmt.Errorf("getQueue: %s: %s", refused.Status(), refused.Body)
	}
	fmt.Println("Go: was refused with", p.Code)
	return nil
}
