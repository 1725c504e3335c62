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
	// longFold is the number of events above which the result of a fold is saved as a
	// snapshot.
	longFold = 100_000
	// snapshotEvery is the number of new events after which a running distribution is saved
	// again.
	snapshotEvery = 250_000
	// snapshotLast is the same number at the end of the process.
	snapshotLast = 20_000
	// maxSnapshots is how many bytes all snapshots together may have.
	maxSnapshots = 1 << 30
)

// snapshots are distributions with all their participants, each in a file in a directory
// beside views.db. With a snapshot, a long history need not be folded from its beginning.
// Snapshots may be deleted at any time. A file that is damaged, or of another log or format,
// is ignored.
type snapshots struct {
	dir   string
	log   string // the id of the log
	seals Opener

	mu   sync.Mutex                 // guards the field below
	kept map[string]domain.Revision // by stream, of the files that this process saved or loaded
}

// participantsSuffix follows the name of views.db in the name of the snapshots' directory.
const participantsSuffix = ".participants"

func newSnapshots(viewsPath, log string, seals Opener) *snapshots {
	return &snapshots{dir: viewsPath + participantsSuffix, log: log, seals: seals, kept: map[string]domain.Revision{}}
}

// note remembers the revision of a snapshot.
func (s *snapshots) note(h *domain.History) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept[h.Stream] = h.Head.Revision
}

// behind returns how many events of a stream its snapshot lacks.
func (s *snapshots) behind(h *domain.History) domain.Revision {
	s.mu.Lock()
	defer s.mu.Unlock()
	return h.Head.Revision - s.kept[h.Stream]
}

// snapshotHead is the first line of a snapshot's file. After it come the participants, and
// the SHA-256 of the whole file before it.
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

// save writes a snapshot of h. It does not change h.
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
	// When a crash cuts the file short, its checksum is wrong.
	if err := os.WriteFile(s.path(h.Stream), append(b, sum[:]...), 0o600); err != nil {
		return err
	}
	s.note(h)
	return nil
}

// load returns the snapshot of a stream, or nil when there is no usable one.
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

// shrink makes room for more bytes by removing the oldest files.
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

// snapshot saves the running distributions among states that have at least enough new events
// since their last snapshot.
func (v *Views) snapshot(states []*state, enough domain.Revision) {
	for _, s := range states {
		d := s.distribution()
		if d != nil && !d.ParticipantsDone() && d.KnowsParticipants() && v.snapshots.behind(s.history) >= enough {
			v.keep(s.history)
		}
	}
}

// snapshotAll saves snapshots at the end of the process.
func (v *Views) snapshotAll() {
	v.mu.RLock()
	states := make([]*state, 0, len(v.indexes.streams))
	for _, slot := range v.indexes.streams {
		states = append(states, slot.current)
	}
	v.mu.RUnlock()
	v.snapshot(states, snapshotLast)
}

// keep saves a snapshot. It only logs a failure: without the snapshot, the next start takes
// longer.
func (v *Views) keep(h *domain.History) {
	if err := v.snapshots.save(h); err != nil {
		v.log.Warn().Err(err).Str("stream", h.Stream).Msg("a snapshot was not written")
	}
}
