//! Findings about the principals whose certificates log in.

use super::keys::permissions;
use crate::check::facts::{Facts, ForcedCommand};
use crate::check::findings::{Finding, FindingCode};

pub fn principal_findings(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for principal in &facts.certificates.principals {
        let position = principal.position();
        let mut add = |code, what: &str| {
            let text = format!("the principal at {position} {what}");
            findings.push(Finding::new(code, position, text));
        };
        let (_, options, command) = match &principal.entry {
            Ok(entry) => entry,
            Err(why) => {
                let what = format!("{why}: sshd skips the line, but another version may accept it");
                add(FindingCode::PrincipalUnread, &what);
                continue;
            }
        };
        let shown = options.command.as_deref().unwrap_or_default();
        let missing = match command {
            ForcedCommand::Serve(_) => None,
            ForcedCommand::None => Some(
                "has no command=: its certificates run what they force themselves, or reach the \
                 login shell"
                    .to_owned(),
            ),
            ForcedCommand::NotServe | ForcedCommand::OtherProgram | ForcedCommand::NotPlain => {
                Some(format!("does not run deploy-shell for a site: '{shown}'"))
            }
        };
        if let Some(what) = missing {
            add(FindingCode::PrincipalWithoutCommand, &what);
        }
        let permitted: Vec<String> = permissions(options)
            .into_iter()
            .map(|(_, what)| what)
            .collect();
        if !permitted.is_empty() {
            let what = format!("lets a certificate that allows it {}", permitted.join(", "));
            add(FindingCode::PrincipalPermissions, &what);
        }
    }
    findings
}
