//! The tables of archives of `tests/suite`, replayed in this process: no sshd, no monitor
//! and no sandbox. So a change of the unpacker is tested in seconds, and each mutant of
//! cargo-mutants as well. The suite replays the same tables through ssh.

#![forbid(unsafe_code)]
#![allow(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    reason = "the bans are for the program: a test prints, and reads PATH"
)]

#[path = "suite/archive.rs"]
mod archive;
#[path = "profile/mode.rs"]
mod mode;
#[path = "profile/site.rs"]
mod site;

#[path = "suite/hostile_archives"]
mod hostile_archives {
    pub mod borderline;
    pub mod cases;
    pub mod extensions;
    pub mod frames;
    pub mod headers;
    pub mod kinds;
    pub mod limits;
    pub mod links;
    pub mod lookalikes;
    pub mod names;
    pub mod order;
    pub mod shared;
    pub mod surroundings;

    pub use cases::{Case, DEFAULTS, Table, case, payload, stream, valid_file};
}

#[test]
fn hostile_archives_are_refused() {
    for table in hostile_archives::cases::all() {
        table.replay();
    }
}

/// Directories too: they get their times after everything in them.
#[test]
fn times_of_the_archive_are_kept() {
    use std::os::unix::fs::MetadataExt;
    let site = site::Site::with_config("");
    let at = |header: archive::Header, seconds: &str| header.put(archive::MTIME, seconds);
    let large = vec![7; 1 << 20];
    let tar = archive::Tar::new()
        .header(at(archive::Header::directory("d"), "14000000000\0"))
        .header(at(archive::Header::file("d/small", 1), "14000000001\0"))
        .data("x")
        .header(at(
            archive::Header::file("d/large", 1 << 20),
            "14000000002\0",
        ))
        .data(&large);
    site.receive("r", &archive::zstd(&tar.end())).ok();
    let release = site.root().join("releases/r");
    for (name, seconds) in [("d", 0), ("d/small", 1), ("d/large", 2)] {
        let found = std::fs::metadata(release.join(name)).expect("it is there");
        assert_eq!(found.mtime(), 0o14_000_000_000 + seconds, "{name}");
    }
}

#[test]
fn an_archive_of_many_small_files_is_refused_for_its_size_on_disk() {
    let site = site::Site::with_config("[archive]\nmax_unpacked = \"64KiB\"\n");
    let files = |count: usize| {
        let name = |number| format!("d{number}/f");
        let tar = (0..count).fold(archive::Tar::new(), |tar, number| {
            tar.file(name(number), "x")
        });
        archive::zstd(&tar.end())
    };
    // Each takes a block and an inode for the file, and again for its directory.
    site.receive("some", &files(12)).ok();
    let reply = site.receive("many", &files(16));
    reply.refused(65, "bad-archive");
    let expected = "size on disk over 139264 bytes";
    assert!(reply.stderr.contains(expected), "{reply:?}");
}

#[test]
fn an_ordinary_archive_has_no_changes() {
    let site = site::Site::with_config("");
    for name in [".deploy-shell-changes", ".deploy-shell-changes/x"] {
        let tar = archive::Tar::new().file("a", "").file(name, "");
        let reply = site.receive("r", &archive::zstd(&tar.end()));
        reply.refused(65, "bad-archive");
        assert!(
            reply.stderr.contains("name is that of the changes"),
            "{reply:?}"
        );
    }
}
