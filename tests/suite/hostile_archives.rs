//! Archives with one defect each. Each case goes through real ssh. It must be refused
//! with exit status 65, the broken rule and the entry that breaks it, and must leave
//! nothing inside or beside the site.

mod borderline;
mod cases;
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

use cases::{Case, DEFAULTS, Table, all, case, payload, stream, valid_file};

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
