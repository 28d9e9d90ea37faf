//! Archives with one defect each. Each case goes through real ssh. It must be refused
//! with exit status 65, the broken rule and the entry that breaks it, and must leave
//! nothing inside or beside the site.

mod borderline;
mod extensions;
mod frames;
mod headers;
mod kinds;
mod limits;
mod links;
mod lookalikes;
mod memory;
mod names;
mod order;
mod shared;
mod surroundings;

use std::collections::BTreeSet;

use crate::archive::{self, Tar, zstd};
use crate::mode::Mode;
use crate::site::Reply;
use surroundings::Surroundings;

/// One hostile payload and the refusal that it must get.
pub struct Case {
    name: &'static str,
    /// The entry as the refusal must show it; none if the defect is in no entry.
    entry: Option<String>,
    rule: &'static str,
    build: Build,
}

enum Build {
    /// Entries between a valid first file and the end blocks, compressed.
    Entries(fn(Tar) -> Tar),
    /// A whole tar stream, compressed.
    Stream(fn() -> Vec<u8>),
    /// What the client sends, as it is.
    Payload(fn() -> Vec<u8>),
}

/// Returns an ordinary case. A valid file comes first, so that the staging directory
/// contains something to remove when the defect is found.
fn case(
    name: &'static str,
    entry: impl Into<String>,
    rule: &'static str,
    entries: fn(Tar) -> Tar,
) -> Case {
    let build = Build::Entries(entries);
    Case {
        name,
        entry: Some(entry.into()),
        rule,
        build,
    }
}

/// Returns a case that is a whole tar stream, with or without an end. No entry has the
/// defect unless [`Case::at`] names one.
fn stream(name: &'static str, rule: &'static str, tar: fn() -> Vec<u8>) -> Case {
    let build = Build::Stream(tar);
    Case {
        name,
        entry: None,
        rule,
        build,
    }
}

/// Returns a case of any bytes.
fn payload(name: &'static str, rule: &'static str, bytes: fn() -> Vec<u8>) -> Case {
    let build = Build::Payload(bytes);
    Case {
        name,
        entry: None,
        rule,
        build,
    }
}

/// Returns the valid file that every case begins with.
fn valid_file() -> Tar {
    Tar::new().file("index.html", "<h1>sound</h1>\n")
}

impl Case {
    fn payload(&self) -> Vec<u8> {
        match self.build {
            Build::Entries(entries) => zstd(&entries(valid_file()).end()),
            Build::Stream(tar) => zstd(&tar()),
            Build::Payload(bytes) => bytes(),
        }
    }

    /// Names the entry with the defect.
    fn at(mut self, entry: &str) -> Case {
        self.entry = Some(entry.to_owned());
        self
    }

    fn expected_line(&self) -> String {
        let rule = self.rule;
        match &self.entry {
            None => format!("deploy-shell: bad-archive: {rule}"),
            // A very long name is cut, with a mark.
            Some(entry) if entry.len() > 300 => {
                let start = &entry[..297];
                format!("deploy-shell: bad-archive: '{start}...': {rule}")
            }
            Some(entry) => format!("deploy-shell: bad-archive: '{entry}': {rule}"),
        }
    }

    /// Returns everything that is wrong with the reply, in one text, so that one run
    /// of a table reports all its cases.
    fn check(&self, reply: &Reply) -> Result<(), String> {
        let mut lines = reply.stderr.lines();
        let first = lines.next().unwrap_or_default();
        let remedy = lines.next().is_some_and(|line| !line.trim().is_empty());
        if reply.code == 65 && first == self.expected_line() && remedy && reply.stdout.is_empty() {
            return Ok(());
        }
        Err(format!(
            "{}: expected exit status 65, a remedy and\n    {}\n  got exit status {} and\n    {}\n  stdout {:?}",
            self.name,
            self.expected_line(),
            reply.code,
            reply.stderr,
            reply.stdout
        ))
    }
}

/// Cases that share a site's configuration.
struct Table {
    config: &'static str,
    cases: Vec<Case>,
}

/// A limit that is high enough for a whole table; everything else has its default.
const DEFAULTS: &str = "[limits]\nreceives_per_hour = 100000\n";

impl Table {
    fn of(cases: Vec<Case>) -> Table {
        Table {
            config: DEFAULTS,
            cases,
        }
    }

    fn replay(&self) {
        for mode in Mode::BOTH {
            self.replay_in(mode);
        }
    }

