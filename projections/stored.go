package projections

import (
	"fmt"
	"strings"

	"github.com/goccy/go-json"

	"github.com/lotline/lotline/domain"
)

// stored is a history as it is in the file.
type stored struct {
	stream            string
	revision, changed domain.Revision
	hash              string
	state             []byte
}

// encode encodes the aggregate of a history. It fails for a secret that is not sealed. It
// does not escape the metadata of a distribution, because later events of the log are
// compared with its bytes.
func encode(h *domain.History) ([]byte, error) {
	return json.MarshalWithOption(h.Aggregate, json.DisableHTMLEscape())
}

// decode returns the state of the history that was stored.
func (s stored) decode(seals Opener) (*state, error) {
	h, err := s.history(seals)
	if err != nil {
		return nil, err
	}
	return newState(h), nil
}

// history returns the history that was stored, with its secrets opened.
func (s stored) history(seals Opener) (*domain.History, error) {
	h := domain.NewHistory(s.stream)
	h.Head = domain.Head{Revision: s.revision, Hash: s.hash}
	h.Changed = s.changed
	if err := json.Unmarshal(s.state, h.Aggregate); err != nil {
		return nil, fmt.Errorf("%s: %w", s.stream, err)
	}
	holder, ok := h.Aggregate.(domain.SecretHolder)
	if !ok {
		return h, nil
	}
	sealedIn := "signing.key.created"
	if d, ok := holder.(domain.Distribution); ok {
		if string(d.Shared().Metadata) == "null" {
			d.Shared().Metadata = nil // as it was
		}
		if d.Shared().Deleted {
			return h, nil // a deleted distribution has no secrets any more
		}
		sealedIn = string(d.Kind()) + ".created"
	}
	for _, secret := range holder.Secrets() {
		plain, err := seals.Open(s.stream, sealedIn, secret.Name, secret.Value.Sealed)
		if err != nil {
			return nil, fmt.Errorf("%s: open %s: %w", s.stream, secret.Name, err)
		}
		secret.Value.Plain = strings.Clone(plain)
	}
	return h, nil
}
