//! Turns facts into findings. These functions do no I/O.
//!
//! One cause gives one finding. A rule leaves out what follows from the finding of
//! another: its own remedy would do nothing, or harm.

mod account;
mod drop_in;
mod keys;
mod layout;
mod live;
mod login;
mod paths;
mod principals;
mod probe;
mod remedies;
mod server;
mod site;
#[cfg(test)]
mod tests;

use super::facts::Facts;
use super::findings::{Finding, FindingCode};

pub use paths::first_writable;
pub use remedies::chown_or_move;
pub use server::{accepts_dangerous_variables, sshd_forced_command};

/// Findings by which a request fails on a directory of the site. The library's own error
/// about it, [`FindingCode::Layout`], then says nothing more.
const DIRECTORIES: [FindingCode; 6] = [
    FindingCode::RootMissing,
    FindingCode::LayoutSymlink,
    FindingCode::SiteIncomplete,
    FindingCode::NotOwned,
    FindingCode::StateUnusable,
    FindingCode::SeveralFileSystems,
];

/// Findings of a site of root's: those whose remedy changes neither root's login nor the
/// owner of the site.
const OF_ROOTS_SITE: [FindingCode; 25] = [
    FindingCode::ConfigWritable,
    FindingCode::ProgramWritable,
    FindingCode::ProgramDiffers,
    FindingCode::ProgramMissing,
    FindingCode::HookWritable,
    FindingCode::HookMissing,
    FindingCode::SharedWritable,
    FindingCode::AuditOptional,
    FindingCode::AuditUnreachable,
    FindingCode::AuditReplaceable,
    FindingCode::SandboxOptional,
    FindingCode::NoReserve,
    FindingCode::NetworkFileSystem,
    FindingCode::SeveralFileSystems,
    FindingCode::CaseFolding,
    FindingCode::FutureRecord,
    FindingCode::RemovalPending,
    FindingCode::BridgeNotBuilt,
    FindingCode::BridgeStale,
    FindingCode::BridgeForeign,
    FindingCode::ReaderUnknown,
    FindingCode::ReaderBlocked,
    FindingCode::ReaderDenied,
    FindingCode::SharedMissing,
    FindingCode::SharedUnsafe,
];

/// Returns all findings, the most urgent first.
pub fn all_findings(facts: &Facts) -> Vec<Finding> {
    let mut findings = site::site_findings(facts);
    findings.extend(paths::path_findings(facts));
    findings.extend(layout::layout_findings(facts));
    findings.extend(live::live_findings(facts));
    findings.extend(keys::key_findings(facts));
    findings.extend(principals::principal_findings(facts));
    findings.extend(login::login_findings(facts));
    if let Some(account) = &facts.account {
        findings.extend(account::account_findings(facts, account));
    }
    findings.extend(sshd_findings(facts));
    if let Some(settings) = &facts.sshd {
        findings = drop_in::as_one_finding(findings, settings, &facts.account_name());
    }
    if findings
        .iter()
        .any(|finding| DIRECTORIES.contains(&finding.code))
    {
        findings.retain(|finding| finding.code != FindingCode::Layout);
    }
    if facts
        .account
        .as_ref()
        .is_some_and(|account| account.uid == 0)
    {
        findings.retain(|finding| OF_ROOTS_SITE.contains(&finding.code));
        findings.push(account::site_of_root(facts));
    }
    // The sort is stable: within a severity, the order is that of the rules.
    findings.sort_by_key(|finding| (finding.code.severity(), rank(finding.code)));
    findings
}

/// Returns the place of the widest holes among the findings of one severity.
fn rank(code: FindingCode) -> u8 {
    match code {
        FindingCode::KeyWithoutCommand | FindingCode::SftpReachable => 0,
        FindingCode::DropInMissing => 1,
        _ => 2,
    }
}

fn sshd_findings(facts: &Facts) -> Vec<Finding> {
    let account = facts.account_name();
    let mut findings = Vec::new();
    if let Some(settings) = &facts.sshd {
        findings.extend(server::sshd_findings(settings, &account));
        findings.extend(server::channel_timeout(settings, &facts.config, &account));
    }
    findings.extend(facts.sshd_failure.iter().map(|why| {
        let text = format!("sshd cannot be asked what it allows '{account}': {why}");
        Finding::new(FindingCode::SshdSilent, &account, text)
    }));
    findings
}
