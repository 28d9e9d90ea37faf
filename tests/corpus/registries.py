"""Fetches packages from the registries, by their plain clients, and yields their tars.

The names and versions are in `packages/`. The bytes of the tar are those of the registry:
only the compression is replaced with zstd, because a payload is compressed with zstd.
"""

import gzip
import os
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent


def pinned(registry):
    """Returns the names and versions of a list."""
    lines = (HERE / "packages" / registry).read_text().splitlines()
    return [tuple(line.split()) for line in lines if line and not line.startswith("#")]


def place(bench, registry):
    path = bench.work / registry
    path.mkdir()
    # apt-get downloads as an account of its own, if that account may write here.
    path.chmod(0o755)
    return path


def npm(bench):
    directory = place(bench, "npm")
    wanted = [f"{name}@{version}" for name, version in pinned("npm")]
    bench.run(["npm", "pack", "--silent", "--pack-destination", ".", *wanted], cwd=directory)
    yield from unzipped(bench, "npm", directory.glob("*.tgz"), len(wanted))


def crates(bench):
    """cargo keeps the archive of each dependency in its cache."""
    directory = place(bench, "crates")
    wanted = pinned("crates")
    lines = [
        f'{name} = {{ version = "={version}", default-features = false }}'
        for name, version in wanted
    ]
    (directory / "src").mkdir()
    (directory / "src" / "lib.rs").touch()
    (directory / "Cargo.toml").write_text("\n".join([
        "[package]", 'name = "corpus"', 'version = "0.0.0"', 'edition = "2021"', "[workspace]",
        "[dependencies]", *lines, "",
    ]))
    rustup = {name: value for name, value in os.environ.items() if name.startswith("RUSTUP")}
    rustup.setdefault("RUSTUP_HOME", str(Path.home() / ".rustup"))
    rustup["CARGO_HOME"] = str(directory / "home")
    bench.run(["cargo", "fetch", "--quiet"], cwd=directory, **rustup)
    named = {f"{name}-{version}.crate" for name, version in wanted}
    found = [path for path in directory.glob("home/registry/cache/*/*.crate") if path.name in named]
    yield from unzipped(bench, "crates", found, len(wanted))


def sdists(bench):
    directory = place(bench, "sdists")
    wanted = pinned("sdists")
    for name, version in wanted:
        # pip asks the package for its metadata: the tools for that may be wheels.
        bench.run(["python3", "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", name,
                   "--dest", ".", f"{name}=={version}"], cwd=directory)
    yield from unzipped(bench, "sdists", directory.glob("*.tar.gz"), len(wanted))


def debs(bench):
    """data.tar of Debian packages. Another release of Debian has other versions."""
    directory = place(bench, "debs")
    wanted = pinned("debs")
    for name, version in wanted:
        command = ["apt-get", "-q", "download"]
        exact = subprocess.run(
            [*command, f"{name}={version}"], cwd=directory, capture_output=True, check=False
        )
        if exact.returncode != 0:
            print(f"debs: {name} {version} is not offered; another version is taken")
            bench.run([*command, name], cwd=directory)
    found = sorted(directory.glob("*.deb"))
    complete("debs", found, len(wanted))
    for path in found:
        tar = bench.run(["dpkg-deb", "--fsys-tarfile", str(path)])
        yield bench.framed(f"debs/{path.name.split('_')[0]}", tar)


def unzipped(bench, registry, paths, wanted):
    paths = sorted(paths)
    complete(registry, paths, wanted)
    for path in paths:
        name = path.name.removesuffix(".tgz").removesuffix(".crate").removesuffix(".tar.gz")
        yield bench.framed(f"{registry}/{name}", gzip.decompress(path.read_bytes()))


def complete(registry, found, wanted):
    if len(found) != wanted:
        raise RuntimeError(f"{registry}: {len(found)} of {wanted} packages were fetched")


ALL = [npm, crates, debs, sdists]
