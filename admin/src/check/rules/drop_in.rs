//! Settings of sshd that the drop-in of `sshd/` makes. Where it is missing, that is one
//! finding with one remedy.

use crate::check::facts::SshdSettings;
use crate::check::findings::{Finding, FindingCode};

/// The value of AcceptEnv in the drop-in, which no other file has.
const MARK: &str = "DEPLOY_SHELL_ACCEPTS_NOTHING";

/// The drop-in is missing if it would make so many findings go. With fewer, the operator
/// has settings that do the same, and the findings say what they lack.
const FEWEST: usize = 3;

/// The findings that go with the drop-in.
const COVERED: [FindingCode; 24] = [
    FindingCode::TcpForwarding,
    FindingCode::SocketForwarding,
    FindingCode::AgentForwarding,
    FindingCode::X11Forwarding,
    FindingCode::Tunnel,
    FindingCode::GatewayPorts,
    FindingCode::UserRc,
    FindingCode::Terminal,
    FindingCode::PasswordLogin,
    FindingCode::KeyboardInteractive,
    FindingCode::EmptyPasswords,
    FindingCode::HostBased,
    FindingCode::Gssapi,
    FindingCode::Kerberos,
    FindingCode::UserCa,
    FindingCode::KeysCommand,
    FindingCode::KeysCommandUser,
    FindingCode::Chroot,
    FindingCode::PrincipalsFile,
    FindingCode::PrincipalsCommand,
    FindingCode::AcceptEnv,
    FindingCode::ForceCommand,
    FindingCode::AuthInfo,
    // sshd reads the keys from the file of the drop-in.
    FindingCode::NoKey,
];

/// Replaces the findings that the drop-in makes go by one, if it is missing.
pub fn as_one_finding(
    findings: Vec<Finding>,
    settings: &SshdSettings,
    account: &str,
) -> Vec<Finding> {
    let covered = |finding: &&Finding| COVERED.contains(&finding.code);
    let codes: Vec<&str> = (findings.iter().filter(covered))
        .map(|finding| finding.code.name())
        .collect();
    let is_there = settings.all("acceptenv").iter().any(|value| value == MARK);
    if is_there || codes.len() < FEWEST {
        return findings;
    }
    let text = format!(
        "sshd does not have the settings of sshd/50-deploy-shell.conf for '{account}': {}",
        codes.join(", ")
    );
    let code = FindingCode::DropInMissing;
    let one = Finding::with_remedy(code, account, text, &format!("Match User {account}"));
    let others = (findings.into_iter()).filter(|finding| !COVERED.contains(&finding.code));
    std::iter::once(one).chain(others).collect()
}
