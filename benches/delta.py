"""Two releases of which one percent of the files differ, the payload that leads from one to
the other, and a line with little bandwidth, for the cost of a delta."""

import hashlib
import io
import os
import random
import shutil
import subprocess
import sys
import tarfile
import threading
import time

FILES, SHORT = 30_000, 300


class Releases:
    """`old`, `new` with the times of `old`, and `fresh`: `new` with other times."""

    def __init__(self, directory, files):
        self.directory, self.changed = directory, files // 100
        numbers = random.Random(1)
        self.old, self.new, self.fresh = (directory / name for name in ["old", "new", "fresh"])
        for number in range(files):
            path = self.old / f"d{number // 100:03}" / f"file-{number:05}.js"
            path.parent.mkdir(parents=True, exist_ok=True)
            # Half of it compresses.
            text = numbers.randbytes(numbers.randrange(200, 3000)).hex()
            path.write_text(text)
            os.utime(path, (1_700_000_000 + number, 1_700_000_000 + number))
        subprocess.run(["cp", "-a", self.old, self.new], check=True)
        changed = sorted(self.new.rglob("*.js"))[:: files // self.changed]
        for path in changed:
            path.write_text("changed" + path.read_text()[7:])
        subprocess.run(["cp", "-r", self.new, self.fresh], check=True)
        self.tree = tree_digest(lines(self.new))
        self.whole_old = self.pack("old.tar.zst", self.old, ["."])
        self.whole = self.pack("new.tar.zst", self.new, ["."])
        self.delta = self.pack_delta()
        names = [str(path.relative_to(self.new)) for path in changed]
        self.changed_bytes = os.path.getsize(self.pack("changed.tar.zst", self.new, names))

    def pack(self, name, directory, members):
        to = self.directory / name
        listed = "\0".join(members).encode()
        tar = subprocess.run(["tar", "-C", directory, "--null", "--no-recursion", "-T", "-", "-c"]
                             if members != ["."] else ["tar", "-C", directory, "-c", "."],
                             input=listed, stdout=subprocess.PIPE, check=True).stdout
        with open(to, "wb") as file:
            subprocess.run(["zstd", "-qc", "-T0"], input=tar, stdout=file, check=True)
        return to

    def pack_delta(self):
        old, new = lines(self.old), lines(self.new)
        changes = sorted([(path, 0, f"- {path}\n") for path, line in old.items()
                          if new.get(path) != line]
                         + [(path, 1, f"+ {line}\n") for path, line in new.items()
                            if old.get(path) != line])
        text = "".join(line for *_, line in changes).encode()
        tar = io.BytesIO()
        with tarfile.open(fileobj=tar, mode="w", format=tarfile.GNU_FORMAT) as archive:
            entry = tarfile.TarInfo(".deploy-shell-changes")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text))
            for path, added, line in changes:
                if added and " type=file " in line:
                    archive.add(self.new / path[2:], path[2:])
        to = self.directory / "delta.tar.zst"
        with open(to, "wb") as file:
            subprocess.run(["zstd", "-qc"], input=tar.getvalue(), stdout=file, check=True)
        return to


def lines(directory):
    """Returns the lines of the tree list by their paths. The names need no escapes."""
    found = {".": ". type=dir mode=0755"}
    for path in directory.rglob("*"):
        name = f"./{path.relative_to(directory)}"
        if path.is_dir():
            found[name] = f"{name} type=dir mode=0755"
        else:
            content = path.read_bytes()
            found[name] = (f"{name} type=file mode=0644 size={len(content)}"
                           f" sha256digest={hashlib.sha256(content).hexdigest()}")
    return found


def tree_digest(found):
    text = "".join(f"{line}\n" for line in sorted(found.values()))
    return hashlib.sha256(text.encode()).hexdigest()


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def used(directory):
    """Returns the bytes that a directory takes on disk; a file with several names counts once."""
    done = subprocess.run(["du", "-s", "-B1", directory], stdout=subprocess.PIPE, check=True)
    return int(done.stdout.split()[0])


def relay(rate, delay, command):
    """Runs a command as ssh's ProxyCommand, behind a line of `rate` bytes a second, each
    direction by itself, whose bytes arrive `delay` seconds late. tc(8) limits bandwidth too,
    but some kernels have no netem for the delay."""
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def copy(source, target, close):
        waiting, known = [], threading.Condition()

        def deliver():
            while True:
                with known:
                    known.wait_for(lambda: waiting)
                    due, piece = waiting.pop(0)
                time.sleep(max(0, due - time.monotonic()))
                if not piece:
                    close()
                    return
                view = memoryview(piece)
                while view:
                    view = view[os.write(target, view):]

        thread = threading.Thread(target=deliver)
        thread.start()
        free = time.monotonic()
        while True:
            piece = os.read(source, 16384)
            free = max(free, time.monotonic()) + len(piece) / rate
            # The line takes no more than it can carry.
            time.sleep(max(0, free - time.monotonic()))
            with known:
                waiting.append((free + delay, piece))
                known.notify()
            if not piece:
                thread.join()
                return

    forth = threading.Thread(
        target=copy, args=(0, child.stdin.fileno(), child.stdin.close), daemon=True)
    forth.start()
    copy(child.stdout.fileno(), 1, lambda: None)
    sys.stdout.flush()
    os._exit(child.wait())


def mount_xfs(image, directory):
    """Mounts a new xfs, which can share blocks. Returns whether it could."""
    if os.geteuid() != 0 or not shutil.which("mkfs.xfs"):
        return False
    with open(image, "wb") as file:
        file.truncate(16 << 30)
    directory.mkdir()
    return (subprocess.run(["mkfs.xfs", "-q", "-f", image]).returncode == 0
            and subprocess.run(["mount", "-o", "loop", image, directory]).returncode == 0)


if __name__ == "__main__":
    relay(float(sys.argv[1]), float(sys.argv[2]), sys.argv[3:])
