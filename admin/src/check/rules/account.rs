//! What the account is, beyond the keys that lead to it.

use super::paths::writable;
use crate::check::facts::{Account, Entry, HomeFolder, Password, Settings, named_ours};
use crate::check::findings::{Finding, Word};

/// Groups that amount to root, or to writing what others run, on some system.
const POWERFUL: [&str; 13] = [
    "root", "sudo", "wheel", "admin", "adm", "staff", "docker", "lxd", "incus", "libvirt", "disk",
    "shadow", "kmem",
];

pub fn judge(account: &Account, server: Option<&Settings>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut find = |word, subject: &str, problem: String| {
        findings.push(Finding::new(word, subject, problem));
    };
    let name = account.name();
    if account.uid == 0 {
        let problem = "the site belongs to root: a way out of the program is a way to everything";
        find(Word::AccountIsRoot, ".deploy-shell", problem.to_owned());
        // What else there is to say of root is not for a site's sake to mend:
        // without its shell, say, nobody could.
        return findings;
    }
    let Some(entry) = &account.entry else {
        let uid = account.uid.to_string();
        let problem = format!("the site belongs to uid {uid}, which has no passwd entry");
        find(Word::AccountUnknown, &uid, problem);
        return findings;
    };
    for twin in &account.twins {
        let problem = format!("'{twin}' has the same uid as '{name}', and so the same rights");
        find(Word::SharedUid, twin, problem);
    }
    if !named_ours(&entry.shell) {
        let shell = match entry.shell.as_os_str().is_empty() {
            true => "/bin/sh".into(),
            false => entry.shell.display().to_string(),
        };
        let problem = format!(
            "the login shell of '{name}' is '{shell}': it reads every forced command, and a key without one gets it"
        );
        find(Word::LoginShell, &name, problem);
    }
    match account.password {
        Some(Password::Set) => {
            let problem =
                format!("'{name}' has a password, which can be guessed or leak like a key");
            find(Word::PasswordSet, &name, problem);
        }
        Some(Password::Empty) => {
            let problem = format!("'{name}' has an empty password");
            find(Word::PasswordEmpty, &name, problem);
        }
        Some(Password::Locked) | None => {}
    }
    let powerful = |group: &&String| POWERFUL.contains(&group.as_str());
    for group in account.groups.iter().filter(powerful) {
        let problem =
            format!("'{name}' is in the group '{group}', which can do much of what root can");
        find(Word::PowerfulGroup, &format!("{name}' '{group}"), problem);
    }
    findings.extend(in_home(entry, &account.home, server));
    findings
}

fn in_home(entry: &Entry, home: &HomeFolder, server: Option<&Settings>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let why = "who can write there decides what sshd reads in ~/.ssh";
    let way = home.way.as_ref();
    findings.extend(way.and_then(|way| writable(way, &[0], Word::HomeWritable, why)));
    // What stands in a home that is open is open as well: one finding is enough.
    if findings.is_empty() {
        let why = "who can write there can add keys, variables and commands";
        let way = home.ssh.as_ref();
        findings.extend(way.and_then(|way| writable(way, &[0], Word::SshFolderWritable, why)));
    }
    let folder = entry.home.join(".ssh");
    let shown = |name: &str| folder.join(name).display().to_string();
    if home.rc {
        let problem = format!("'{}' is run before the command of a key", shown("rc"));
        findings.push(Finding::new(Word::SshRc, shown("rc"), problem));
    }
    if home.environment {
        let file = shown("environment");
        let problem = format!("'{file}' sets variables where PermitUserEnvironment is on");
        findings.push(Finding::new(Word::SshEnvironment, file, problem));
    }
    // Where sshd does read it, its lines are judged as keys.
    let read = |path: &std::path::Path| {
        let patterns = server.and_then(|settings| settings.get("authorizedkeysfile"));
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let word = format!(".ssh/{name}");
        patterns.is_none_or(|patterns| {
            patterns
                .split_ascii_whitespace()
                .any(|pattern| pattern == word || pattern.ends_with(&format!("/{word}")))
        })
    };
    for path in home.keys.iter().filter(|path| !read(path)) {
        let file = path.display();
        let problem = format!("'{file}' holds keys that sshd does not read, until it is told to");
        findings.push(Finding::new(Word::StrayKeys, file, problem));
    }
    findings
}
