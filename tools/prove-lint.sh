#!/usr/bin/env bash
#
# Breaks each rule of .golangci.yml once, in a module made for it in a
# temporary directory, and fails unless the linter reports exactly that: every
# planted violation, and nothing else. A rule whose path pattern matches no file
# is silent, which from outside is the same as a rule that everybody keeps.
#
# A planted violation carries a comment on its line:
#
#     import "…/commands" // want depguard/domain
#
# The comment names the linters that must report the line, and the list of depguard.
# A line without such a comment is legal, and the linter must not report it.
set -euo pipefail
export GOWORK=off

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The directories above the module are named like layers: rules have to look at
# the path inside the repository, not at where somebody has put it.
module=$work/cmd/domain/checkout
mkdir -p "$module" "$work/stubs"
cp "$root/.golangci.yml" "$module/"

ours=github.com/lotline/lotline
client=github.com/EventStore/EventStore-Client-Go/v4/esdb
layers=(domain commands eventstore projections httpapi)

# may LAYER TARGET: reports whether layer LAYER may import layer TARGET.
may() {
	case "$1>$2" in
	cmd*) true ;;
	domain\>domain) true ;;
	commands\>commands | commands\>domain) true ;;
	eventstore\>eventstore | eventstore\>domain) true ;;
	projections\>projections | projections\>domain) true ;;
	httpapi\>httpapi | httpapi\>commands | httpapi\>projections | httpapi\>domain) true ;;
	*) false ;;
	esac
}

# file PATH: writes standard input to PATH in the module.
file() {
	mkdir -p "$module/$(dirname "$1")"
	cat >"$module/$1"
}

files=0

