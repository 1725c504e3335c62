package domain_test

import (
	"crypto/aes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/domain/domaintest"
)

// ticketsOf are the tickets of the first n entries of a queue.
func ticketsOf(t *testing.T, n int) []string {
	t.Helper()
	h := domaintest.Fold(t, queue, list(queueOf(0, 0, 0), waiting(n)))
	var all []string
	for p := range h.Aggregate.(*domain.Queue).Participants() {
		all = append(all, p.(*domain.QueuePlace).Ticket)
	}
	return all
}

// TestTicket_theDocumentedExample checks the tickets in docs/integrity.md. It computes
// them from the description there alone.
func TestTicket_theDocumentedExample(t *testing.T) {
	t.Parallel()
	documented := []string{"975jfrjm", "1k2wg6t1", "17q1858h"}
	if got := ticketsOf(t, 3); !slices.Equal(got, documented) {
		t.Errorf("got %v, want %v", got, documented)
	}
	// HKDF-SHA256: extract, then the first 16 bytes of the one block of expand.
	mac := func(key, data string) string {
		h := hmac.New(sha256.New, []byte(key))
		h.Write([]byte(data))
		return string(h.Sum(nil))
	}
	key := mac(mac("queue_01h455vb4pex5vsknk084sn02q", "made"), "lotline-ticket-v1\x01")[:16]
	block, err := aes.NewCipher([]byte(key))
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range documented {
		number := uint64(i + 1)
		left, right := uint32(number>>20), uint32(number&0xfffff)
		for round := range byte(10) {
			in := append([]byte{round}, binary.BigEndian.AppendUint32(nil, right)...)
			out := make([]byte, 16)
			block.Encrypt(out, append(in, make([]byte, 11)...))
			left, right = right, left^binary.BigEndian.Uint32(out)&0xfffff
		}
		got := ""
		for shift := 35; shift >= 0; shift -= 5 {
			got += string("0123456789abcdefghjkmnpqrstvwxyz"[(uint64(left)<<20|uint64(right))>>shift&31])
		}
		if got != want {
			t.Errorf("entry %d has %s, want %s", number, got, want)
		}
	}
}

// TestTicket_tellsNothingAboutOrder: the first tickets are all different, can be
// turned back, rise as often as they fall, and use every digit in every place about
// equally.
func TestTicket_tellsNothingAboutOrder(t *testing.T) {
	t.Parallel()
	const n = 20_000
	all := ticketsOf(t, n)
	seen := map[string]bool{}
	var digits [8]map[byte]int
	for i := range digits {
		digits[i] = map[byte]int{}
	}
	rising := 0
	for i, ticket := range all {
		if number, ok := domain.EntryOfTicket(ticket, "made", idOf(queue)); !ok || number != int64(i+1) || seen[ticket] {
			t.Fatalf("entry %d has %s, which is of %d", i+1, ticket, number)
		}
		seen[ticket] = true
		if i > 0 && all[i-1] < ticket {
			rising++
		}
		for place := range digits {
			digits[place][ticket[place]]++
		}
	}
	// Six standard deviations; the tickets are the same in every run.
	if d := rising - n/2; d < -250 || d > 250 {
		t.Errorf("%d of %d rise", rising, n)
	}
	for place, counts := range digits {
		for _, c := range "0123456789abcdefghjkmnpqrstvwxyz" {
			if got := counts[byte(c)]; got < n/32-150 || got > n/32+150 {
				t.Errorf("%c is %d times in place %d, want about %d", c, got, place, n/32)
			}
		}
	}
}

func TestTicket_isTurnedBackByTheSeedOfItsQueueAlone(t *testing.T) {
	t.Parallel()
	ticket := ticketsOf(t, 1)[0]
	for name, number := range map[string]func() (int64, bool){
		"another seed":   func() (int64, bool) { return domain.EntryOfTicket(ticket, "other", idOf(queue)) },
		"another queue":  func() (int64, bool) { return domain.EntryOfTicket(ticket, "made", domain.ID("queue_"+uuid32[:25]+"r")) },
		"too short":      func() (int64, bool) { return domain.EntryOfTicket(ticket[1:], "made", idOf(queue)) },
		"too long":       func() (int64, bool) { return domain.EntryOfTicket(ticket+"0", "made", idOf(queue)) },
		"a letter of no": func() (int64, bool) { return domain.EntryOfTicket("l"+ticket[1:], "made", idOf(queue)) },
	} {
		// With another key, a ticket decodes to the number of some other, possible
		// entry.
		if got, ok := number(); ok && got <= 1_000_000 {
			t.Errorf("%s: entry %d, %t", name, got, ok)
		}
	}
	if _, ok := domain.EntryOfTicket(fmt.Sprintf("%08d", 0), "made", idOf(queue)); !ok {
		t.Error("a ticket of digits is none")
	}
}
