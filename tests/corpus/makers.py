"""Makes archives with the tools that people have.

Each maker yields the name of an archive and the path of the payload. A name is
TOOL/VARIANT/SOURCE. `QUICK` are the makers whose tools tests/run installs anyway.
"""

import os
import shutil
import subprocess
from pathlib import Path

import source

HERE = Path(__file__).resolve().parent
PROGRAMS = HERE / "makers"


class Bench:
    """The source trees, and a directory for what the makers make."""

    def __init__(self, work):
        self.work = Path(work)
        self.made = self.work / "made"
        self.made.mkdir()
        made = [source.site, source.short, source.plain, source.linked, source.venv]
        made += [source.future]
        self.trees = {make.__name__: make(self.work / make.__name__) for make in made}

    def run(self, command, stdin=b"", cwd=None, **variables):
        """Runs a command and returns its output. It must succeed."""
        environment = {
            "PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"),
            "LC_ALL": "C.UTF-8", **variables,
        }
        done = subprocess.run(
            command, input=stdin, cwd=cwd, env=environment, capture_output=True, check=False
        )
        if done.returncode != 0:
            said = done.stderr.decode(errors="replace")
            raise RuntimeError(f"{command} exits with {done.returncode}:\n{said}")
        return done.stdout

    def keep(self, name, content):
        """Writes a payload, and returns it with its name."""
        path = self.made / (name.replace("/", "+") + ".tar.zst")
        path.write_bytes(content)
        return name, path

    def framed(self, name, tar):
        """Compresses a tar, and returns the payload with its name."""
        return self.keep(name, self.run(["zstd", "-q", "-c", "-1"], stdin=tar))

    def archived(self, name, command, cwd=None, **variables):
        """Runs a tool that writes a tar to stdout."""
        return self.framed(name, self.run(command, cwd=cwd, **variables))


def gnu_tar(bench):
    def made(variant, tree, *arguments, members=(".",)):
        command = ["tar", "-C", str(bench.trees[tree]), *arguments, "-c", *members]
        return bench.archived(f"gnu-tar/{variant}/{tree}", command)

    for form, trees in {
        "v7": ["short"], "ustar": ["short", "linked"], "oldgnu": ["site", "linked"],
        "gnu": ["site", "short", "linked", "future"],
        "posix": ["site", "short", "linked", "future"],
    }.items():
        for tree in trees:
            yield made(form, tree, f"--format={form}")
    for form in ["gnu", "posix"]:
        yield made(f"{form}-hard-dereference", "linked", f"--format={form}", "--hard-dereference")
        yield made(f"{form}-venv", "venv", f"--format={form}")
        yield made(f"{form}-large-id", "short", f"--format={form}", "--owner=ci:1000000000")
        yield made(f"{form}-before-1970", "short", f"--format={form}", "--mtime=@-86400")
        yield made(f"{form}-label", "short", f"--format={form}", "--label=site")
        yield made(f"{form}-transform", "short", f"--format={form}", r"--transform=s,^\./\?,,")
        yield made(f"{form}-prefix", "site", f"--format={form}", "--transform=s,^[.],dist,S")
        names = sorted(os.listdir(bench.trees["site"]))
        yield made(f"{form}-names", "site", f"--format={form}", members=["--", *names])
        yield from lists(bench, form)
    yield made("posix-reproducible", "site", "--format=posix", "--sort=name", "--owner=0",
               "--group=0", "--numeric-owner", "--mtime=@0",
               "--pax-option=delete=atime,delete=ctime")
    yield made("posix-xattr", "short", "--format=posix",
               "--pax-option=SCHILY.xattr.user.note:=text")
    yield made("posix-global-vendor", "short", "--format=posix",
               "--pax-option=EXAMPLE.tool=text,comment=text")
    yield made("posix-global-times", "short", "--format=posix", "--pax-option=mtime=1")
    yield made("posix-selinux", "short", "--format=posix", "--xattrs", "--acls", "--selinux")
    snapshot = bench.work / "snapshot"
    yield made("gnu-incremental", "short", "--format=gnu", f"--listed-incremental={snapshot}")
    yield made("gnu-blocking", "short", "--format=gnu", "--blocking-factor=2048")
    yield made("gnu-zstd", "site", "--zstd")
    yield from sparse(bench)
    yield from appended(bench)