    fn replay_in(&self, mode: Mode) {
        let site = mode.site(self.config);
        shared::prepare(&site);
        let live = archive::tarball(&[("index.html", b"live")]);
        mode.receive(&site, "live", &live).ok();
        site.ssh("ci", "swap live").ok();
        let before = Surroundings::of(&site);

        let mut wrong = Vec::new();
        for (number, case) in self.cases.iter().enumerate() {
            let release = format!("hostile-{number}");
            let reply = mode.receive(&site, &release, &case.payload());
            match case.check(&reply) {
                Ok(()) => reply.refused(65, "bad-archive"),
                Err(text) => wrong.push(text),
            }
            if reply.code != 0 {
                before.assert_untouched(&site, case.name);
            }
        }
        assert!(wrong.is_empty(), "{mode:?}: {}", wrong.join("\n"));
    }
}

fn all() -> Vec<Table> {
    let mut tables = vec![
        Table::of(frames::cases()),
        Table::of(headers::cases()),
        Table::of(kinds::cases()),
        Table::of(extensions::pax()),
        Table::of(extensions::gnu()),
        Table::of(names::cases()),
        Table::of(order::cases()),
        Table::of(links::cases()),
    ];
    tables.extend(limits::tables());
    tables.extend(shared::tables());
    tables
}

#[test]
fn payloads_that_are_not_valid_zstd_frames_are_refused() {
    Table::of(frames::cases()).replay();
}

#[test]
fn headers_and_streams_with_a_defect_are_refused() {
    Table::of(headers::cases()).replay();
}

#[test]
fn entries_of_a_forbidden_type_are_refused() {
    Table::of(kinds::cases()).replay();
}

#[test]
fn pax_headers_with_a_defect_are_refused() {
    Table::of(extensions::pax()).replay();
}

#[test]
fn gnu_long_names_with_a_defect_are_refused() {
    Table::of(extensions::gnu()).replay();
}

#[test]
fn names_that_a_release_may_not_contain_are_refused() {
    Table::of(names::cases()).replay();
}

#[test]
fn entries_that_conflict_with_an_earlier_one_are_refused() {
    Table::of(order::cases()).replay();
}

#[test]
fn symlinks_that_leave_the_release_are_refused() {
    Table::of(links::cases()).replay();
}

#[test]
fn archives_over_a_limit_are_refused() {
    for table in limits::tables() {
        table.replay();
    }
}

#[test]
fn the_tables_have_at_least_ninety_cases_with_unique_names() {
    let tables = all();
    let names: Vec<_> = tables
        .iter()
        .flat_map(|table| table.cases.iter().map(|case| case.name))
        .collect();
    let unique: BTreeSet<_> = names.iter().collect();
    assert!(names.len() >= 90, "only {} cases", names.len());
    assert_eq!(unique.len(), names.len(), "a name is used twice");
}

/// The rules of the archive profile, without the parts that vary.
const RULES: &str = "\
not a zstd frame
zstd window over 128 MiB
zstd data is damaged or cut short
zstd frame needs a dictionary
zstd frame without content
payload is compressed twice
first header begins like a compressed file
bytes in skippable zstd frames
zeros after the end of the archive
data after the last zstd frame
header checksum does not match
header is neither ustar nor gnu
header is in the Unix version 7 format
is not strict octal
tar data is cut short
no two zero blocks at the end
data after the end of the archive
archive is empty
archive has no file
hard link to
character device
block device
fifo
sparse file
volume label
unknown entry type
size on an entry without data
extended header over 8 KiB
extended headers over
access control list gives other executable bits than the mode
extended header has bytes after its end
two long names for one entry
two pax headers for one entry
pax record is malformed
pax key is repeated
is not allowed
pax size differs from the header
global pax header with more than comments and vendor keys
extended header without an entry
long link target on an entry that is not a link
name is empty
name is absolute
name begins with a drive letter or a backslash
name has '..'
name is not utf-8
name has a control character
name component over 255 bytes
path over 1024 bytes
path deeper than 32
has bytes after its NUL
gnu header has a time at byte 345
file name ends in '/'
duplicate name
below an entry that is not a directory
at a shared path
above a shared path, but not a directory
mode of a hard link has other executable bits than its file
mtime is not a time in 64 bits
entries, repeated ones included
link target is empty
symlink target is absolute
symlink target over 1024 bytes
symlink target is not utf-8
symlink target has a control character
symlink leads outside of the release
symlink has '..' after a part that does not exist
symlink loops
symlinks are denied
more than
unpacked size over
file over";

#[test]
fn every_rule_of_the_profile_has_a_case() {
    let tables = all();
    let cases = || tables.iter().flat_map(|table| &table.cases);
    for rule in RULES.lines() {
        let covered = cases().any(|case| case.rule.contains(rule));
        assert!(covered, "no case breaks the rule '{rule}'");
    }
    for case in cases() {
        let known = RULES.lines().any(|rule| case.rule.contains(rule));
        assert!(known, "{}: unknown rule: {}", case.name, case.rule);
    }
}
