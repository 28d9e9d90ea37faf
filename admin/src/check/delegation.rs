//! Whether the sessions of the account get a cgroup that it may divide, as
//! packaging/cgroup arranges it. Then a hook runs in a cgroup of its own.

use std::fs;
use std::path::Path;

/// The PAM stack of sshd.
const PAM_OF_SSHD: &str = "/etc/pam.d/sshd";

/// Where cgroups of version 2 are mounted: alone, and beside those of version 1. Only
/// their root has this file.
const ROOTS_OF_VERSION_2: [&str; 2] = [
    "/sys/fs/cgroup/cgroup.controllers",
    "/sys/fs/cgroup/unified/cgroup.controllers",
];

/// Returns whether sshd's PAM stack delegates a cgroup to the sessions of `account`, and
/// this machine has cgroups of version 2.
///
/// A stack may include others, and this reads only the first: `false` says that no
/// delegation is known.
pub fn is_delegated(account: &str) -> bool {
    let stack = fs::read_to_string(PAM_OF_SSHD).unwrap_or_default();
    let has_version_2 = ROOTS_OF_VERSION_2
        .iter()
        .any(|path| Path::new(path).exists());
    has_version_2 && delegates(&stack, account)
}

/// Returns whether a PAM stack runs the program `delegate` for `account` (pam.d(5)).
fn delegates(stack: &str, account: &str) -> bool {
    stack.lines().any(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let is_session = words.first() == Some(&"session");
        let runs = words.iter().any(|word| word.ends_with("pam_exec.so"));
        let [.., program, last] = words[..] else {
            return false;
        };
        is_session && runs && program.ends_with("/delegate") && last == account
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_the_account_is_found() {
        let line = "session optional pam_exec.so quiet /usr/local/lib/deploy-shell/delegate deploy";
        let stack = format!("@include common-session\n{line}\n");
        assert!(delegates(&stack, "deploy"));
        assert!(!delegates(&stack, "other"));
        for other in [
            line.replacen("session", "#session", 1),
            line.replacen("session", "auth", 1),
            line.replacen("pam_exec", "pam_env", 1),
            line.replacen("/delegate", "/other", 1),
            "session".to_owned(),
        ] {
            assert!(!delegates(&other, "deploy"), "{other}");
        }
    }
}
