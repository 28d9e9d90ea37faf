"""Reads trees, and extracts archives with GNU tar and bsdtar."""

import hashlib
import os
import stat
import subprocess
import unicodedata
from pathlib import Path

ENVIRONMENT = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "TZ": "UTC"}
READERS = {
    "GNU tar": ["tar", "--no-same-owner", "--no-same-permissions", "-xf", "-"],
    "bsdtar": ["bsdtar", "--no-same-owner", "--no-same-permissions", "-xf", "-"],
}


def read(root):
    """Returns what is below `root`: a text for each name, as bytes."""
    found, waiting = {}, [b""]
    while waiting:
        below = waiting.pop()
        directory = os.path.join(os.fsencode(root), below)
        if not os.access(directory, os.R_OK | os.X_OK):
            os.chmod(directory, 0o755)
        for item in os.scandir(directory):
            name = os.path.join(below, item.name)
            found[name] = describe(item.path)
            if found[name] == "directory":
                waiting.append(name)
    return found


def describe(path):
    meta = os.lstat(path)
    if stat.S_ISLNK(meta.st_mode):
        return "symlink to " + os.fsdecode(os.readlink(path))
    if stat.S_ISDIR(meta.st_mode):
        return "directory"
    if not stat.S_ISREG(meta.st_mode):
        return f"special file {stat.S_IFMT(meta.st_mode):o}"
    if not os.access(path, os.R_OK):
        os.chmod(path, meta.st_mode | 0o400)
    with open(path, "rb") as file:
        digest = hashlib.sha256(file.read()).hexdigest()
    kind = "program" if meta.st_mode & 0o111 else "file"
    return f"{kind} of {meta.st_size} bytes {digest[:16]}"


def wrong_modes(release):
    """Returns the names in a release whose mode is not 0755 or 0644."""
    wrong = []
    for directory, names, files in os.walk(release):
        for name in [*names, *files]:
            path = os.path.join(directory, name)
            meta = os.lstat(path)
            if stat.S_ISLNK(meta.st_mode):
                continue
            allowed = [0o755] if stat.S_ISDIR(meta.st_mode) else [0o644, 0o755]
            if stat.S_IMODE(meta.st_mode) not in allowed:
                wrong.append(f"{os.path.relpath(path, release)}: {stat.S_IMODE(meta.st_mode):o}")
    return wrong


def extract(reader, payload, directory):
    """Extracts the payload; returns the tree and the error, if there was one."""
    directory = Path(directory)
    directory.mkdir()
    with open(payload, "rb") as file:
        zstd = subprocess.Popen(
            ["zstd", "-q", "-d", "-c", "--long=31"], stdin=file,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
    tar = subprocess.run(
        [*READERS[reader], "-C", str(directory)], stdin=zstd.stdout, env=ENVIRONMENT,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False,
    )
    zstd.stdout.close()
    zstd_said = zstd.stderr.read().decode(errors="replace")
    # tar may leave before zstd has written all, and zstd does not know the zeros that
    # bsdtar writes after the last frame. Neither is an error.
    zstd_failed = zstd.wait() not in (0, -13) and "roken pipe" not in zstd_said
    if "unsupported format" in zstd_said and padded(payload):
        zstd_failed = False
    error = None
    if tar.returncode != 0 or zstd_failed:
        said = tar.stderr.decode(errors="replace").strip() if tar.returncode else zstd_said
        error = f"{reader} exits with {tar.returncode}: {said.splitlines()[0] if said else ''}"
    return read(directory), error


def padded(payload):
    """Returns whether the payload ends with zeros."""
    return not any(Path(payload).read_bytes()[-64:])


def composed(tree):
    """Returns the tree with names and targets in Unicode's composed form (NFC).

    bsdtar composes the names of pax headers. Two names that become one stay as they are.
    """

    def compose(text):
        return unicodedata.normalize("NFC", text)

    found = {os.fsencode(compose(os.fsdecode(name))): compose(what) for name, what in tree.items()}
    return found if len(found) == len(tree) else tree


def difference(ours, theirs):
    """Returns the first names that differ, with both texts."""
    odd = sorted(name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name))
    shown = [
        f"{os.fsdecode(name)!r}: {ours.get(name, 'missing')} / {theirs.get(name, 'missing')}"
        for name in odd[:3]
    ]
    more = f" and {len(odd) - 3} more" if len(odd) > 3 else ""
    return "; ".join(shown) + more
