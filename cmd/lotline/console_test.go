//go:build external

package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"image/png"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	cdplog "github.com/chromedp/cdproto/log"
	cdpnetwork "github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

var updatePicture = flag.Bool("update-picture", false, "write the picture of a queue's page to docs/console-queue.png")

// browser is Chromium with the console of a running engine.
type browser struct {
	t   *testing.T
	e   *engine
	dir string // the engine's data directory
	key string
	ctx context.Context

	mu       sync.Mutex // guards the fields below
	requests []string   // the addresses of all requests
	trouble  []string   // exceptions, and warnings of the browser
}

// openConsole starts an engine and a browser that shows its console. At the end, the test
// fails if the page had an error or sent a request to another server.
func openConsole(t *testing.T) *browser {
	t.Helper()
	dir := dataDirectory(t)
	e := testBinary(t).serve(t, dir)
	b := &browser{t: t, e: e, dir: dir, key: e.secretKey()}
	b.start()
	command(b, cdpnetwork.Enable, cdpnetwork.EnableParams{})
	command(b, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: `
		window.violations = [];
		addEventListener('securitypolicyviolation', (e) => violations.push(e.effectiveDirective + ' ' + e.blockedURI));
	`})
	b.do(chromedp.EmulateViewport(1280, 900), chromedp.Navigate(e.url+"/console"))
	t.Cleanup(b.checkQuiet)
	return b
}

// start starts the browser, and repeats a start that fails. About one start of Chromium in
// a hundred crashes before it listens, whatever the page is.
func (b *browser) start() {
	b.t.Helper()
	const starts = 4
	for n := 1; ; n++ {
		options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]),
			chromedp.ExecPath("chromium"),
			chromedp.NoSandbox,
			chromedp.DisableGPU,
			chromedp.Flag("disable-quic", true),
			chromedp.Flag("disable-component-update", true),
			chromedp.Flag("lang", "en-US"),
			chromedp.UserDataDir(b.t.TempDir()),
		)
		allocator, stop := chromedp.NewExecAllocator(context.Background(), options...)
		b.t.Cleanup(stop)
		ctx, closeTab := chromedp.NewContext(allocator)
		b.t.Cleanup(closeTab)
		// The first context that is used owns the browser, so it has no deadline.
		err := chromedp.Listen(ctx, b.listen)
		if err == nil {
			b.ctx = ctx
			return
		}
		if n == starts {
			b.t.Fatalf("the browser did not start in %d tries: %v", starts, err)
		}
		b.t.Logf("start %d of the browser: %v", n, err)
	}
}

func (b *browser) listen(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e := event.(type) {
	case *cdpnetwork.EventRequestWillBeSent:
		b.requests = append(b.requests, e.Request.URL)
	case *runtime.EventExceptionThrown:
		b.trouble = append(b.trouble, fmt.Sprintf("%s %+v", e.ExceptionDetails.Text, e.ExceptionDetails.Exception))
	case *cdplog.EventEntryAdded:
		// Many tests cause refusals by the engine, which are logged as network errors.
		if e.Entry.Source != cdplog.EntrySourceNetwork {
			b.trouble = append(b.trouble, e.Entry.Text)
		}
	}
}

func (b *browser) checkQuiet() {
	violations := js[[]string](b, `window.violations`)
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(violations) > 0 || len(b.trouble) > 0 {
		b.t.Errorf("violations of the policy %q, complaints %q", violations, b.trouble)
	}
	for _, url := range b.requests {
		// The browser draws its own widgets from addresses that hold the picture.
		if !strings.HasPrefix(url, b.e.url+"/") && !strings.HasPrefix(url, "data:") {
			b.t.Errorf("a request left the origin: %s", url)
		}
	}
	if len(b.requests) == 0 {
		b.t.Error("no request was seen, so none was checked")
	}
}

// do carries out actions. The test fails if they take too long.
func (b *browser) do(actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		b.t.Fatalf("%v; the page says:\n%s", err, b.text())
	}
}

// command sends a command of the browser's protocol.
func command[P, R any](b *browser, c cdp.Command[P, R], parameters P) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if _, err := chromedp.Call(ctx, c, parameters); err != nil {
		b.t.Fatal(err)
	}
}

// js returns the value of an expression in the page. It waits for a promise.
func js[T any](b *browser, expression string) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		b.t.Fatalf("%.200s: %v", expression, err)
	}
	return v
}

// text returns the visible text of the page.
func (b *browser) text() string { return js[string](b, `document.body.innerText`) }

