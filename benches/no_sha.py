"""Programs and peers that use no SHA instructions on a processor that has them.

Three places detect the instructions, and each is told that there are none: our own code
(`--cfg no_sha`), the sha2 crate (its feature force-soft), and ring. ring has no switch, so
this builds a copy of it without the line that notes the instructions; everything else of
it is the same. Of the peers, those that hash with OpenSSL get its switch.

The rest of the processor stays: it is usually newer than one without SHA instructions. On
a processor of AMD, ring also leaves out its AVX code, which it keeps for Intel's.
"""

import json
import os
import shutil
import subprocess
import sys

# OPENSSL_ia32cap(3): the bit of SHA in the second word.
OPENSSL = {"OPENSSL_ia32cap": ":~0x20000000"}
NOTED = "set(&mut caps, Shift::Sha);"


def mask_peers():
    """Starts this program again if its own OpenSSL has not read the switch."""
    if any(os.environ.get(name) != value for name, value in OPENSSL.items()):
        os.environ.update(OPENSSL)
        os.execv(sys.executable, [sys.executable, *sys.argv])


def build(repository, directory):
    """Returns the path of deploy-shell, with deploy-shell-admin beside it."""
    ring = masked_ring(repository, directory / "ring")
    env = dict(os.environ, RUSTFLAGS="--cfg no_sha --cap-lints allow")
    command = ["cargo", "build", "--quiet", "--release", "--locked", "--target-dir",
               directory / "target", "--config", f"paths=['{ring}']",
               "--features", "sha2/force-soft"]
    for package in ["deploy-shell", "deploy-shell-admin"]:
        subprocess.run([*command, "--package", package], cwd=repository, env=env, check=True)
    return directory / "target/release/deploy-shell"


def masked_ring(repository, copy):
    """Returns the path of a copy of ring that finds no SHA instructions."""
    command = ["cargo", "metadata", "--format-version", "1", "--locked"]
    metadata = subprocess.run(command, cwd=repository, stdout=subprocess.PIPE, check=True)
    packages = json.loads(metadata.stdout)["packages"]
    [manifest] = [package["manifest_path"] for package in packages if package["name"] == "ring"]
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(os.path.dirname(manifest), copy)
    source = copy / "src/cpu/intel.rs"
    text = source.read_text()
    if text.count(NOTED) != 1:
        sys.exit(f"benches/run: '{source}' does not note the SHA instructions as expected")
    source.write_text(text.replace(NOTED, ""))
    return copy
