#!/usr/bin/env bash
#
# Brings domain/zoneinfo.zip up to the newest edition of the IANA's time zones that
# this machine's release of Debian has. Nothing is installed, and no root is needed:
# package lists and packages go to a temporary directory.
#
# `zones.sh check` changes nothing, and warns if Debian has a newer edition. It always
# succeeds, because Debian's edition can change without a change of this repository.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/root"

apt_options=(
	-o "Dir::State::lists=$work/lists"
	-o "Dir::State::status=/dev/null" # ignore the packages that are installed on this machine
	-o "Dir::Cache=$work/cache"
	-o "APT::Sandbox::User=$(id -un)"
	-o "Acquire::Retries=2"
	-o "Acquire::http::Timeout=20"
	-o "Acquire::https::Timeout=20"
	-qq
)

# candidate PACKAGE: prints the version that would be installed, or nothing.
candidate() {
	apt-cache "${apt_options[@]}" policy "$1" | sed -n 's/^ *Candidate: \([0-9].*\)/\1/p'
}

# find_edition: finds the edition that Debian has.
find_edition() {
	apt-get "${apt_options[@]}" update >"$work/update.log" 2>&1 && edition=$(candidate tzdata) && edition=${edition%%[-+~]*} && [ -n "$edition" ]
}

check() {
	local ours
	ours=$(env -u LOTLINE_ZONEINFO go run ./cmd/lotline version | sed -n 's/^time zones //p')
	if ! find_edition; then
		echo "WARNING: Debian's packages cannot be asked whether time zones $ours are the newest"
	elif [[ "$edition" > "$ours" ]]; then
		echo "WARNING: the time zones are those of $ours, and Debian has $edition: run make zones"
	else
		echo "the time zones are those of $ours; Debian has $edition"
	fi
}

build() {
	if ! find_edition; then
		cat "$work/update.log" >&2
		echo "zones: Debian's packages cannot be asked" >&2
		exit 1
	fi
	local packages=(tzdata)
	# Newer releases have the old names in a package of their own.
	if [ -n "$(candidate tzdata-legacy)" ]; then
		packages+=(tzdata-legacy)
	fi
	(cd "$work" && apt-get "${apt_options[@]}" download "${packages[@]}")
	for package in "$work"/*.deb; do
		dpkg-deb -x "$package" "$work/root"
	done
	go -C tools run ./zones "$work/root/usr/share/zoneinfo" "$PWD/domain/zoneinfo.zip"
	echo "domain/zoneinfo.zip has time zones $edition"
}

case "${1:-build}" in
build) build ;;
check) check ;;
*)
	echo "usage: tools/zones.sh [build|check]" >&2
	exit 2
	;;
esac
