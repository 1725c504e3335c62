package domain_test

import (
	"encoding/json"
	"fmt"

	"github.com/lotline/lotline/domain"
)

// Commands and the clock add events to a history. The caller passes the time.
func ExampleHistory() {
	queue := domain.NewHistory("queue-01h455vb4pex5vsknk084sn02q")
	create := domain.Create{
		ID:             "queue_01h455vb4pex5vsknk084sn02q",
		OrganizationID: "org_01h455vb4pex5vsknk084sn02q",
		Fields: domain.Fields{
			"sequenceId": json.RawMessage(`"spring-drop"`),
			"openAt":     json.RawMessage(`"2026-12-15T10:00:00"`),
		},
		Defaults: domain.Defaults{TimeZone: "Europe/Berlin", CurrencyCode: "EUR"},
		Seed:     "random",
	}
	at := func(s string) domain.Instant {
		i, err := domain.ParseInstant(s, "")
		if err != nil {
			panic(err)
		}
		return i
	}
	show := func(events []domain.Event, err error) {
		for _, e := range events {
			fmt.Printf("%s %T\n", e.When(), e)
		}
		if err != nil {
			fmt.Println(err)
		}
	}
	advance := func(now domain.Instant) {
		for events, err := range queue.Advance(now) {
			show(events, err)
		}
	}
	carry := func(now domain.Instant, cmd domain.Command) {
		show(queue.Decide(now, cmd))
		advance(now)
	}

	carry(at("2026-12-15T08:00:00Z"), create)
	fmt.Println("wakes at", queue.Aggregate.Wake())

	// The timer was late. The opening is dated when it was due.
	advance(at("2026-12-15T09:00:07Z"))
	carry(at("2026-12-15T09:30:00Z"), domain.Delete{})
	carry(at("2026-12-15T09:30:00Z"), domain.Step{To: domain.StatusClosed})

	// Output:
	// 2026-12-15T08:00:00.000Z *domain.QueueCreated
	// 2026-12-15T08:00:00.000Z domain.Scheduled
	// wakes at 2026-12-15T09:00:00.000Z
	// 2026-12-15T09:00:00.000Z domain.Opened
	// Cannot delete active distribution: it is OPEN
	// 2026-12-15T09:30:00.000Z domain.Updated
	// 2026-12-15T09:30:00.000Z domain.Closed
	// 2026-12-15T09:30:00.000Z domain.Completed
}

// A local time is read in a zone, unless the zone's clocks do not show it once.
func ExampleParseInstant() {
	for _, s := range []string{"2026-12-15T09:00:00", "2026-03-29T02:30:00", "2026-10-25T02:30:00", "2026-10-25T02:30:00+01:00"} {
		i, err := domain.ParseInstant(s, "Europe/Berlin")
		if err != nil {
			fmt.Println(s, err)
			continue
		}
		fmt.Println(s, "is", i)
	}
	// Output:
	// 2026-12-15T09:00:00 is 2026-12-15T08:00:00.000Z
	// 2026-03-29T02:30:00 does not exist in Europe/Berlin: the clocks are put forward over it; give an offset
	// 2026-10-25T02:30:00 happens twice in Europe/Berlin: the clocks are put back through it; give an offset
	// 2026-10-25T02:30:00+01:00 is 2026-10-25T01:30:00.000Z
}
