//! Findings about what a request of the account would meet, and about its sandbox.

use super::remedies::let_account;
use crate::check::facts::{AccountProbe, Facts};
use crate::check::findings::{Finding, FindingCode};
use deploy_shell::sandbox::Enforcement;
use deploy_shell::store::layout::{STATE, TRASH};

pub fn probe_findings(facts: &Facts) -> Vec<Finding> {
    let AccountProbe {
        config,
        layout,
        shared,
        removing,
        hooks,
        unnamed_file,
        future_record,
        socket,
        // Other modules judge these.
        blocked: _,
        unusable: _,
        journal: _,
        used_ids: _,
        releases: _,
        bridge: _,
        room: _,
        unpacker: _,
        monitor: _,
    } = &facts.probe;
    let name = facts.account_name();
    let root = facts.config.root.display();
    let mut findings = Vec::new();
    if let Some(error) = config {
        let shown = facts.config_path.display();
        let text = format!("'{name}' cannot use the configuration: {error}");
        let remedy = let_account(facts, &facts.account_login(), "r", &facts.paths.config);
        let code = FindingCode::ConfigUnreadable;
        findings.push(Finding::with_remedy(code, shown, text, &remedy));
    }
    if let Some(error) = layout {
        let what = if facts.account.is_some() {
            format!("'{name}' cannot open the site")
        } else {
            "the site cannot be opened".to_owned()
        };
        let init = "create it as 'deploy-shell-admin init' does";
        let code = FindingCode::Layout;
        findings.push(Finding::of_error(code, &root, &what, error, init));
    }
    for fault in shared {
        let code = if fault.missing {
            FindingCode::SharedMissing
        } else {
            FindingCode::SharedUnsafe
        };
        let what = "no release can be received";
        let remove = "remove it from [shared]";
        let shown = facts.config_path.display();
        findings.push(Finding::of_error(code, shown, what, &fault.error, remove));
    }
    for (program, why) in hooks {
        let text = format!("'{name}' cannot run a hook or check of every swap: {why}");
        findings.push(Finding::new(
            FindingCode::HookUnusable,
            program.display(),
            text,
        ));
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
    findings
}

/// Returns whether the sandboxes of both processes are known to be full.
pub fn sandbox_is_full(facts: &Facts) -> bool {
    let sandboxes = [&facts.probe.monitor, &facts.probe.unpacker];
    (sandboxes.into_iter()).all(|sandbox| sandbox.as_ref().is_some_and(Enforcement::is_acceptable))
}

/// With `required = false` the operator accepts a kernel that lacks something, and the
/// report has it in a line. Otherwise every request is refused. A kernel that lacks the
/// same for both processes is one finding.
pub fn sandbox_findings(facts: &Facts) -> Vec<Finding> {
    if !facts.config.sandbox.required {
        return Vec::new();
    }
    let of = |sandbox: &Option<Enforcement>| {
        let sandbox = sandbox.as_ref().filter(|sandbox| !sandbox.is_acceptable());
        sandbox.map(|sandbox| (sandbox.to_string(), missing_features(sandbox)))
    };
    let (monitor, unpacker) = (of(&facts.probe.monitor), of(&facts.probe.unpacker));
    let both = monitor.is_some() && monitor == unpacker;
    let who = if both {
        "requests and the unpacker"
    } else {
        "requests"
    };
    let monitor = monitor.map(|(sandbox, missing)| {
        let text = format!("the kernel confines {who} {sandbox}: every request is refused");
        Finding::with_remedy(FindingCode::MonitorUnconfined, who, text, &missing)
    });
    let unpacker = unpacker.filter(|_| !both).map(|(sandbox, missing)| {
        let text = format!("the kernel confines the unpacker {sandbox}: every receive is refused");
        Finding::with_remedy(
            FindingCode::UnpackerUnconfined,
            "the unpacker",
            text,
            &missing,
        )
    });
    monitor.into_iter().chain(unpacker).collect()
}

/// Returns the names of the features that the sandbox lacks.
fn missing_features(sandbox: &Enforcement) -> String {
    let names: Vec<String> = sandbox.missing().map(|it| it.to_string()).collect();
    names.join(", ")
}
