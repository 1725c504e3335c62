package projections

import (
	"fmt"
	"strings"

	"github.com/goccy/go-json"

	"github.com/lotline/lotline/domain"
)

// stored is a history as the file holds it.
type stored struct {
	stream            string
	revision, changed domain.Revision
	hash              string
	state             []byte
}

// encode writes what a history's aggregate knows. A secret that is not sealed is
// an error. The names of a distribution's metadata are kept as they are: what
// follows in the log is compared with their bytes.
func encode(h *domain.History) ([]byte, error) {
	return json.MarshalWithOption(h.Aggregate, json.DisableHTMLEscape())
}

// decode restores the state that encode was given.
func (s stored) decode(seals Opener) (*state, error) {
	h, err := s.history(seals)
	if err != nil {
		return nil, err
	}
	return newState(h), nil
}

// history restores the history that encode was given.
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
			return h, nil // there are none any more
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
