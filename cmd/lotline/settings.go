package main

import (
	"fmt"
	"net/netip"
)

// settings are the flags of all commands.
type settings struct {
	DataDir          string `env:"LOTLINE_DATA_DIR" default:"./lotline-data" placeholder:"DIR" help:"The directory of the embedded store, the read models and the master key (${default})."`
	EventStore       string `name:"eventstore" env:"LOTLINE_EVENTSTORE" placeholder:"esdb://…" help:"The EventStoreDB or KurrentDB server to use instead of the embedded store."`
	EmbeddedListen   string `env:"LOTLINE_EMBEDDED_LISTEN" placeholder:"HOST:PORT" help:"An address on which other programs reach the embedded store (none: its Unix socket only). An address that is not loopback needs the next three flags."`
	EmbeddedTLSCert  string `name:"embedded-tls-cert" env:"LOTLINE_EMBEDDED_TLS_CERT" placeholder:"FILE" help:"The embedded store's certificate, followed by the intermediate certificates (PEM)."`
	EmbeddedTLSKey   string `name:"embedded-tls-key" env:"LOTLINE_EMBEDDED_TLS_KEY" placeholder:"FILE" help:"The certificate's private key (PEM)."`
	EmbeddedPassword string `env:"LOTLINE_EMBEDDED_PASSWORD" placeholder:"PASSWORD" help:"The password of the user admin of the embedded store on that address."`
	MasterKey        string `env:"LOTLINE_MASTER_KEY" placeholder:"KEY" help:"The key that encrypts secrets in the log: 32 bytes in hex or base64 (none: the first start makes one in the data directory)."`
	ZoneInfo         string `name:"zoneinfo" env:"LOTLINE_ZONEINFO" placeholder:"PATH" help:"A zip archive or a folder of time zones to use instead of the built-in ones, such as /usr/share/zoneinfo."`
	LogFormat        string `env:"LOTLINE_LOG_FORMAT" enum:"auto,console,json" default:"auto" help:"The format of log lines: console, json, or auto (console on a terminal, else json)."`

	restored bool // serve --restored
}

// proxies is a network whose X-Forwarded-For headers are believed.
type proxies struct{ netip.Prefix }

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *proxies) UnmarshalText(text []byte) (err error) {
	if p.Prefix, err = netip.ParsePrefix(string(text)); err == nil {
		return nil
	}
	if one, err := netip.ParseAddr(string(text)); err == nil {
		return fmt.Errorf("%s is not a network: write %s/%d", text, one, one.BitLen())
	}
	return fmt.Errorf("%s is not a network: write one such as 10.0.0.0/8", text)
}
