//! Findings about each key, and about keys and labels that occur twice.

use std::collections::{BTreeMap, BTreeSet};

use super::server::sshd_forced_command;
use crate::check::facts::{Facts, ForcedCommand, Key, KeyPosition, ServedSite};
use crate::check::findings::{Finding, FindingCode};
use crate::check::key_options::KeyOptions;

/// The fewest bits of an RSA key (NIST SP 800-57, until 2030 and beyond).
const MIN_RSA_BITS: usize = 3072;

pub fn key_findings(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in &facts.keys_files {
        for line in &file.lines {
            let position = KeyPosition::new(file, line);
            match &line.key {
                Ok(key) => {
                    let rows = problems_of_key(facts, key).into_iter();
                    findings.extend(rows.map(|(code, what)| {
                        let text = format!("the key at {position} {what}");
                        Finding::new(code, position, text)
                    }));
                }
                Err(why) => {
                    let text = format!(
                        "{position} {why}: sshd skips the line, but another version may accept it"
                    );
                    findings.push(Finding::new(FindingCode::KeyUnread, position, text));
                }
            }
        }
    }
    findings.extend(repeated_keys(facts));
    findings.extend(shared_labels(facts));
    findings
}

/// Returns the problems of a key, as phrases whose subject is the key.
fn problems_of_key(facts: &Facts, key: &Key) -> Vec<(FindingCode, String)> {
    // Every other problem of such a line goes with it: 'authorize' prints a whole one.
    if key.command == ForcedCommand::None && !key.entry.options.cert_authority {
        return without_command(facts);
    }
    let mut found = Vec::new();
    let mut add = |code, what: &str| found.push((code, what.to_owned()));
    let options = &key.entry.options;
    if options.cert_authority {
        let what = "is a certificate authority: its holder can create keys";
        add(FindingCode::KeyCertAuthority, what);
    }
    if !options.restrict {
        let what = "has no 'restrict': it has every permission that sshd grants by default";
        add(FindingCode::KeyWithoutRestrict, what);
    }
    for (code, what) in permissions(options) {
        add(code, &format!("may {what}"));
    }
    let command = options.command.as_deref().unwrap_or_default();
    match &key.command {
        // An authority's certificates may have commands of their own.
        ForcedCommand::None => {
            for (code, what) in without_command(facts) {
                add(code, &what);
            }
        }
        ForcedCommand::OtherProgram => {
            let what = format!("runs another program: '{command}'");
            add(FindingCode::OtherProgram, &what);
        }
        ForcedCommand::NotServe => {
            let what = format!("runs deploy-shell with arguments that serve no site: '{command}'");
            add(FindingCode::NotServe, &what);
        }
        ForcedCommand::NotPlain => {
            let what =
                format!("has a command with characters that a shell interprets: '{command}'");
            add(FindingCode::NotPlain, &what);
        }
        ForcedCommand::Serve(serve) => {
            if !serve.program.is_absolute() && !facts.login_shell_is_deploy_shell() {
                let program = serve.program.display();
                let what = format!("runs '{program}', the first one that the shell finds in PATH");
                add(FindingCode::CommandWithoutPath, &what);
            }
            if serve.site == ServedSite::This && serve.label.is_none() {
                let what = "has no label: the log cannot name it";
                add(FindingCode::KeyWithoutLabel, what);
            }
        }
    }
    match (key.entry.key_type, key.entry.bits) {
        ("ssh-rsa", bits) if bits.is_none_or(|bits| bits < MIN_RSA_BITS) => {
            let bits = bits.unwrap_or_default();
            let what = format!("is an RSA key of {bits} bits, fewer than {MIN_RSA_BITS}");
            add(FindingCode::WeakRsa, &what);
        }
        ("ssh-dss", _) => add(FindingCode::DsaKey, "is a DSA key, of at most 1024 bits"),
        _ => {}
    }
    found
}

/// Returns the problems of a key without `command=`.
fn without_command(facts: &Facts) -> Vec<(FindingCode, String)> {
    let what = "has no command=: it serves no site, and reaches the login shell";
    let mut found = vec![(FindingCode::KeyWithoutCommand, what.to_owned())];
    if reaches_sftp(facts) {
        let what = "reaches the sftp subsystem, and through it every file of the account";
        found.push((FindingCode::SftpReachable, what.to_owned()));
    }
    found
}

