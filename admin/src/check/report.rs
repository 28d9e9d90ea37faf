//! The report: the site, each key with its capabilities, the findings, and what
//! could not be checked.

use super::capabilities::describe_key;
use super::facts::Facts;
use super::findings::Finding;

pub fn report_lines(facts: &Facts, findings: &[Finding]) -> Vec<String> {
    let mut lines = head_lines(facts);
    // Without the account's entry, check does not know where its keys are.
    if facts.passwd().is_some() && facts.keys().next().is_none() {
        lines.push("no key was found: nobody can deploy, as far as check can see".to_owned());
    }
    lines.extend(
        facts
            .keys()
            .map(|(position, key)| describe_key(facts, position, key)),
    );
    for finding in findings {
        lines.push(format!("finding: {}: {}", finding.code, finding.text));
        lines.push(format!("  remedy: {}", finding.remedy));
    }
    let not_checked = facts.not_checked.iter();
    lines.extend(not_checked.map(|what| format!("not checked: {what}")));
    lines.push(match findings.len() {
        0 => "no findings".to_owned(),
        1 => "1 finding".to_owned(),
        many => format!("{many} findings"),
    });
    lines
}

fn head_lines(facts: &Facts) -> Vec<String> {
    let site = facts.config.site();
    let root = facts.config.root.display();
    let config = facts.config_path.display();
    let mut lines = vec![format!("site {site}: {config}, root {root}")];
    if let Some(account) = &facts.account {
        let name = account.name();
        let shell = match &account.passwd {
            Some(entry) => format!(", login shell {}", entry.shell.display()),
            None => String::new(),
        };
        lines.push(format!("account {name}: uid {}{shell}", account.uid));
        if facts.sshd.is_some() {
            lines.push(format!(
                "sshd: the settings are those for '{name}' from 127.0.0.1; a Match block can \
                 change them for other addresses"
            ));
        }
    }
    if let (Some(monitor), Some(unpacker)) = (&facts.probe.monitor, &facts.probe.unpacker) {
        lines.push(format!(
            "sandbox: requests {monitor}, the unpacker {unpacker}"
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::super::findings::FindingCode;
    use super::super::fixture::sound;
    use super::*;

    const NO_KEY: &str = "no key was found: nobody can deploy, as far as check can see";

    #[test]
    fn a_sound_site_has_a_short_report() {
        let mut facts = sound();
        let lines = report_lines(&facts, &[]);
        assert_eq!(
            lines[..2],
            [
                "site blog: /etc/deploy-shell/blog.toml, root /srv/blog",
                "account deploy: uid 998, login shell /usr/local/bin/deploy-shell",
            ]
        );
        assert!(lines.contains(&"sandbox: requests full, the unpacker full".to_owned()));
        assert!(!lines.contains(&NO_KEY.to_owned()));
        assert_eq!(lines.last().unwrap(), "no findings");
        facts.keys_files.clear();
        facts.not_checked.push("a thing: why".to_owned());
        let lines = report_lines(&facts, &[]);
        assert!(lines.contains(&NO_KEY.to_owned()));
        assert_eq!(
            lines[lines.len() - 2..],
            ["not checked: a thing: why", "no findings"]
        );
    }

    #[test]
    fn an_unknown_account_has_no_line_about_its_keys() {
        let mut facts = sound();
        facts.keys_files.clear();
        facts.account.as_mut().unwrap().passwd = None;
        assert!(!report_lines(&facts, &[]).contains(&NO_KEY.to_owned()));
        facts.account = None;
        assert!(!report_lines(&facts, &[]).contains(&NO_KEY.to_owned()));
    }

    #[test]
    fn a_finding_has_two_lines() {
        let finding = Finding::new(FindingCode::SshRc, "/x/rc", "sshd runs '/x/rc'");
        let lines = report_lines(&sound(), &[finding]);
        assert_eq!(
            lines[lines.len() - 3..],
            [
                "finding: ssh-rc: sshd runs '/x/rc'",
                "  remedy: rm '/x/rc'",
                "1 finding"
            ]
        );
    }
}
