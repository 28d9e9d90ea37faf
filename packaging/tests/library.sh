# shellcheck shell=bash
# For the scripts beside it; sourced, not run.
set -euo pipefail
umask 022
export LC_ALL=C
export PATH=$PATH:/usr/sbin:/sbin
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# shellcheck disable=SC2034  # for those that source this
packaging=$repository/packaging

fail() {
    printf '%s: %s\n' "$0" "$*" >&2
    exit 1
}
passed() { printf '  ok  %s\n' "$*"; }
# skipped WHAT WHY: never silently.
skipped() { printf '  --  %s: skipped, %s\n' "$1" "$2"; }

# A folder of this run, and what is to be ended and removed after it.
dir=$(mktemp -d "${TMPDIR:-/tmp}/deploy-shell-packaging.XXXXXX")
chmod 755 "$dir"
running=()
clean() {
    local pid
    for pid in "${running[@]}"; do
        kill "$pid" 2> /dev/null || true
    done
    wait 2> /dev/null || true
    rm -rf "$dir"
}
trap clean EXIT
trap 'exit 1' HUP INT TERM

# eventually WHAT COMMAND...: waits until it succeeds.
eventually() {
    local what=$1 _
    shift
    for _ in {1..400}; do
        if "$@" > /dev/null 2>&1; then return 0; fi
        sleep 0.05
    done
    fail "waited in vain: $what"
}

# port: one that is free now.
port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# live ROOT ID: makes ID live, as a swap does.
live() {
    ln -sn "releases/$2" "$1/.next"
    mv -T "$1/.next" "$1/current"
}