/// Returns what a key's options permit in addition to its command, as phrases
/// after "may".
pub fn permissions(options: &KeyOptions) -> Vec<(FindingCode, String)> {
    let flag = |on: bool, what: &str| on.then(|| what.to_owned());
    let list = |values: &[String], what: &str| {
        let values = (!values.is_empty()).then(|| values.join("', '"));
        values.map(|values| format!("{what} '{values}'"))
    };
    let tunnel = options.tunnel.as_ref();
    [
        (
            FindingCode::KeyPortForwarding,
            flag(options.port_forwarding, "forward ports and sockets"),
        ),
        (
            FindingCode::KeyAgentForwarding,
            flag(options.agent_forwarding, "forward its agent"),
        ),
        (
            FindingCode::KeyX11Forwarding,
            flag(options.x11_forwarding, "forward X11"),
        ),
        (
            FindingCode::KeyTerminal,
            flag(options.pty, "get a terminal"),
        ),
        (
            FindingCode::KeyUserRc,
            flag(options.user_rc, "run ~/.ssh/rc before its command"),
        ),
        (
            FindingCode::KeyPermitOpen,
            list(&options.permit_open, "connect to"),
        ),
        (
            FindingCode::KeyPermitListen,
            list(&options.permit_listen, "listen on"),
        ),
        (
            FindingCode::KeyEnvironment,
            list(&options.environment, "set variables in its line:"),
        ),
        (
            FindingCode::KeyTunnel,
            tunnel.map(|device| format!("use the tunnel device '{device}'")),
        ),
        (
            FindingCode::KeyNoTouch,
            flag(
                !options.touch_required,
                "sign without a touch of the FIDO key",
            ),
        ),
    ]
    .into_iter()
    .filter_map(|(code, what)| Some((code, what?)))
    .collect()
}

/// Returns whether a key without `command=` gets files by sftp. The login shell
/// runs a subsystem that is a program, and deploy-shell refuses that. sshd itself
/// runs `internal-sftp`. A ForceCommand of sshd replaces both.
fn reaches_sftp(facts: &Facts) -> bool {
    let Some(settings) = &facts.sshd else {
        return false;
    };
    let mut programs = settings
        .all("subsystem")
        .iter()
        .filter_map(|value| value.strip_prefix("sftp "));
    sshd_forced_command(Some(settings)).is_none()
        && programs.any(|program| {
            program.starts_with("internal-sftp") || !facts.login_shell_is_deploy_shell()
        })
}

/// The same key on two lines: sshd uses the first that it accepts.
fn repeated_keys(facts: &Facts) -> Vec<Finding> {
    let mut seen: Vec<(KeyPosition<'_>, &Key)> = Vec::new();
    let mut findings = Vec::new();
    for (position, key) in facts.keys() {
        let same = |(_, other): &&(KeyPosition<'_>, &Key)| {
            other.entry.fingerprint == key.entry.fingerprint
        };
        let Some((first, other)) = seen.iter().find(same) else {
            seen.push((position, key));
            continue;
        };
        let alike = other.command == key.command && other.entry.options == key.entry.options;
        let (code, permissions) = if alike {
            (FindingCode::KeyTwice, "the same permissions")
        } else {
            (FindingCode::KeyTwiceDiffering, "other permissions")
        };
        let text = format!("the key at {position} is also at {first}, with {permissions}");
        findings.push(Finding::new(code, position, text));
    }
    findings
}

/// One label for several keys: the log cannot distinguish their holders.
fn shared_labels(facts: &Facts) -> Vec<Finding> {
    let mut keys: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (_, key) in facts.keys() {
        if let ForcedCommand::Serve(serve) = &key.command
            && serve.site == ServedSite::This
            && let Some(label) = &serve.label
        {
            let fingerprint = key.entry.fingerprint.to_string();
            keys.entry(label.as_str()).or_default().insert(fingerprint);
        }
    }
    keys.into_iter()
        .filter(|(_, keys)| keys.len() > 1)
        .map(|(label, keys)| {
            let text = format!("{} keys have the label '{label}'", keys.len());
            Finding::new(FindingCode::LabelShared, label, text)
        })
        .collect()
}