// becomes waits until an expression is true in the page.
func (b *browser) becomes(expression string) {
	b.t.Helper()
	deadline := time.Now().Add(patience)
	for !js[bool](b, `Boolean(`+expression+`)`) {
		if time.Now().After(deadline) {
			b.t.Fatalf("it never holds that %s; the page says:\n%s", expression, b.text())
		}
		select {
		case <-b.t.Context().Done():
			b.t.Fatal(b.t.Context().Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// sees waits until the page shows all these texts.
func (b *browser) sees(texts ...string) {
	b.t.Helper()
	for _, text := range texts {
		b.becomes(`document.body.innerText.includes(` + strconv.Quote(text) + `)`)
	}
}

func (b *browser) click(selector string) {
	b.t.Helper()
	b.do(chromedp.Click(chromedp.CSS(selector)))
}

// clickText clicks the link or button that shows a text.
func (b *browser) clickText(text string) {
	b.t.Helper()
	b.do(chromedp.Click(chromedp.Search(fmt.Sprintf(`//*[self::a or self::button][normalize-space()=%q]`, text))))
}

// enter replaces the text of a form field.
func (b *browser) enter(field, text string) {
	b.t.Helper()
	b.becomes(`document.getElementById('` + field + `')`)
	// A clock's widget takes keys in the order of the browser's language.
	js[bool](b, fmt.Sprintf(`(() => {
		const input = document.getElementById(%q);
		input.focus();
		input.value = %q;
		input.dispatchEvent(new Event('input', { bubbles: true }));
		input.dispatchEvent(new Event('change', { bubbles: true }));
		return true;
	})()`, field, text))
}

func (b *browser) signIn() {
	b.t.Helper()
	b.do(chromedp.SendKeys(chromedp.CSS("#key"), b.key+kb.Enter))
	b.becomes(`document.querySelector('#session button')`)
}

// goTo shows a page of the console without loading it anew.
func (b *browser) goTo(hash string) {
	b.t.Helper()
	js[bool](b, fmt.Sprintf(`(location.hash = %q, true)`, hash))
}

func (b *browser) create(collection, body string) (id string) {
	b.t.Helper()
	return b.e.must(201, "POST", "/api/v1/"+collection, b.key, body).object(b.t)["id"].(string)
}

// inZone returns the time after d from now as a local time of the zone.
func inZone(t *testing.T, zone string, d time.Duration) string {
	t.Helper()
	l, err := time.LoadLocation(zone)
	if err != nil {
		t.Fatal(err)
	}
	return time.Now().Add(d).In(l).Format("2006-01-02T15:04:05")
}

// emulate gives the page a screen width, and a light or a dark scheme.
func (b *browser) emulate(width int64, scheme string) {
	b.t.Helper()
	command(b, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{
		Width: width, Height: 900, DeviceScaleFactor: 1, Mobile: width < 600,
	})
	command(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
	})
}

func TestConsole_aQueueIsMadeAndSeenToOpenByItself(t *testing.T) {
	t.Parallel()
	b := openConsole(t)
	b.signIn()
	b.clickText("New queue")
	b.enter("field-sequenceId", "spring")
	b.enter("field-name", "Spring drop")
	b.enter("field-timeZone", "Asia/Tokyo")
	opening := inZone(t, "Asia/Tokyo", 4*time.Second)
	b.enter("field-openAt", opening)
	b.enter("field-admissionRate", "60")
	b.clickText("Create queue")
	b.sees("Spring drop", "Queue created.", "Opens in 00:00:0", strings.Replace(opening, "T", " ", 1)+" +09:00", "60 a minute")
	if got := js[string](b, `document.querySelector('[aria-current=step]').innerText`); got != "Scheduled" {
		t.Errorf("it is %s", got)
	}
	b.becomes(`document.querySelector('[aria-current=step]')?.innerText === 'Open'`)
	b.sees("Spring drop is now Open.", "queue.created", "queue.scheduled", "queue.opened", "The clock", "It was due.")
	if loads := js[int](b, `performance.getEntriesByType('navigation').length + Number(performance.navigation.type === 1)`); loads != 1 {
		t.Errorf("the page was loaded %d times", loads)
	}
	// Each row shows how the hash of its event begins.
	hashes := js[[]string](b, `[...document.querySelectorAll('.history tbody tr > td:last-child code')].map((c) => c.title)`)
	if len(hashes) != 3 || len(hashes[0]) != 43 || hashes[0] == hashes[1] {
		t.Errorf("hashes %q", hashes)
	}
	b.goTo("#/")
	b.sees("Spring drop", "spring")
	b.becomes(`document.querySelector('tbody .status').innerText === 'Open'`)
}

func TestConsole_errorsAreShownAtTheirFields(t *testing.T) {
	t.Parallel()
	b := openConsole(t)
	b.signIn()
	b.goTo("#/new/draw")
	b.enter("field-winnerCount", "0")
	b.enter("field-timeZone", "Europe/Berlin")
	b.enter("field-openAt", "2027-03-28T02:30") // a local time that the change to summer time skips
	b.enter("field-metadata", `{"a":`)
	b.clickText("Create draw")
	b.sees("Validation failed")
	at := func(field, want string) {
		t.Helper()
		got := js[string](b, `document.getElementById('field-`+field+`-error').innerText`)
		invalid := js[string](b, `document.getElementById('field-`+field+`').getAttribute('aria-invalid') ?? ''`)
		if !strings.Contains(got, want) || (want != "") != (invalid == "true") {
			t.Errorf("%s: %q, invalid %q", field, got, invalid)
		}
	}
	at("sequenceId", "is required")
	at("winnerCount", "must be a whole number from 1 to 2147483647")
	at("openAt", "does not exist in Europe/Berlin")
	at("drawAt", "is required")
	at("metadata", "must be a JSON object")
	at("name", "")
	b.becomes(`document.activeElement.classList.contains('summary')`)
	b.clickText("Winners")
	b.becomes(`document.activeElement.id === 'field-winnerCount'`)

	// With an offset, for which the field has room now, the time exists.
	b.enter("field-openAt", "2027-03-28T02:30:00+01:00")
	b.enter("field-sequenceId", "s")
	b.enter("field-winnerCount", "3")
	b.enter("field-metadata", `{"price":12345678901234567890}`)
	b.enter("field-drawAt", "2027-04-01T00:00")
	b.clickText("Create draw")
	b.sees("Draw created.", "2027-03-28 03:30:00 +02:00", "2027-03-31 22:00:00Z", "12345678901234567890")
}

func TestConsole_anEditThatCollidesShowsWhatChanged(t *testing.T) {
	t.Parallel()
	b := openConsole(t)
	b.signIn()
	id := b.create("auctions", body(`{"sequenceId":"s","name":"One","openAt":%q,"settleAt":%q,"startingBid":999999999999.25,"timeZone":"Europe/Paris","currencyCode":"EUR"}`, in(3_600_000), in(7_200_000)))
	b.goTo("#/" + id + "/edit")
	b.enter("field-name", "Mine")
	b.e.must(200, "PUT", "/api/v1/auctions/"+id, b.key, `{"name":"Theirs","startingBid":7.5,"winnerCount":4}`)
	b.clickText("Save")
	b.sees("Somebody else changed this auction while you were editing it", "Name: One → Theirs (you entered something else, which is kept)",
		"Starting bid: 999999999999.25 → 7.5", "Winners: 1 → 4")
	if got := b.e.must(200, "GET", "/api/v1/auctions/"+id, b.key, "").object(t)["name"]; got != "Theirs" {
		t.Errorf("it was overwritten: %v", got)
	}
	b.clickText("Save")
	b.sees("Saved.", "Mine", "7.5 EUR")
	got := b.e.must(200, "GET", "/api/v1/auctions/"+id, b.key, "").object(t)
	if got["name"] != "Mine" || got["winnerCount"] != 4.0 || got["startingBid"] != 7.5 {
		t.Errorf("saved %v", got)
	}
	// The page sends only changed fields, so one event changes one field.
	b.becomes(`[...document.querySelectorAll('.history tbody tr')].at(-1)?.querySelectorAll('.changes li').length === 1`)
}

func TestConsole_stepsByHandAreConfirmed(t *testing.T) {
	t.Parallel()
	b := openConsole(t)
	b.signIn()
	id := b.create("draws", body(`{"sequenceId":"s","name":"Raffle","drawAt":%q,"winnerCount":3,"entropySource":"round 7"}`, in(3_600_000)))
	b.goTo("#/" + id)
	status := func(want string) {
		t.Helper()
		b.becomes(`document.querySelector('[aria-current=step]')?.innerText === '` + want + `' && !document.querySelector('dialog')`)
	}
	confirm := func(step, want string) {
		t.Helper()
		b.click(`[data-step=` + step + `]`)
		b.sees(want, "This cannot be undone.")
	}
	status("Draft")
	confirm("open", "The draw opens at once")
	b.clickText("Cancel")
	status("Draft")
	confirm("open", "The draw opens at once")
	b.clickText("Open now")
	status("Open")
	b.becomes(`document.activeElement.tagName === 'H1'`)
	confirm("close", "the list of entries is frozen")
	b.clickText("Close now")
	status("Closed")

	// The dialog shows the engine's refusal.
	confirm("draw", "There is no second draw.")
	b.clickText("Draw now")
	b.sees("Invalid status transition")
	b.do(chromedp.KeyEvent(kb.Escape))
	status("Closed")

	confirm("entropy", "decides who wins")
	b.enter("ask", "0123abcd")
	b.clickText("Supply entropy")
	status("Closed")
	confirm("draw", "There is no second draw.")
	b.clickText("Draw now")
	status("Completed")
	confirm("remove", "Its history stays")
	b.clickText("Delete")
	b.sees("This draw was deleted. Its history stays.", "draw.deleted", "By hand", "draw.drawn")
	b.e.must(404, "GET", "/api/v1/draws/"+id, b.key, "")
	// A user who opens the page later sees the same.
	b.goTo("#/")
	b.sees("No distributions here.")
	b.goTo("#/" + id)
	b.sees("This draw was deleted. Its history stays.", "draw.deleted")
	b.goTo("#/draw_00000000000000000000000000")
	b.sees("There is no such draw.")
}

// line makes a queue and opens its page. It returns the path of the queue's calls.
func (b *browser) line(more string) (path string) {
	b.t.Helper()
	id := b.create("queues", body(`{"sequenceId":"s","name":"Drop"%s}`, more))
	path = "/api/v1/queues/" + id
	b.e.must(200, "POST", path+"/open", b.key, "")
	b.goTo("#/" + id)
	b.sees("The line")
	return path
}

func (b *browser) enters(path string, consumers ...string) {
	b.t.Helper()
	for _, c := range consumers {
		b.e.must(200, "POST", path+"/enter", b.key, "", "X-Consumer-Id", c)
	}
}

// figures waits until the page shows these numbers of a queue's line.
func (b *browser) figures(waiting, admitted, completed, expired, left, denied int) {
	b.t.Helper()
	b.becomes(fmt.Sprintf(`[...document.querySelectorAll('.figures dd')].slice(0, 6).map((d) => d.innerText).join(' ') === '%d %d %d %d %d %d'`,
		waiting, admitted, completed, expired, left, denied))
}

func TestConsole_aQueuesLineIsSeenToMove(t *testing.T) {
	t.Parallel()
	b := openConsole(t)
	b.signIn()
	path := b.line("")
	b.figures(0, 0, 0, 0, 0, 0)
	b.enters(path, "a", "b", "c", "d", "e")
	b.figures(5, 0, 0, 0, 0, 0)
	b.e.must(200, "POST", path+"/admit", b.key, `{"count":2}`)
	b.figures(3, 2, 0, 0, 0, 0)
	b.e.must(200, "POST", path+"/complete", b.key, `{"consumerId":"a"}`)
	b.figures(3, 1, 1, 0, 0, 0)
	b.e.must(200, "POST", path+"/leave", b.key, "", "X-Consumer-Id", "c")
	b.e.must(200, "POST", path+"/deny", b.key, `{"consumerId":"d","reason":"ADMIN_ACTION"}`)
	b.figures(1, 1, 1, 0, 1, 1)
	b.e.must(200, "PUT", path, b.key, `{"sessionDurationSeconds":1}`)
	b.e.must(200, "POST", path+"/admit", b.key, `{"consumerId":"e"}`)
	b.figures(0, 1, 1, 1, 1, 1)
	b.e.must(200, "PUT", path, b.key, `{"admissionRate":1200}`)
	b.becomes(`document.querySelector('[data-figure=rate]').innerText === '1,200 a minute'`)

	// The charts have moved as well: their labels, and a curve that is not flat.
	label := func(i int) string {
		return js[string](b, fmt.Sprintf(`document.querySelectorAll('.chart')[%d].getAttribute('aria-label')`, i))
	}
	for i, want := range []string{
		"Waiting, over the last minute: 0 now, 0 at least, 5 at most", "Admitted, over the last minute: 1 now, 0 at least, 2 at most",
		"Finished in a minute, over the last minute: 1 now, 0 at least, 1 at most",
	} {
		if got := label(i); got != want {
			t.Errorf("chart %d says %q, not %q", i, got, want)
		}
		heights := js[int](b, fmt.Sprintf(`new Set(document.querySelectorAll('.chart .course')[%d].getAttribute('d').match(/V[0-9.]+/g)).size`, i))
		if heights < 2 {
			t.Errorf("chart %d has %d heights", i, heights)
		}
	}
	b.e.must(200, "POST", path+"/complete", b.key, `{"consumerId":"b"}`)
	b.figures(0, 0, 2, 1, 1, 1)

	// A screen reader is not told every second. The charts have a gap where the page was
	// hidden, and drop values that are older than ten minutes.
	if got := js[string](b, `document.querySelector('.line [role=status]').innerText`); got != "" {
		t.Errorf("a screen reader was told %q", got)
	}
	pass := func(seconds int) {
		t.Helper()
		js[bool](b, fmt.Sprintf(`(window.clock ??= performance.now.bind(performance), window.passed = (window.passed ?? 0) + %d, performance.now = () => clock() + passed * 1000, true)`, seconds))
	}
	strokes := `document.querySelector('.chart .course').getAttribute('d').match(/M/g).length === `
	b.becomes(strokes + `1`)
	pass(31)
	b.becomes(`document.querySelector('.line [role=status]').textContent === 'Waiting 0, Admitted 0, Finished 2, Expired 1, Left 1, Denied 1'`)
	b.becomes(strokes + `2`)
	pass(610)
	b.becomes(strokes + `1`)
	if got, want := label(0), "Waiting, over the last minute: 0 now, 0 at least, 0 at most"; got != want {
		t.Errorf("after ten minutes it says %q", got)
	}

	b.e.must(200, "POST", path+"/close", b.key, "")
	b.sees("Drop is now Completed.", "queue.completed")
	b.figures(0, 0, 2, 1, 1, 1)
	b.becomes(`document.querySelector('.hand').hidden`)
	if loads := js[int](b, `performance.getEntriesByType('navigation').length`); loads != 1 {
		t.Errorf("the page was loaded %d times", loads)
	}
}

// The page does not load more of a busy queue's history by itself.
func TestConsole_aLongHistoryIsLoadedOnRequest(t *testing.T) {
	t.Parallel()
	b := openConsole(t)
	b.signIn()
	path := b.line("")
	rows := `document.querySelectorAll('.history tbody tr').length`
	const before, all = 4, 4 + 4*80 // created, updated, scheduled and opened
	asks := `!document.querySelector('.history button').hidden`
	for i := range all - before {
		b.enters(path, fmt.Sprintf("c%d", i))
		if n := i + 1; n%80 == 0 { // less than what one look brings
			b.becomes(fmt.Sprintf(`%s === %d || %s`, rows, before+n, asks))
		}
	}
	b.becomes(asks)
	shown := js[int](b, rows)
	if shown < 200 || shown >= 300 {
		t.Errorf("%d events are shown", shown)
	}
	for js[bool](b, asks) {
		b.clickText("Show more")
		b.becomes(fmt.Sprintf(`%s > %d`, rows, shown))
		shown = js[int](b, rows)
	}
	revisions := js[[]int](b, `[...document.querySelectorAll('.history tbody tr')].map((r) => Number(r.dataset.revision))`)
	if len(revisions) != all || !slices.IsSorted(revisions) {
		t.Errorf("%d events: %v", len(revisions), revisions)
	}
}

func TestConsole_consumersAreMovedByHandAndByKeyboard(t *testing.T) {
	t.Parallel()
	b := openConsole(t)
	b.signIn()
	path := b.line("")
	b.enters(path, "a", "b", "c", "d")
	b.figures(4, 0, 0, 0, 0, 0)
	press := func(label string) {
		t.Helper()
		for range 60 {
			b.keys(kb.Tab)
			if js[string](b, `document.activeElement.innerText ?? ''`) == label {
				b.keys(kb.Enter)
				return
			}
		}
		t.Fatalf("Tab does not lead to %s", label)
	}
	fill := func(field, text string) {
		t.Helper()
		js[bool](b, `(window.scrollTo(0, 0), document.querySelector('h1').focus(), true)`)
		b.pressTabTo("#" + field)
		js[bool](b, `(document.activeElement.select(), true)`)
		b.keys(text)
	}
	says := func(want string) {
		t.Helper()
		b.becomes(`[...document.querySelectorAll('.hand p')].some((p) => p.innerText === ` + strconv.Quote(want) + `)`)
	}
	fill("admit-count", "2")
	press("Admit next")
	says("Admitted 2: a, b.")
	b.figures(2, 2, 0, 0, 0, 0)
	b.becomes(`document.activeElement.innerText === 'Admit next'`)
	// Sending the form again is another attempt.
	b.keys(kb.Enter)
	says("Admitted 2: c, d.")
	b.keys(kb.Enter)
	says("Nobody waits.")
	fill("admit-count", "0")
	press("Admit next")
	b.sees("Validation failed. count must be a whole number from 1 to 1000")
	b.becomes(`document.getElementById('admit-count').getAttribute('aria-invalid') === 'true'`)

	fill("consumer", "a")
	b.keys(kb.Enter) // alone does nothing
	press("Complete")
	says("a is Completed.")
	b.becomes(`document.querySelector('.history')?.innerText.includes('queue.consumer.completed')`)
	press("Deny")
	b.sees("Validation failed. reason must be")
	fill("consumer", "b")
	b.pressTabTo("#deny-reason")
	b.keys("F")
	press("Deny")
	says("b is Denied.")
	b.figures(0, 2, 1, 0, 0, 1)
	fill("consumer", "nobody")
	press("Admit")
	b.sees("Consumer not in queue")
	// A consumer's id is shown as text.
	b.enters(path, "<b>e</b>")
	fill("consumer", "<b>e</b>")
	press("Admit")
	says("<b>e</b> is Admitted.")
	b.becomes(`document.querySelector('.history').innerText.includes('<b>e</b>') && !document.querySelector('main b')`)
}

func TestConsole_textOfClientsIsNeverMarkup(t *testing.T) {
	t.Parallel()
	b := openConsole(t)
	b.signIn()
	const attack = `<img src=x onerror="window.attacked=1"><script>window.attacked=2</script>`
	id := b.create("queues", body(`{"sequenceId":"<b>s</b>","name":%q,"metadata":{"<i>k</i>":%q}}`, attack, attack))
	b.e.must(200, "PUT", "/api/v1/queues/"+id, b.key, body(`{"name":%q}`, attack+"2"))
	for _, hash := range []string{"#/", "#/" + id, "#/" + id + "/edit"} {
		b.goTo(hash)
		if hash == "#/"+id+"/edit" {
			b.becomes(`document.getElementById('field-name')?.value === ` + strconv.Quote(attack+"2"))
		} else {
			b.sees(attack + "2")
		}
		if hash == "#/"+id {
			b.sees("queue.updated", `<i>k</i>`)
			b.click(`[data-step=open]`)
			b.sees("Open now: " + attack)
			b.clickText("Cancel")
		}
		if got := js[string](b, `String(window.attacked) + document.querySelectorAll('img, script:not([src="/console/main.js"]), main b, main i').length`); got != "undefined0" {
			t.Errorf("%s: markup was made of a name: %s", hash, got)
		}
	}
}

// pressTabTo presses Tab until an element has the focus. The focus must be visible.
func (b *browser) pressTabTo(selector string) {
	b.t.Helper()
	for range 60 {
		b.do(chromedp.KeyEvent(kb.Tab))
		if js[bool](b, `document.activeElement.matches(`+strconv.Quote(selector)+`)`) {
			if outline := js[string](b, `getComputedStyle(document.activeElement).outlineStyle`); outline == "none" {
				b.t.Errorf("the focus on %s is not seen", selector)
			}
			return
		}
	}
	b.t.Fatalf("Tab does not lead to %s", selector)
}

func (b *browser) keys(text string) {
	b.t.Helper()
	b.do(chromedp.KeyEvent(text))
}

func TestConsole_theKeyboardIsEnough(t *testing.T) {
	t.Parallel()
	b := openConsole(t)
	b.becomes(`document.activeElement.id === 'key'`)
	b.keys(b.key + kb.Enter)
	b.becomes(`document.activeElement.tagName === 'H1' && document.title === 'Distributions · Lotline'`)
	b.pressTabTo(`a[href="#/new/queue"]`)
	b.keys(kb.Enter)
	b.becomes(`document.activeElement.tagName === 'H1' && document.title === 'New queue · Lotline'`)
	b.pressTabTo("#field-sequenceId")
	b.keys("by-hand")
	b.pressTabTo("#field-name")
	b.keys("By keyboard" + kb.Enter)
	b.sees("Queue created.", "By keyboard")
	b.becomes(`document.querySelector('[data-step=open]')`)
	b.pressTabTo("[data-step=open]")
	b.keys(kb.Enter)
	// The button to cancel has the focus, and the focus stays in the dialog.
	b.becomes(`document.activeElement.innerText === 'Cancel'`)
	b.keys(kb.Escape)
	b.becomes(`!document.querySelector('dialog') && document.activeElement.dataset.step === 'open'`)
	b.keys(kb.Enter)
	b.pressTabTo("dialog .danger")
	b.keys(kb.Enter)
	b.becomes(`document.querySelector('[aria-current=step]')?.innerText === 'Open' && document.activeElement.tagName === 'H1'`)

	// The skip link comes first and leads past the bar.
	js[bool](b, `(document.activeElement.blur(), window.getSelection().setPosition(document.body, 0), true)`)
	b.pressTabTo(".skip")
	b.keys(kb.Enter)
	b.becomes(`document.activeElement.id === 'main'`)
}

func TestConsole_theKeyIsKeptInMemoryOnly(t *testing.T) {
	t.Parallel()
	b := openConsole(t)
	b.sees("reloading or closing the page signs you out")
	b.do(chromedp.SendKeys(chromedp.CSS("#key"), "sk_live_WRONG"+kb.Enter))
	b.sees("Authentication required")
	b.enter("key", "")
	b.signIn()
	b.sees("No distributions here.")
	stored := js[string](b, `JSON.stringify([document.cookie, localStorage.length, sessionStorage.length, document.documentElement.outerHTML.includes(`+strconv.Quote(b.key)+`), location.href])`)
	if want := fmt.Sprintf(`["",0,0,false,"%s/console#/"]`, b.e.url); stored != want && stored != strings.Replace(want, "#/", "", 1) {
		t.Errorf("stored: %s", stored)
	}
	b.do(chromedp.Reload())
	b.becomes(`document.getElementById('key')`)
	b.signIn()
	b.clickText("Sign out")
	b.sees("Signed out.", "Secret key")
}

func TestConsole_theListIsLiveAndTurnsPages(t *testing.T) {
	t.Parallel()
	b := openConsole(t)
	b.signIn()
	b.sees("No distributions here.")
	for i := range 23 {
		b.create("queues", body(`{"sequenceId":"q%02d","name":"Queue %02d"}`, i, i))
	}
	draw := b.create("draws", body(`{"sequenceId":"d","name":"The draw","openAt":%q,"drawAt":%q,"winnerCount":1}`, in(3_600_000), in(7_200_000)))
	names := func(want string) {
		t.Helper()
		b.becomes(`[...document.querySelectorAll('tbody th a')].map((a) => a.innerText.replace('Queue ', '')).join(' ') === ` + strconv.Quote(want))
	}
	names("The draw 22 21 20 19 18 17 16 15 14 13 12 11 10 09 08 07 06 05 04")
	b.clickText("Next")
	names("03 02 01 00")
	b.clickText("Previous")
	b.becomes(`document.querySelectorAll('tbody tr').length === 20`)
	b.clickText("Next")
	names("03 02 01 00")
	b.clickText("First page")
	b.enter("kind", "draw")
	names("The draw")
	// The focus stays where it is while the list refreshes.
	js[bool](b, `(document.querySelector('tbody a').focus(), true)`)
	b.e.must(200, "POST", "/api/v1/draws/"+draw+"/open", b.key, "")
	b.sees("The draw is now Open.")
	b.becomes(`document.activeElement.innerText === 'The draw'`)
	b.enter("kind", "")
	b.click(`input[value=OPEN]`)
	names("The draw")
	b.click(`input[value=OPEN]`)
	b.enter("search", "queue 1")
	names("19 18 17 16 15 14 13 12 11 10")
	b.enter("order", "name")
	names("10 11 12 13 14 15 16 17 18 19")
	if got := js[string](b, `location.hash`); got != "#/?search=queue+1&order=name" {
		t.Errorf("the address is %s", got)
	}
	b.goTo("#/?after=forged")
	b.sees("after is not a cursor of this list")
}

func TestConsole_anOutageIsReportedAndEndsByItself(t *testing.T) {
	t.Parallel()
	b := openConsole(t)
	b.signIn()
	id := b.create("queues", `{"sequenceId":"s","name":"Kept"}`)
	b.goTo("#/" + id)
	b.sees("Kept", "Live", "queue.created")
	b.e.kill()
	b.sees("The engine does not answer", "Kept")
	b.e = testBinary(t).serve(t, b.dir, "LOTLINE_LISTEN="+strings.TrimPrefix(b.e.url, "http://"))
	b.sees("Live")
	b.e.must(200, "POST", "/api/v1/queues/"+id+"/open", b.key, "")
	b.sees("Kept is now Open.")
}

// answerWith replaces the engine's answers in the page until undo is called.
func (b *browser) answerWith(text string) (undo func()) {
	b.t.Helper()
	js[bool](b, `(window.engineFetch ??= window.fetch, window.fetch = async () => new Response(`+text+`, { status: 200 }), true)`)
	return func() { js[bool](b, `(window.fetch = window.engineFetch, true)`) }
}

func TestConsole_anAnswerThatCannotBeReadOrShownIsReportedAndEndsByItself(t *testing.T) {
	t.Parallel()
	b := openConsole(t)
	b.signIn()
	id := b.create("queues", `{"sequenceId":"s","name":"Kept"}`)
	stale := func(want string) {
		t.Helper()
		b.becomes(`document.querySelector('.live.stale')?.innerText.includes(` + strconv.Quote(want) + `)`)
		b.sees("Kept")
	}
	for _, hash := range []string{"#/", "#/" + id} {
		b.goTo(hash)
		b.sees("Kept", "Live")
		for text, want := range map[string]string{
			// JSON that is nested deeper than the page can go.
			`'{"data":' + '['.repeat(50000) + ']'.repeat(50000) + '}'`: "cannot be read",
			`'<html>'`:         "cannot be read",
			`''`:               "cannot be read",
			`'{"other":true}'`: "cannot be shown",
		} {
			undo := b.answerWith(text)
			stale(want)
			undo()
			b.becomes(`document.querySelector('.live:not(.stale)')?.innerText === 'Live'`)
		}
	}
	b.e.must(200, "POST", "/api/v1/queues/"+id+"/open", b.key, "")
	b.sees("Kept is now Open.")
}

func TestConsole_aCreationWhoseAnswerCannotBeReadIsNotTakenForASuccess(t *testing.T) {
	t.Parallel()
	b := openConsole(t)
	b.signIn()
	b.goTo("#/new/queue")
	b.enter("field-sequenceId", "s")
	undo := b.answerWith(`'<html>'`)
	b.clickText("Create queue")
	b.sees("cannot be read")
	undo()
	b.clickText("Create queue")
	b.sees("Queue created.")
}

func TestConsole_anAddressThatCannotBeReadIsNotFound(t *testing.T) {
	t.Parallel()
	b := openConsole(t)
	b.signIn()
	b.create("queues", `{"sequenceId":"s","name":"Kept"}`)
	b.sees("Kept", "Live")
	for _, hash := range []string{"#/%", "#/new/%ff", "#/%e0%a4/edit"} {
		b.goTo(hash)
		b.sees("The console has no such page.")
		if strings.Contains(b.text(), "Live") {
			t.Errorf("%s: what is shown is said to be live", hash)
		}
		b.goTo("#/")
		b.sees("Kept", "Live")
	}
	// The ? of a URL can be part of an id here.
	b.goTo("#/queue_%3Ffirst=1")
	b.sees("There is no such queue.")
	b.goTo("#/queue_%23/edit")
	b.sees("Queue not found")
}

// The check at the end of each test finds a violation of the policy.
func TestConsole_aViolationOfThePolicyIsSeen(t *testing.T) {
	t.Parallel()
	b := openConsole(t)
	js[bool](b, `(() => { const i = document.createElement('img'); i.src = 'https://elsewhere.invalid/'; document.body.append(i); return true; })()`)
	b.becomes(`window.violations.length > 0`)
	js[bool](b, `(() => { try { document.body.insertAdjacentHTML('beforeend', '<p>'); return false; } catch { return true; } })()`)
	b.becomes(`window.violations.some((v) => v.startsWith('require-trusted-types-for'))`)
	js[bool](b, `(window.violations = [], true)`)
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.trouble) == 0 {
		t.Error("the browser's complaint was not heard")
	}
	b.trouble = nil
	b.requests = slices.DeleteFunc(b.requests, func(url string) bool { return url == "https://elsewhere.invalid/" })
}

// On a desktop and a phone, light and dark, axe finds no fault in any page, and no page
// has to be scrolled sideways.
func TestConsole_isAccessible(t *testing.T) {
	t.Parallel()
	axe, err := os.ReadFile(filepath.Join("..", "..", "tools", "console-tests", "node_modules", "axe-core", "axe.min.js"))
	if err != nil {
		t.Fatalf("%v: tools/console-tests.sh installs it", err)
	}
	pictures := os.Getenv("LOTLINE_TEST_SCREENSHOTS")
	b := openConsole(t)
	look := func(name string) {
		t.Helper()
		for _, scheme := range []string{"light", "dark"} {
			for _, width := range []int64{1280, 390} {
				b.emulate(width, scheme)
				// Colours change gradually from one scheme to the other. What is in between
				// has less contrast, and is not looked at.
				b.becomes(`document.getAnimations().length === 0`)
				js[bool](b, string(axe)+`; true`)
				found := js[[]string](b, `axe.run().then((r) => r.violations.flatMap((v) => v.nodes.map((n) => v.id + ': ' + n.target + ': ' + n.failureSummary)))`)
				if len(found) > 0 {
					t.Errorf("%s, %s, %d wide:\n%s", name, scheme, width, strings.Join(found, "\n"))
				}
				if over := js[int](b, `document.documentElement.scrollWidth - innerWidth`); over > 0 {
					t.Errorf("%s, %d wide: %d too wide", name, width, over)
				}
				if pictures != "" {
					png, err := chromedp.Run(b.ctx, chromedp.FullScreenshot(100))
					if err != nil {
						t.Fatal(err)
					}
					if err := os.WriteFile(filepath.Join(pictures, fmt.Sprintf("%s-%s-%d.png", name, scheme, width)), png, 0o600); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
	}
	b.becomes(`document.getElementById('key')`)
	look("signin")
	open, closing := in(-60_000), in(86_400_000*3)
	queue := b.create("queues", body(`{"sequenceId":"spring-drop","name":"Spring drop","timeZone":"Europe/Berlin","openAt":%q,"closeAt":%q,"admissionRate":100,"maxCapacity":5000,"sessionDurationSeconds":600,"metadata":{"campaign":"spring","tags":["a","b"]}}`, open, closing))
	b.e.must(200, "PUT", "/api/v1/queues/"+queue, b.key, `{"name":"Spring drop 2027","maxCapacity":7000}`)
	b.create("draws", body(`{"sequenceId":"raffle","name":"Members’ raffle with a rather long name that wants to be broken somewhere","openAt":%q,"drawAt":%q,"winnerCount":100}`, in(7_200_000), closing))
	b.create("auctions", body(`{"sequenceId":"number-one","openAt":%q,"settleAt":%q,"startingBid":100.5,"currencyCode":"EUR"}`, in(86_400_000), closing))
	b.create("queues", `{"sequenceId":"draft-without-name"}`)
	done := b.create("draws", body(`{"sequenceId":"old","name":"Autumn draw","openAt":%q,"drawAt":%q,"winnerCount":1}`, in(-9000), in(-8000)))
	b.signIn()
	b.sees("Spring drop", "Autumn draw")
	look("list")
	b.goTo("#/" + queue)
	b.sees("queue.opened", "Closes in")
	for i := range 30 {
		b.enters("/api/v1/queues/"+queue, fmt.Sprintf("customer-%d", 4711+i))
	}
	b.becomes(`document.querySelectorAll('.history tbody tr').length > 33 && /: [1-9]/.test(document.querySelectorAll('.chart')[1].getAttribute('aria-label'))`)
	look("queue")
	b.click("[data-step=close]")
	look("confirm")
	b.clickText("Cancel")
	b.goTo("#/" + done)
	b.sees("draw.completed")
	js[bool](b, `(document.querySelectorAll('details').forEach((d) => { d.open = true; }), true)`)
	look("draw")
	b.goTo("#/" + queue + "/edit")
	b.sees("Fixed since the opening.")
	look("edit")
	b.goTo("#/new/auction")
	b.clickText("Create auction")
	b.sees("Validation failed")
	look("errors")
}

// The README shows this page: a queue in which some consumers wait, some are admitted
// and some have finished. With -update-picture the test watches the queue for longer,
// so that the charts have something to show, and writes the picture.
func TestConsole_aPictureOfAQueueFitsTheREADME(t *testing.T) {
	t.Parallel()
	b := openConsole(t)
	const width, height, most = 1200, 930, 150_000
	seconds, first := 3, 200 // enough for some to wait still, however slow the machine is
	if *updatePicture {
		seconds, first = 40, 20
	}
	b.signIn()
	id := b.create("queues", body(`{"sequenceId":"spring-drop","name":"Spring drop","timeZone":"Europe/Berlin","openAt":%q,"closeAt":%q,"admissionRate":100,"maxCapacity":5000,"sessionDurationSeconds":900}`,
		in(-60_000), in(86_400_000)))
	path := "/api/v1/queues/" + id
	b.emulate(width, "light")
	b.goTo("#/" + id)
	b.sees("The line")
	course := `document.querySelector('.chart .course').getAttribute('d')`
	for i := range seconds {
		before := js[string](b, course)
		more := 2 + i%5
		if i == 0 {
			more = first
		}
		for j := range more {
			b.enters(path, fmt.Sprintf("customer-%d-%d", i, j))
		}
		if i%3 == 2 {
			b.e.must(200, "POST", path+"/complete", b.key, body(`{"consumerId":"customer-0-%d"}`, i/3))
		}
		b.becomes(fmt.Sprintf(`%s !== %q`, course, before))
	}
	last := fmt.Sprintf("customer-%d-", seconds-1)
	b.e.must(200, "POST", path+"/leave", b.key, "", "X-Consumer-Id", last+"0")
	b.e.must(200, "POST", path+"/deny", b.key, body(`{"consumerId":%q,"reason":"ADMIN_ACTION"}`, last+"1"))
	b.becomes(`/^[1-9]\d* [1-9]\d* [1-9]\d* 0 1 1$/.test([...document.querySelectorAll('.figures dd')].slice(0, 6).map((d) => d.innerText).join(' '))`)

	command(b, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: width, Height: height, DeviceScaleFactor: 1})
	picture, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
	if err != nil {
		t.Fatal(err)
	}
	size, err := png.DecodeConfig(bytes.NewReader(picture))
	if err != nil || size.Width != width || len(picture) > most {
		t.Errorf("the picture is %d wide and has %d bytes: %v", size.Width, len(picture), err)
	}
	if *updatePicture {
		if err := os.WriteFile(filepath.Join(root, "docs", "console-queue.png"), picture, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
