//! From facts to findings. Pure: no file is opened and nobody is asked here.

mod account;
mod keys;
mod paths;
mod server;
mod site;
#[cfg(test)]
mod tests;

use super::facts::Facts;
use super::findings::Finding;

pub use server::{forced, sets_variables};

/// Everything that widens what a key, an account or a stranger can do.
pub fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = site::judge(facts);
    findings.extend(paths::judge(facts));
    if let Some(account) = &facts.account {
        findings.extend(account::judge(account, facts.server.as_ref()));
    }
    if let Some(settings) = &facts.server {
        findings.extend(server::judge(settings, &facts.account_name()));
    }
    findings.extend(keys::judge(facts));
    findings
}
