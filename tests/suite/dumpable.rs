//! Another process of the account cannot trace a process of a request: from the beginning
//! where the account may not read the program, and elsewhere after its first few system calls.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::account::Installation;
use crate::direct::{payload, serve};
use crate::process::{Running, copy_program};
use crate::site::{Site, set_mode};
use crate::strace;

#[test]
fn every_process_of_a_receive_makes_itself_not_dumpable() {
    let site = Site::with_config("[shared]\nlinks = [\".env\"]\n");
    fs::write(site.root().join("shared/.env"), "KEY=1").expect("a shared file");
    let log = site.dir().join("calls");
    let to = format!("--output={}", log.display());
    let options = ["-f", "--trace=execve,prctl,umask,read", to.as_str()];
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
        // The assembler waits for its job as long as the client sends.
        let job = first(process, "read(0,");
        assert!(job.is_none_or(|job| done < Some(job)), "{process}: {calls}");
    }
}

/// A program that does not make itself not dumpable shows what the mode does.
#[test]
fn nobody_traces_a_program_that_the_account_may_not_read() {
    let Some(installation) = Installation::create() else {
        return;
    };
    let uid = installation.account.uid;
    for (mode, is_readable) in [(0o755, true), (0o711, false)] {
        let program = installation.site.dir().join(format!("bin/{mode:o}"));
        copy_program("/bin/sleep", &program);
        set_mode(&program, mode);
        let child = Command::new(&program)
            .arg("60")
            .uid(uid)
            .stdin(Stdio::null())
            .spawn()
            .expect("sleep runs");
        let child = Running(child);
        // The kernel checks both as it checks ptrace(2): proc_pid_environ(5).
        let environment = Command::new("cat")
            .arg(
                Path::new("/proc")
                    .join(child.0.id().to_string())
                    .join("environ"),
            )
            .uid(uid)
            .output()
            .expect("cat runs");
        assert_eq!(
            environment.status.success(),
            is_readable,
            "{mode:o}: {environment:?}"
        );
    }
}
