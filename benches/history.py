"""A site with a long history: the journal of many deploys, of which few releases are left."""

import json
import os
import time

# received, activating, swapped, pruned.
EVENTS = 4
PRESENT = 20


def write(site, events):
    """Turns the only release of `site`, `r0`, into the newest ones of a history of `events`
    records, in the first format. Each release has an id of its own."""
    state = site.root / ".deploy-shell"
    journal = state / "journal.jsonl"
    first = next(record for record in map(json.loads, journal.read_text().splitlines())
                 if record.get("event") == "received")
    manifest = (state / "manifests/r0").read_text()
    deploys = events // EVENTS
    begun = time.time() - deploys * 60
    # Everything but the number, the time and the ids is the same in each line.
    rest = {key: first[key] for key in ["sha256", "files", "bytes", "key"] if key in first}
    rest = json.dumps(rest, separators=(",", ":"))[1:]
    seq = 0

    def line(at, event, release, more):
        nonlocal seq
        seq += 1
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(begun + at * 60))
        return (f'{{"seq":{seq},"time":"{stamp}","event":"{event}",'
                f'"release":"{name(release)}"{more}}}\n')

    with open(journal, "w") as lines:
        for deploy in range(deploys):
            before = f',"previous":"{name(deploy - 1)}"' if deploy else ""
            lines.write(line(deploy, "received", deploy, f",{rest[:-1]}"))
            lines.write(line(deploy, "activating", deploy, f',"how":"swap"{before}'))
            lines.write(line(deploy, "swapped", deploy, before))
            if deploy >= PRESENT:
                lines.write(line(deploy, "pruned", deploy - PRESENT, ""))
    os.rename(site.root / "releases/r0", site.root / "releases/x")
    (state / "manifests/r0").unlink()
    for deploy in range(deploys - PRESENT, deploys):
        (site.root / "releases" / name(deploy)).mkdir()
        (state / "manifests" / name(deploy)).write_text(
            manifest.replace("# release r0\n", f"# release {name(deploy)}\n"))
    os.symlink(f"releases/{name(deploys - 1)}", site.root / "current")
    return name(deploys - 2), name(deploys - 1)


def name(deploy):
    """Returns the id of a release; the order of ids is not that of deploys."""
    return f"{deploy * 7919 % 1000003:07}-r{deploy}"
