//! Turns facts into findings. These functions do no I/O.

mod account;
mod keys;
mod paths;
mod principals;
mod server;
mod site;
#[cfg(test)]
mod tests;

use super::facts::Facts;
use super::findings::{Finding, FindingCode};

pub use paths::first_writable;
pub use server::{accepts_dangerous_variables, sshd_forced_command};

pub fn all_findings(facts: &Facts) -> Vec<Finding> {
    let mut findings = site::site_findings(facts);
    findings.extend(paths::path_findings(facts));
    if let Some(account) = &facts.account {
        findings.extend(account::account_findings(account, facts.sshd.as_ref()));
    }
    let account = facts.account_name();
    if let Some(settings) = &facts.sshd {
        findings.extend(server::sshd_findings(settings, &account));
        findings.extend(server::channel_timeout(settings, &facts.config, &account));
    }
    findings.extend(facts.sshd_failure.iter().map(|why| {
        let text = format!("sshd cannot be asked what it allows '{account}': {why}");
        Finding::new(FindingCode::SshdSilent, &account, text)
    }));
    findings.extend(keys::key_findings(facts));
    findings.extend(principals::principal_findings(facts));
    findings
}
