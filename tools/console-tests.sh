#!/usr/bin/env bash
#
# Tests the console in headless Chromium against a running engine. If Chromium is
# missing, the script installs it from Debian's packages, which needs root. axe-core,
# which checks accessibility, is installed from npm.
#
# LOTLINE_TEST_SCREENSHOTS=DIR keeps a picture of each page in each width and
# colour scheme. `go test -tags external ./cmd/lotline -run Picture -update-picture`
# makes the picture in the README anew.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if ! command -v chromium >/dev/null; then
	apt-get update -qq
	apt-get install -qq -y --no-install-recommends chromium >/dev/null
fi
npm ci --prefix tools/console-tests --no-audit --no-fund --silent
go test -tags external -run '^TestConsole_' -count=1 -timeout=10m ./cmd/lotline
