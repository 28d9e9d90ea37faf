//! Findings about the way of a request from sshd to the site: what keeps sshd from
//! accepting the account, its keys or its programs.

use std::path::{Path, PathBuf};

use super::remedies::{is_fixed, let_use, on};
use crate::check::facts::{Account, Aging, Facts, ForcedCommand, PasswordState, ServedSite};
use crate::check::facts::{PasswdEntry, SshdSettings};
use crate::check::findings::{Finding, FindingCode};
use deploy_shell::shell_word::Word;
use deploy_shell::signature::list_matches;

/// The home directory of the account that the packages create.
const USUAL_HOME: &str = "/var/lib/deploy-shell";

pub fn login_findings(facts: &Facts) -> Vec<Finding> {
    let Some(account) = &facts.account else {
        return Vec::new();
    };
    let mut findings = Vec::new();
    if let (Some(settings), Some(entry)) = (&facts.sshd, &account.passwd) {
        findings.extend(refusal(settings, entry, &account.groups));
    }
    findings.extend(unusable_account(account, facts.sshd.as_ref()));
    findings.extend(logins_closed(facts));
    findings.extend(home_missing(facts, account));
    findings.extend(blocked_files(facts));
    findings.extend(no_key(facts));
    findings
}

/// Returns the setting by which sshd refuses every key of the account (`allowed_user` in
/// auth.c of OpenSSH). A pattern with a host refuses only some clients, and is left out.
fn refusal(settings: &SshdSettings, entry: &PasswdEntry, groups: &[String]) -> Option<Finding> {
    let name = entry.name.as_str();
    let matches =
        |pattern: &str, text: &str| !pattern.starts_with('!') && list_matches(pattern, text);
    let finding = |text: String, remedy: String| {
        let text = format!("{text}: it refuses every key of '{name}'");
        Some(Finding::with_remedy(
            FindingCode::LoginRefused,
            name,
            text,
            &remedy,
        ))
    };
    let denied_user = |pattern: &&String| !pattern.contains('@') && matches(pattern, name);
    // The client's host decides about what follows the last '@'.
    let allowed_user = |pattern: &String| {
        let user = pattern
            .rsplit_once('@')
            .map_or(pattern.as_str(), |(user, _)| user);
        matches(user, name)
    };
    let of_a_group = |pattern: &&String| groups.iter().any(|group| matches(pattern, group));
    if settings.get("pubkeyauthentication") == Some("no") {
        let text = "sshd has 'PubkeyAuthentication no'".to_owned();
        return finding(text, format!("set PubkeyAuthentication yes for '{name}'"));
    }
    if let Some(pattern) = settings.all("denyusers").iter().find(denied_user) {
        let text = format!("sshd has 'DenyUsers {pattern}'");
        return finding(
            text,
            format!("take '{pattern}' out of DenyUsers, or exclude '{name}' from what it matches"),
        );
    }
    let allowed = settings.all("allowusers");
    if !allowed.is_empty() && !allowed.iter().any(allowed_user) {
        let text = format!("sshd has 'AllowUsers {}'", allowed.join(" "));
        return finding(text, format!("add '{name}' to AllowUsers"));
    }
    if let Some(pattern) = settings.all("denygroups").iter().find(of_a_group) {
        let text = format!("sshd has 'DenyGroups {pattern}', and '{name}' is in such a group");
        return finding(
            text,
            format!("take '{name}' out of the group, or the group out of DenyGroups"),
        );
    }
    let allowed = settings.all("allowgroups");
    if !allowed.is_empty() && !allowed.iter().any(|pattern| of_a_group(&pattern)) {
        let text = format!("sshd has 'AllowGroups {}'", allowed.join(" "));
        let group = groups.first().map_or(name, String::as_str);
        return finding(
            text,
            format!("add '{group}', a group of '{name}', to AllowGroups"),
        );
    }
    None
}

