//! Archives that claim a huge size: none may use the memory that it claims.

use std::process::Command;

use super::{Table, frames, limits};
use crate::site::{BIN, Site};

/// More than the program needs for an archive with a small window, and far less than
/// these archives claim.
const KIBIBYTES: u64 = 64 << 10;

/// Runs the program and prints the memory of its largest process. Only a parent that
/// runs nothing else can measure it.
const MEASURE: &str = "\
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:]).returncode
print(code, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
";

/// Returns the exit status and the maximum memory in KiB.
fn measure(site: &Site, payload: &[u8]) -> (i32, u64) {
    let mut python = Command::new("python3");
    python.args(["-c", MEASURE, BIN, "serve", "--key", "ci", "--config"]);
    python.arg(site.config_path());
    let request = Site::receive_command("bomb", payload);
    python.env("SSH_ORIGINAL_COMMAND", request);
    let reply = site.run(python, payload);
    let words: Vec<_> = reply.stdout.split_whitespace().collect();
    let [code, memory] = words[..] else {
        panic!("python3 (Debian package python3): {reply:?}");
    };
    (
        code.parse().expect("an exit status"),
        memory.parse().expect("kibibytes"),
    )
}

#[test]
fn claimed_sizes_use_no_memory() {
    let tables = [
        Table::of(frames::cases()),
        Table::of(super::extensions::pax()),
        limits::tables().swap_remove(0),
    ];
    let mut tested = 0;
    for table in tables {
        let site = Site::with_config(table.config);
        let claims = ["bomb", "GiB", "largest window"];
        let claims_memory = |name: &str| claims.iter().any(|word| name.contains(word));
        for case in table.cases.iter().filter(|case| claims_memory(case.name)) {
            let (code, memory) = measure(&site, &case.payload());
            assert_eq!(code, 65, "{}", case.name);
            assert!(memory < KIBIBYTES, "{}: {memory} KiB", case.name);
            tested += 1;
        }
    }
    assert!(tested >= 6, "only {tested} cases claim a huge size");
}