def lists(bench, form):
    """`find | tar -T -`, which archives each file again for each directory above it."""
    tree = bench.trees["short"]
    for variant, options in [("find", []), ("find-no-recursion", ["--no-recursion"])]:
        names = bench.run(["find", ".", "-print0"], cwd=tree)
        tar = bench.run(
            ["tar", f"--format={form}", *options, "-c", "--null", "-T", "-"], names, tree
        )
        yield bench.framed(f"gnu-tar/{form}-{variant}/short", tar)


def sparse(bench):
    tree = bench.work / "sparse"
    source.short(tree)
    with open(tree / "holes", "wb") as file:
        file.truncate(4_000_000)
        file.write(b"start")
        file.seek(2_000_000)
        file.write(b"middle")
    for form in ["gnu", "posix"]:
        for option in ["--sparse", "--hole-detection=raw"]:
            yield bench.archived(
                f"gnu-tar/{form}{option[1:]}/sparse",
                ["tar", f"--format={form}", option, "-C", str(tree), "-c", "."],
            )
    yield bench.archived("bsdtar/default/sparse", ["bsdtar", "-C", str(tree), "-cf", "-", "."])
    yield bench.archived(
        "bsdtar/no-read-sparse/sparse",
        ["bsdtar", "--no-read-sparse", "-C", str(tree), "-cf", "-", "."],
    )


def appended(bench):
    """`tar -r` adds a file again, and `tar -A` adds another archive."""
    tree = str(bench.trees["short"])
    for form in ["gnu", "posix"]:
        path = bench.work / "appended.tar"
        for members in [["."], ["./index.html", "./assets"]]:
            bench.run(["tar", f"--format={form}", "-C", tree, "-rf", str(path), *members])
        yield bench.framed(f"gnu-tar/{form}-append/short", path.read_bytes())
        path.unlink()
    parts = [bench.work / name for name in ["one.tar", "two.tar"]]
    for part, members in zip(parts, [["index.html", "bin"], ["assets"]]):
        bench.run(["tar", "-C", tree, "-cf", str(part), *members])
    both = b"".join(part.read_bytes() for part in parts)
    bench.run(["tar", "-Af", *map(str, parts)])
    yield bench.framed("gnu-tar/concatenate/short", parts[0].read_bytes())
    yield bench.framed("cat/two-archives/short", both)


def bsdtar(bench):
    def made(variant, tree, *arguments, members=(".",)):
        command = ["bsdtar", *arguments, "-C", str(bench.trees[tree]), "-cf", "-", *members]
        return bench.archived(f"bsdtar/{variant}/{tree}", command)

    for tree in ["site", "short", "linked", "future"]:
        yield made("default", tree)
    for form, trees in {
        "v7": ["short"], "ustar": ["short", "linked"], "gnutar": ["site", "linked"],
        "pax": ["site", "linked"], "rpax": ["site"],
    }.items():
        for tree in trees:
            yield made(form, tree, "--format", form)
    yield made("large-id", "short", "--uid", "1000000000")
    yield made("gnutar-large-id", "short", "--format", "gnutar", "--uid", "1000000000")
    yield made("names", "site", members=sorted(os.listdir(bench.trees["site"])))
    yield made("prefix", "site", "-s", ",^[.],dist,S")
    yield made("venv", "venv")
    path = bench.work / "bsdtar.tar.zst"
    for option in ["--zstd", "--auto-compress"]:
        bench.run(["bsdtar", option, "-C", str(bench.trees["site"]), "-cf", str(path), "."])
        yield bench.keep(f"bsdtar/{option.strip('-')}/site", path.read_bytes())
    # To stdout, bsdtar pads the compressed archive to a whole block.
    packed = bench.run(["bsdtar", "--zstd", "-C", str(bench.trees["site"]), "-cf", "-", "."])
    yield bench.keep("bsdtar/zstd-stdout/site", packed)


def busybox(bench):
    for tree in ["site", "short", "linked"]:
        yield bench.archived(
            f"busybox/default/{tree}",
            ["busybox", "tar", "-cf", "-", "-C", str(bench.trees[tree]), "."],
        )


def python(bench):
    made = {
        "default": ["site", "linked", "future"], "gnu": ["site", "linked"], "pax": ["site"],
        "ustar": ["short"], "empty-arcname": ["site"], "names": ["site"], "memory": ["short"],
        "comment": ["short"],
    }
    for variant, trees in made.items():
        for tree in trees:
            yield bench.archived(
                f"python/{variant}/{tree}",
                ["python3", str(PROGRAMS / "python-tarfile.py"), variant, str(bench.trees[tree])],
            )


