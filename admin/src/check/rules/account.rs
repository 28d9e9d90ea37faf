//! Findings about the account itself.

use std::path::Path;

use super::paths::writable;
use crate::check::facts::{
    Account, HomeDirectory, PasswdEntry, PasswordState, SshdSettings, is_deploy_shell,
};
use crate::check::findings::{Finding, FindingCode, Membership};
use deploy_shell::store::layout::STATE;

/// Groups whose members can become root, or can write what other users run, on
/// some system.
const POWERFUL: [&str; 13] = [
    "root", "sudo", "wheel", "admin", "adm", "staff", "docker", "lxd", "incus", "libvirt", "disk",
    "shadow", "kmem",
];

pub fn account_findings(account: &Account, sshd: Option<&SshdSettings>) -> Vec<Finding> {
    let name = account.name();
    if account.uid == 0 {
        let text = "the site belongs to root: an escape from deploy-shell would give root's rights";
        // No other finding about root: a remedy, such as another login shell,
        // would damage the machine for the sake of a site.
        return vec![Finding::new(FindingCode::AccountIsRoot, STATE, text)];
    }
    let Some(entry) = &account.passwd else {
        let uid = account.uid;
        let text = format!("the site belongs to uid {uid}, which has no passwd entry");
        return vec![Finding::new(FindingCode::AccountUnknown, uid, text)];
    };
    let mut findings = Vec::new();
    let mut add = |code, subject: &str, text: String| {
        findings.push(Finding::new(code, subject, text));
    };
    for alias in &account.uid_aliases {
        let text = format!("'{alias}' has the same uid as '{name}', and so the same rights");
        add(FindingCode::SharedUid, alias, text);
    }
    if !is_deploy_shell(&entry.shell) {
        let shell = if entry.shell.as_os_str().is_empty() {
            "/bin/sh".to_owned()
        } else {
            entry.shell.display().to_string()
        };
        let text = format!(
            "the login shell of '{name}' is '{shell}': it interprets each forced command, and \
             someone with a key without command= can use it"
        );
        add(FindingCode::LoginShell, &name, text);
    }
    match account.password {
        Some(PasswordState::Set) => {
            let text = format!("'{name}' has a password, which someone can guess or steal");
            add(FindingCode::PasswordSet, &name, text);
        }
        Some(PasswordState::Empty) => {
            let text = format!("'{name}' has an empty password");
            add(FindingCode::PasswordEmpty, &name, text);
        }
        Some(PasswordState::Locked) | None => {}
    }
    let powerful = |group: &&String| POWERFUL.contains(&group.as_str());
    for group in account.groups.iter().filter(powerful) {
        let text = format!("'{name}' is in the group '{group}', which has many rights of root");
        let membership = Membership {
            account: &name,
            group,
        };
        findings.push(Finding::new(FindingCode::PowerfulGroup, membership, text));
    }
    findings.extend(home_findings(entry, &account.home, sshd));
    findings
}

fn home_findings(
    entry: &PasswdEntry,
    home: &HomeDirectory,
    sshd: Option<&SshdSettings>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let why = "a user who can write there decides what sshd reads in ~/.ssh";
    let location = home.location.as_ref();
    findings.extend(location.and_then(|home| writable(home, &[0], FindingCode::HomeWritable, why)));
    // ~/.ssh is writable whenever the home directory is: one finding is enough.
    if findings.is_empty() {
        let why = "a user who can write there can add keys, variables and commands";
        let ssh = home.ssh.as_ref();
        findings.extend(
            ssh.and_then(|ssh| writable(ssh, &[0], FindingCode::SshDirectoryWritable, why)),
        );
    }
    let directory = entry.home.join(".ssh");
    let shown = |name: &str| directory.join(name).display().to_string();
    if home.has_rc {
        let file = shown("rc");
        let text = format!("sshd runs '{file}' before the command of a key");
        findings.push(Finding::new(FindingCode::SshRc, file, text));
    }
    if home.has_environment {
        let file = shown("environment");
        let text = format!("'{file}' sets variables where PermitUserEnvironment is on");
        findings.push(Finding::new(FindingCode::SshEnvironment, file, text));
    }
    // The rules for keys judge the files that sshd reads.
    let stray = home.keys_files.iter();
    for path in stray.filter(|path| !is_read_by_sshd(path, sshd)) {
        let file = path.display();
        let text =
            format!("'{file}' has keys that sshd does not read, but would with another setting");
        findings.push(Finding::new(FindingCode::StrayKeys, file, text));
    }
    findings
}

/// Returns whether sshd reads keys from a file of `~/.ssh`.
fn is_read_by_sshd(path: &Path, sshd: Option<&SshdSettings>) -> bool {
    let patterns = sshd.and_then(|settings| settings.get("authorizedkeysfile"));
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    let relative = format!(".ssh/{name}");
    patterns.is_none_or(|patterns| {
        patterns
            .split_ascii_whitespace()
            .any(|pattern| pattern == relative || pattern.ends_with(&format!("/{relative}")))
    })
}
