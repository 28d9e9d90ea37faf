//! What the configuration leaves open, and what the machine does not hold.

use crate::check::facts::Facts;
use crate::check::findings::{Finding, Word};
use deploy_shell::sandbox::Enforcement;

pub fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = configured(facts);
    let root = facts.config.root.display();
    let mut find = |word, subject: &dyn std::fmt::Display, problem: String| {
        findings.push(Finding::new(word, subject, problem));
    };
    let disk = &facts.disk;
    if let Some(kind) = disk.network {
        let problem = format!(
            "'{root}' is on a network file system ({kind}): a rename may not be one instant there"
        );
        find(Word::NetworkFileSystem, &kind, problem);
    }
    for path in &disk.elsewhere {
        let shown = path.display();
        let problem = format!("'{shown}' is on another file system than the root");
        find(Word::SeveralFileSystems, &shown, problem);
    }
    for path in &disk.folding {
        let shown = path.display();
        let problem = format!(
            "'{shown}' takes names that differ by case for one: a release could overwrite itself"
        );
        find(Word::CaseFolding, &shown, problem);
    }

    let probe = &facts.probe;
    let name = facts.account_name();
    if let Some(error) = &probe.config {
        let shown = facts.path.display();
        let problem = format!("'{name}' cannot use the configuration: {error}");
        find(Word::ConfigUnreadable, &shown, problem);
    }
    if let Some(error) = &probe.layout {
        let remedy = error
            .remedy
            .as_deref()
            .unwrap_or("make it as 'deploy-shell-admin init' does");
        find(
            Word::Layout,
            &remedy,
            format!("'{name}' cannot open the site: {error}"),
        );
    }
    for fault in &probe.shared {
        let word = match fault.missing {
            true => Word::SharedMissing,
            false => Word::SharedUnsafe,
        };
        let error = &fault.error;
        let remedy = error.remedy.as_deref().unwrap_or("take it out of [shared]");
        find(word, &remedy, format!("no release is received: {error}"));
    }
    if let Some(why) = &probe.unnamed {
        let problem =
            format!("'{name}' cannot make an unnamed file (O_TMPFILE) below '{root}': {why}");
        find(Word::NoUnnamedFiles, &root, problem);
    }
    if let Some(why) = &probe.socket {
        let shown = facts.config.audit.socket.display();
        let problem = format!("'{name}' cannot reach the audit socket '{shown}': {why}");
        find(Word::AuditUnreachable, &shown, problem);
    }
    for (word, who, on) in [
        (Word::MonitorUnconfined, "a request", &probe.monitor),
        (Word::UnpackerUnconfined, "the unpacker", &probe.unpacker),
    ] {
        if let Some(on) = on.as_ref().filter(|on| !on.is_full()) {
            find(word, &pieces(on), format!("the kernel confines {who} {on}"));
        }
    }
    findings
}

/// The names of what is missing.
fn pieces(on: &Enforcement) -> String {
    let names: Vec<String> = on.missing().map(|it| it.to_string()).collect();
    names.join(", ")
}

fn configured(facts: &Facts) -> Vec<Finding> {
    let config = &facts.config;
    let shown = facts.path.display();
    let mut findings = Vec::new();
    if !config.audit.required {
        let problem = "the audit is not required: whoever stops syslog acts without a record";
        findings.push(Finding::new(Word::AuditOptional, &shown, problem));
    }
    if !config.sandbox.required {
        let problem =
            "the sandbox is not required: on a kernel without it, requests run unconfined";
        findings.push(Finding::new(Word::SandboxOptional, &shown, problem));
    }
    if config.limits.reserve.of(100) == 0 {
        let problem = "no part of the disk is kept free: uploads may fill it";
        findings.push(Finding::new(Word::NoReserve, &shown, problem));
    }
    findings
}
