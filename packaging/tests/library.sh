# shellcheck shell=bash
# The scripts beside this file source it.
set -euo pipefail
umask 022
export LC_ALL=C
export PATH=$PATH:/usr/sbin:/sbin
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# shellcheck disable=SC2034  # the scripts that source this use it
packaging=$repository/packaging

fail() {
    printf '%s: %s\n' "$0" "$*" >&2
    exit 1
}
passed() { printf '  ok  %s\n' "$*"; }
# skipped WHAT WHY: says that a part was skipped.
skipped() { printf '  --  %s: skipped, %s\n' "$1" "$2"; }

# The directory of this run, and the processes to end after it.
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
    for _ in {1..1200}; do
        if "$@" > /dev/null 2>&1; then return 0; fi
        sleep 0.05
    done
    fail "timed out: $what"
}

# port: prints a port that is free now.
port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# live ROOT ID: makes ID live, as a swap does.
live() {
    ln -sn "releases/$2" "$1/.next"
    mv -T "$1/.next" "$1/current"
}

# in_a_copy SCRIPT FILE...: runs SCRIPT with the word "inside" in a temporary copy of this
# machine (an overlay in its own namespaces), with the files in /tmp/test. Returns 99 if
# no overlay can be mounted.
in_a_copy() {
    local script=$1
    shift
    local files=("$@")
    mkdir "$dir/layers" "$dir/machine"
    cat > "$dir/enter" << END
set -e
mount -t tmpfs layers $dir/layers
mkdir $dir/layers/upper $dir/layers/work
mount -t overlay overlay -o lowerdir=/,upperdir=$dir/layers/upper,workdir=$dir/layers/work $dir/machine || exit 99
mount -t proc proc $dir/machine/proc
# A separate /dev, because the test listens on /dev/log there.
mount -t tmpfs -o mode=0755 dev $dir/machine/dev
mkdir $dir/machine/dev/pts $dir/machine/dev/shm
ln -s pts/ptmx $dir/machine/dev/ptmx
for node in null zero full random urandom tty; do
    touch $dir/machine/dev/\$node
    mount --bind /dev/\$node $dir/machine/dev/\$node
done
mount --rbind /dev/pts $dir/machine/dev/pts
ln -s /proc/self/fd $dir/machine/dev/fd
mount -t tmpfs run $dir/machine/run
mount -t tmpfs tmp $dir/machine/tmp
mkdir $dir/machine/tmp/test $dir/machine/tmp/test/tests
cp ${files[*]} $dir/machine/tmp/test/
cp $script $packaging/tests/library.sh $dir/machine/tmp/test/tests/
exec chroot $dir/machine /bin/bash /tmp/test/tests/${script##*/} inside
END
    unshare --mount --pid --fork --propagation private bash "$dir/enter"
}

# bare_machine: makes the copy a machine that never had this package, with an sshd as
# Debian configures it.
bare_machine() {
    mkdir -p /run/sshd
    # The maintainer scripts must not touch the services outside of the copy.
    printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
    chmod 755 /usr/sbin/policy-rc.d
    # This machine may have an account or a package of that name.
    dpkg --purge deploy-shell > /dev/null 2>&1 || true
    userdel deploy 2> /dev/null || true
    groupdel deploy 2> /dev/null || true
    rm -rf /etc/deploy-shell /var/lib/deploy-shell
    # The configuration of sshd on a new Debian system.
    rm -f /etc/ssh/sshd_config.d/*
    cat > /etc/ssh/sshd_config << END
Include /etc/ssh/sshd_config.d/*.conf
UsePAM yes
Subsystem sftp internal-sftp
END
    ssh-keygen -A > /dev/null
}
