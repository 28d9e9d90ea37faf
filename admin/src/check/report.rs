//! The report: the site, each key with its capabilities, the findings, and what
//! could not be checked.

use super::capabilities::{describe_certificates, describe_key, enumerate};
use super::facts::{Facts, Reader, ReaderAccess};
use super::findings::Finding;
use deploy_shell::archive::upload_memory;

pub fn report_lines(facts: &Facts, findings: &[Finding]) -> Vec<String> {
    let mut lines = head_lines(facts);
    // Without the account's entry, check does not know where its keys are.
    if facts.passwd().is_some() && facts.keys().next().is_none() {
        lines.extend(no_key_line(facts));
    }
    lines.extend(
        facts
            .keys()
            .map(|(position, key)| describe_key(facts, position, key)),
    );
    lines.extend(describe_certificates(facts));
    for finding in findings {
        lines.push(format!("finding: {}: {}", finding.code, finding.text));
        lines.push(format!("  remedy: {}", finding.remedy));
    }
    lines.extend(note_on_paths(facts, findings));
    let not_checked = facts.not_checked.iter();
    lines.extend(not_checked.map(|what| format!("not checked: {what}")));
    lines.push(match findings.len() {
        0 => "no findings".to_owned(),
        1 => "1 finding".to_owned(),
        many => format!("{many} findings"),
    });
    lines
}

/// Returns the line about findings on what is below the root. Not every remedy is a command:
/// root may also act on a path that the problem names, after the account has put a symlink in
/// the place of a part of it.
fn note_on_paths(facts: &Facts, findings: &[Finding]) -> Option<String> {
    let root = &facts.config.root;
    let below = format!("{}/", root.display());
    let names_it = |it: &Finding| it.text.contains(&below) || it.remedy.contains(&below);
    findings.iter().any(names_it).then(|| {
        let name = facts.account_name();
        format!(
            "note: what is below '{}' can be exchanged by '{name}': change it as '{name}', not as \
             root (docs/operating.md, 'Change a file of the site')",
            root.display()
        )
    })
}

