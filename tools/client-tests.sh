#!/usr/bin/env bash
#
# Runs the unmodified tests of the official client against `lotline store`. The
# client has the version in go.mod. The script copies the tests from the module
# cache into a module in a temporary directory, and adds two files from
# tools/client-tests. containers_test.go replaces the file of that name, and starts
# stores instead of Docker containers. dataset_test.go makes the database that the
# tests read from.
#
# EVENTSTORE_INSECURE=false runs the tests over TLS with a password. The tests about
# TLS and passwords run only then.
set -euo pipefail
export GOWORK=off

# These tests are left out, because the embedded store does not have the feature:
#   TestProjections  projections, which a real server computes in JavaScript
#   TestPlugins      certificates of users, a licensed plug-in of a real server
# The client itself leaves out the tests of a cluster unless CLUSTER is set. Without TLS
# it also leaves out the tests of TLS and of refused passwords, and reports two of these
# as skipped.
left_out='^(TestProjections|TestPlugins)$'
unset CLUSTER

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
(cd "$root" && go mod download github.com/EventStore/EventStore-Client-Go/v4)
client=$(cd "$root" && go list -m -f '{{.Dir}}' github.com/EventStore/EventStore-Client-Go/v4)
version=$(cd "$root" && go list -m -f '{{.Version}}' github.com/EventStore/EventStore-Client-Go/v4)
work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT

mkdir -p "$work/esdb" "$work/resources"
cp "$client"/esdb/*_test.go "$work/esdb/"
cp -R "$client/resources/test" "$work/resources/"
chmod -R u+w "$work"
(cd "$work/esdb" && sha256sum -- *_test.go) >"$work/originals"
cp "$root"/tools/client-tests/*_test.go "$work/esdb/"
cp "$root"/tools/client-tests/go.{mod,sum} "$work/"

echo "client $version; unmodified:"
(cd "$work/esdb" && sha256sum --check "$work/originals" 2>/dev/null || true) | sed -n 's/^\(.*\): OK$/  \1/p'
echo "ours:"
(cd "$root/tools/client-tests" && printf '  %s\n' *_test.go)

(cd "$root" && go build -trimpath -o "$work/lotline" ./cmd/lotline)
cd "$work"
go mod edit -require "github.com/EventStore/EventStore-Client-Go/v4@$version" -replace "github.com/lotline/lotline=$root"
status=0
LOTLINE=$work/lotline go test -mod=mod -count=1 -timeout 170s -v -skip "$left_out" ./esdb >"$work/output" 2>&1 || status=$?

# Of a test with subtests, only the subtests are counted.
awk -v left_out="$left_out" '
	match($0, /^ *--- (PASS|FAIL|SKIP): /) {
		verdict = substr($0, RSTART + RLENGTH - 6, 4); name = $3; verdicts[name] = verdict
		while (sub(/\/[^\/]*$/, "", name)) group[name] = 1
	}
	END {
		for (name in verdicts) if (!(name in group)) { count[verdicts[name]]++; if (verdicts[name] != "PASS") print verdicts[name] ": " name | "sort" }
		close("sort")
		printf "%d passed, %d failed, %d skipped; left out: %s\n", count["PASS"], count["FAIL"], count["SKIP"], left_out
		exit count["PASS"] == 0
	}' "$work/output" || status=1
if [[ $status -ne 0 ]]; then
	cat "$work/output" >&2
	exit 1
fi
