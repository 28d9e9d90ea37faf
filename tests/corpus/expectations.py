"""The outcome of each archive, and the table of those that are not equal."""

import fnmatch
import re
import tempfile
from pathlib import Path

import site_under_test
import trees

HERE = Path(__file__).resolve().parent
DOCUMENT = HERE.parents[1] / "docs" / "archives.md"


class Expectations:
    """The table `expected`: rows of a pattern of names, an outcome and the reason."""

    def __init__(self):
        self.rows, self.used = [], set()
        for line in (HERE / "expected").read_text().splitlines():
            if line.strip() and not line.startswith("#"):
                pattern, outcome, _reason = [word.strip() for word in line.split(" | ")]
                self.rows.append((pattern, outcome))

    def allows(self, name, outcome):
        """Returns whether a row allows this outcome, and notes that the row is needed."""
        for row in self.rows:
            kind, words = row[1].split(": ") if ": " in row[1] else (row[1], "")
            if outcome.startswith(kind) and words in outcome and fnmatch.fnmatchcase(name, row[0]):
                self.used.add(row)
                return True
        return False

    def faults(self, names):
        """Yields the rows that no archive of a run needs, and rules without a document."""
        for pattern, outcome in self.rows:
            if (pattern, outcome) not in self.used and fnmatch.filter(names, pattern):
                yield f"no archive needs this row of 'expected': {pattern} | {outcome}"
        text = DOCUMENT.read_text()
        rules = {row[1].removeprefix("refused: ") for row in self.rows if "refused" in row[1]}
        for rule in sorted(rules):
            if rule not in text:
                yield f"{DOCUMENT.name} does not have the rule '{rule}'"


def judge(deploy_shell, expectations, name, payload):
    """Returns "equal" or the outcome that the table allows; or else a list of faults."""
    work = Path(tempfile.mkdtemp(prefix="deploy-shell-corpus-"))
    try:
        outcome = site_under_test.receive(deploy_shell, payload, work)
        theirs = {reader: trees.extract(reader, payload, work / reader) for reader in trees.READERS}
        faults = [f"left in the site: {outcome.debris}"] if outcome.debris else []
        if outcome.accepted:
            found = compared(outcome, theirs, expectations, name)
        elif outcome.refused:
            found = explained(outcome, theirs, expectations, name)
        else:
            found = [f"exit status {outcome.status}: {outcome.stderr}"]
        if isinstance(found, str):
            return faults or found
        return faults + found
    finally:
        site_under_test.remove(work)


def compared(outcome, theirs, expectations, name):
    """Compares a release with what each reader extracts."""
    ours = trees.read(outcome.release)
    faults = [f"mode of {text}" for text in trees.wrong_modes(outcome.release)]
    lines = outcome.stderr.splitlines()
    if lines and not lines[0].startswith("deploy-shell: warning"):
        faults.append(f"accepted, and stderr has: {outcome.stderr}")
    result = "equal"
    for reader, (tree, error) in theirs.items():
        if error and expectations.allows(name, f"{reader} fails"):
            # This reader says that it has not extracted the archive.
            result = f"accepted, and {reader} fails"
            continue
        if error:
            faults.append(f"accepted, and {error}")
        if tree != ours and (reader != "bsdtar" or tree != trees.composed(ours)):
            faults.append(f"ours / {reader}: {trees.difference(ours, tree)}")
    return faults or result


def explained(outcome, theirs, expectations, name):
    """Looks for the row of a refusal."""
    if not outcome.remedy:
        return [f"refused without a remedy: {outcome.stderr.strip()}"]
    if expectations.allows(name, f"refused: {outcome.rule}"):
        return f"refused: {general(outcome.rule)}"
    agree = {str(sorted(trees.composed(tree).items())) for tree, _ in theirs.values()}
    said = "both extract the same tree" if len(agree) == 1 else "they extract two trees"
    errors = [error for _, error in theirs.values() if error]
    return [f"refused: {outcome.stderr.strip()}", "; ".join([said, *errors])]


def general(rule):
    """Returns a rule without the values of one archive."""
    return re.sub(r"\d{4,}", "N", re.sub(r"hard link to '[^']*'", "hard link to '...'", rule))
