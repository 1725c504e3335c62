#!/usr/bin/env bash
#
# Checks the documents of the API with common tools. Lints httpapi/openapi.yaml and
# httpapi/asyncapi.yaml with Redocly and Spectral, by the rules in redocly.yaml and
# .spectral.yaml. Generates a Go client with oapi-codegen and a TypeScript client with
# openapi-typescript, compiles both, and calls a running engine with each. The exact
# versions are in tools/openapi-clients. If NodeJS or npm is missing, the script
# installs it from Debian's packages, which needs root.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
clients=$root/tools/openapi-clients
document=$root/httpapi/openapi.yaml
# By default Redocly sends usage data to its makers, and looks for newer versions.
export GOWORK=off REDOCLY_TELEMETRY=off REDOCLY_SUPPRESS_UPDATE_NOTICE=true

missing=()
declare -A packages=([node]=nodejs [npm]=npm)
for command in "${!packages[@]}"; do
	command -v "$command" >/dev/null || missing+=("${packages[$command]}")
done
if [[ ${#missing[@]} -gt 0 ]]; then
	apt-get update -qq
	apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null
fi

# A Unix socket's path must be short, so the directory is not below the working directory.
work=$(mktemp -d)
engine=
# stop ends the engine. It fails if the engine fails.
stop() {
	[[ -n $engine ]] || return 0
	local status=0
	kill "$engine" 2>/dev/null || true
	wait "$engine" || status=$?
	engine=
	return "$status"
}
trap 'stop || true; rm -rf "$work"' EXIT

npm ci --prefix "$clients/typescript" --ignore-scripts --no-audit --no-fund --silent
bin=$clients/typescript/node_modules/.bin

cd "$root"
"$bin/redocly" lint --config redocly.yaml httpapi/openapi.yaml httpapi/asyncapi.yaml
"$bin/spectral" lint --ruleset .spectral.yaml --fail-severity=warn --display-only-failures httpapi/openapi.yaml httpapi/asyncapi.yaml

# The generated files are large, and stay out of the repository.
cp -R "$clients/go" "$work/go"
(
	cd "$work/go"
	go mod tidy -diff
	go tool oapi-codegen -config oapi-codegen.yaml -o client/client.gen.go "$document"
	go vet ./...
	go build -trimpath -o "$work/go-client" .
)
mkdir "$work/typescript"
cp "$clients/typescript"/{main.ts,package.json,tsconfig.json} "$work/typescript/"
ln -s "$clients/typescript/node_modules" "$work/typescript/node_modules"
(
	cd "$work/typescript"
	"$bin/openapi-typescript" "$document" -o schema.d.ts
	"$bin/tsc" --project .
)

go build -trimpath -o "$work/lotline" ./cmd/lotline
: >"$work/engine.out"
LOTLINE_DATA_DIR="$work/data" LOTLINE_LISTEN=127.0.0.1:0 "$work/lotline" serve >"$work/engine.out" 2>"$work/engine.err" &
engine=$!
deadline=$((SECONDS + 30))
until grep -q 'listening on http://' "$work/engine.out" && grep -q 'sk_live_' "$work/engine.out"; do
	if ! kill -0 "$engine" 2>/dev/null || ((SECONDS > deadline)); then
		echo "lotline serve did not start" >&2
		cat "$work/engine.out" "$work/engine.err" >&2
		exit 1
	fi
	sleep 0.05
done
LOTLINE_TEST_ENGINE=$(grep -o 'http://[^ ]*' "$work/engine.out" | head -n 1)
LOTLINE_TEST_KEY=$(grep -o 'sk_live_[^ ]*' "$work/engine.out" | head -n 1)
export LOTLINE_TEST_ENGINE LOTLINE_TEST_KEY

# The second client runs even if the first one fails.
status=0
"$work/go-client" || status=$?
timeout --kill-after=5 60 node "$work/typescript/out/main.js" || status=$?
stop || status=$?
if [[ $status -ne 0 ]]; then
	tail -n 20 "$work/engine.err" >&2
fi
exit "$status"
