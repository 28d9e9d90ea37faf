//! One case of a table of hostile archives, all tables, and the replay of a table on a site.

use super::surroundings::Surroundings;
use super::{extensions, frames, headers, kinds, limits, links, names, order, shared};
use crate::archive::{self, Tar, zstd};
use crate::mode::Mode;
use crate::site::Reply;

/// One hostile payload and the refusal that it must get.
pub struct Case {
    pub name: &'static str,
    /// The entry as the refusal must show it; none if the defect is in no entry.
    entry: Option<String>,
    pub rule: &'static str,
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
pub fn case(
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
pub fn stream(name: &'static str, rule: &'static str, tar: fn() -> Vec<u8>) -> Case {
    let build = Build::Stream(tar);
    Case {
        name,
        entry: None,
        rule,
        build,
    }
}

/// Returns a case of any bytes.
pub fn payload(name: &'static str, rule: &'static str, bytes: fn() -> Vec<u8>) -> Case {
    let build = Build::Payload(bytes);
    Case {
        name,
        entry: None,
        rule,
        build,
    }
}

/// Returns the valid file that every case begins with.
pub fn valid_file() -> Tar {
    Tar::new().file("index.html", "<h1>sound</h1>\n")
}

impl Case {
    pub fn payload(&self) -> Vec<u8> {
        match self.build {
            Build::Entries(entries) => zstd(&entries(valid_file()).end()),
            Build::Stream(tar) => zstd(&tar()),
            Build::Payload(bytes) => bytes(),
        }
    }

    /// Names the entry with the defect.
    pub fn at(mut self, entry: &str) -> Case {
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
pub struct Table {
    pub config: &'static str,
    pub cases: Vec<Case>,
}

/// A limit that is high enough for a whole table; everything else has its default.
pub const DEFAULTS: &str = "[limits]\nreceives_per_hour = 100000\n";

impl Table {
    pub fn of(cases: Vec<Case>) -> Table {
        Table {
            config: DEFAULTS,
            cases,
        }
    }

    pub fn replay(&self) {
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

/// Returns all tables.
pub fn all() -> Vec<Table> {
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
