//! Findings about the configuration, the file system and the kernel.

use std::collections::BTreeSet;

use crate::check::facts::{AccountProbe, Facts, ForcedCommand, Reader, ReaderAccess, ServedSite};
use crate::check::findings::{Finding, FindingCode};
use deploy_shell::names::KeyLabel;
use deploy_shell::policy::Verb;
use deploy_shell::sandbox::Enforcement;
use deploy_shell::store::layout::{STATE, TRASH};

pub fn site_findings(facts: &Facts) -> Vec<Finding> {
    let mut findings = config_findings(facts);
    findings.extend(filesystem_findings(facts));
    findings.extend(reader_finding(facts));
    findings.extend(probe_findings(facts));
    findings
}

fn config_findings(facts: &Facts) -> Vec<Finding> {
    let config = &facts.config;
    let shown = facts.config_path.display();
    [
        (
            !config.audit.required,
            FindingCode::AuditOptional,
            "the audit is not required: someone who stops syslog acts without a log entry",
        ),
        (
            !config.sandbox.required,
            FindingCode::SandboxOptional,
            "the sandbox is not required: on a kernel without it, requests run unconfined",
        ),
        (
            config.limits.reserve.of(100) == 0,
            FindingCode::NoReserve,
            "no part of the disk is reserved: uploads can fill it",
        ),
        (
            one_key_stops_others(facts),
            FindingCode::SharesOfKeys,
            "one key can take every upload slot or every place for pending releases: it can stop \
             the uploads of the others",
        ),
    ]
    .into_iter()
    .filter(|(found, ..)| *found)
    .map(|(_, code, text)| Finding::new(code, &shown, text))
    .collect()
}

/// Returns whether several keys may receive, and the limits of one are those of all.
fn one_key_stops_others(facts: &Facts) -> bool {
    let labels: BTreeSet<Option<&KeyLabel>> = facts
        .keys()
        .filter_map(|(_, key)| match &key.command {
            ForcedCommand::Serve(serve) => Some(serve),
            _ => None,
        })
        .filter(|serve| serve.site == ServedSite::This && serve.allow.allows(Verb::Receive))
        .map(|serve| serve.label.as_ref())
        .collect();
    let (limits, pending) = (&facts.config.limits, &facts.config.pending);
    let all_of_one = limits.uploads_per_key >= limits.uploads || pending.max_per_key >= pending.max;
    labels.len() > 1 && all_of_one
}

fn filesystem_findings(facts: &Facts) -> Vec<Finding> {
    let filesystem = &facts.filesystem;
    let root = facts.config.root.display();
    let mut findings = Vec::new();
    if let Some(kind) = filesystem.network {
        let text = format!(
            "'{root}' is on a network file system ({kind}): a rename may not be atomic there"
        );
        findings.push(Finding::new(FindingCode::NetworkFileSystem, kind, text));
    }
    for path in &filesystem.other_filesystems {
        let shown = path.display();
        let text = format!("'{shown}' is on another file system than the root");
        findings.push(Finding::new(FindingCode::SeveralFileSystems, shown, text));
    }
    for path in &filesystem.case_insensitive {
        let shown = path.display();
        let text =
            format!("'{shown}' is case-insensitive: two files of a release could become one");
        findings.push(Finding::new(FindingCode::CaseFolding, shown, text));
    }
    findings
}

fn reader_finding(facts: &Facts) -> Option<Finding> {
    let Reader { name, access } = facts.reader.as_ref()?;
    Some(match access {
        ReaderAccess::Unknown => {
            let shown = facts.config_path.display();
            let text = format!("the reader '{name}' is no account of this machine");
            Finding::new(FindingCode::ReaderUnknown, shown, text)
        }
        ReaderAccess::Blocked(directory) => {
            let shown = directory.display();
            let text = format!("'{name}' cannot search '{shown}', and so reads no release");
            Finding::new(FindingCode::ReaderBlocked, shown, text)
        }
        ReaderAccess::Denied { first, more } => {
            let shown = first.display();
            let others = match more {
                0 => String::new(),
                more => format!(" and {more} more files of the live release"),
            };
            let text = format!("'{name}' cannot read '{shown}'{others}");
            Finding::new(FindingCode::ReaderDenied, shown, text)
        }
        ReaderAccess::Full(_) => return None,
    })
}

fn probe_findings(facts: &Facts) -> Vec<Finding> {
    let AccountProbe {
        config,
        layout,
        shared,
        removing,
        unnamed_file,
        future_record,
        socket,
        unpacker,
        monitor,
    } = &facts.probe;
    let name = facts.account_name();
    let root = facts.config.root.display();
    let mut findings = Vec::new();
    if let Some(error) = config {
        let shown = facts.config_path.display();
        let text = format!("'{name}' cannot use the configuration: {error}");
        findings.push(Finding::new(FindingCode::ConfigUnreadable, shown, text));
    }
    if let Some(error) = layout {
        let what = if facts.account.is_some() {
            format!("'{name}' cannot open the site")
        } else {
            "the site cannot be opened".to_owned()
        };
        let init = "create it as 'deploy-shell-admin init' does";
        findings.push(Finding::of_error(FindingCode::Layout, &what, error, init));
    }
    for fault in shared {
        let code = if fault.missing {
            FindingCode::SharedMissing
        } else {
            FindingCode::SharedUnsafe
        };
        let what = "no release can be received";
        let remove = "remove it from [shared]";
        findings.push(Finding::of_error(code, what, &fault.error, remove));
    }
    for release in removing {
        let shown = facts.config.root.join(STATE).join(TRASH);
        let shown = format!("{}/{release}.*", shown.display());
        let text = format!(
            "the removal of the pruned release '{release}' is not complete: a mount, or files of another owner"
        );
        findings.push(Finding::new(FindingCode::RemovalPending, shown, text));
    }
    if let Some(why) = unnamed_file {
        let text =
            format!("'{name}' cannot create an unnamed file (O_TMPFILE) below '{root}': {why}");
        findings.push(Finding::new(FindingCode::NoUnnamedFiles, root, text));
    }
    if let Some(time) = future_record {
        let text = format!(
            "the journal's newest record is of the future ({time}): ages and limits are uncertain"
        );
        findings.push(Finding::new(FindingCode::FutureRecord, time, text));
    }
    if let Some(why) = socket {
        let shown = facts.config.audit.socket.display();
        let text = format!("'{name}' cannot connect to the audit socket '{shown}': {why}");
        findings.push(Finding::new(FindingCode::AuditUnreachable, shown, text));
    }
    for (code, process, sandbox) in [
        (FindingCode::MonitorUnconfined, "a request", monitor),
        (FindingCode::UnpackerUnconfined, "the unpacker", unpacker),
    ] {
        if let Some(sandbox) = sandbox.as_ref().filter(|sandbox| !sandbox.is_full()) {
            let text = format!("the kernel confines {process} {sandbox}");
            findings.push(Finding::new(code, missing_features(sandbox), text));
        }
    }
    findings
}

/// Returns the names of the features that the sandbox lacks.
fn missing_features(sandbox: &Enforcement) -> String {
    let names: Vec<String> = sandbox.missing().map(|it| it.to_string()).collect();
    names.join(", ")
}