/// Returns the line about an account without a key in a file, where sshd may accept
/// others. Otherwise it is a finding.
fn no_key_line(facts: &Facts) -> Option<String> {
    let Some(settings) = &facts.sshd else {
        let line = "no key was found in the default files, and sshd cannot be asked for others";
        return Some(line.to_owned());
    };
    let others: Vec<String> = [
        ("authorizedkeyscommand", "the keys that '{}' prints"),
        ("trustedusercakeys", "the certificates of '{}'"),
    ]
    .into_iter()
    .filter(|(keyword, _)| settings.is_on(keyword))
    .filter_map(|(keyword, what)| Some(what.replace("{}", settings.get(keyword)?)))
    .collect();
    let others = Some(enumerate(&others)).filter(|others| !others.is_empty())?;
    Some(format!(
        "no key was found in a file; sshd also accepts {others}, which check cannot list"
    ))
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
    if let Some(Reader {
        name,
        access: ReaderAccess::Full(live),
    }) = &facts.reader
    {
        lines.push(match live {
            Some(release) => format!("reader {name}: can read '{release}', which is live"),
            None => format!("reader {name}: can search 'releases'; nothing is live"),
        });
    }
    let uploads = facts.config.limits.uploads;
    let each = upload_memory(facts.config.archive.max_entries);
    lines.push(format!(
        "memory: uploads at the same time use up to {} MiB ({uploads} of {} MiB)",
        (each * u64::from(uploads)).div_ceil(1 << 20),
        each.div_ceil(1 << 20)
    ));
    if let Some(Ok(room)) = &facts.probe.room {
        let (inodes, limit) = match room.inodes {
            // SECURITY.md, 'Disk pressure'.
            u64::MAX => (
                String::new(),
                "; names and small files can fill this file system earlier, and then no swap works",
            ),
            inodes => (format!(" and {inodes} inodes"), ""),
        };
        lines.push(format!(
            "disk: uploads may use {} MiB{inodes} before only the reserve is left{limit}",
            room.bytes >> 20
        ));
    }
    if let (Some(monitor), Some(unpacker)) = (&facts.probe.monitor, &facts.probe.unpacker) {
        let accepted = if facts.config.sandbox.required
            || monitor.is_acceptable() && unpacker.is_acceptable()
        {
            ""
        } else {
            "; [sandbox] required = false accepts that"
        };
        lines.push(format!(
            "sandbox: requests {monitor}, the unpacker {unpacker}{accepted}"
        ));
    }
    if facts.config.commands().next().is_some() {
        let how = if facts.delegated_cgroup {
            "the kernel ends all processes of a command at once, by its cgroup"
        } else {
            "the processes of a command are ended one by one, and may win by forking; see \
             packaging/cgroup"
        };
        lines.push(format!("hooks: {how}"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::super::facts::{Authority, Key, Principal};
    use super::super::findings::FindingCode;
    use super::super::fixture::{SERVE, key, set_setting, sound};
    use super::*;
    use deploy_shell::config::Config;
    use deploy_shell::sandbox::Mechanism;
    use deploy_shell::store::Room;

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
        let memory = "memory: uploads at the same time use up to 1031 MiB (4 of 258 MiB)";
        assert!(lines.contains(&memory.to_owned()), "{lines:?}");
        assert!(lines.contains(&"sandbox: requests full, the unpacker full".to_owned()));
        assert_eq!(lines.last().unwrap(), "no findings");
        facts.keys_files.clear();
        facts.not_checked.push("a thing: why".to_owned());
        let lines = report_lines(&facts, &[]);
        assert_eq!(
            lines[lines.len() - 2..],
            ["not checked: a thing: why", "no findings"]
        );
    }

    #[test]
    fn the_end_of_hooks_is_described() {
        let hooks = |facts: &Facts| {
            let lines = report_lines(facts, &[]);
            lines.into_iter().find(|line| line.starts_with("hooks: "))
        };
        let mut facts = sound();
        assert_eq!(hooks(&facts), None);
        let text = "root = \"/srv/blog\"\n[health]\ncommand = [\"/bin/true\"]\n";
        let config = Config::parse(&facts.config_path, text);
        facts.config = config.unwrap();
        assert!(hooks(&facts).unwrap().contains("one by one"));
        facts.delegated_cgroup = true;
        assert!(hooks(&facts).unwrap().contains("by its cgroup"));
    }

    #[test]
    fn keys_that_check_cannot_list_are_not_nobody() {
        let mut facts = sound();
        facts.keys_files.clear();
        set_setting(&mut facts, "authorizedkeyscommand", "/usr/bin/keys");
        set_setting(&mut facts, "trustedusercakeys", "/etc/ssh/ca.pub");
        let expected = "no key was found in a file; sshd also accepts the keys that \
                        '/usr/bin/keys' prints and the certificates of '/etc/ssh/ca.pub', which \
                        check cannot list";
        let lines = report_lines(&facts, &[]);
        assert!(lines.contains(&expected.to_owned()), "{lines:?}");
        facts.sshd = None;
        let expected = "no key was found in the default files, and sshd cannot be asked for others";
        let lines = report_lines(&facts, &[]);
        assert!(lines.contains(&expected.to_owned()), "{lines:?}");
    }

    #[test]
    fn authorities_and_principals_are_described() {
        let mut facts = sound();
        let fingerprint = facts.keys().next().unwrap().1.entry.fingerprint;
        facts.certificates.authorities.push(Authority {
            file: "/etc/ssh/ca.pub".into(),
            line: 1,
            fingerprint,
        });
        let of_authority = format!("authority ({fingerprint}, /etc/ssh/ca.pub line 1): ");
        let line = |facts: &Facts, start: &str| {
            let lines = report_lines(facts, &[]);
            lines
                .into_iter()
                .find(|line| line.starts_with(start))
                .unwrap()
        };
        let text = line(&facts, &of_authority);
        assert!(
            text.ends_with("each runs the command that it forces"),
            "{text}"
        );
        set_setting(&mut facts, "authorizedprincipalsfile", "/etc/ssh/%u");
        let text = line(&facts, &of_authority);
        assert!(
            text.ends_with("a principal of AuthorizedPrincipalsFile"),
            "{text}"
        );
        let Key { entry, command } = key(&format!("restrict,{SERVE}"));
        facts.certificates.principals.push(Principal {
            file: "/etc/ssh/deploy".into(),
            line: 2,
            entry: Ok(("anna".to_owned(), entry.options, command)),
        });
        let text = line(&facts, "principal anna (/etc/ssh/deploy line 2): ");
        assert!(
            text.contains("each certificate for it: may receive, swap"),
            "{text}"
        );
        assert!(text.ends_with("; nothing else"), "{text}");
    }

    #[test]
    fn a_reader_that_can_read_has_a_line() {
        let mut facts = sound();
        let mut line = |access| {
            let name = "www-data".to_owned();
            facts.reader = Some(Reader { name, access });
            let lines = report_lines(&facts, &[]);
            lines.into_iter().find(|line| line.starts_with("reader "))
        };
        let release = "r1".parse().unwrap();
        let live = line(ReaderAccess::Full(Some(release)));
        assert_eq!(
            live.unwrap(),
            "reader www-data: can read 'r1', which is live"
        );
        assert!(
            line(ReaderAccess::Full(None))
                .unwrap()
                .contains("nothing is live")
        );
        assert_eq!(line(ReaderAccess::Unknown), None);
    }

    #[test]
    fn the_free_space_and_an_accepted_sandbox_have_lines() {
        let mut facts = sound();
        let line = |facts: &Facts, start: &str| {
            let lines = report_lines(facts, &[]);
            lines.into_iter().find(|line| line.starts_with(start))
        };
        assert_eq!(line(&facts, "disk: "), None);
        let mut room = Room {
            bytes: 5 << 20,
            inodes: 7,
            block: 4096,
        };
        facts.probe.room = Some(Ok(room));
        let expected = "disk: uploads may use 5 MiB and 7 inodes before only the reserve is left";
        assert_eq!(line(&facts, "disk: ").unwrap(), expected);
        room.inodes = u64::MAX;
        facts.probe.room = Some(Ok(room));
        let without = line(&facts, "disk: ").unwrap();
        assert!(!without.contains("inodes") && without.contains("can fill this file system"));

        facts.probe.monitor = Some([Mechanism::Landlock].into_iter().collect());
        assert!(!line(&facts, "sandbox: ").unwrap().contains("accepts"));
        facts.config.sandbox.required = false;
        assert!(
            line(&facts, "sandbox: ")
                .unwrap()
                .ends_with("required = false accepts that")
        );
    }

    #[test]
    fn a_finding_below_the_root_has_a_note() {
        let path = "/srv/blog/.deploy-shell/trash/r0.*";
        let finding = Finding::new(FindingCode::RemovalPending, path, "it is not complete");
        let lines = report_lines(&sound(), &[finding]);
        let note = "note: what is below '/srv/blog' can be exchanged by 'deploy': ";
        assert!(lines[lines.len() - 2].starts_with(note), "{lines:?}");
    }

    #[test]
    fn a_finding_has_two_lines() {
        let finding = Finding::of_word(FindingCode::PasswordSet, "x", "'x' has a password");
        let lines = report_lines(&sound(), &[finding]);
        assert_eq!(
            lines[lines.len() - 3..],
            [
                "finding: password-not-locked: 'x' has a password",
                "  remedy: usermod --password '*' 'x'",
                "1 finding"
            ]
        );
    }
}
