package main

import (
	"encoding/hex"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Each bad setting ends the start with one line that explains it, and exit code 2.
func TestConfig_aBadOneIsOneLineAndExitCode2(t *testing.T) {
	t.Parallel()
	lotline := testBinary(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	// A defer would run before the parallel subtests.
	t.Cleanup(func() {
		if err := taken.Close(); err != nil {
			t.Error(err)
		}
	})
	running := dataDirectory(t)
	lotline.serve(t, running)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	// orphan makes a directory whose master key is missing. Each case needs its own, because
	// only one process at a time can use a directory.
	orphan := func() string {
		dir := dataDirectory(t)
		lotline.serve(t, dir).terminate()
		if err := os.Remove(filepath.Join(dir, masterKeyFile)); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	certFile, keyFile := writeCertificate(t)
	certificate := []string{"LOTLINE_EMBEDDED_TLS_CERT=" + certFile, "LOTLINE_EMBEDDED_TLS_KEY=" + keyFile}
	embedded := func(address string, env ...string) []string {
		return append([]string{"LOTLINE_EMBEDDED_LISTEN=" + address}, env...)
	}
	deep := filepath.Join(dataDirectory(t), strings.Repeat("x", 120))
	for name, c := range map[string]struct {
		env  []string
		args []string
		says string
	}{
		"no such time zones":        {env: []string{"LOTLINE_ZONEINFO=/nowhere"}, says: "LOTLINE_ZONEINFO: /nowhere is not a time-zone database"},
		"time zones in no archive":  {env: []string{"LOTLINE_ZONEINFO=" + file}, says: "is not a time-zone database: zip: not a valid zip file"},
		"folder without time zones": {env: []string{"LOTLINE_ZONEINFO=" + t.TempDir()}, says: "is not a time-zone database: it has no time zone UTC"},
		"unknown flag":              {args: []string{"--colour"}, says: "unknown flag --colour"},
		"bad master key":            {env: []string{"LOTLINE_MASTER_KEY=short"}, says: "LOTLINE_MASTER_KEY must be 32 bytes"},
		"bad secret key":            {env: []string{"LOTLINE_SECRET_KEY=hunter2"}, says: "LOTLINE_SECRET_KEY must look like sk_live_"},
		"a secret publishable key":  {env: []string{"LOTLINE_PUBLISHABLE_KEY=sk_live_0123456789abcdef"}, says: "LOTLINE_PUBLISHABLE_KEY must look like pk_live_"},
		"metrics port in use":       {env: []string{"LOTLINE_METRICS_LISTEN=" + taken.Addr().String()}, says: "LOTLINE_METRICS_LISTEN"},
		"bad collector":             {env: []string{"LOTLINE_OTLP_ENDPOINT=localhost:4318"}, says: "LOTLINE_OTLP_ENDPOINT must look like http://"},
		"bad bus":                   {env: []string{"LOTLINE_BUS=carrier-pigeon://loft"}, says: "LOTLINE_BUS"},
		"negative limit":            {env: []string{"LOTLINE_RATE_LIMIT_PUBLIC=-1"}, says: "LOTLINE_RATE_LIMIT_SECRET, LOTLINE_RATE_LIMIT_CONSUMER and LOTLINE_RATE_LIMIT_PUBLIC may not be negative"},
		"negative consumer limit":   {env: []string{"LOTLINE_RATE_LIMIT_CONSUMER=-1"}, says: "LOTLINE_RATE_LIMIT_CONSUMER"},
		"negative limit, no sign":   {args: []string{"--rate-limit-secret", "-1"}, says: `--rate-limit-secret: expected int value but got "-1"; perhaps try --rate-limit-secret="-1"?`},
		"limit without number":      {env: []string{"LOTLINE_RATE_LIMIT_SECRET=many"}, says: "rate-limit-secret"},
		"proxy without prefix":      {env: []string{"LOTLINE_TRUSTED_PROXIES=10.0.0.0/8,10.0.0.1"}, says: "--trusted-proxies: 10.0.0.1 is not a network: write 10.0.0.1/32"},
		"IPv6 without prefix":       {env: []string{"LOTLINE_TRUSTED_PROXIES=fd00::1"}, says: "--trusted-proxies: fd00::1 is not a network: write fd00::1/128"},
		"proxy is a name":           {env: []string{"LOTLINE_TRUSTED_PROXIES=proxy.example"}, says: "--trusted-proxies: proxy.example is not a network: write one such as 10.0.0.0/8"},
		"bus, unescaped password":   {env: []string{"LOTLINE_BUS=nats://lotline:horse/battery@localhost:4222"}, says: "LOTLINE_BUS"},
		"bad log format":            {env: []string{"LOTLINE_LOG_FORMAT=xml"}, says: "log-format"},
		"bad listen address":        {env: []string{"LOTLINE_LISTEN=nowhere:http:80"}, says: "LOTLINE_LISTEN"},
		"port in use":               {env: []string{"LOTLINE_LISTEN=" + taken.Addr().String()}, says: "address already in use"},
		"embedded store in public":  {env: []string{"LOTLINE_EMBEDDED_LISTEN=0.0.0.0:0"}, says: "is not a loopback address"},
		"in public, by IPv6":        {env: embedded("[::]:0", certificate...), says: "is not a loopback address"},
		"in public, by a name":      {env: embedded("store.example:0", "LOTLINE_EMBEDDED_PASSWORD="+storePassword), says: "is not a loopback address"},
		"in public, without host":   {env: embedded(":0", certificate...), says: "needs LOTLINE_EMBEDDED_TLS_CERT, LOTLINE_EMBEDDED_TLS_KEY and LOTLINE_EMBEDDED_PASSWORD"},
		"in public, password alone": {env: embedded("0.0.0.0:0", "LOTLINE_EMBEDDED_PASSWORD="+storePassword), says: "is not a loopback address"},
		"short store password":      {env: embedded("0.0.0.0:0", append(certificate, "LOTLINE_EMBEDDED_PASSWORD=horse")...), says: "LOTLINE_EMBEDDED_PASSWORD must have at least 8"},
		"store password, no TLS":    {env: embedded("127.0.0.1:0", "LOTLINE_EMBEDDED_PASSWORD="+storePassword), says: "clients send no password without TLS"},
		"certificate without key":   {env: embedded("127.0.0.1:0", certificate[0]), says: "need each other"},
		"certificate is none":       {env: embedded("127.0.0.1:0", "LOTLINE_EMBEDDED_TLS_CERT="+keyFile, certificate[1]), says: "LOTLINE_EMBEDDED_TLS_CERT: certificate"},
		"certificate is not there":  {env: embedded("127.0.0.1:0", "LOTLINE_EMBEDDED_TLS_CERT=/nowhere", certificate[1]), says: "no such file"},
		"embedded without port":     {env: embedded("127.0.0.1"), says: "LOTLINE_EMBEDDED_LISTEN: address 127.0.0.1: missing port"},
		"store, unescaped password": {env: []string{"LOTLINE_EVENTSTORE=esdb://admin:horse/battery@localhost:2113", "LOTLINE_MASTER_KEY=" + hex.EncodeToString(make([]byte, 32))}, says: "LOTLINE_EVENTSTORE"},
		"store, no such CA file":    {env: []string{"LOTLINE_EVENTSTORE=esdb://admin:horsebattery@localhost:2113?tlsCAFile=/nowhere.pem", "LOTLINE_MASTER_KEY=" + hex.EncodeToString(make([]byte, 32))}, says: "/nowhere.pem"},
		"embedded port in use":      {env: []string{"LOTLINE_EMBEDDED_LISTEN=" + taken.Addr().String()}, says: "LOTLINE_EMBEDDED_LISTEN"},
		"directory is a file":       {env: []string{"LOTLINE_DATA_DIR=" + file}, says: "data directory"},
		"directory below a file":    {env: []string{"LOTLINE_DATA_DIR=" + file + "/data"}, says: "data directory"},
		"directory in use":          {env: []string{"LOTLINE_DATA_DIR=" + running}, says: "another process is using it"},
		"path too long":             {env: []string{"LOTLINE_DATA_DIR=" + deep}, says: "use a shorter directory"},
		"master key gone":           {env: []string{"LOTLINE_DATA_DIR=" + orphan()}, says: "neither in LOTLINE_MASTER_KEY nor in"},
		"another master key":        {env: []string{"LOTLINE_DATA_DIR=" + orphan(), "LOTLINE_MASTER_KEY=" + hex.EncodeToString(make([]byte, 32))}, says: "sealed under another master key"},
		"no directory at all":       {env: []string{"LOTLINE_DATA_DIR="}, says: "LOTLINE_DATA_DIR is empty"},
		"remote store, bad address": {env: []string{"LOTLINE_EVENTSTORE=postgres://localhost", "LOTLINE_MASTER_KEY=" + hex.EncodeToString(make([]byte, 32))}, says: "LOTLINE_EVENTSTORE"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			env := append([]string{"LOTLINE_DATA_DIR=" + dataDirectory(t), "LOTLINE_LISTEN=127.0.0.1:0"}, c.env...)
			stdout, stderr, code := lotline.run(t, env, append([]string{"serve"}, c.args...)...)
			if strings.Contains(stderr, "horse") {
				t.Errorf("it shows a password: %s", stderr)
			}
			if code != exitConfig || stdout != "" || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, c.says) {
				t.Errorf("exit %d, stdout %q, stderr %q", code, stdout, stderr)
			}
		})
	}
}

func TestVersion_isPrinted(t *testing.T) {
	t.Parallel()
	stdout, _, code := testBinary(t).run(t, nil, "version")
	if code != 0 || !strings.HasPrefix(stdout, "lotline ") {
		t.Errorf("exit %d, %q", code, stdout)
	}
}

func TestHelp_namesEveryVariable(t *testing.T) {
	t.Parallel()
	stdout, _, code := testBinary(t).run(t, nil, "serve", "--help")
	if code != 0 {
		t.Errorf("exit %d", code)
	}
	for _, v := range []string{
		"LOTLINE_LISTEN", "LOTLINE_DATA_DIR", "LOTLINE_EVENTSTORE", "LOTLINE_EMBEDDED_LISTEN", "LOTLINE_BUS",
		"LOTLINE_EMBEDDED_TLS_CERT", "LOTLINE_EMBEDDED_TLS_KEY", "LOTLINE_EMBEDDED_PASSWORD",
		"LOTLINE_MASTER_KEY", "LOTLINE_SECRET_KEY", "LOTLINE_PUBLISHABLE_KEY", "LOTLINE_ZONEINFO", "LOTLINE_LOG_FORMAT",
		"LOTLINE_METRICS_LISTEN", "LOTLINE_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT",
	} {
		if !strings.Contains(stdout, v) {
			t.Errorf("%s is not in the help", v)
		}
	}
}
