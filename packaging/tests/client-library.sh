# shellcheck shell=bash
# The tests of packaging/client/deploy source this. Each node is a site of its own. Its sshd
# runs as the ssh client's proxy command, so the tests open no port. A host of the ssh
# configuration is a node and a key.
# shellcheck source=packaging/tests/library.sh
source "$(dirname "${BASH_SOURCE[0]}")/library.sh"
program=$(realpath "$1")
client=$packaging/client/deploy
sshd=$(command -v sshd)
[ "$(id -u)" != 0 ] || mkdir -p /run/sshd
install -m 755 "$program" "$dir/deploy-shell"
# ssh runs the proxy command with $SHELL.
export SHELL=/bin/sh HOME=$dir/home XDG_CACHE_HOME=
mkdir "$dir/home" "$dir/bin"
unset SSH_AUTH_SOCK DEPLOY_SSH

perl -MSocket -e '
    socket(my $socket, PF_UNIX, SOCK_DGRAM, 0) or die "socket: $!";
    bind($socket, sockaddr_un($ARGV[0])) or die "bind: $!";
    $| = 1;
    print "$line\n" while defined recv($socket, $line, 65536, 0);
' "$dir/audit.socket" > "$dir/audit.log" &
running+=($!)
eventually "the collector listens" test -S "$dir/audit.socket"

ssh-keygen -q -t ed25519 -N '' -C host -f "$dir/host_key"
ssh-keygen -q -t ed25519 -N '' -C signer -f "$dir/signer"
echo "node $(cat "$dir/host_key.pub")" > "$dir/known_hosts"
cat > "$dir/ssh_config" << END
Host *
    User $(id -un)
    HostKeyAlias node
    UserKnownHostsFile $dir/known_hosts
    GlobalKnownHostsFile /dev/null
    StrictHostKeyChecking yes
    IdentityFile $dir/key-%n
    IdentitiesOnly yes
    IdentityAgent none
    LogLevel ERROR
    ProxyCommand sh -c 'trap "" HUP; $sshd -i -f $dir/node-%n/sshd_config -E $dir/sshd.log; :'
END

# node NAME [ALLOW]: makes a site and a key that may ALLOW. The host is called NAME.
# `extra` is TOML for its configuration.
extra=
node() {
    local at=$dir/node-$1 name
    mkdir -p "$at/root/"{releases,shared} "$at/root/.deploy-shell/"{manifests,incoming,trash}
    chmod 700 "$at/root/.deploy-shell" "$at/root/.deploy-shell/"*
    chmod 755 "$at/root" "$at/root/releases" "$at/root/shared"
    cat > "$at/blog.toml" << END
root = "$at/root"
[audit]
socket = "$dir/audit.socket"
[pending]
max_per_key = 100000
[limits]
attempts_per_hour = 100000
receives_per_hour = 100000
swaps_per_minute = 100000
$extra
END
    chmod 644 "$at/blog.toml"
    ssh-keygen -q -t ed25519 -N '' -C "$1" -f "$dir/key-$1"
    echo "restrict,command=\"$dir/deploy-shell serve --config $at/blog.toml --key ci --allow ${2:-receive,swap,rollback,list}\" $(cat "$dir/key-$1.pub")" \
        > "$at/authorized_keys"
    cat > "$at/sshd_config" << END
HostKey $dir/host_key
AuthorizedKeysFile $at/authorized_keys
AuthenticationMethods publickey
PermitRootLogin prohibit-password
StrictModes no
UsePAM no
ExposeAuthInfo yes
PrintMotd no
PrintLastLog no
PidFile none
LogLevel ERROR
END
}
current() { readlink "$dir/node-$1/root/current" | sed 's|releases/||'; }
manifest() { cat "$dir/node-$1/root/.deploy-shell/manifests/$2"; }

# run CODE ARGUMENT...: runs the client, with $shell and the tools in $tools, and expects
# this exit status. What it prints is in `out` and `err`.
shell=(dash) tools=$PATH
run() {
    local expected=$1 code=0
    shift
    PATH=$tools "${shell[@]}" "$client" -F "$dir/ssh_config" --pause 0 "$@" \
        > "$dir/out" 2> "$dir/err" < /dev/null || code=$?
    [ "$code" = "$expected" ] ||
        fail "'${shell[*]}' deploy $*: exit status $code, not $expected: $(cat "$dir/out" "$dir/err")"
}
# has FILE PATTERN: FILE is out or err.
has() { grep -qE -- "$2" "$dir/$1" || fail "no '$2' in: $(cat "$dir/out" "$dir/err")"; }

# Directories of tools, each in front of nothing else.
toolset() {
    local name=$1 tool
    shift
    mkdir "$dir/$name"
    for tool; do
        case $tool in
            *=*) ln -s "$(command -v "${tool#*=}")" "$dir/$name/${tool%%=*}" ;;
            *) ln -s "$(command -v "$tool")" "$dir/$name/$tool" ;;
        esac
    done
}
small=(awk cat cp cut date dd find grep head ls mkdir mktemp mv paste readlink rm sed sleep sort tail touch tr uniq wc xargs)
toolset gnu "${small[@]}" tar sha256sum getconf git ssh ssh-keygen zstd sh
# bsdtar, a sha256 in Perl as on macOS, and no git.
toolset bsd "${small[@]}" tar=bsdtar shasum perl ssh ssh-keygen zstd sh
toolset busybox "${small[@]/%/=busybox}" tar=busybox sha256sum=busybox ssh ssh-keygen zstd sh

