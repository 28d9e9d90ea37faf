//! Crash-proof, shown: a fault at the system calls of every verb, the order of
//! writes and syncs, and many clients at once.
//!
//! `cargo test --test crash` tries a sample: every call that changes the disk,
//! and each so-manyth of the others. With `DEPLOY_SHELL_CRASH=all` in the
//! environment it tries all calls of all threads, each with every error, and
//! swaps 100,000 times under a reader's eyes; that takes the better part of an
//! hour. `-- --nocapture` shows the counts. `DEPLOY_SHELL_CRASH_ONLY=swap`
//! (rollback, receive, swap after a crash, swap with a gate, rollback with a
//! gate, swap and back, rollback and back) leaves out the other requests.

#![forbid(unsafe_code)]
#![allow(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    reason = "the bans are for the program: a test prints, and reads its environment"
)]

#[path = "suite/archive.rs"]
#[expect(dead_code, reason = "shared with the suite")]
mod archive;
#[path = "suite/site.rs"]
#[expect(dead_code, reason = "shared with the suite")]
mod site;
#[path = "suite/strace.rs"]
mod strace;

#[path = "crash/crowd.rs"]
mod crowd;
#[path = "crash/ground.rs"]
mod ground;
#[path = "crash/order.rs"]
mod order;
#[path = "crash/points.rs"]
mod points;
#[path = "crash/scenarios.rs"]
mod scenarios;
#[path = "crash/tracer.rs"]
mod tracer;

/// Whether all is to be tried.
fn long() -> bool {
    std::env::var("DEPLOY_SHELL_CRASH").is_ok_and(|what| what == "all")
}

/// Has temporary folders made in memory, where there is such a place: what a
/// killed process has told the kernel is not lost, so a disk would only make
/// the tests wait.
fn in_memory() {
    let memory = std::path::Path::new("/dev/shm");
    if tempfile::tempfile_in(memory).is_ok() {
        // It fails where it has been said before.
        let _ = tempfile::env::override_temp_dir(memory);
    }
}
