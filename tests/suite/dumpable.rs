//! Another process of the account cannot trace a process of a request after its first few
//! system calls.

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
    let options = ["-f", "--trace=execve,prctl,umask", to.as_str()];
    let bytes = payload("r1");
    let serve = serve(&site, "ci", Site::receive_command("r1", &bytes));
    site.run(strace::under(&options, &serve), &bytes).ok();
    let calls = fs::read_to_string(&log).expect("the calls");
    let first = |process: &str, call: &str| {
        let mut lines = calls.lines();
        lines.position(|line| line.starts_with(&format!("{process} ")) && line.contains(call))
    };
    let lines = calls.lines().filter(|line| line.contains("execve("));
    let programs: BTreeSet<&str> = lines.filter_map(|line| line.split(' ').next()).collect();
    // The monitor, the assembler, the unpacker and two look-ups.
    assert!(programs.len() >= 5, "{calls}");
    for process in programs {
        let done = first(process, "prctl(PR_SET_DUMPABLE, SUID_DUMP_DISABLE");
        // umask(2) comes next. The sandboxes do the same again, much later.
        let next = first(process, "umask(");
        assert!(done.is_some() && done < next, "{process}: {calls}");
    }
}