# corpus DIRECTORY: names, modes and kinds that a tree list must have exactly.
corpus() {
    mkdir -p "$1"/{empty,"with space","-dash",'back\slash',déjà/vu,a,A}
    # shellcheck disable=SC2016,SC1003  # names, as they are
    (
        cd "$1"
        echo index > index.html
        : > nothing
        for name in ' lead' 'trail ' '-rf' '--help' 'a b' "it's" 'two  spaces' '"quoted"' '$(id)' '`id`' \
            '*' '?' '[x]' 'ti~lde' 'plus+' 'at@' 'com,ma' 'co:lon' 'semi;colon' 'amp&' 'pipe|' 'hash#' \
            'bang!' 'per%cent' '%s' '=' '{brace}' '(paren)' '<less>' '^' 'total' 'a total' 'back\slash/file' \
            'end\' '\n' 'a\\b' 'déjà/vu/ü.txt' '日本' 'a-b' 'a/b' 'a.b' 'a+b' 'a/b2' 'A/b' '-dash/-x' \
            'with space/x y'; do
            printf '%s\n' "$name" > "./$name"
        done
        chmod 755 index.html
        chmod 700 -- 'a b'
        # A file is executable if anybody may execute it.
        chmod 654 'it'"'"'s'
        chmod 600 '='
        ln -s index.html link
        ln -s '../with space/x y' 'a/link to x y'
        ln -s 'déjà/vu' 'li nk'
        ln -s empty dirlink
        ln index.html hard
        seq 1 70000 > numbers
        for name in $(seq 1 300); do echo "$name" > "with space/$name"; done
    )
}
shells=("$(command -v dash)" "$(command -v bash)" "$(command -v busybox) ash" "$(command -v zsh) --emulate sh" "$(command -v zsh)")
# each_shell FUNCTION: calls it with each shell and the tools that this machine prefers,
# and with one shell and each of the other tools.
each_shell() {
    local one
    for one in "${shells[@]}"; do
        read -ra shell <<< "$one"
        "$@"
    done
    for one in gnu bsd busybox; do
        shell=("$(command -v dash)") tools=$dir/$one
        "$@"
    done
    shell=("$(command -v busybox)" ash)
    "$@"
    shell=("$(command -v dash)") tools=$PATH
}

# What DEPLOY_SSH does. Each line of the file `faults` is one fault: for the first request
# to HOST that begins with VERB, it prints WORD as an error and exits with CODE, before or
# after the real request.
cat > "$dir/bin/faulty" << 'END'
#!/usr/bin/env bash
host=${*: -2:1} request=${!#}
exec 9>> "$FAULTS.lock"
flock 9
echo "$host $request" >> "$FAULTS.log"
while read -r at verb when code word; do
    [[ "$host $request" == "$at $verb"* ]] || continue
    awk -v line="$at $verb $when $code $word" '$0 == line && !done { done = 1; next } 1' "$FAULTS" > "$FAULTS.left"
    mv "$FAULTS.left" "$FAULTS"
    exec 9>&-
    [ "$when" = before ] || ssh "$@" > /dev/null 2>&1
    printf 'deploy-shell: %s: a fault of the test\n' "$word" >&2
    exit "$code"
done < "$FAULTS"
exec 9>&-
exec ssh "$@"
END
chmod +x "$dir/bin/faulty"
export FAULTS=$dir/faults
# faults LINE...: what goes wrong in the next run.
faults() {
    : > "$FAULTS"
    [ $# = 0 ] || printf '%s\n' "$@" > "$FAULTS"
    : > "$FAULTS.log"
    export DEPLOY_SSH=$dir/bin/faulty
}
no_faults() {
    [ ! -s "$FAULTS" ] || fail "these faults did not happen: $(cat "$FAULTS")"
    unset DEPLOY_SSH
}
# asked PATTERN: how many requests of the last run match it.
asked() { grep -cE -- "$1" "$FAULTS.log" || true; }
asked_times() {
    [ "$(asked "$2")" = "$1" ] || fail "not $1 requests '$2': $(cat "$FAULTS.log" "$dir/out" "$dir/err")"
}

# same NAME DIRECTORY: the live release of node NAME has exactly the files of DIRECTORY.
same() {
    diff -r --no-dereference "$2" "$dir/node-$1/root/current/" > "$dir/diff" || fail "$1: $(head "$dir/diff")"
    [ "$(cd "$2" && find . -type f -perm /111 | sort)" = "$(cd "$dir/node-$1/root/current/" && find . -type f -perm /111 | sort)" ] ||
        fail "$1: the executable files differ"
}

# The corpus of all tests, a copy to change, and two nodes.
corpus "$dir/corpus"
corpus "$dir/changing"
node one
node two