/// sshd refuses a locked account itself only without PAM, and an expired one in either
/// case. With PAM, pam_unix(8) says so, and also asks for a new password of an old one.
fn unusable_account(account: &Account, sshd: Option<&SshdSettings>) -> Vec<Finding> {
    let name = account.name();
    let mut findings = Vec::new();
    let uses_pam = sshd.is_some_and(|settings| settings.is_on("usepam"));
    if account.password == Some(PasswordState::AccountLocked) && sshd.is_some() && !uses_pam {
        let text =
            format!("'{name}' is locked ('!' in /etc/shadow): sshd without PAM refuses its keys");
        findings.push(Finding::of_word(FindingCode::AccountLocked, &name, text));
    }
    let Some(Aging {
        today,
        last_change,
        max_age,
        expires,
    }) = account.aging
    else {
        return findings;
    };
    if expires.is_some_and(|day| today > day) {
        let text = format!("'{name}' has expired: sshd refuses its keys");
        let remedy = format!(
            "if it is to deploy again: chage --expiredate -1 {}",
            Word::new(&name)
        );
        let code = FindingCode::AccountExpired;
        findings.push(Finding::with_remedy(code, &name, text, &remedy));
    }
    // A change on day 0 means that the password must be changed at the next login.
    let aged = last_change.zip(max_age);
    let is_old = last_change == Some(0) || aged.is_some_and(|(day, max)| today > day + max);
    // Without PAM, sshd looks at the age of a password only where it asks for one.
    if is_old && uses_pam {
        let text = format!(
            "the password of '{name}' has expired, though no password matches: sshd asks for a \
             new one in place of each request"
        );
        let remedy = format!(
            "end its ageing: chage --lastday -1 --maxdays -1 {}",
            Word::new(&name)
        );
        let code = FindingCode::AccountExpired;
        findings.push(Finding::with_remedy(code, &name, text, &remedy));
    }
    findings
}

/// A file that closes the machine to all users but root: nologin(5). pam_nologin(8) looks
/// at both, and sshd itself only at the one in /etc, without PAM (session.c of OpenSSH).
fn logins_closed(facts: &Facts) -> Option<Finding> {
    let uses_pam = facts.sshd.as_ref()?.is_on("usepam");
    let counts = |file: &&PathBuf| uses_pam || file.starts_with("/etc");
    let file = facts.nologin_files.iter().find(counts)?;
    let (shown, name) = (file.display(), facts.account_name());
    let text = format!("'{shown}' exists: sshd refuses every request of '{name}', and all users");
    let remedy = if file.starts_with("/run") {
        "systemd makes it while the machine starts and before it stops; when the machine is up: \
         systemctl start systemd-user-sessions.service"
            .to_owned()
    } else {
        format!("when the maintenance is over: rm {}", Word::new(file))
    };
    Some(Finding::with_remedy(
        FindingCode::LoginsClosed,
        shown,
        text,
        &remedy,
    ))
}

fn home_missing(facts: &Facts, account: &Account) -> Option<Finding> {
    let entry = account
        .passwd
        .as_ref()
        .filter(|_| account.home.is_missing)?;
    let shown = entry.home.display();
    let text = format!(
        "the home directory '{shown}' of '{}' does not exist: sshd adds a complaint to every answer",
        entry.name
    );
    let location = account.home.location.as_ref();
    let is_safe = location.is_none_or(|home| is_fixed(home.above()))
        && !entry.home.starts_with(&facts.config.root);
    // Debian gives this home directory to accounts that must have none.
    let remedy = if entry.home == Path::new("/nonexistent") || !is_safe {
        usual_home(&entry.name)
    } else {
        format!(
            "install -d -o root -g root -m 0755 {}",
            Word::new(&entry.home)
        )
    };
    let code = FindingCode::HomeMissing;
    Some(Finding::with_remedy(code, shown, text, &remedy))
}

/// Returns the command that gives the account the home directory that the packages create.
pub fn usual_home(name: &str) -> String {
    let (home, name) = (Word::new(USUAL_HOME), Word::new(name));
    format!("install -d -o root -g root -m 0755 {home} && usermod --home {home} {name}")
}

