//! Reads a manifest: its head, single entries, and the whole. Each line has one
//! spelling, so every accepted line is written back unchanged.

#![no_main]

use deploy_shell::manifest::{Entries, Entry, Identity, Kind, MAX_LINE, Sums, trailer};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for line in bytes.split(|byte| *byte == b'\n') {
        if let Ok(line) = std::str::from_utf8(line)
            && let Ok(entry) = Entry::parse(line)
        {
            check_entry(&entry, line);
        }
    }
    let mut rest = bytes;
    if let Ok(identity) = Identity::read(&mut rest) {
        let head = &bytes[..bytes.len() - rest.len()];
        assert_eq!(
            identity.to_string().as_bytes(),
            head,
            "the head, written back"
        );
    } else {
        rest = bytes;
    }
    check_body(rest);
});

fn check_body(bytes: &[u8]) {
    let mut rest = bytes;
    let mut entries = Entries::new(&mut rest);
    let mut written = String::new();
    let mut sums = Sums::default();
    // Terminates: every turn consumes a line.
    let whole = loop {
        match entries.next_entry() {
            Ok(Some(entry)) => {
                written += &format!("{entry}\n");
                sums.add(&entry);
            }
            Ok(None) => break true,
            Err(why) => {
                assert!(!why.is_empty());
                break false;
            }
        }
    };
    if whole {
        assert_eq!(entries.next_entry(), Ok(None), "no entry follows the end");
        written += &trailer(sums);
        assert_eq!(written.as_bytes(), bytes, "the body, written back");
        assert!(written.lines().all(|line| line.len() < MAX_LINE));
    } else {
        // The accepted entries are the beginning of the input.
        assert!(
            bytes.starts_with(written.as_bytes()),
            "the entries, written back"
        );
    }
}

fn check_entry(entry: &Entry, line: &str) {
    assert_eq!(entry.to_string(), line, "an entry, written back");
    assert!(
        line.bytes().all(|byte| matches!(byte, b' '..=b'~')),
        "{line}"
    );
    let words = line.split(' ').count();
    match &entry.kind {
        Kind::Dir => assert_eq!(words, 3),
        Kind::File { .. } => assert_eq!(words, 5),
        Kind::Link { .. } => assert_eq!(words, 4),
    }
}
