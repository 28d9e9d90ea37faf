"""The parts of benches/run that measure nothing themselves: a site, a private sshd, and
commands that are timed."""

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path


def fail(why):
    sys.exit(f"benches/run: {why}")


class Site:
    """A separate site, with limits that no measurement reaches."""

    def __init__(self, directory, root, program):
        self.directory, self.root, self.program, self.taken = directory, root, program, 0
        directory.mkdir(parents=True)
        self.config = directory / "site.toml"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(directory / "audit"))
        threading.Thread(target=self.collect, daemon=True).start()
        self.config.write_text(
            f'root = "{root}"\n'
            '[archive]\nmax_compressed = "8GiB"\nmax_unpacked = "8GiB"\n'
            "max_entries = 1000000\n"
            "[pending]\nmax = 100000\nmax_per_key = 100000\n"
            "[limits]\nreceives_per_hour = 1000000\nattempts_per_hour = 1000000\n"
            "swaps_per_minute = 1000000\nuploads = 1000\nuploads_per_key = 1000\n"
            f'[audit]\nsocket = "{directory}/audit"\n'
        )
        self.clear()

    def collect(self):
        while self.socket.recv(65536):
            pass

    def clear(self):
        shutil.rmtree(self.root, ignore_errors=True)
        for name in ["releases", "shared", ".deploy-shell/manifests", ".deploy-shell/incoming",
                     ".deploy-shell/trash"]:
            (self.root / name).mkdir(parents=True, mode=0o755)
        (self.root / ".deploy-shell").chmod(0o700)

    def command(self):
        return [str(self.program), "serve", "--config", str(self.config)]

    def request(self, request, stdin=subprocess.DEVNULL):
        return Run(self.command(), stdin=stdin, env={"SSH_ORIGINAL_COMMAND": request})

    def quick(self, request):
        return Quick(self.command(), {"SSH_ORIGINAL_COMMAND": request})

    def receive(self, corpus, release=None):
        self.taken += 1
        release = release or f"taken-{self.taken}"
        with open(corpus / "archive.tar.zst", "rb") as archive:
            return self.request(f"receive {release} --sha256 {digest(corpus)}", archive)


class Run:
    """A finished command: its time, its processor time and its output."""

    def __init__(self, command, watch=False, **options):
        cpu = children_cpu()
        started = time.perf_counter()
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                 **options)
        self.peak = peak_of(child) if watch else None
        self.out, problem = child.communicate()
        self.seconds = time.perf_counter() - started
        self.cpu = children_cpu() - cpu
        if child.returncode != 0:
            fail(f"{command}: status {child.returncode}: {problem.decode(errors='replace')}")


class Quick:
    """A short command, started and waited for with as little overhead as possible."""

    nothing = os.open("/dev/null", os.O_RDWR)

    def __init__(self, command, env=None, then=lambda: None):
        command = [str(word) for word in command]
        env = {} if env is None else env
        redirect = [(os.POSIX_SPAWN_DUP2, self.nothing, 0), (os.POSIX_SPAWN_DUP2, self.nothing, 1)]
        started = time.perf_counter()
        pid = os.posix_spawn(command[0], command, env, file_actions=redirect)
        _, status, used = os.wait4(pid, 0)
        then()
        self.seconds = time.perf_counter() - started
        self.cpu = used.ru_utime + used.ru_stime
        if status != 0:
            fail(f"{command}: status {os.waitstatus_to_exitcode(status)}")


def children_cpu():
    used = os.times()
    return used.children_user + used.children_system


def peak_of(child):
    """Returns the peak resident memory of a process and its descendants, in bytes.

    This is the sum of each process's peak (VmHWM, proc(5)). The peaks need not coincide,
    so the sum may be too high, but never too low.
    """
    peaks = {}
    while child.poll() is None:
        todo = [child.pid]
        while todo:
            pid = todo.pop()
            try:
                status = Path(f"/proc/{pid}/status").read_text()
                for task in os.listdir(f"/proc/{pid}/task"):
                    todo += map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split())
            except OSError:
                continue
            for line in status.splitlines():
                if line.startswith("VmHWM:"):
                    peaks[pid] = int(line.split()[1]) * 1024
        time.sleep(0.002)
    return sum(peaks.values())


def file_system(path):
    return output(["stat", "--file-system", "--format=%T", path])


def output(command):
    """Returns the output of a command, or nothing if it fails."""
    run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return run.stdout.strip() if run.returncode == 0 else ""


def digest(corpus):
    return (corpus / "SHA256SUMS").read_text()[:64]


def describe(corpus):
    files, total = 0, 0
    for directory, _, names in os.walk(corpus / "tree"):
        for name in names:
            stat = os.lstat(os.path.join(directory, name))
            files, total = files + 1, total + stat.st_size
    packed = (corpus / "archive.tar.zst").stat().st_size
    return f"{files:,} files, {total / 1e6:,.0f} MB, {packed / 1e6:,.0f} MB packed"


def sync(directory):
    handle = os.open(directory, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


class Server:
    """A private sshd that ssh starts itself: no port, no daemon, no root."""

    def __init__(self, directory, sites):
        self.directory = directory
        directory.mkdir()
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        keys = [self.key("host"), self.key("rsync")]
        for label, site in sites.items():
            command = " ".join(site.command())
            keys.append(f'restrict,command="{command}" {self.key(label)}')
        (directory / "authorized_keys").write_text("".join(keys[1:]))
        (directory / "known_hosts").write_text("node " + keys[0])
        (directory / "sshd_config").write_text(
            f"HostKey {directory}/host\nAuthorizedKeysFile {directory}/authorized_keys\n"
            "AuthenticationMethods publickey\nPermitRootLogin prohibit-password\n"
            "StrictModes no\nUsePAM no\nPrintMotd no\nPrintLastLog no\nPidFile none\n"
            "LogLevel ERROR\n")
        self.config = directory / "ssh_config"
        self.behind([])

    def behind(self, line):
        """Lets ssh reach the server through a command, which starts it."""
        directory = self.directory
        sshd = shutil.which("sshd", path=os.environ["PATH"] + ":/usr/sbin:/sbin")
        words = [*line, sshd, "-i", "-f", f"{directory}/sshd_config", "-E", f"{directory}/sshd.log"]
        self.config.write_text(
            f"Host *\nProxyCommand {' '.join(map(str, words))}\n"
            f"HostKeyAlias node\nUserKnownHostsFile {directory}/known_hosts\n"
            "GlobalKnownHostsFile /dev/null\nStrictHostKeyChecking yes\nUpdateHostKeys no\n"
            "BatchMode yes\nIdentitiesOnly yes\nIdentityAgent none\nLogLevel ERROR\n")

    def key(self, name):
        path = self.directory / name
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", path],
                       check=True)
        return path.with_suffix(".pub").read_text()

    def ssh(self, name):
        return f"ssh -T -F {self.config} -i {self.directory}/{name}"