/// Returns the keys file that sshd/README.md recommends for the account `name`.
fn usual_keys(name: &str) -> PathBuf {
    Path::new("/etc/deploy-shell/authorized_keys").join(name)
}

/// One directory may block several of the files, and is one finding.
fn blocked_files(facts: &Facts) -> Vec<Finding> {
    let name = facts.account_name();
    let mut findings: Vec<Finding> = Vec::new();
    for blocked in &facts.probe.blocked {
        let (path, at) = (blocked.path.display(), blocked.at.path.display());
        let is_home = facts
            .passwd()
            .is_some_and(|entry| entry.home == blocked.path);
        let is_keys_file = (facts.keys_files.iter()).any(|file| file.location.path == blocked.path);
        let (code, text) = if is_keys_file {
            let text = format!(
                "sshd reads '{path}' as '{name}', which cannot: '{at}' denies it, so no key in it logs in"
            );
            (FindingCode::KeysUnreadable, text)
        } else if is_home {
            let text =
                format!("'{name}' cannot search its home directory '{path}': '{at}' denies it");
            (FindingCode::HomeBlocked, text)
        } else {
            let text = format!("'{name}' cannot run '{path}': '{at}' denies it");
            (FindingCode::ProgramBlocked, text)
        };
        let remedy = if code == FindingCode::KeysUnreadable {
            // Of what blocks the account, most is another user's, who alone can change it.
            if is_fixed(blocked.at.above()) {
                let how = let_use(facts, blocked);
                format!("let the account read it, because sshd opens it as the account, {how}")
            } else {
                let usual = Word::new(usual_keys(&name));
                format!("keep the keys in {usual}, as sshd/README.md says")
            }
        } else if code == FindingCode::ProgramBlocked && !blocked.directory {
            let chmod = format!("chmod a+x {}", Word::new(&blocked.at.path));
            format!("with chmod: {}", on(facts, &blocked.at, chmod))
        } else {
            let_use(facts, blocked)
        };
        let finding = Finding::with_remedy(code, at, text, &remedy);
        let same = |other: &Finding| other.subject == finding.subject;
        if !findings.iter().any(same) {
            findings.push(finding);
        }
    }
    findings
}

/// No key of a file serves the site, and sshd accepts no others.
fn no_key(facts: &Facts) -> Option<Finding> {
    let (settings, entry) = (facts.sshd.as_ref()?, facts.passwd()?);
    let others = ["authorizedkeyscommand", "trustedusercakeys", "forcecommand"];
    let unknown = others.iter().any(|keyword| settings.is_on(keyword))
        || facts.keys_files.iter().any(|file| !file.was_read)
        || (facts.keys_files.iter()).any(|file| file.lines.iter().any(|line| line.key.is_err()));
    // Other findings say what is wrong with a key that serves no site.
    let elsewhere = |command: &ForcedCommand| match command {
        ForcedCommand::Serve(serve) => {
            matches!(serve.site, ServedSite::Other(_) | ServedSite::Missing(_))
        }
        _ => false,
    };
    if unknown || !facts.keys().all(|(_, key)| elsewhere(&key.command)) {
        return None;
    }
    let name = &entry.name;
    let usual = usual_keys(name);
    let first = facts.keys_files.first().map(|file| &file.location);
    let shown = first.map_or(&usual, |first| &first.path).display();
    // Root appends to no file where another user can put a symlink.
    let fixed = first.filter(|first| is_fixed(first.above()));
    let file = Word::new(fixed.map_or(&usual, |fixed| &fixed.path));
    let what = if facts.keys().next().is_some() {
        format!("no key of '{name}' serves this site")
    } else {
        format!("no key is registered for '{name}'")
    };
    let text = format!("{what}: nobody can deploy");
    let site = facts.config.site_option();
    let remedy = format!("deploy-shell-admin authorize {site} --key LABEL FILE.pub >> {file}");
    Some(Finding::with_remedy(
        FindingCode::NoKey,
        shown,
        text,
        &remedy,
    ))
}
