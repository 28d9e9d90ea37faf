"""The source trees that every tool archives."""

import os
import random
from pathlib import Path


def _write(root, name, content, mode=0o644):
    path = Path(root, os.fsdecode(name))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(mode)


def short(root):
    """A site whose names and targets have at most 99 bytes of ASCII: every format holds it."""
    noise = random.Random(1).randbytes(300_001)
    root.mkdir()
    for name, content, mode in [
        ("index.html", b"<h1>one</h1>\n", 0o644),
        ("empty", b"", 0o644),
        ("bin/serve", b"#!/bin/sh\n", 0o755),
        ("bin/owner-only", b"#!/bin/sh\n", 0o744),
        ("config/secret", b"hunter2\n", 0o600),
        ("config/read-only", b"fixed\n", 0o444),
        ("assets/app.js", noise, 0o644),
        ("assets/511", noise[:511], 0o644),
        ("assets/512", noise[:512], 0o644),
        ("assets/513", noise[:513], 0o644),
        ("odd/.hidden", b"1", 0o644),
        ("odd/with  spaces .txt", b"2", 0o644),
        ("odd/#hash=is;'\"*?$(x)", b"3", 0o644),
        ("odd/" + "n" * 90, b"4", 0o644),
    ]:
        _write(root, name, content, mode)
    (root / "nothing in it").mkdir()
    for name, target in [
        ("latest", "assets"),
        ("assets/current.js", "app.js"),
        ("config/from-parent", "../assets/app.js"),
        ("not-yet", "assets/later.js"),
    ]:
        (root / name).symlink_to(target)
    return root


def plain(root):
    """`short`, without what PHP or 7-Zip cannot archive: symlinks, and a name with '*'."""
    short(root)
    for name in ["latest", "not-yet", "assets/current.js", "config/from-parent"]:
        (root / name).unlink()
    (root / "odd/#hash=is;'\"*?$(x)").unlink()
    return root


def site(root):
    """`short`, and names that need an extended header: long ones, and ones in UTF-8."""
    short(root)
    for length in [98, 99, 100, 101, 102, 155, 156, 200, 255]:
        _write(root, "lengths/" + "n" * length, b"%d" % length)
    for length in [98, 99, 100, 101, 102, 256]:
        # With the directory, the whole path has this length.
        rest = length - len("deep/")
        _write(root, "deep/" + ("d" * 40 + "/") * (rest // 41) + "f" * (rest % 41), b"path")
    for length in [97, 98, 99, 100]:
        _write(root, "m" * length + "/x", b"%d" % length)
    _write(root, "/".join(["nested"] * 12) + "/" + "d" * 200 + "/run", b"#!/bin/sh\n", 0o755)
    _write(root, "größe/naïve – 日本語 🦀.txt", b"unicode")
    _write(root, "größe/combined e\u0301.txt", b"unicode")
    for length in [98, 99, 100, 101, 255]:
        (root / f"to-{length}").symlink_to("lengths/" + "n" * (length - len("lengths/")))
    (root / "größe/program").symlink_to("../bin/serve")
    # A time with a fraction, and the start of the epoch.
    os.utime(root / "empty", ns=(0, 1_600_000_000_123_456_789))
    os.utime(root / "bin/serve", (0, 0))
    return root


def future(root):
    """`short`, with a file of the year 2096, whose seconds need more than 31 bits."""
    short(root)
    os.utime(root / "index.html", (4_000_000_000, 4_000_000_000))
    return root


def linked(root):
    """A tree with hard links, as package managers lay out programs and libraries."""
    short(root)
    for target, link in [
        ("bin/serve", "bin/serve-alias"),
        ("assets/app.js", "node_modules/.pnpm/one@1/app.js"),
        ("assets/app.js", "vendor/app.js"),
        ("empty", "also-empty"),
    ]:
        (root / link).parent.mkdir(parents=True, exist_ok=True)
        os.link(root / target, root / link)
    return root


def venv(root):
    """A tree with an absolute symlink, as a Python venv has it."""
    short(root)
    (root / "venv/bin").mkdir(parents=True)
    (root / "venv/bin/python3").symlink_to("/usr/bin/python3")
    return root
