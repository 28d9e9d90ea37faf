"""Releases as bundlers make them, for the cost of a bridge: files with a hash of their content
in their names, some of which change from release to release."""

import hashlib
import io
import subprocess
import tarfile

RELEASES = 11
FILES = 1000
# In each release, so many files have other names than in the one before.
CHANGING = 100


def links():
    """Returns the number of files of all releases together."""
    return FILES + (RELEASES - 1) * CHANGING


def corpora(directory):
    """Makes the archives. Returns their directories, in the order of the releases."""
    directory.mkdir()
    return [corpus(directory / str(release), release) for release in range(RELEASES)]


def corpus(directory, release):
    directory.mkdir()
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for number in range(FILES):
            # Each file changes once in so many releases.
            version = (release + FILES // CHANGING - 1 - number * CHANGING // FILES) // (
                FILES // CHANGING)
            content = f"{number} {version}".encode()
            mark = hashlib.sha256(content).hexdigest()[:8]
            entry = tarfile.TarInfo(f"assets/chunk-{number:04}.{mark}.js")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    packed = subprocess.run(["zstd", "-qc"], input=tar.getvalue(), stdout=subprocess.PIPE,
                            check=True).stdout
    (directory / "archive.tar.zst").write_bytes(packed)
    (directory / "SHA256SUMS").write_text(f"{hashlib.sha256(packed).hexdigest()}  archive.tar.zst\n")
    return directory


def configure(site, command):
    """Gives the site a hook after the swap, and a bridge."""
    with open(site.config, "a") as config:
        words = ", ".join(f'"{word}"' for word in command)
        config.write(f'[[hooks.after_swap]]\ncommand = [{words}]\n[bridge]\npaths = ["assets"]\n')
