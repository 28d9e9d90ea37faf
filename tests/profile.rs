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

use hostile_archives::{Table, extensions, frames, headers, kinds, limits, links, names, order};

#[test]
fn hostile_archives_are_refused() {
    for cases in [
        frames::cases(),
        headers::cases(),
        kinds::cases(),
        extensions::pax(),
        extensions::gnu(),
        names::cases(),
        order::cases(),
        links::cases(),
    ] {
        Table::of(cases).replay();
    }
}

#[test]
fn archives_over_a_limit_are_refused() {
    for table in limits::tables() {
        table.replay();
    }
}
