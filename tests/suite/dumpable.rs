//! No process of a request can be traced by another process of its account.

use std::collections::BTreeSet;
use std::fs;

use crate::direct::{payload, serve};
use crate::site::Site;
use crate::strace;

#[test]
fn every_process_of_a_receive_makes_itself_not_dumpable() {
    let site = Site::with_config("[shared]\nlinks = [\".env\"]\n");
    fs::write(site.root().join("shared/.env"), "KEY=1").expect("a shared file");
    let log = site.dir().join("calls");
    let to = format!("--output={}", log.display());
    let options = ["-f", "--trace=execve,prctl", to.as_str()];
    let bytes = payload("r1");
    let serve = serve(&site, "ci", Site::receive_command("r1", &bytes));
    site.run(strace::under(&options, &serve), &bytes).ok();
    let calls = fs::read_to_string(&log).expect("the calls");
    let processes_with = |call: &str| -> BTreeSet<&str> {
        let lines = calls.lines().filter(|line| line.contains(call));
        lines.filter_map(|line| line.split(' ').next()).collect()
    };
    let programs = processes_with("execve(");
    // The monitor, the assembler, the unpacker and two look-ups.
    assert!(programs.len() >= 5, "{calls}");
    let done = processes_with("prctl(PR_SET_DUMPABLE, SUID_DUMP_DISABLE");
    let traceable: Vec<_> = programs.difference(&done).collect();
    assert!(traceable.is_empty(), "{traceable:?}: {calls}");
}
