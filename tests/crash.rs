//! Crash tests: a fault at the system calls of every verb, the order of writes and
//! syncs, power failures, and many clients at once.
//!
//! `cargo test --test crash` tries a sample: every call that changes the disk, and every
//! nth of the others. With `DEPLOY_SHELL_CRASH=all` in the environment it tries all calls
//! of all threads, each with every error, and swaps 100,000 times while a reader reads;
//! that takes nearly an hour. It then also mounts many more states in which a power failure can
//! leave ext4, xfs and btrfs (`-- power`; for root alone): 60 to 200 choices of what was
//! written since each flush. `-- --nocapture` prints the counts.
//! `DEPLOY_SHELL_CRASH_ONLY=swap` (swap without pruning, rollback, receive, receive a signed
//! one, swap after a crash, swap with a checkpoint, receive with a checkpoint, swap with a
//! gate, rollback with a gate, swap and back, rollback and back, receive a delta, receive a
//! delta with links) runs one scenario only; commas separate several.

#![forbid(unsafe_code)]
#![allow(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    reason = "these bans are for the program; a test prints, and reads its environment"
)]

#[path = "suite/archive.rs"]
#[expect(dead_code, reason = "shared with the suite")]
mod archive;
#[path = "suite/delta_payload.rs"]
#[expect(dead_code, reason = "shared with the suite")]
mod delta_payload;
#[path = "suite/signing.rs"]
#[expect(dead_code, reason = "shared with the suite")]
mod signing;
#[path = "suite/site.rs"]
#[expect(dead_code, reason = "shared with the suite")]
mod site;
#[path = "suite/strace.rs"]
mod strace;

#[path = "crash/clients.rs"]
mod clients;
#[path = "crash/faults.rs"]
mod faults;
#[path = "crash/fixture.rs"]
mod fixture;
#[path = "crash/payloads.rs"]
mod payloads;
#[path = "crash/power.rs"]
mod power;
#[path = "crash/scenarios.rs"]
mod scenarios;
#[path = "crash/sync_order.rs"]
mod sync_order;
#[path = "crash/tracer.rs"]
mod tracer;

/// Returns whether to try everything.
fn long() -> bool {
    std::env::var("DEPLOY_SHELL_CRASH").is_ok_and(|what| what == "all")
}

/// Makes temporary directories in memory, where the machine has /dev/shm. The kernel
/// keeps what a killed process wrote, so a disk would only make the tests slower.
fn in_memory() {
    let memory = std::path::Path::new("/dev/shm");
    if tempfile::tempfile_in(memory).is_ok() {
        // It fails if an earlier test has set it.
        let _ = tempfile::env::override_temp_dir(memory);
    }
}
