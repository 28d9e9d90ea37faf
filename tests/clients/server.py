"""A site, and a real sshd for each connection to a loopback port."""

import os
import pwd
import re
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
SSHD = shutil.which("sshd", path=os.environ["PATH"] + ":/usr/sbin")
CONFIG = """\
root = "{root}"
[pending]
max = 100
max_per_key = 100
[limits]
receives_per_hour = 1000
attempts_per_hour = 1000
idle_timeout = "{idle}s"
[audit]
socket = "{directory}/audit.socket"
"""
# HOME is not that of the account, whose shell would read start-up files there.
SSHD_CONFIG = """\
SetEnv HOME={directory}
Include {directory}/drop-in.conf
HostKey {directory}/host_key
PermitRootLogin prohibit-password
StrictModes no
UsePAM no
PrintMotd no
PrintLastLog no
PidFile none
Subsystem sftp internal-sftp
"""
FIELD = re.compile(r'([a-z_0-9]+)="((?:[^"\\]|\\.)*)"')
# Seconds. No wait of this test is as long, unless something is wrong. All tests run at
# once as an ordinary user, and one upload took more than a minute there.
DEADLINE = 300


def eventually(what, condition):
    """Waits until the condition holds, and returns its value."""
    end = time.monotonic() + DEADLINE
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"this never happened: {what}")
        time.sleep(0.02)


class Server:
    """One site below `directory`. Close it at the end."""

    def __init__(self, program, directory, idle=30):
        self.directory, self.root = Path(directory), Path(directory, "root")
        self.user = pwd.getpwuid(os.geteuid()).pw_name
        self._make_site(program, idle)
        self._make_sshd_config()
        self.log = []
        self._sessions = []
        self._closed = False
        self._audit = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._audit.bind(str(self.directory / "audit.socket"))
        threading.Thread(target=self._collect, daemon=True).start()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        public = (self.directory / "host_key.pub").read_text().split()
        known = f"[127.0.0.1]:{self.port} {public[0]} {public[1]}\n"
        (self.directory / "known_hosts").write_text(known)
        threading.Thread(target=self._serve, daemon=True).start()

    def _make_site(self, program, idle):
        config = self.directory / "blog.toml"
        admin = program + "-admin"
        # The command in authorized_keys may not contain spaces, and the path of the checkout may.
        shutil.copy(program, self.directory / "deploy-shell")
        shutil.copy(admin, self.directory / "deploy-shell-admin")
        admin = str(self.directory / "deploy-shell-admin")
        # `init` creates no site of root's. Here sshd runs everything as the user of this script.
        owner = ["--owner", "nobody"] if os.geteuid() == 0 else []
        run([admin, "init", "--config", str(config), "--root", str(self.root), *owner])
        run(["chown", "-R", str(os.geteuid()), str(self.root)])
        config.write_text(CONFIG.format(root=self.root, directory=self.directory, idle=idle))
        for name in ["host_key", "key"]:
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.directory / name)])
        line = run([admin, "authorize", "--config", str(config), "--key", "ci",
                    str(self.directory / "key.pub")])
        keys = self.directory / "authorized_keys"
        keys.mkdir()
        (keys / self.user).write_text(line)
        said = run(["ssh-keygen", "-l", "-f", str(self.directory / "key.pub")])
        self.fingerprint = said.split()[1]
        said = run(["ssh-keygen", "-l", "-f", str(self.directory / "host_key.pub")])
        self.host_fingerprint = said.split()[1]

    def _make_sshd_config(self):
        """Uses the shipped drop-in. Only the user and the path of the keys differ."""
        shipped = (REPOSITORY / "sshd" / "50-deploy-shell.conf").read_text()
        shipped = shipped.replace("Match User deploy", f"Match User {self.user}")
        keys = "/etc/deploy-shell/authorized_keys"
        shipped = shipped.replace(keys, f"{self.directory}/authorized_keys")
        (self.directory / "drop-in.conf").write_text(shipped)
        text = SSHD_CONFIG.format(directory=self.directory)
        (self.directory / "sshd_config").write_text(text)
        if os.geteuid() == 0:
            # sshd needs this directory when it runs as root.
            os.makedirs("/run/sshd", exist_ok=True)
        run([SSHD, "-t", "-f", str(self.directory / "sshd_config")])

    def _collect(self):
        while not self._closed:
            line = self._audit.recv(65536).decode()
            self.log.append(dict(FIELD.findall(line)))

    def _serve(self):
        command = [SSHD, "-i", "-f", str(self.directory / "sshd_config"),
                   "-E", str(self.directory / "sshd.log")]
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                self._sessions.append(
                    subprocess.Popen(command, stdin=connection, stdout=connection,
                                     stderr=subprocess.DEVNULL)
                )

    def close(self):
        """Waits until each sshd has ended."""
        self._listener.close()
        self._closed = True
        for session in self._sessions:
            session.wait(timeout=DEADLINE)

    def leftovers(self):
        own = self.root / ".deploy-shell"
        return [str(path) for name in ["incoming", "trash"] for path in (own / name).iterdir()]

    def result(self, since):
        """Waits for the last line of a request, and returns the lines since then."""
        def complete():
            lines = self.log[since:]
            requests = [line for line in lines if line["event"] == "request"]
            awaited = "result" if requests and requests[0]["decision"] == "allowed" else "request"
            return lines if any(line["event"] == awaited for line in lines) else None

        return eventually("the audit line of the result", complete)


def run(command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{command} exits with {done.returncode}: {done.stderr}")
    return done.stdout
