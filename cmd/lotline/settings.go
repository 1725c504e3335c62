package main

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strings"

	"github.com/rs/zerolog"

	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/eventstore"
	"github.com/lotline/lotline/eventstore/embedded"
)

// settings are the flags of all commands.
type settings struct {
	DataDir          string `env:"LOTLINE_DATA_DIR" default:"./lotline-data" placeholder:"DIR" help:"Where the embedded store, the read models and the master key are (${default})."`
	EventStore       string `name:"eventstore" env:"LOTLINE_EVENTSTORE" placeholder:"esdb://…" help:"The EventStoreDB or KurrentDB server to use instead of the embedded store."`
	EmbeddedListen   string `env:"LOTLINE_EMBEDDED_LISTEN" placeholder:"HOST:PORT" help:"An address on which other programs reach the embedded store (none: its Unix socket only). Beyond loopback it needs the three below."`
	EmbeddedTLSCert  string `name:"embedded-tls-cert" env:"LOTLINE_EMBEDDED_TLS_CERT" placeholder:"FILE" help:"The embedded store's certificate, with those between it and its root (PEM)."`
	EmbeddedTLSKey   string `name:"embedded-tls-key" env:"LOTLINE_EMBEDDED_TLS_KEY" placeholder:"FILE" help:"The certificate's private key (PEM)."`
	EmbeddedPassword string `env:"LOTLINE_EMBEDDED_PASSWORD" placeholder:"PASSWORD" help:"The password of the user admin on that address."`
	MasterKey        string `env:"LOTLINE_MASTER_KEY" placeholder:"KEY" help:"32 bytes in hex or base64 under which secrets are sealed (made in the data directory when not given)."`
	ZoneInfo         string `name:"zoneinfo" env:"LOTLINE_ZONEINFO" placeholder:"PATH" help:"A zip archive or a folder of time zones to use instead of the program's own, such as /usr/share/zoneinfo."`
	LogFormat        string `env:"LOTLINE_LOG_FORMAT" enum:"auto,console,json" default:"auto" help:"console, json, or auto: console on a terminal, else json."`

	restored bool // serve --restored
}

// masterKey decodes the master key, or returns nil when none is given.
func (s *settings) masterKey() ([]byte, error) {
	if s.MasterKey == "" {
		return nil, nil
	}
	key, ok := decodeMasterKey(s.MasterKey)
	if !ok {
		return nil, badConfig("LOTLINE_MASTER_KEY must be %d bytes in hex or base64", eventstore.MasterKeySize)
	}
	return key, nil
}

func decodeMasterKey(text string) ([]byte, bool) {
	text = strings.TrimSpace(text)
	if key, err := hex.DecodeString(text); err == nil && len(key) == eventstore.MasterKeySize {
		return key, true
	}
	// Both alphabets of base64, with or without padding.
	text = strings.NewReplacer("+", "-", "/", "_").Replace(strings.TrimRight(text, "="))
	key, err := base64.RawURLEncoding.DecodeString(text)
	return key, err == nil && len(key) == eventstore.MasterKeySize
}

// minPasswordLength keeps the embedded store's password from being guessed by
// trying, which nothing else hinders.
const minPasswordLength = 8

// embeddedAccess is how clients get in on the address of the embedded store.
// Beyond loopback they must not do so without TLS and a password.
func (s *settings) embeddedAccess(log zerolog.Logger) (*embedded.Access, error) {
	host, _, err := net.SplitHostPort(s.EmbeddedListen)
	if err != nil {
		return nil, badConfig("LOTLINE_EMBEDDED_LISTEN: %w", err)
	}
	ip, err := netip.ParseAddr(host)
	loopback := host == "localhost" || err == nil && ip.IsLoopback()
	secured := s.EmbeddedTLSCert != "" && s.EmbeddedTLSKey != ""
	switch {
	case !loopback && (!secured || s.EmbeddedPassword == ""):
		return nil, badConfig("LOTLINE_EMBEDDED_LISTEN: %s is not a loopback address, so the embedded store needs LOTLINE_EMBEDDED_TLS_CERT, LOTLINE_EMBEDDED_TLS_KEY and LOTLINE_EMBEDDED_PASSWORD there", s.EmbeddedListen)
	case !secured && (s.EmbeddedTLSCert != "" || s.EmbeddedTLSKey != ""):
		return nil, badConfig("LOTLINE_EMBEDDED_TLS_CERT and LOTLINE_EMBEDDED_TLS_KEY need each other")
	case !secured && s.EmbeddedPassword != "":
		return nil, badConfig("LOTLINE_EMBEDDED_PASSWORD needs LOTLINE_EMBEDDED_TLS_CERT and LOTLINE_EMBEDDED_TLS_KEY: clients send no password without TLS")
	case s.EmbeddedPassword != "" && len(s.EmbeddedPassword) < minPasswordLength:
		return nil, badConfig("LOTLINE_EMBEDDED_PASSWORD must have at least %d characters", minPasswordLength)
	}
	access, err := embedded.NewAccess(s.EmbeddedTLSCert, s.EmbeddedTLSKey, s.EmbeddedPassword, log)
	if err != nil {
		return nil, badConfig("LOTLINE_EMBEDDED_TLS_CERT: %w", err)
	}
	return access, nil
}

// proxies is a range of addresses.
type proxies struct{ netip.Prefix }

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *proxies) UnmarshalText(text []byte) (err error) {
	if p.Prefix, err = netip.ParsePrefix(string(text)); err == nil {
		return nil
	}
	if one, err := netip.ParseAddr(string(text)); err == nil {
		return fmt.Errorf("%s is no network: write %s/%d", text, one, one.BitLen())
	}
	return fmt.Errorf("%s is no network: write one such as 10.0.0.0/8", text)
}

var keyPattern = regexp.MustCompile(`^(sk|pk)_(live|test)_[0-9A-Za-z_-]{16,128}$`)

// provisioned checks a key that is given in the environment.
func provisioned(variable, key string, level domain.KeyLevel) error {
	if key != "" && (!keyPattern.MatchString(key) || !strings.HasPrefix(key, level.Prefix())) {
		return badConfig("%s must look like %slive_… with at least 16 letters, digits, - or _ behind it", variable, level.Prefix())
	}
	return nil
}
