"""Sends one archive through the real program, and says what became of it."""

import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

RELEASE = "corpus-1"
# A request without a record is as good for this test, and needs no syslog.
CONFIG = """\
root = "{root}"
[archive]
required_paths = []
[audit]
socket = "{root}/no-socket"
required = false
"""
MESSAGE = re.compile(r"^deploy-shell: (?P<word>[a-z-]+): (?P<text>.*)$")
# The name of an entry: the text before ': ' in quotes.
ENTRY = re.compile(r"^'(?P<entry>(?:[^'\\]|\\.)*)': (?P<rule>.*)$")


class Outcome:
    """What the program answered."""

    def __init__(self, status, stderr, release):
        self.status = status
        self.stderr = stderr
        # The directory of the release, if it was accepted.
        self.release = release
        self.word = self.entry = self.rule = self.remedy = None
        lines = stderr.splitlines()
        said = MESSAGE.match(lines[0]) if lines else None
        if said:
            self.word, self.rule = said["word"], said["text"]
            self.remedy = " ".join(lines[1:]).strip() or None
            named = ENTRY.match(said["text"])
            if named:
                self.entry, self.rule = named["entry"], named["rule"]

    @property
    def accepted(self):
        return self.status == 0 and self.release is not None

    @property
    def refused(self):
        """Whether the program refused the archive, and named the rule."""
        return self.status == 65 and self.word == "bad-archive" and bool(self.rule)


def receive(program, payload, directory):
    """Sends the file `payload` to a new site in `directory`, as sshd starts the program."""
    root = Path(directory, "site")
    for name in ["releases", "shared"]:
        (root / name).mkdir(parents=True)
    for name in ["manifests", "incoming", "trash"]:
        (root / ".deploy-shell" / name).mkdir(parents=True)
    (root / ".deploy-shell").chmod(0o700)
    config = Path(directory, "site.toml")
    config.write_text(CONFIG.format(root=root))
    config.chmod(0o644)
    with open(payload, "rb") as file:
        digest = hashlib.sha256(file.read()).hexdigest()
    with open(payload, "rb") as file:
        done = subprocess.run(
            [program, "serve", "--config", config, "--key", "corpus"],
            env={"SSH_ORIGINAL_COMMAND": f"receive {RELEASE} --sha256 {digest}"},
            stdin=file, capture_output=True, text=True, check=False, timeout=600,
        )
    release = root / "releases" / RELEASE
    outcome = Outcome(done.returncode, done.stderr, release if release.is_dir() else None)
    outcome.debris = sorted(
        str(path.relative_to(root))
        for name in ["incoming", "trash"]
        for path in (root / ".deploy-shell" / name).iterdir()
    )
    return outcome


def remove(directory):
    """Removes a directory, also one whose archive took the right to enter it away."""
    for path, names, _ in os.walk(directory):
        for name in names:
            below = os.path.join(path, name)
            if not os.path.islink(below):
                os.chmod(below, 0o700)
    shutil.rmtree(directory)
