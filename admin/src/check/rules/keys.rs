//! What each key may, and should not.

use std::collections::{BTreeMap, BTreeSet};

use super::server::forced;
use crate::check::facts::{Facts, Key, Place, Runs, Site};
use crate::check::findings::{Finding, Word};
use crate::check::key_options::Options;

/// The fewest bits of an RSA key (NIST SP 800-57, until 2030 and beyond).
const MIN_RSA: usize = 3072;

pub fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in &facts.sources {
        for line in &source.lines {
            let place = Place::of(source, line);
            match &line.key {
                Ok(key) => findings.extend(of_key(facts, place, key)),
                Err(why) => {
                    let problem = format!(
                        "{place} {why}: sshd skips what it cannot read, and another version may read it"
                    );
                    findings.push(Finding::new(Word::KeyUnread, place, problem));
                }
            }
        }
    }
    findings.extend(twice(facts));
    findings.extend(shared_labels(facts));
    findings
}

fn of_key(facts: &Facts, place: Place<'_>, key: &Key) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut find = |word, problem: String| {
        let problem = format!("the key at {place} {problem}");
        findings.push(Finding::new(word, place, problem));
    };
    let line = &key.line;
    let options = &line.options;
    if options.cert_authority {
        find(
            Word::KeyCertAuthority,
            "is a certificate authority: its holder makes keys at will".to_owned(),
        );
    }
    if !options.restrict {
        let problem = "has no 'restrict': what it may is what nobody took away, now and in later versions of sshd";
        find(Word::KeyWithoutRestrict, problem.to_owned());
    }
    for (word, what) in allowed(options) {
        find(word, format!("may have {what}"));
    }
    let command = options.command.as_deref().unwrap_or_default();
    match &key.runs {
        Runs::Anything => {
            find(Word::KeyWithoutCommand, "has no command=".to_owned());
            if sftp(facts) {
                find(
                    Word::SftpReachable,
                    "reaches the sftp subsystem, and by it every file of the account".to_owned(),
                );
            }
        }
        Runs::Other => find(
            Word::OtherProgram,
            format!("runs another program: '{command}'"),
        ),
        Runs::NotServe => find(
            Word::NotServe,
            format!("runs this program, but not to serve: '{command}'"),
        ),
        Runs::Obscure => find(
            Word::Obscure,
            format!("has a command with characters that a shell gives a meaning to: '{command}'"),
        ),
        Runs::Serve(serve) => {
            if !serve.program.is_absolute() && !facts.shell_is_ours() {
                let program = serve.program.display();
                find(
                    Word::CommandWithoutPath,
                    format!("runs '{program}', wherever PATH finds it first"),
                );
            }
            if serve.site == Site::This && serve.key.is_none() {
                find(
                    Word::KeyWithoutLabel,
                    "has no label: the record cannot name it".to_owned(),
                );
            }
        }
    }
    match (line.kind, line.bits) {
        ("ssh-rsa", bits) if bits.is_none_or(|bits| bits < MIN_RSA) => {
            let bits = bits.unwrap_or_default();
            find(
                Word::WeakRsa,
                format!("is an RSA key of {bits} bits, less than {MIN_RSA}"),
            );
        }
        ("ssh-dss", _) => find(
            Word::DsaKey,
            "is a DSA key, of 1024 bits at most".to_owned(),
        ),
        _ => {}
    }
    findings
}

/// What a key's own options allow it beside its command.
fn allowed(options: &Options) -> Vec<(Word, String)> {
    let list = |values: &[String]| values.join("', '");
    let mut found: Vec<(Word, String)> = [
        (
            options.port_forwarding,
            Word::KeyPortForwarding,
            "ports and sockets forwarded",
        ),
        (
            options.agent_forwarding,
            Word::KeyAgentForwarding,
            "its agent forwarded",
        ),
        (
            options.x11_forwarding,
            Word::KeyX11Forwarding,
            "X11 forwarded",
        ),
        (options.pty, Word::KeyTerminal, "a terminal"),
        (
            options.user_rc,
            Word::KeyUserRc,
            "~/.ssh/rc run before its command",
        ),
    ]
    .into_iter()
    .filter(|(on, ..)| *on)
    .map(|(_, word, what)| (word, what.to_owned()))
    .collect();
    for (values, word, what) in [
        (
            &options.permit_open,
            Word::KeyPermitOpen,
            "connections forwarded to",
        ),
        (
            &options.permit_listen,
            Word::KeyPermitListen,
            "ports listened on for it:",
        ),
        (
            &options.environment,
            Word::KeyEnvironment,
            "variables set by its line:",
        ),
    ] {
        if !values.is_empty() {
            found.push((word, format!("{what} '{}'", list(values))));
        }
    }
    if let Some(device) = &options.tunnel {
        found.push((Word::KeyTunnel, format!("the tunnel device '{device}'")));
    }
    if !options.touch_required {
        found.push((
            Word::KeyNoTouch,
            "its signatures without a touch of the FIDO key".to_owned(),
        ));
    }
    found
}

/// Whether a key without command= gets files by sftp. A subsystem that is a
/// program is run by the login shell, which refuses if it is ours; sshd's own
/// (`internal-sftp`) is run by nobody but sshd. A forced command of sshd's
/// takes the place of both.
fn sftp(facts: &Facts) -> bool {
    let Some(settings) = &facts.server else {
        return false;
    };
    let mut programs = settings
        .all("subsystem")
        .iter()
        .filter_map(|value| value.strip_prefix("sftp "));
    forced(Some(settings)).is_none()
        && programs.any(|program| program.starts_with("internal-sftp") || !facts.shell_is_ours())
}

/// The same key on two lines: sshd takes the first that it can use.
fn twice(facts: &Facts) -> Vec<Finding> {
    let mut seen: Vec<(Place<'_>, &Key)> = Vec::new();
    let mut findings = Vec::new();
    for (place, key) in facts.keys() {
        let same = |(_, other): &&(Place<'_>, &Key)| other.line.fingerprint == key.line.fingerprint;
        let Some((first, other)) = seen.iter().find(same) else {
            seen.push((place, key));
            continue;
        };
        let alike = other.runs == key.runs && other.line.options == key.line.options;
        let (word, how) = match alike {
            true => (Word::KeyTwice, "the same"),
            false => (Word::KeyTwiceOtherwise, "something else"),
        };
        let problem = format!("the key at {place} stands at {first} too, where it may do {how}");
        findings.push(Finding::new(word, place, problem));
    }
    findings
}

/// One label for several keys: the record cannot tell their holders apart.
fn shared_labels(facts: &Facts) -> Vec<Finding> {
    let mut keys: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (_, key) in facts.keys() {
        if let Runs::Serve(serve) = &key.runs
            && serve.site == Site::This
            && let Some(label) = &serve.key
        {
            let print = key.line.fingerprint.to_string();
            keys.entry(label.as_str()).or_default().insert(print);
        }
    }
    keys.into_iter()
        .filter(|(_, keys)| keys.len() > 1)
        .map(|(label, keys)| {
            let problem = format!("the label '{label}' stands for {} keys", keys.len());
            Finding::new(Word::LabelShared, label, problem)
        })
        .collect()
}
