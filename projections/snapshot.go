package projections

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/lotline/lotline/domain"
)

const (
	// longFold is how many events have to be folded for the outcome to be kept.
	longFold = 100_000
	// snapshotEvery is after how many events the snapshot of a distribution under way
	// is made anew.
	snapshotEvery = 250_000
	// snapshotLast is of how many events one is worth while at the end of the process.
	snapshotLast = 20_000
	// maxSnapshots is how many bytes snapshots may have together.
	maxSnapshots = 1 << 30
)

// snapshots are distributions with all their participants, in files of their own
// beside the views, so that a long history is not folded again from its beginning. They
// may be thrown away at any time. A file that is damaged, or of another log or format,
// is ignored.
type snapshots struct {
	dir   string
	log   string // the id of the log that they are of
	seals Opener

	mu   sync.Mutex                 // guards the field below
	kept map[string]domain.Revision // of the files by stream, as far as known
}

// participantsSuffix is what the name of their directory has behind that of the
// views.
const participantsSuffix = ".participants"

func newSnapshots(viewsPath, log string, seals Opener) *snapshots {
	return &snapshots{dir: viewsPath + participantsSuffix, log: log, seals: seals, kept: map[string]domain.Revision{}}
}

func (s *snapshots) note(h *domain.History) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept[h.Stream] = h.Head.Revision
}

// behind is how many events of a stream its snapshot lacks.
func (s *snapshots) behind(h *domain.History) domain.Revision {
	s.mu.Lock()
	defer s.mu.Unlock()
	return h.Head.Revision - s.kept[h.Stream]
}

// snapshotHead is the first line of a file; the participants follow, and then the
// SHA-256 of all before.
type snapshotHead struct {
	Format   int             `json:"format"`
	Log      string          `json:"log"`
	Stream   string          `json:"stream"`
	Revision domain.Revision `json:"revision"`
	Changed  domain.Revision `json:"changed"`
	Hash     string          `json:"hash"`
	State    json.RawMessage `json:"state"`
}

func (s *snapshots) path(stream string) string { return filepath.Join(s.dir, stream+".snapshot") }

// save keeps a distribution as it is. h is only read.
func (s *snapshots) save(h *domain.History) error {
	encoded, err := encode(h)
	if err != nil {
		return err
	}
	head, err := json.Marshal(snapshotHead{format, s.log, h.Stream, h.Head.Revision, h.Changed, h.Head.Hash, encoded})
	if err != nil {
		return err
	}
	b := h.Aggregate.(domain.Distribution).AppendParticipants(append(head, '\n'))
	sum := sha256.Sum256(b)
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	if err := s.shrink(int64(len(b))); err != nil {
		return err
	}
	// One that is cut short by a crash has no right sum.
	if err := os.WriteFile(s.path(h.Stream), append(b, sum[:]...), 0o600); err != nil {
		return err
	}
	s.note(h)
	return nil
}

// load returns what was saved of a stream, or nil.
func (s *snapshots) load(stream string) *domain.History {
	b, err := os.ReadFile(s.path(stream))
	if err != nil || len(b) < sha256.Size {
		return nil
	}
	b, given := b[:len(b)-sha256.Size], b[len(b)-sha256.Size:]
	if sum := sha256.Sum256(b); !bytes.Equal(sum[:], given) {
		return nil
	}
	line, participants, _ := bytes.Cut(b, []byte("\n"))
	var head snapshotHead
	if json.Unmarshal(line, &head) != nil || head.Format != format || head.Log != s.log || head.Stream != stream {
		return nil
	}
	h, err := stored{stream, head.Revision, head.Changed, head.Hash, head.State}.history(s.seals)
	if err != nil {
		return nil
	}
	d, ok := h.Aggregate.(domain.Distribution)
	if !ok || d.RestoreParticipants(participants) != nil {
		return nil
	}
	s.note(h)
	return h
}

// shrink makes room for more bytes, at the cost of the oldest.
func (s *snapshots) shrink(more int64) error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	var files []fs.FileInfo
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			files = append(files, info)
			more += info.Size()
		}
	}
	slices.SortFunc(files, func(a, b fs.FileInfo) int { return cmp.Compare(a.ModTime().UnixNano(), b.ModTime().UnixNano()) })
	for _, f := range files {
		if more <= maxSnapshots {
			break
		}
		if err := os.Remove(filepath.Join(s.dir, f.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("make room for a snapshot: %w", err)
		}
		more -= f.Size()
	}
	return nil
}

// snapshot saves the distributions of which many events have come since they were saved.
func (v *Views) snapshot(states []*state, enough domain.Revision) {
	for _, s := range states {
		d := s.distribution()
		if d != nil && !d.ParticipantsDone() && d.KnowsParticipants() && v.snapshots.behind(s.history) >= enough {
			v.keep(s.history)
		}
	}
}

// snapshotAll does so at the end of the process.
func (v *Views) snapshotAll() {
	v.mu.RLock()
	states := make([]*state, 0, len(v.indexes.streams))
	for _, slot := range v.indexes.streams {
		states = append(states, slot.current)
	}
	v.mu.RUnlock()
	v.snapshot(states, snapshotLast)
}

// keep saves a snapshot. That it cannot costs time after the next start, and nothing
// else.
func (v *Views) keep(h *domain.History) {
	if err := v.snapshots.save(h); err != nil {
		v.log.Warn().Err(err).Str("stream", h.Stream).Msg("a snapshot was not written")
	}
}