def git(bench):
    tree, store = bench.trees["site"], bench.work / "repository"
    settings = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@localhost"]
    command += ["--git-dir", str(store), "--work-tree", str(tree)]
    for arguments in [["init", "-q"], ["add", "--all", "--force"], ["commit", "-q", "-m", "site"]]:
        bench.run([*command, *arguments], cwd=tree, **settings)
    for variant, arguments in {
        "commit": ["HEAD"], "tree": ["HEAD^{tree}"], "prefix": ["--prefix=dist/", "HEAD"],
    }.items():
        yield bench.archived(
            f"git-archive/{variant}/site",
            [*command, "archive", "--format=tar", *arguments], cwd=tree, **settings,
        )


def perl(bench):
    script = str(PROGRAMS / "archive-tar.pl")
    made = [("names", "site"), ("names", "linked"), ("dot", "short"), ("data", "short")]
    for variant, tree in made:
        yield bench.archived(
            f"perl/{variant}/{tree}", ["perl", script, variant, str(bench.trees[tree])]
        )


def zstd(bench):
    """One tar, compressed in every way."""
    tar = bench.run(["tar", "-C", str(bench.trees["site"]), "-c", "."])
    plain = bench.work / "plain.tar"
    plain.write_bytes(tar)

    def stream(*arguments):
        return bench.run(["zstd", "-q", "-c", *arguments], stdin=tar)

    def file(*arguments):
        return bench.run(["zstd", "-q", "-c", *arguments, str(plain)])

    for name, content in {
        "stream": stream("-T0"), "file": file("-T0"), "19-long": stream("-19", "--long=27"),
        "ultra": stream("--ultra", "-22"), "no-check": stream("--no-check"),
        "rsyncable": file("--rsyncable", "-T0"), "fast": file("--fast=5"),
        "window": stream("--long=28"),
        "pzstd": bench.run(["pzstd", "-q", "-c", str(plain)]),
    }.items():
        yield bench.keep(f"zstd/{name}/site", content)
    half = len(tar) // 1024 * 512
    parts = [bench.run(["zstd", "-q", "-c"], stdin=part) for part in [tar[:half], tar[half:]]]
    yield bench.keep("zstd/two-frames/site", b"".join(parts))
    # What an encoder with padding adds: a skippable frame (RFC 8878, 3.1.2).
    skippable = (0x184D2A50).to_bytes(4, "little") + (1000).to_bytes(4, "little") + bytes(1000)
    yield bench.keep("zstd/skippable-last/site", file() + skippable)
    yield bench.keep("zstd/skippable-first/site", skippable + file())
    yield bench.keep("zstd/empty-frame-last/site", file() + bench.run(["zstd", "-q", "-c"]))
    yield bench.keep("zstd/zeros-last/site", file() + bytes(5000))
    yield bench.keep("zstd/text-last/site", file() + b"text")


def rust(bench):
    """The tar crate, in the version that Cargo.lock has."""
    crate = bench.work / "rust"
    shutil.copytree(PROGRAMS / "rust", crate)
    lock = (HERE.parents[1] / "Cargo.lock").read_text()
    version = lock.split('name = "tar"\nversion = "')[1].split('"')[0]
    (crate / "Cargo.toml").write_text(
        '[package]\nname = "maker"\nversion = "0.0.0"\nedition = "2021"\n[workspace]\n'
        f'[dependencies]\ntar = {{ version = "={version}", default-features = false }}\n'
    )
    shutil.copy(HERE.parents[1] / "Cargo.lock", crate)
    target = str(bench.work / "rust-target")
    settings = {name: os.environ[name] for name in os.environ if name.startswith(("CARGO", "RUST"))}
    settings["CARGO_TARGET_DIR"] = target
    bench.run(["cargo", "build", "--quiet"], cwd=crate, **settings)
    for variant in ["dot", "empty-name", "deterministic"]:
        for tree in ["site", "linked"]:
            yield bench.archived(
                f"rust/{variant}/{tree}", [f"{target}/debug/maker", variant, str(bench.trees[tree])]
            )


QUICK = [gnu_tar, bsdtar, busybox, python, git, perl, zstd, rust]
