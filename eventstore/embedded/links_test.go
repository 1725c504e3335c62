package embedded

import (
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/EventStore/EventStore-Client-Go/v4/esdb"
	"github.com/EventStore/EventStore-Client-Go/v4/protos/shared"
	streamspb "github.com/EventStore/EventStore-Client-Go/v4/protos/streams"
	"github.com/ncruces/go-sqlite3"
)

// newLink returns a link as a real server's projections write it: its data is text but
// not JSON.
func newLink(to string) esdb.EventData {
	link := newEvent(linkType, to)
	link.ContentType = esdb.ContentTypeBinary
	return link
}

// spell writes an event as revision@stream, and an event that was reached through a link
// as "event by link". The target of a link that leads nowhere is "nothing".
func spell(e *esdb.ResolvedEvent) string {
	name := func(e *esdb.RecordedEvent) string {
		if e == nil {
			return "nothing"
		}
		return fmt.Sprintf("%d@%s", e.EventNumber, e.StreamID)
	}
	if e.Commit == nil || *e.Commit != e.OriginalEvent().Position.Commit {
		return "an event without the position of the original"
	}
	if e.Link == nil {
		return name(e.Event)
	}
	return name(e.Event) + " by " + name(e.Link)
}

func spellAll(t testing.TB, read *esdb.ReadStream, err error) []string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	var got []string
	for {
		event, err := read.Recv()
		if errors.Is(err, io.EOF) {
			return got
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, spell(event))
	}
}

// expectSpelled receives events from a subscription and ignores its other messages.
func expectSpelled(t testing.TB, claim string, subscription *esdb.Subscription, want ...string) {
	t.Helper()
	for _, want := range want {
		for got := ""; got == ""; {
			switch said := subscription.Recv(); {
			case said.EventAppeared != nil:
				got = spell(said.EventAppeared)
			case said.SubscriptionDropped != nil:
				t.Fatalf("%s: the subscription ended: %v", claim, said.SubscriptionDropped.Error)
			}
			if got != "" && got != want {
				t.Errorf("%s: got %s, want %s", claim, got, want)
			}
		}
	}
}

func reversed(values []string) []string {
	values = slices.Clone(values)
	slices.Reverse(values)
	return values
}

