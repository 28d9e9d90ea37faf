//! The operator's program on the terminal of root.

use std::fs;
use std::process::Command;

use nix::unistd::Uid;

use crate::site::{Site, admin};
use crate::strace;

/// The account of the site: nobody.
const ACCOUNT: &str = "65534";

/// Runs a command of `sh` on a terminal of its own (script(1)).
pub fn on_a_terminal(site: &Site, words: &str) -> Command {
    let mut command = Command::new("script");
    command
        .args(["--quiet", "--return", "--command", words])
        .arg(site.dir().join("typescript"))
        .env("SHELL", "/bin/sh");
    command
}

/// A process of the account could trace one that executes a program as the account in root's
/// session, and type for root.
#[test]
fn nothing_runs_as_the_account_in_the_session_of_root() {
    if !Uid::effective().is_root() {
        println!("skipped: only root becomes another account");
        return;
    }
    for command in ["check", "status", "drop"] {
        let site = Site::new();
        site.give_to(ACCOUNT);
        let log = site.dir().join("calls");
        let mut program = Command::new(admin());
        program.arg(command);
        program.arg("--config").arg(site.config_path());
        if command == "drop" {
            program.arg("r1");
        }
        let log_option = format!("--output={}", log.display());
        let options = ["-f", "--trace=setsid,setuid", log_option.as_str()];
        let traced = strace::under(&options, &program);
        let words: Vec<_> = std::iter::once(traced.get_program())
            .chain(traced.get_args())
            .map(|word| format!("'{}'", word.display()))
            .collect();
        site.run(on_a_terminal(&site, &words.join(" ")), b"");
        let calls = fs::read_to_string(&log).expect("the calls");
        let became = calls.find(&format!("setuid({ACCOUNT})"));
        let became = became.unwrap_or_else(|| panic!("{command} becomes no account: {calls}"));
        assert!(calls[..became].contains("setsid()"), "{command}: {calls}");
        assert!(!calls.contains("EPERM"), "{command}: {calls}");
    }
}
