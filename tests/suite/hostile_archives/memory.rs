//! Promises a reader might believe: none may cost the memory it promises.

use std::process::Command;

use super::{Table, frames, limits};
use crate::site::{BIN, Site};

/// More than the program needs for any archive with a small window, and far
/// less than what the archives here claim.
const KIBIBYTES: u64 = 64 << 10;

/// Runs the program and says what the largest of its processes held in memory;
/// only a parent that runs nothing else can tell.
const MEASURE: &str = "\
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:]).returncode
print(code, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
";

/// Exit status and the most memory in KiB.
fn measured(site: &Site, payload: &[u8]) -> (i32, u64) {
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
fn promises_cost_no_memory() {
    let tables = [
        Table::of(frames::cases()),
        Table::of(super::extensions::pax()),
        limits::tables().swap_remove(0),
    ];
    let mut seen = 0;
    for table in tables {
        let site = Site::with_config(table.config);
        let greedy = ["bomb", "GiB", "largest window"];
        let named = |name: &str| greedy.iter().any(|word| name.contains(word));
        for case in table.cases.iter().filter(|case| named(case.name)) {
            let (code, memory) = measured(&site, &case.payload());
            assert_eq!(code, 65, "{}", case.name);
            assert!(memory < KIBIBYTES, "{}: {memory} KiB", case.name);
            seen += 1;
        }
    }
    assert!(seen >= 6, "only {seen} cases claim much");
}