func TestRead_resolvesLinks(t *testing.T) {
	t.Parallel()
	client := start(t).connect(t)
	mustAppend(t, client, "s", esdb.NoStream{}, newEvents(3)...)
	mustAppend(t, client, "order@home@2", esdb.NoStream{}, newEvents(2)...)
	mustAppend(t, client, "links", esdb.NoStream{}, newLink("2@s"), newEvent("x", "{}"), newLink("1@order@home@2"), newLink("0@s"), newLink("9@s"))
	mustAppend(t, client, "links of links", esdb.NoStream{}, newLink("0@links"))
	whole := []string{"0@s", "1@s", "2@s", "0@order@home@2", "1@order@home@2"}
	links := []string{"2@s by 0@links", "1@links", "1@order@home@2 by 2@links", "0@s by 3@links", "nothing by 4@links"}
	second := "0@links by 0@links of links" // only one link is followed
	all := append(append(slices.Clone(whole), links...), second)

	for claim, c := range map[string]struct {
		stream  string // "" for $all
		forward []string
	}{
		"a stream":             {"links", links},
		"a stream without any": {"s", whole[:3]},
		"links to links":       {"links of links", []string{second}},
		"$all":                 {"", all},
	} {
		for direction, want := range map[esdb.Direction][]string{esdb.Forwards: c.forward, esdb.Backwards: reversed(c.forward)} {
			var read *esdb.ReadStream
			var err error
			if c.stream == "" {
				options := esdb.ReadAllOptions{From: esdb.Start{}, ResolveLinkTos: true}
				if direction == esdb.Backwards {
					options.From, options.Direction = esdb.End{}, direction
				}
				read, err = client.ReadAll(within(t), options, 100)
			} else {
				options := esdb.ReadStreamOptions{From: esdb.Start{}, ResolveLinkTos: true}
				if direction == esdb.Backwards {
					options.From, options.Direction = esdb.End{}, direction
				}
				read, err = client.ReadStream(within(t), c.stream, options, 100)
			}
			if got := spellAll(t, read, err); !slices.Equal(got, want) {
				t.Errorf("%s, direction %v:\n got %q\nwant %q", claim, direction, got, want)
			}
		}
	}

	// The target has the data and the position that it has in its own stream.
	read, err := client.ReadStream(within(t), "links", esdb.ReadStreamOptions{From: esdb.Start{}, ResolveLinkTos: true}, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	resolved, err := read.Recv()
	if err != nil || string(resolved.Event.Data) != `{"n":2}` || resolved.Event.EventType != "counted" || resolved.Event.Position.Commit != 3 ||
		string(resolved.Link.Data) != "2@s" || resolved.Link.EventType != linkType || resolved.Link.Position.Commit != 6 {
		t.Errorf("got %+v by %+v, %v", resolved.Event, resolved.Link, err)
	}
	// Nothing is resolved unless the reader asks for it.
	read, err = client.ReadStream(within(t), "links", esdb.ReadStreamOptions{From: esdb.Start{}}, 100)
	if got := spellAll(t, read, err); !slices.Equal(got, []string{"0@links", "1@links", "2@links", "3@links", "4@links"}) {
		t.Errorf("without the option: %q", got)
	}
	read, err = client.ReadAll(within(t), esdb.ReadAllOptions{From: esdb.Start{}}, 6)
	if got := spellAll(t, read, err); got[5] != "0@links" {
		t.Errorf("without the option from $all: %q", got)
	}
}

// The target of a link is found only if a reader of its stream can see it.
func TestRead_linksToHiddenEvents(t *testing.T) {
	t.Parallel()
	client := start(t).connect(t)
	for _, stream := range []string{"deleted", "ended", "short", "old"} {
		mustAppend(t, client, stream, esdb.NoStream{}, newEvents(3)...)
	}
	mustDelete(t, client, "deleted")
	mustTombstone(t, client, "ended")
	mustDescribe(t, client, "short", func(m *esdb.StreamMetadata) { m.SetMaxCount(1) })
	mustDescribe(t, client, "old", func(m *esdb.StreamMetadata) { m.SetTruncateBefore(2) })
	for link, want := range map[string]string{
		"2@deleted":                 "nothing",
		"2@ended":                   "nothing",
		"9223372036854775807@ended": "nothing",
		"1@short":                   "nothing",
		"2@short":                   "2@short",
		"1@old":                     "nothing",
		"2@old":                     "2@old",
		"3@old":                     "nothing",
		"-5@old":                    "nothing",
		"0@never":                   "nothing",
		"0@$$short":                 "0@$$short",
		"0@$all":                    "nothing",
		"0@":                        "nothing",
		"0":                         "nothing",
		// An event whose data does not begin with a revision is not a link.
		"":                         "",
		"@":                        "",
		"two@old":                  "",
		"99999999999999999999@old": "",
	} {
		stream := "link to " + link
		mustAppend(t, client, stream, esdb.NoStream{}, newLink(link))
		if want != "" {
			want += " by "
		}
		read, err := client.ReadStream(within(t), stream, esdb.ReadStreamOptions{From: esdb.Start{}, ResolveLinkTos: true}, 10)
		if got := spellAll(t, read, err); !slices.Equal(got, []string{want + "0@" + stream}) {
			t.Errorf("%q: got %q, want %q", link, got, want)
		}
	}
}

func TestSubscribe_resolvesLinks(t *testing.T) {
	t.Parallel()
	client := start(t).connect(t)
	mustAppend(t, client, "s", esdb.NoStream{}, newEvents(3)...)
	mustAppend(t, client, "links", esdb.NoStream{}, newLink("1@s"), newLink("7@s"))

	links, err := client.SubscribeToStream(within(t), "links", esdb.SubscribeToStreamOptions{From: esdb.Start{}, ResolveLinkTos: true})
	if err != nil {
		t.Fatal(err)
	}
	defer links.Close()
	raw := subscribeTo(t, client, "links", esdb.Start{})
	all := subscribeToAll(t, client, esdb.SubscribeToAllOptions{From: esdb.Start{}, ResolveLinkTos: true})
	plain := subscribeToAll(t, client, esdb.SubscribeToAllOptions{From: esdb.Start{}})
	// A filter is applied to the link, not to its target.
	byStream := subscribeToAll(t, client, esdb.SubscribeToAllOptions{
		From: esdb.Start{}, ResolveLinkTos: true, Filter: &esdb.SubscriptionFilter{Type: esdb.StreamFilterType, Prefixes: []string{"links"}},
	})
	byType := subscribeToAll(t, client, esdb.SubscribeToAllOptions{
		From: esdb.Start{}, ResolveLinkTos: true, Filter: &esdb.SubscriptionFilter{Type: esdb.EventFilterType, Prefixes: []string{"counted"}},
	})
	expectSpelled(t, "a stream", links, "1@s by 0@links", "nothing by 1@links")
	expectSpelled(t, "a stream, without the option", raw, "0@links", "1@links")
	expectSpelled(t, "$all", all, "0@s", "1@s", "2@s", "1@s by 0@links", "nothing by 1@links")
	expectSpelled(t, "$all, without the option", plain, "0@s", "1@s", "2@s", "0@links", "1@links")
	expectSpelled(t, "$all by stream", byStream, "1@s by 0@links", "nothing by 1@links")
	expectSpelled(t, "$all by type", byType, "0@s", "1@s", "2@s")

	// All subscriptions are live now, or soon will be. A link and its target arrive
	// together as live events.
	mustAppend(t, client, "s", esdb.Revision(2), newEvents(1)...)
	mustAppend(t, client, "links", esdb.Revision(1), newLink("3@s"), newEvent("x", "{}"), newLink("0@s"))
	expectSpelled(t, "a stream, live", links, "3@s by 2@links", "3@links", "0@s by 4@links")
	expectSpelled(t, "a stream, live, without the option", raw, "2@links", "3@links", "4@links")
	expectSpelled(t, "$all, live", all, "3@s", "3@s by 2@links", "3@links", "0@s by 4@links")
	expectSpelled(t, "$all, live, without the option", plain, "3@s", "2@links", "3@links", "4@links")
	expectSpelled(t, "$all by stream, live", byStream, "3@s by 2@links", "3@links", "0@s by 4@links")
	expectSpelled(t, "$all by type, live", byType, "3@s")
}

// A parked event is a link in the group's stream of parked events, which anybody can
// read.
func TestRead_resolvesParkedEvents(t *testing.T) {
	t.Parallel()
	client := start(t).connect(t)
	mustAppend(t, client, "s", esdb.NoStream{}, newEvents(2)...)
	mustAppend(t, client, "links", esdb.NoStream{}, newLink("1@s"), newLink("5@s"))
	settings := eachChecked()
	settings.ResolveLinkTos = true
	for _, stream := range []string{"s", "links"} {
		createGroup(t, client, stream, "g", esdb.Start{}, settings)
		subscription := consume(t, client, stream, "g", 2)
		nack(t, subscription, esdb.NackActionPark, deliver(t, subscription).Event, deliver(t, subscription).Event)
		awaitInfo(t, client, stream, "g", parkedIs(2))
	}
	for stream, want := range map[string][]string{
		"s":     {"0@s by 0@", "1@s by 1@"},
		"links": {"1@s by 0@", "nothing by 1@"}, // a link without a target is parked unchanged
	} {
		parked := "$persistentsubscription-" + stream + "::g-parked"
		read, err := client.ReadStream(within(t), parked, esdb.ReadStreamOptions{From: esdb.Start{}, ResolveLinkTos: true}, 10)
		for i := range want {
			want[i] += parked
		}
		if got := spellAll(t, read, err); !slices.Equal(got, want) {
			t.Errorf("parked of %s: %q, want %q", stream, got, want)
		}
	}
}

// Links are small and their targets can be large. Both count towards the size of a page.
func TestRead_pagesAreBoundedByWhatLinksLeadTo(t *testing.T) {
	t.Parallel()
	server := start(t)
	const size, count = pageBytes / 4, 40
	if _, err := server.store.append(t.Context(), "large", expectAny, proposals(1, size)); err != nil {
		t.Fatal(err)
	}
	links := proposals(count, 0)
	for i := range links {
		links[i].kind, links[i].data = linkType, []byte("0@large")
	}
	if _, err := server.store.append(t.Context(), "links", expectAny, links); err != nil {
		t.Fatal(err)
	}
	for claim, read := range map[string]func() (page, error){
		"a stream": func() (page, error) { return server.store.readStream(t.Context(), "links", 0, false, true, count) },
		"its news": func() (page, error) { return server.store.readLive(t.Context(), "links", 0, true) },
		"backwards": func() (page, error) {
			return server.store.readStream(t.Context(), "links", math.MaxInt64, true, true, count)
		},
		"$all": func() (page, error) { return server.store.readAll(t.Context(), 2, false, true, nil, count, pageRows) },
	} {
		p, err := read()
		if err != nil || p.complete || len(p.events) != pageBytes/size {
			t.Errorf("%s: a page has %d events of %d bytes, complete %t, %v", claim, len(p.events), size, p.complete, err)
		}
	}
	// All links arrive nevertheless.
	read, err := server.connect(t).ReadStream(within(t), "links", esdb.ReadStreamOptions{From: esdb.Start{}, ResolveLinkTos: true}, math.MaxUint64)
	if got := spellAll(t, read, err); len(got) != count {
		t.Errorf("%d of %d came", len(got), count)
	}
}

// The target of a link is looked up by an index, however long its stream and the log are.
func TestLinks_areLookedUpByIndex(t *testing.T) {
	t.Parallel()
	server := start(t)
	conn, err := connect(server.store.uri)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := closeConnection(conn); err != nil {
			t.Error(err)
		}
	}()
	for _, sql := range []string{selectStream, selectTarget} {
		for _, step := range explain(t, conn, sql) {
			if strings.HasPrefix(step, "SCAN") || strings.Contains(step, "TEMP B-TREE") {
				t.Errorf("%s\nis carried out as %s", sql, step)
			}
		}
	}
}

