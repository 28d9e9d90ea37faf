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
    rm -f "$state/restarts"
    exit 1
}

# eventually WHAT COMMAND...: waits until it succeeds.
eventually() {
    local what=$1 _
    shift
    for _ in {1..2400}; do
        if "$@" > /dev/null 2>&1; then return 0; fi
        sleep 0.1
    done
    fail "timed out: $what"
}

# node REQUEST...: makes a request through the sshd of this machine.
node() {
    set_ssh_options
    ssh "${ssh_options[@]}" deploy@127.0.0.1 "$@"
}
# set_ssh_options: a scenario may choose another key.
set_ssh_options() {
    ssh_options=(-F none -i "$key" -o IdentitiesOnly=yes -o BatchMode=yes
        -o "UserKnownHostsFile=$state/known_hosts")
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

# programs: the processes of deploy-shell, each with its words.
programs() {
    local process
    for process in $(pgrep -u deploy); do
        case $(readlink "/proc/$process/exe") in
            /usr/bin/deploy-shell*) echo "$process $(tr '\0' ' ' < "/proc/$process/cmdline")" ;;
        esac
    done
}

live() { readlink "$site/current"; }

# refused STATUS REQUEST...: makes a request, which must end with this exit status.
refused() {
    local expected=$1 code=0
    shift
    node "$@" < /dev/null > "$state/said" 2>&1 || code=$?
    [ "$code" = "$expected" ] || fail "$*: exit status $code, not $expected: $(cat "$state/said")"
}

# check: runs check, which must report no finding.
check() { deploy-shell-admin check --site blog > "$state/check" 2>&1 || fail "check: $(cat "$state/check")"; }

# configure: replaces the configuration by the defaults and the lines of standard input. The
# limits for a key are high, because one key makes all requests of the scenarios.
configure() {
    printf 'root = "%s"\n' "$site" > "$config"
    cat >> "$config"
    cat >> "$config" << 'END'
[pending]
max = 100
max_per_key = 90
[limits]
receives_per_hour = 1000
attempts_per_hour = 1000
swaps_per_minute = 100
idle_timeout = "10m"
END
}

# expect_restart: the machine restarts from here on, and systemd then starts this scenario
# once more. Everything before this line is on the disk.
expect_restart() {
    touch "$state/$scenario.restarted" "$state/restarts"
    cat /proc/sys/kernel/random/boot_id > "$state/$scenario.boot"
    # A failure before the restart ends the scenario.
    trap 'rm -f "$state/restarts"' ERR
    sync
}
# restarted: whether this is the run after the restart.
restarted() { [ -e "$state/$scenario.restarted" ]; }

# verify_whole: every release is as its manifest says. The control: `verify` finds a byte that
# was added to a file of RELEASE, which it must be able to find.
verify_whole() {
    local file=$site/releases/$1/index.html
    deploy-shell-admin verify --site blog
    cp -a "$file" "$state/whole"
    echo damage >> "$file"
    if deploy-shell-admin verify --site blog > "$state/verified" 2>&1; then fail "verify does not find damage"; fi
    cp -a "$state/whole" "$file"
    deploy-shell-admin verify --site blog > "$state/verified" 2>&1 || fail "verify: $(cat "$state/verified")"
}
rm -f "$state/restarts"
