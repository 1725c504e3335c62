#!/usr/bin/env bash
#
# Tests the embedded store with the official clients for NodeJS, in the exact versions
# in tools/node-client-tests. One client is EventStoreDB's. The other is KurrentDB's,
# which reads with its own library in Rust. The clients' packages contain no tests, so
# the tests here are our own. They run against `lotline store`, once without TLS and
# once with TLS and a password, and also read what an engine writes to the store. If
# NodeJS, npm or openssl is missing, the script installs it from Debian's packages,
# which needs root.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)

missing=()
declare -A packages=([node]=nodejs [npm]=npm [openssl]=openssl)
for command in "${!packages[@]}"; do
	command -v "$command" >/dev/null || missing+=("${packages[$command]}")
done
if [[ ${#missing[@]} -gt 0 ]]; then
	apt-get update -qq
	apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null
fi

# A Unix socket's path must be short, so the directory is not below the working directory.
work=$(mktemp -d)
started=()
# stop ends the programs that start started, the last one first. It fails if one of them
# fails.
stop() {
	local status=0 i
	for ((i = ${#started[@]} - 1; i >= 0; i--)); do
		kill "${started[i]}" 2>/dev/null || true
		wait "${started[i]}" || status=$?
	done
	started=()
	return "$status"
}
trap 'stop || true; rm -rf "$work"' EXIT

# start NAME COMMAND VARIABLE=VALUE...: starts lotline with a data directory of its own
# and waits until it says that it is listening for TCP connections.
start() {
	local name=$1 command=$2 deadline=$((SECONDS + 30))
	shift 2
	: >"$work/$name.out"
	env "LOTLINE_DATA_DIR=$work/$name" "$@" "$work/lotline" "$command" >"$work/$name.out" 2>"$work/$name.err" &
	started+=("$!")
	until grep -q 'listening on [a-z]*://' "$work/$name.out"; do
		if ! kill -0 "${started[-1]}" 2>/dev/null || ((SECONDS > deadline)); then
			echo "lotline $command did not start" >&2
			cat "$work/$name".{out,err} >&2
			return 1
		fi
		sleep 0.05
	done
}

# printed NAME PATTERN: prints the first match of PATTERN in the output of program NAME.
printed() {
	grep -o "$2" "$work/$1.out" | head -n 1
}

(cd "$root" && go build -trimpath -o "$work/lotline" ./cmd/lotline)
npm ci --prefix "$root/tools/node-client-tests" --ignore-scripts --no-audit --no-fund --silent

# The server's certificate is signed by an authority of its own. KurrentDB's client does
# not accept one certificate in both roles.
ec=(-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes)
openssl req -x509 "${ec[@]}" -days 1 -subj /CN=authority -keyout "$work/ca-key.pem" -out "$work/ca.pem" 2>/dev/null
openssl req "${ec[@]}" -subj /CN=localhost -keyout "$work/key.pem" -out "$work/request.pem" 2>/dev/null
openssl x509 -req -in "$work/request.pem" -CA "$work/ca.pem" -CAkey "$work/ca-key.pem" -CAcreateserial -days 1 \
	-extfile <(echo 'subjectAltName=DNS:localhost,IP:127.0.0.1') -out "$work/cert.pem" 2>/dev/null

password='correct-horse-battery-staple'
start plain store LOTLINE_EMBEDDED_LISTEN=127.0.0.1:0
start secured store LOTLINE_EMBEDDED_LISTEN=localhost:0 "LOTLINE_EMBEDDED_TLS_CERT=$work/cert.pem" \
	"LOTLINE_EMBEDDED_TLS_KEY=$work/key.pem" "LOTLINE_EMBEDDED_PASSWORD=$password"
LOTLINE_TEST_PLAIN=$(printed plain 'esdb://[^ ]*')
user=admin:$(node -p 'encodeURIComponent(process.argv[1])' "$password")
LOTLINE_TEST_SECURED="esdb://$user@$(printed secured 'localhost:[0-9]*')?tls=true&tlsCAFile=$work/ca.pem"
start engine serve LOTLINE_LISTEN=127.0.0.1:0 "LOTLINE_EVENTSTORE=$LOTLINE_TEST_SECURED"
LOTLINE_TEST_ENGINE=$(printed engine 'http://[^ ]*')
LOTLINE_TEST_KEY=$(printed engine 'sk_live_[^ ]*')
export LOTLINE_TEST_PLAIN LOTLINE_TEST_SECURED LOTLINE_TEST_ENGINE LOTLINE_TEST_KEY

status=0
timeout --kill-after=5 120 node --test "$root"/tools/node-client-tests/*.test.mjs || status=$?
stop || status=$?
if [[ $status -ne 0 ]]; then
	tail -n 20 "$work"/*.err >&2
fi
exit "$status"