func explain(t testing.TB, conn *sqlite3.Conn, sql string) (steps []string) {
	t.Helper()
	stmt, _, err := conn.Prepare("EXPLAIN QUERY PLAN " + sql)
	if err != nil {
		t.Fatal(err)
	}
	for stmt.Step() {
		steps = append(steps, stmt.ColumnText(3))
	}
	if err := stmt.Err(); err != nil || len(steps) == 0 {
		t.Fatalf("no plan: %v", err)
	}
	return steps
}

// The ids of a link and of its target come in the form that the reader asked for.
func TestRead_resolvedLinksHaveIdsAsAskedFor(t *testing.T) {
	t.Parallel()
	server := start(t)
	client := server.connect(t)
	target, link := newEvent("x", "{}"), newLink("0@s")
	mustAppend(t, client, "s", esdb.NoStream{}, target)
	mustAppend(t, client, "links", esdb.NoStream{}, link)
	read, err := server.rawClient(t).Read(within(t), &streamspb.ReadReq{Options: &streamspb.ReadReq_Options{
		StreamOption: &streamspb.ReadReq_Options_Stream{Stream: &streamspb.ReadReq_Options_StreamOptions{
			StreamIdentifier: &shared.StreamIdentifier{StreamName: []byte("links")}, RevisionOption: &streamspb.ReadReq_Options_StreamOptions_Start{},
		}},
		CountOption:  &streamspb.ReadReq_Options_Count{Count: 1},
		ResolveLinks: true,
		UuidOption:   &streamspb.ReadReq_Options_UUIDOption{Content: &streamspb.ReadReq_Options_UUIDOption_String_{String_: &shared.Empty{}}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	response, err := read.Recv()
	got := response.GetEvent()
	if err != nil || got.GetEvent().GetId().GetString_() != target.EventID.String() || got.GetLink().GetId().GetString_() != link.EventID.String() ||
		got.GetCommitPosition() != 2 || got.GetEvent().GetCommitPosition() != 1 || got.GetLink().GetCommitPosition() != 2 {
		t.Errorf("got %v, %v", got, err)
	}
}

// The cache holds the newest events, but not the targets of links. So a page from the
// cache ends before a link that is to be resolved.
func TestTailCache_leavesLinksToTheFile(t *testing.T) {
	t.Parallel()
	var n tailCache
	n.add([]recorded{{position: 1}, {position: 2, kind: linkType, stream: "links"}, {position: 3}})
	if p, ok := n.read(1, true, nil, 10); !ok || len(p.events) != 1 || p.last != 1 || p.complete {
		t.Errorf("before the link: %+v, %t", p, ok)
	}
	if p, ok := n.read(2, true, nil, 10); ok {
		t.Errorf("at the link: %+v", p)
	}
	if p, ok := n.read(1, true, &filter{prefixes: [][]byte{[]byte("x")}}, 10); !ok || p.last != 3 || !p.complete {
		t.Errorf("when the link is not wanted: %+v, %t", p, ok)
	}
	if p, ok := n.read(1, false, nil, 10); !ok || len(p.events) != 3 || p.events[1].link {
		t.Errorf("when its target is not asked for: %+v, %t", p, ok)
	}
}

// A group reads ahead only as much as its limit, however large the targets of its links
// are.
func TestGroup_readsNoMoreAheadForLinks(t *testing.T) {
	t.Parallel()
	inBubble(t, groupSettings{ResolveLinks: true, ReadBatchSize: 100, HistoryBufferSize: 1000}, func(g testGroup) {
		const size, count = pageBytes / 4, 100
		if _, err := g.store.append(g.Context(), "large", expectAny, proposals(1, size)); err != nil {
			t.Fatal(err)
		}
		links := proposals(count, 0)
		for i := range links {
			links[i].kind, links[i].data = linkType, []byte("0@large")
		}
		if _, err := g.store.append(g.Context(), "s", expectAny, links); err != nil {
			t.Fatal(err)
		}
		c := g.join(slotsLimit)
		synctest.Wait()
		var ahead, inFlight int
		if err := g.do(g.Context(), func() { ahead, inFlight = g.source.bytes, c.bytes }); err != nil {
			t.Fatal(err)
		}
		const overhead = 10 * 2 * eventOverhead
		if inFlight < flightBytes || ahead > 2*pageBytes+overhead {
			t.Errorf("%d bytes are in flight and %d are read ahead", inFlight, ahead)
		}
	})
}
