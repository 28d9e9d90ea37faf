//! Findings about the configuration, the file system and the web server's account.

use std::collections::BTreeSet;

use super::probe::{probe_findings, sandbox_findings, sandbox_is_full};
use super::remedies::let_account;
use crate::bridge::BridgeState;
use crate::check::facts::{Facts, ForcedCommand, Reader, ReaderAccess, ServedSite};
use crate::check::findings::{Finding, FindingCode};
use deploy_shell::names::KeyLabel;
use deploy_shell::policy::Verb;

pub fn site_findings(facts: &Facts) -> Vec<Finding> {
    let mut findings = config_findings(facts);
    findings.extend(filesystem_findings(facts));
    findings.extend(bridge_finding(facts));
    findings.extend(reader_finding(facts));
    findings.extend(probe_findings(facts));
    findings.extend(sandbox_findings(facts));
    findings
}

fn config_findings(facts: &Facts) -> Vec<Finding> {
    let config = &facts.config;
    let shown = facts.config_path.display();
    [
        (
            // Without a socket, the setting would make every change be refused.
            !config.audit.required && facts.probe.socket.is_none(),
            FindingCode::AuditOptional,
            "the audit is not required: someone who stops syslog acts without a log entry",
        ),
        (
            // On a kernel that lacks a part, the setting would make every request be
            // refused: there, the operator has accepted what is missing.
            !config.sandbox.required && sandbox_is_full(facts),
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

/// Without a hook, the bridge is stale after the next swap: that is one finding.
fn bridge_finding(facts: &Facts) -> Option<Finding> {
    let root = facts.config.root.display();
    let option = facts.config.site_option();
    match facts.probe.bridge.as_ref()? {
        BridgeState::Foreign(error) => {
            let what = "the bridge is not built";
            let code = FindingCode::BridgeForeign;
            let otherwise = "move what is in its place away";
            Some(Finding::of_error(code, root, what, error, otherwise))
        }
        _ if facts.config.bridge.is_configured() && !has_bridge_hook(facts) => {
            let text = "[bridge] is configured, and no hook after the swap builds the bridge: it \
                        lacks the files of newer releases";
            let shown = facts.config_path.display();
            let remedy = format!("deploy-shell-admin bridge {option} --warn-only");
            let code = FindingCode::BridgeNotBuilt;
            Some(Finding::with_remedy(code, shown, text, &remedy))
        }
        BridgeState::Stale => {
            let text = format!("the bridge in '{root}' is not as the journal and [bridge] say");
            let remedy = format!("deploy-shell-admin bridge {option}");
            let code = FindingCode::BridgeStale;
            Some(Finding::with_remedy(code, root, text, &remedy))
        }
        BridgeState::Sound => None,
    }
}

/// Returns whether a hook after the swap runs the command. It may do so through another
/// program, such as env(1).
fn has_bridge_hook(facts: &Facts) -> bool {
    let hooks = facts.config.hooks.after_swap.iter();
    hooks.into_iter().any(|hook| {
        let program = hook.command.program().to_string_lossy().into_owned();
        let arguments = hook.command.arguments().iter().map(String::as_str);
        let words: Vec<&str> = std::iter::once(program.as_str()).chain(arguments).collect();
        let is_command =
            |pair: &[&str]| pair[0].ends_with("deploy-shell-admin") && pair[1] == "bridge";
        words.windows(2).any(is_command)
    })
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
            let shown = directory.path.display();
            let text = format!("'{name}' cannot search '{shown}', and so reads no release");
            let remedy = let_account(facts, name, "x", directory);
            let code = FindingCode::ReaderBlocked;
            Finding::with_remedy(code, shown, text, &remedy)
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
