package projections

import (
	"bytes"
	"strings"
	"testing"

	"github.com/lotline/lotline/domain"
)

func TestGet(t *testing.T) {
	t.Parallel()
	l, v := newLog(), emptyViews()
	org := l.id("org")
	id := l.create(t, org, domain.KindDraw, map[string]string{"name": `"first"`})
	follow(v, l)

	first, err := v.Get(org, id)
	if err != nil {
		t.Fatal(err)
	}
	again, err := v.Get(org, id)
	if err != nil {
		t.Fatal(err)
	}
	if &first.JSON()[0] != &again.JSON()[0] {
		t.Error("rendered twice")
	}
	was := string(first.JSON())
	if !strings.Contains(was, `"name":"first"`) || !strings.Contains(was, `"encryptionSeed":"plain seed of `+string(id)) {
		t.Errorf("got %s", was)
	}

	l.must(t, id, fields("name", `"second"`))
	follow(v, l)
	second, err := v.Get(org, id)
	if err != nil {
		t.Fatal(err)
	}
	if first.Changed != 0 || second.Changed != 1 || second.Head.Revision != 1 || second.Head.Hash == first.Head.Hash {
		t.Errorf("from %+v to %+v", first, second)
	}
	if string(first.JSON()) != was || !strings.Contains(string(second.JSON()), `"name":"second"`) {
		t.Errorf("from %s to %s", first.JSON(), second.JSON())
	}
	if made := (Row{Distribution: second.Distribution}); !bytes.Equal(made.JSON(), second.JSON()) {
		t.Errorf("a row without views is %s", made.JSON())
	}
}
