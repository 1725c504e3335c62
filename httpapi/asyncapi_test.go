package httpapi

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	asyncapi "github.com/asyncapi/spec-json-schemas/v6"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/httpapi/apitest"
)

func asyncAPIMessages(t *testing.T) *apitest.Messages {
	t.Helper()
	text := newWorld(t).do(http.MethodGet, "/asyncapi.yaml", "", header("Authorization")).is(http.StatusOK).Body.Bytes()
	m, err := apitest.NewMessages(text)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// testdata has the JSON Schema that the AsyncAPI Initiative publishes for its documents.
func TestAsyncAPI_isAsyncAPI30(t *testing.T) {
	t.Parallel()
	text, err := asyncapi.Get("3.0.0")
	if err != nil {
		t.Fatal(err)
	}
	standard, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	const id = "http://asyncapi.com/definitions/3.0.0/asyncapi.json"
	if err := compiler.AddResource(id, standard); err != nil {
		t.Fatal(err)
	}
	schema, err := compiler.Compile(id)
	if err != nil {
		t.Fatal(err)
	}
	document := asyncAPIMessages(t).Look("").(map[string]any)
	if err := schema.Validate(document); err != nil {
		t.Error(err)
	}
	document["channels"].(map[string]any)["queue"].(map[string]any)["address"] = 7
	if schema.Validate(document) == nil {
		t.Error("the standard's schema lets anything through")
	}
}

func TestAsyncAPI_isConsistent(t *testing.T) {
	t.Parallel()
	m := asyncAPIMessages(t)
	document := m.Look("").(map[string]any)
	used := map[string]bool{}
	eachNode(document, "", func(at string, node map[string]any) {
		if ref, ok := node["$ref"].(string); ok {
			used[ref] = true
			if m.Look(strings.TrimPrefix(ref, "#")) == nil {
				t.Errorf("%s leads to %s, which is not there", at, ref)
			}
		}
	})
	for name := range document["channels"].(map[string]any) {
		if ref := "#/channels/" + name; !used[ref] {
			t.Errorf("nothing is sent to %s", ref)
		}
	}
	for section, members := range document["components"].(map[string]any) {
		for name := range members.(map[string]any) {
			if ref := "#/components/" + section + "/" + name; !used[ref] {
				t.Errorf("nothing leads to %s", ref)
			}
		}
	}
}

// goldenEvents are the data of all events that are published, by their types. The
// golden files are one for each event that can be stored.
func goldenEvents(t *testing.T) map[string][]json.RawMessage {
	t.Helper()
	files, err := filepath.Glob("../eventstore/testdata/events/*.json")
	if err != nil {
		t.Fatal(err)
	}
	events := map[string][]json.RawMessage{}
	for _, file := range files {
		name, _, _ := strings.Cut(filepath.Base(file), ".v")
		kind, _, _ := strings.Cut(name, ".")
		if !slices.Contains(domain.Kinds(), domain.Kind(kind)) {
			continue
		}
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		events[name] = append(events[name], data)
	}
	if len(events) < 26 {
		t.Fatalf("%d events only", len(events))
	}
	return events
}

// An event that is added must be described: the document has a message for each event of a
// distribution, and none for events that are not published.
func TestAsyncAPI_hasEveryPublicEventAndNoOther(t *testing.T) {
	t.Parallel()
	want := map[string][]string{"lotline.distribution.updated": {domain.TopicDistributionUpdated}}
	for name := range goldenEvents(t) {
		kind, _, _ := strings.Cut(name, ".")
		want["lotline."+kind] = append(want["lotline."+kind], name)
	}
	got := asyncAPIMessages(t).Types()
	for _, types := range []map[string][]string{want, got} {
		for _, names := range types {
			slices.Sort(names)
		}
	}
	if !maps.EqualFunc(got, want, slices.Equal) {
		t.Errorf("the document has %s\nwant             %s", asJSON(t, got), asJSON(t, want))
	}
}

// Every golden event matches the document. If a field is removed or added, the event no
// longer matches.
func TestAsyncAPI_describesEveryStoredEvent(t *testing.T) {
	t.Parallel()
	m := asyncAPIMessages(t)
	const id = "01890a5d-ac96-774b-bcce-b302099a8057"
	check := func(messageType string, data json.RawMessage) error {
		kind, _, _ := strings.Cut(messageType, ".")
		subject := domain.ID(kind + "_01h455vb4pex5vsknk084sn02q")
		e := domain.NewCloudEvent(id, messageType, subject, 1_795_000_000_123, data)
		headers := map[string]string{"Nats-Msg-Id": id, "content-type": "application/cloudevents+json"}
		return m.Check("lotline."+kind, headers, []byte(asJSON(t, e)))
	}
	for name, all := range goldenEvents(t) {
		for _, data := range all {
			if err := check(name, data); err != nil {
				t.Errorf("%s: %s: %v", name, data, err)
			}
			var fields map[string]json.RawMessage
			if err := json.Unmarshal(data, &fields); err != nil {
				t.Fatal(err)
			}
			for field := range fields {
				less := maps.Clone(fields)
				delete(less, field)
				if check(name, json.RawMessage(asJSON(t, less))) == nil {
					t.Errorf("%s: %s is not missed", name, field)
				}
			}
			fields["colour"] = json.RawMessage(`"red"`)
			if check(name, json.RawMessage(asJSON(t, fields))) == nil {
				t.Errorf("%s: a field that is not described passes", name)
			}
		}
		if err := check(name, nil); err != nil {
			t.Errorf("%s without data: %v", name, err)
		}
	}
}

// Other differences between a message and the document.
func TestMessages_catches(t *testing.T) {
	t.Parallel()
	m := asyncAPIMessages(t)
	const (
		id     = "da0c4a65-43c7-5e06-9541-515bfd36bc7e"
		timing = `{"specversion":"1.0","id":"` + id + `","source":"lotline","type":"distribution.updated",` +
			`"subject":"queue_01h455vb4pex5vsknk084sn02q","time":"2026-11-18T11:06:40.000Z","datacontenttype":"application/json",` +
			`"data":{"distributionId":"queue_01h455vb4pex5vsknk084sn02q","distributionType":"queue",` +
			`"changed":{"openAt":{"old":null,"new":"2026-11-18T11:06:41.000Z"}},"cause":"create"}}`
	)
	address := "lotline." + domain.TopicDistributionUpdated
	headers := map[string]string{"Nats-Msg-Id": id, "content-type": "application/cloudevents+json"}
	if err := m.Check(address, headers, []byte(timing)); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string][2]string{
		"no JSON":                {`}}`, `}`},
		"another type":           {`"type":"distribution.updated"`, `"type":"distribution.opened"`},
		"another specversion":    {`"1.0"`, `"0.3"`},
		"another source":         {`"lotline"`, `"Lotline"`},
		"no id":                  {`"id":"` + id + `",`, ``},
		"an id of no form":       {`"id":"` + id, `"id":"7`},
		"a subject of no kind":   {`"subject":"queue_`, `"subject":"org_`},
		"a time in a zone":       {`40.000Z"`, `40.000+01:00"`},
		"an extension":           {`"source"`, `"colour":"red","source"`},
		"another field":          {`"openAt":{`, `"name":{`},
		"nothing changed":        {`"openAt":{"old":null,"new":"2026-11-18T11:06:41.000Z"}`, ``},
		"no old value":           {`"old":null,`, ``},
		"a new value of no form": {`"new":"2026-11-18T11:06:41.000Z"`, `"new":1795000001}`},
		"another cause":          {`"cause":"create"`, `"cause":"whim"`},
		"no data":                {`"data":{`, `"data":7,"x":{`},
	} {
		changed := strings.Replace(timing, change[0], change[1], 1)
		if changed == timing || m.Check(address, headers, []byte(changed)) == nil {
			t.Errorf("%s passes", name)
		}
	}
	if m.Check("lotline.queue", headers, []byte(timing)) == nil {
		t.Error("it passes on another channel")
	}
	for name := range headers {
		less := maps.Clone(headers)
		delete(less, name)
		if m.Check(address, less, []byte(timing)) == nil {
			t.Errorf("it passes without %s", name)
		}
	}
	if _, err := apitest.NewMessages([]byte("asyncapi: 3.0.0")); err == nil {
		t.Error("a document without channels is read")
	}
}
