package domain

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"strings"
	"sync"
)

const (
	ticketHalf   = 20 // bits; a ticket has two halves
	ticketRounds = 10
	ticketInfo   = "lotline-ticket-v1"
	ticketMask   = 1<<ticketHalf - 1
	// ticketLength is how many characters a ticket has: 40 bits in base32.
	ticketLength = 8
)

// tickets turns the numbers of entries into tickets: a balanced Feistel network
// over 40 bits, with AES-128 as its round function and ten rounds, as NIST SP
// 800-38G has for small domains. The key is made by HKDF-SHA256 from the
// encryptionSeed and the queue's id. Without the seed a ticket tells nothing about the
// order or the length of the queue. With the seed it can be turned back into the number.
// Safe for concurrent use.
type tickets struct {
	once  sync.Once
	block cipher.Block
}

func (t *tickets) prepare(seed string, id ID) cipher.Block {
	t.once.Do(func() {
		key, err := hkdf.Key(sha256.New, []byte(seed), []byte(id), ticketInfo, 16)
		if err == nil {
			t.block, err = aes.NewCipher(key)
		}
		if err != nil {
			panic("a key of 16 bytes can always be made: " + err.Error())
		}
	})
	return t.block
}

func ticketRound(block cipher.Block, round int, half uint64) uint64 {
	var b [aes.BlockSize]byte
	b[0] = byte(round)
	binary.BigEndian.PutUint32(b[1:5], uint32(half))
	block.Encrypt(b[:], b[:])
	return uint64(binary.BigEndian.Uint32(b[:4])) & ticketMask
}

// appendTicket appends the ticket of an entry's number.
func appendTicket(dst []byte, block cipher.Block, number int64) []byte {
	left, right := uint64(number)>>ticketHalf&ticketMask, uint64(number)&ticketMask
	for round := range ticketRounds {
		left, right = right, left^ticketRound(block, round, right)
	}
	v := left<<ticketHalf | right
	for i := ticketLength - 1; i >= 0; i-- {
		dst = append(dst, base32Digits[v>>(5*i)&31])
	}
	return dst
}

// EntryOfTicket turns a ticket back into the number of its entry, from 1, by the queue's
// encryptionSeed. It reports false for a text that cannot be a ticket.
func EntryOfTicket(ticket, encryptionSeed string, queue ID) (number int64, ok bool) {
	if len(ticket) != ticketLength {
		return 0, false
	}
	var v uint64
	for i := range ticketLength {
		d := strings.IndexByte(base32Digits, ticket[i])
		if d < 0 {
			return 0, false
		}
		v = v<<5 | uint64(d)
	}
	block := new(tickets).prepare(encryptionSeed, queue)
	left, right := v>>ticketHalf, v&ticketMask
	for round := ticketRounds - 1; round >= 0; round-- {
		left, right = right^ticketRound(block, round, left), left
	}
	number = int64(left<<ticketHalf | right)
	return number, number > 0
}