# import PATH PACKAGE WANTED IMPORTED NAME: writes the file PATH, which imports
# IMPORTED, whose package is called NAME. WANTED names the linters that must
# report it; empty for a legal import.
import() {
	local path=$1 package=$2 want=$3 imported=$4 name=$5 constant
	files=$((files + 1))
	constant=Name$files
	file "$path" <<-EOF
		package $package

		import "$imported"${want:+ // want $want}

		// $constant is here to make use of the import.
		const $constant = $name.Name
	EOF
}

# stub MODULE VERSION PACKAGE...: makes a stub of a third party's module, so that
# nothing has to be downloaded. A PACKAGE is a path below the module.
stub() {
	local path=$1 version=$2 package dir name
	shift 2
	mkdir -p "$work/stubs/$path"
	printf 'module %s\n\ngo 1.26.0\n' "$path" >"$work/stubs/$path/go.mod"
	printf 'require %s %s\n\nreplace %s => %s\n\n' "$path" "$version" "$path" "$work/stubs/$path" >>"$module/go.mod"
	for package in "$@"; do
		dir=$work/stubs/$path/$package
		mkdir -p "$dir"
		name=$(basename "$(cd "$dir" && pwd)")
		printf 'package %s\n\nconst Name = "%s"\n\nfunc Do() {}\n' "$name" "$name" >"$dir/stub.go"
	done
}

printf 'module %s\n\ngo 1.26.0\n\n' "$ours" >"$module/go.mod"
stub github.com/EventStore/EventStore-Client-Go/v4 v4.0.0 esdb
stub github.com/anishathalye/porcupine v1.0.0 .
stub github.com/asyncapi/spec-json-schemas/v6 v6.0.0 .
stub github.com/chromedp/chromedp v0.1.0 .
stub github.com/nats-io/nats-server/v2 v2.0.0 server
stub github.com/prometheus/client_golang v1.0.0 prometheus
stub github.com/rogpeppe/go-internal v1.0.0 testscript
stub github.com/rs/zerolog v1.0.0 . log
stub github.com/santhosh-tekuri/jsonschema/v6 v6.0.0 .
stub github.com/stretchr/testify v1.0.0 require
stub go.opentelemetry.io/otel v1.0.0 . trace
stub go.uber.org/goleak v1.0.0 .
stub pgregory.net/rapid v1.0.0 .

testonly=(
	github.com/anishathalye/porcupine
	github.com/asyncapi/spec-json-schemas/v6
	github.com/chromedp/chromedp
	github.com/nats-io/nats-server/v2/server
	github.com/rogpeppe/go-internal/testscript
	github.com/santhosh-tekuri/jsonschema/v6
	go.uber.org/goleak
	pgregory.net/rapid
)

telemetry=(
	github.com/prometheus/client_golang/prometheus
	go.opentelemetry.io/otel
	go.opentelemetry.io/otel/trace
)

# --- Layers -------------------------------------------------------------------
#
# Every layer has a package at its top, a leaf below it that imports nothing,
# and a deep one. Files at the top import leaves and deep files import tops, so
# that even forbidden imports make no cycle and everything compiles.

for layer in "${layers[@]}"; do
	file "$layer/doc.go" <<-EOF
		// Package $layer is a dummy.
		package $layer

		// Name is what others import.
		const Name = "$layer"
	EOF
	file "$layer/leaf/doc.go" <<-EOF
		// Package leaf is a dummy.
		package leaf

		// Name is what others import.
		const Name = "$layer"
	EOF
	printf '// Package deep is a dummy.\npackage deep\n' | file "$layer/deep/doc.go"
done
printf '// Command lotline is a dummy.\npackage main\n\nfunc main() {}\n' | file cmd/lotline/main.go
printf '// Package deep is a dummy.\npackage deep\n' | file cmd/deep/doc.go
printf '// Package examples is a dummy.\npackage examples\n' | file examples/doc.go
printf '// Package lotline is a dummy.\npackage lotline\n' | file doc.go

for layer in "${layers[@]}" cmd; do
	top=$layer package=$layer
	if [[ $layer == cmd ]]; then top=cmd/lotline package=main; fi

	# Imports of our layers, from the top of a layer and from below it, in tests and in code.
	for target in "${layers[@]}"; do
		want='' tests=''
		if ! may "$layer" "$target"; then
			want=depguard/$layer tests=$want
			if [[ $layer == domain ]]; then tests=depguard/domain-tests; fi
		fi
		import "$top/our_$target.go" "$package" "$want" "$ours/$target/leaf" leaf
		import "$layer/deep/our_$target.go" deep "$want" "$ours/$target" "$target"
		import "$top/our_${target}_test.go" "${package}_test" "$tests" "$ours/$target/leaf" leaf
		import "$layer/deep/our_${target}_test.go" deep_test "$tests" "$ours/$target" "$target"
	done

	# EventStoreDB's client is allowed in eventstore, and in the tests of cmd.
	want=depguard/eventstore-client tests=$want
	case $layer in
	domain) want="$want depguard/domain" tests="$tests depguard/domain-tests" ;;
	eventstore) want='' tests='' ;;
	cmd) tests='' ;;
	esac
	import "$top/client.go" "$package" "$want" "$client" esdb
	import "$layer/deep/client.go" deep "$want" "$client" esdb
	import "$top/client_test.go" "${package}_test" "$tests" "$client" esdb
	import "$layer/deep/client_test.go" deep_test "$tests" "$client" esdb

	# Testify is allowed nowhere.
	want=depguard/testify tests=$want
	if [[ $layer == domain ]]; then want="$want depguard/domain" tests="$tests depguard/domain-tests"; fi
	import "$top/testify.go" "$package" "$want" github.com/stretchr/testify/require require
	import "$top/testify_test.go" "${package}_test" "$tests" github.com/stretchr/testify/require require

	# Prometheus and OpenTelemetry are allowed in cmd.
	for library in "${telemetry[@]}"; do
		name=$(basename "$library")
		want=depguard/telemetry tests=$want
		case $layer in
		domain) want="$want depguard/domain" tests="$tests depguard/domain-tests" ;;
		cmd) want='' tests='' ;;
		esac
		import "$top/lib_$name.go" "$package" "$want" "$library" "$name"
		import "$layer/deep/lib_$name.go" deep "$want" "$library" "$name"
		import "$top/lib_${name}_test.go" "${package}_test" "$tests" "$library" "$name"
	done

	# Libraries for tests are allowed in tests.
	for library in "${testonly[@]}"; do
		name=$(basename "$library")
		want=depguard/tests-only tests=''
		if [[ $layer == domain ]]; then
			want="$want depguard/domain"
			case $name in porcupine | chromedp | server | v6) tests=depguard/domain-tests ;; esac
		fi
		base=lib_${library//[^a-z0-9]/_}
		import "$top/$base.go" "$package" "$want" "$library" "$name"
		import "$top/${base}_test.go" "${package}_test" "$tests" "$library" "$name"
	done
done

# The model of a queue imports no package of ours. Only tests and checks import the model.
printf '// Package queuemodel is a dummy.\npackage queuemodel\n\n// Name is what others import.\nconst Name = "model"\n' | file domain/queuemodel/doc.go
for package in bench claims crowd ledger linear; do
	printf '// Package %s is a dummy.\npackage %s\n\n// Name is what others import.\nconst Name = "%s"\n' $package $package $package | file "cmd/lotline/$package/doc.go"
done
model=$ours/domain/queuemodel
import domain/queuemodel/ours.go queuemodel depguard/queue-model "$ours/domain/leaf" leaf
import domain/queuemodel/ours_test.go queuemodel_test '' "$ours/domain/leaf" leaf
import domain/model.go domain depguard/queue-model-users "$model" queuemodel
import domain/model_test.go domain_test '' "$model" queuemodel
import commands/model.go commands depguard/queue-model-users "$model" queuemodel
import cmd/lotline/model.go main depguard/queue-model-users "$model" queuemodel
import cmd/lotline/model_test.go main_test '' "$model" queuemodel
for package in bench claims crowd; do
	import "cmd/lotline/$package/model.go" $package '' "$model" queuemodel
done

# The checks may import domain and claims. The ledger may import eventstore as well.
for package in bench crowd linear; do
	import "cmd/lotline/$package/claims.go" $package '' "$ours/cmd/lotline/claims" claims
done
for package in bench claims crowd linear; do
	import "cmd/lotline/$package/domain.go" $package '' "$ours/domain/leaf" leaf
	import "cmd/lotline/$package/store.go" $package depguard/checks "$ours/eventstore/leaf" leaf
	import "cmd/lotline/$package/api_test.go" ${package}_test depguard/checks "$ours/httpapi/leaf" leaf
done
import cmd/lotline/ledger/domain.go ledger '' "$ours/domain/leaf" leaf
import cmd/lotline/ledger/store.go ledger '' "$ours/eventstore/leaf" leaf
import cmd/lotline/ledger/commands.go ledger depguard/ledger "$ours/commands/leaf" leaf

# The checks that are for tests stay out of the program, and so do their libraries.
for package in crowd ledger linear; do
	import "cmd/lotline/uses_$package.go" main depguard/checks-in-tests "$ours/cmd/lotline/$package" $package
	import "cmd/lotline/uses_${package}_test.go" main_test '' "$ours/cmd/lotline/$package" $package
done
import cmd/lotline/linear/search.go linear '' github.com/anishathalye/porcupine porcupine
import cmd/lotline/crowd/search.go crowd depguard/tests-only github.com/anishathalye/porcupine porcupine
import cmd/lotline/ledger/client.go ledger '' "$client" esdb
import cmd/lotline/crowd/client.go crowd depguard/eventstore-client "$client" esdb

# Packages outside the layers may not import the layers.
import examples/ours.go examples depguard/elsewhere "$ours/domain" domain
import examples/ours_test.go examples_test depguard/elsewhere "$ours/domain/leaf" leaf
import ours.go lotline depguard/elsewhere "$ours/httpapi" httpapi

# The domain is pure, except for its tests, and imports no third party's module.
import domain/third.go domain depguard/domain github.com/rs/zerolog zerolog
file domain/impure.go <<'EOF'
package domain

import (
	"crypto/rand"     // want depguard/domain-pure
	"database/sql"    // want depguard/domain-pure
	"log/slog"        // want depguard/domain-pure
	mrand "math/rand" // want depguard/domain-pure
	"net"             // want depguard/domain-pure
	"net/http"        // want depguard/domain-pure
	"net/url"
	"os" // want depguard/domain-pure
	"strings"
	"syscall" // want depguard/domain-pure
)

// Impure lists what the domain must not use, and two things that it may.
var Impure = []any{
	rand.Reader, sql.ErrNoRows, slog.LevelInfo, mrand.Int, net.ErrClosed, http.MethodGet, os.ErrExist, syscall.EINVAL,
	strings.ToLower, url.QueryEscape,
}
EOF
file domain/impure_test.go <<'EOF'
package domain_test

import (
	"math/rand/v2"
	"os"
)

var impure = []any{rand.Int, os.ErrExist}

func init() { // want gochecknoinits
	_ = impure
}
EOF

# --- Clocks -------------------------------------------------------------------

# clock PATH PACKAGE WANTED: a file that reads the clock.
clock() {
	local want=${3:+ // want $3}
	file "$1" <<-EOF
		package $2

		import clock "time"

		// Clock reads the clock and takes it along.
		func Clock() (clock.Duration, clock.Duration, func() clock.Time) {
			now := clock.Now()$want
			since := clock.Since(now)$want
			until := clock.Until(now)$want
			return since, until, clock.Now$want
		}
	EOF
}

for layer in "${layers[@]}"; do
	clock "$layer/clock.go" "$layer" forbidigo
	clock "$layer/deep/clock.go" deep forbidigo
	clock "$layer/clock_test.go" "${layer}_test" ''
done
clock cmd/lotline/clock.go main ''
clock cmd/lotline/clock_test.go main_test ''
for package in commands/scheduler eventstore/embedded eventstore/storetest; do
	printf '// Package %s is a dummy.\npackage %s\n' "${package##*/}" "${package##*/}" | file "$package/doc.go"
	clock "$package/clock.go" "${package##*/}" ''
done

# sleep PATH PACKAGE WANTED: a file that sleeps.
sleep() {
	file "$1" <<-EOF
		package $2

		import "time"

		// Sleep sleeps.
		func Sleep() {
			time.Sleep(time.Second)${3:+ // want $3}
		}
	EOF
}

sleep projections/sleep.go projections ''
sleep projections/sleep_test.go projections_test forbidigo
sleep cmd/lotline/sleep_test.go main_test forbidigo
sleep eventstore/storetest/sleep.go storetest forbidigo
file commands/scheduler/bubble_test.go <<'EOF'
package scheduler_test

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestBubble(t *testing.T) {
	synctest.Test(t, func(*testing.T) {
		time.Sleep(time.Hour) //nolint:forbidigo // synctest
	})
}
EOF

# --- Output -------------------------------------------------------------------

for package in httpapi cmd/lotline; do
	name=${package##*/}
	if [[ $package == cmd/* ]]; then name=main; fi
	file "$package/output.go" <<-EOF
		package $name

		import (
			"fmt"
			"io"

			global "github.com/rs/zerolog/log"
		)

		// Output writes where it should and where it should not.
		func Output(w io.Writer) error {
			fmt.Print("a")    // want forbidigo
			fmt.Printf("b")   // want forbidigo
			fmt.Println("c")  // want forbidigo
			println("d")      // want forbidigo
			global.Do()       // want forbidigo
			_, err := fmt.Fprintln(w, "e")
			return err
		}
	EOF
done

# --- The linters whose settings are ours --------------------------------------

file commands/phase.go <<'EOF'
package commands

import (
	"errors"
	"os"
	"reflect"
)

// Phase is an enumeration of ours.
type Phase int

// The phases.
const (
	PhaseOpen Phase = iota
	PhaseClosed
)

// Open says whether p is open, and forgets a phase.
func (p Phase) Open() bool {
	switch p { // want exhaustive
	case PhaseOpen:
		return true
	default:
		return false
	}
}

// Closed says whether p is closed.
func (p Phase) Closed() bool {
	switch p {
	case PhaseOpen:
		return false
	case PhaseClosed:
		return true
	}
	return false
}

// Whole says whether k is a whole number: the kinds are not ours to complete.
func Whole(k reflect.Kind) bool {
	switch k {
	case reflect.Int, reflect.Int64:
		return true
	default:
		return false
	}
}

// Gone compares errors.
func Gone(err error) bool {
	if err == os.ErrNotExist { // want errorlint
		return true
	}
	return errors.Is(err, os.ErrClosed)
}

// Remove loses an error.
func Remove(name string) {
	os.Remove(name) // want errcheck
}

// Loop counts.
func Loop(n int) int {
	sum := 0
	for i := 0; i < n; i++ { // want intrange modernize
		sum += i
	}
	return sum
}

func Undocumented() {} // want revive

// Excused is excused without a reason, then with one, then for nothing.
func Excused(name string) {
	os.Remove(name)            //nolint:errcheck
	os.Remove(name)            //nolint:errcheck // it may be gone
	_ = os.Remove(name)        //nolint:errcheck // there is nothing here to excuse
	defer os.Remove(name + "") //nolint // a linter has to be named
}
EOF
# The linter would take a "want" on these lines for the reason.
excuses='nolint:errcheck$|nothing here to excuse|has to be named'

file httpapi/body.go <<'EOF'
package httpapi

import (
	"context"
	"net/http"
)

// Body is on the wire.
type Body struct {
	OpensAt       string `json:"opensAt,omitempty"`
	ClosesAt      string `json:"closes_at"` // want tagliatelle
	ID            string `json:"id"`
	OrgID         string `json:"organizationId"`
	CorrelationID string `json:"$correlationId"`
	CausationID   string `json:"$causationId"`
}

// Fetch leaves a body open and cannot be cancelled.
func Fetch(url string) (int, error) {
	resp, err := http.Get(url) // want bodyclose noctx
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, nil
}

// FetchWell does neither.
func FetchWell(ctx context.Context, url string) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	return resp.StatusCode, nil
}
EOF

printf 'package undocumented // want revive\n' | file projections/undocumented/undocumented.go

linter=$(cd "$root" && go tool -n -modfile=tools/go.mod golangci-lint)
cd "$module"

# The formatter repairs the files above, which are laid out for this script. The file below
# is wrong on purpose and must not be formatted.
"$linter" fmt

file projections/order.go <<'EOF'
package projections

import ( // want gci
	"strings" // want gofumpt
	"github.com/lotline/lotline/domain/leaf"
)

// Order has its imports in the wrong order.
var Order = strings.ToUpper(leaf.Name)
EOF

# --- The verdict --------------------------------------------------------------

go vet ./... 2>"$work/vet" || {
	# vet may have findings, because mistakes are planted. But all code must compile.
	if grep -q '^vet: ' "$work/vet"; then
		cat "$work/vet" >&2
		exit 1
	fi
}

{
	grep -rn --include='*.go' '// want ' . | sed -E 's|^\./||; s|^([^:]+:[0-9]+):.*// want (.*)$|\1 \2|' |
		while read -r place linters; do
			for l in $linters; do printf '%s %s\n' "$place" "$l"; done
		done
	grep -nE "$excuses" commands/phase.go | sed -E 's|^([0-9]+):.*|commands/phase.go:\1 nolintlint|'
} | LC_ALL=C sort -u >"$work/wanted"

status=0
"$linter" run --output.text.path="$work/report" --output.text.print-issued-lines=false --output.text.colors=false ./... >"$work/log" 2>&1 || status=$?
if [[ $status -ne 1 ]]; then
	cat "$work/log" >&2
	echo "prove-lint: golangci-lint ended with $status, and should have ended with 1, for having found something" >&2
	exit 1
fi
grep -E '^[^ ]+\.go:[0-9]+' "$work/report" |
	sed -E "s|^([^:]+:[0-9]+)(:[0-9]+)?: .*from list '([a-z-]+)'.*\(depguard\)\$|\1 depguard/\3|; s|^([^:]+:[0-9]+)(:[0-9]+)?: .*\(([a-z]+)\)\$|\1 \3|" |
	LC_ALL=C sort -u >"$work/reported"

LC_ALL=C comm -23 "$work/wanted" "$work/reported" >"$work/missed"
LC_ALL=C comm -13 "$work/wanted" "$work/reported" >"$work/surplus"

# This script must break every list of depguard at least once.
sed -nE '/^    depguard:/,/^    [a-z]+:$/{ s/^        ([a-z-]+):$/\1/p; }' "$root/.golangci.yml" | LC_ALL=C sort >"$work/lists"
sed -nE 's|.* depguard/(.*)|\1|p' "$work/wanted" | LC_ALL=C sort -u | LC_ALL=C comm -23 "$work/lists" - >"$work/unproved"

failed=0
if [[ -s $work/missed ]]; then
	failed=1
	echo "planted, but not reported:"
	sed 's/^/  /' "$work/missed"
fi
if [[ -s $work/surplus ]]; then
	failed=1
	echo "legal, but reported:"
	while read -r place l; do
		echo "  $place $l"
		grep -F "$place:" "$work/report" | sed 's/^/      /'
	done <"$work/surplus"
fi
if [[ -s $work/unproved ]]; then
	failed=1
	echo "lists of depguard that nothing here breaks:"
	sed 's/^/  /' "$work/unproved"
fi
if [[ $failed -ne 0 ]]; then
	exit 1
fi
echo "prove-lint: $(wc -l <"$work/wanted") planted violations reported, of $(wc -l <"$work/lists") lists of depguard and" \
	"$(sed -E 's|.* ||; s|/.*||' "$work/wanted" | sort -u | grep -vc depguard) other linters; the legal variants are silent"
