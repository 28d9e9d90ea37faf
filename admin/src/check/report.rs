//! The report: what is what, what a thief of each key could do, what was
//! found, and what could not be seen.

use super::capabilities;
use super::facts::Facts;
use super::findings::Finding;

/// The lines of the report.
pub fn report(facts: &Facts, findings: &[Finding]) -> Vec<String> {
    let mut lines = head(facts);
    if facts.keys().next().is_none() {
        lines.push("no key was found: as far as could be seen, nobody can deploy".to_owned());
    }
    lines.extend(
        facts
            .keys()
            .map(|(place, key)| capabilities::tell(facts, place, key)),
    );
    for finding in findings {
        lines.push(format!("finding: {}: {}", finding.word, finding.problem));
        lines.push(format!("  remedy: {}", finding.remedy()));
    }
    lines.extend(facts.unseen.iter().map(|what| format!("unseen: {what}")));
    lines.push(match findings.len() {
        0 => "no findings".to_owned(),
        1 => "1 finding".to_owned(),
        many => format!("{many} findings"),
    });
    lines
}

fn head(facts: &Facts) -> Vec<String> {
    let site = facts.config.site();
    let root = facts.config.root.display();
    let mut lines = vec![format!(
        "site {site}: {}, root {root}",
        facts.path.display()
    )];
    if let Some(account) = &facts.account {
        let name = account.name();
        let shell = match &account.entry {
            Some(entry) => format!(", login shell {}", entry.shell.display()),
            None => String::new(),
        };
        lines.push(format!("account {name}: uid {}{shell}", account.uid));
        if facts.server.is_some() {
            lines.push(format!(
                "sshd: asked for '{name}' coming from 127.0.0.1; a Match block may say otherwise for another address"
            ));
        }
    }
    if let (Some(monitor), Some(unpacker)) = (&facts.probe.monitor, &facts.probe.unpacker) {
        lines.push(format!(
            "confinement: requests {monitor}, the unpacker {unpacker}"
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::super::findings::Word;
    use super::super::fixture::sound;
    use super::*;

    #[test]
    fn a_sound_site_is_told_in_few_lines() {
        let mut facts = sound();
        let lines = report(&facts, &[]);
        assert_eq!(
            lines[..2],
            [
                "site blog: /etc/deploy-shell/blog.toml, root /srv/blog",
                "account deploy: uid 998, login shell /usr/local/bin/deploy-shell",
            ]
        );
        assert!(lines.contains(&"confinement: requests full, the unpacker full".to_owned()));
        assert_eq!(lines.last().unwrap(), "no findings");
        facts.sources.clear();
        facts.unseen.push("a thing: why".to_owned());
        let lines = report(&facts, &[]);
        assert!(
            lines
                .iter()
                .any(|line| line.starts_with("no key was found"))
        );
        assert_eq!(
            lines[lines.len() - 2..],
            ["unseen: a thing: why", "no findings"]
        );
    }

    #[test]
    fn a_finding_is_two_lines() {
        let finding = Finding::new(Word::SshRc, "/x/rc", "'/x/rc' is run");
        let lines = report(&sound(), &[finding]);
        assert_eq!(
            lines[lines.len() - 3..],
            [
                "finding: ssh-rc: '/x/rc' is run",
                "  remedy: rm '/x/rc'",
                "1 finding"
            ]
        );
    }
}
