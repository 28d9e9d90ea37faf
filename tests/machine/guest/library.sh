# shellcheck shell=bash
# The scenarios source this file. They run as root, in a machine of their own.
set -euo pipefail
umask 022
# What a scenario keeps for the next ones, and over a restart.
# shellcheck disable=SC2034  # the scenarios use some of these
state=/var/lib/machine-test
scenario=${0##*/}
site=/srv/www/example.com
key=$state/key
config=/etc/deploy-shell/blog.toml

fail() {
    printf '%s\n' "$*" >&2
    exit 1
}

# eventually WHAT COMMAND...: waits until it succeeds.
eventually() {
    local what=$1 _
    shift
    for _ in {1..1200}; do
        if "$@" > /dev/null 2>&1; then return 0; fi
        sleep 0.1
    done
    fail "timed out: $what"
}

# node REQUEST...: makes a request through the sshd of this machine.
node() {
    ssh -F none -i "$key" -o IdentitiesOnly=yes -o BatchMode=yes \
        -o UserKnownHostsFile="$state/known_hosts" deploy@127.0.0.1 "$@"
}

# payload ID [FILE]...: makes a payload that names ID, with these files in it.
payload() {
    local id=$1
    shift
    rm -rf "$state/dist"
    mkdir "$state/dist"
    echo "release $id" > "$state/dist/index.html"
    [ $# = 0 ] || cp "$@" "$state/dist/"
    tar -C "$state/dist" -c . | zstd -q > "$state/payload"
}

# receive ID: sends the payload.
receive() {
    node receive "$1" --sha256 "$(sha256sum < "$state/payload" | cut -c1-64)" < "$state/payload"
}

# deploy ID [FILE]...: makes a release live.
deploy() {
    payload "$@"
    receive "$1"
    node swap "$1" < /dev/null
}

live() { readlink "$site/current"; }

# check: runs check, which must report no finding.
check() { deploy-shell-admin check --site blog > "$state/check" 2>&1 || fail "check: $(cat "$state/check")"; }

# configure: replaces the configuration by the defaults and the lines of standard input.
configure() {
    printf 'root = "%s"\n' "$site" > "$config"
    cat >> "$config"
}

# restart_machine COMMAND...: restarts by COMMAND, and waits for the end.
restart_machine() {
    touch "$state/$scenario.restarted" "$state/restarts"
    sync
    "$@"
    sleep 600
}
# restarted: whether this is the run after the restart.
restarted() { [ -e "$state/$scenario.restarted" ]; }
rm -f "$state/restarts"
