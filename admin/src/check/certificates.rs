//! Reads what decides which certificates log in: the keys of `TrustedUserCAKeys`, and
//! the principals of `AuthorizedPrincipalsFile` (sshd_config(5)).

use std::path::Path;

use super::authorized_keys::{AuthorizedKey, parse_key_line};
use super::facts::{Authority, Certificates, ForcedCommand, PasswdEntry, Principal, SshdSettings};
use super::key_options::KeyOptions;
use super::keys_files::{expand_tokens, read_lines, read_lines_as_sshd};
use super::paths::resolve_path;

/// Reads the authorities and principals of the account. Adds to `not_checked` what it
/// cannot see.
pub fn read_certificates(
    sshd: &SshdSettings,
    account: &PasswdEntry,
    uid: u32,
    classify: impl Fn(Option<&str>) -> ForcedCommand,
    not_checked: &mut Vec<String>,
) -> Certificates {
    let mut found = Certificates::default();
    // Without an authority, no certificate logs in, whatever the principals are.
    let Some(path) = set(sshd, "trustedusercakeys") else {
        return found;
    };
    found.files.push(path.into());
    let lines = read_lines(Path::new(path)).unwrap_or_else(|why| {
        not_checked.push(format!("which authorities sshd trusts: {why}"));
        Vec::new()
    });
    for (number, line) in lines {
        if let Some(Ok(AuthorizedKey { fingerprint, .. })) = parse_key_line(&line) {
            found.authorities.push(Authority {
                file: path.into(),
                line: number,
                fingerprint,
            });
        }
    }
    let Some(pattern) = set(sshd, "authorizedprincipalsfile") else {
        return found;
    };
    let Some(path) = expand_tokens(pattern, account, uid) else {
        not_checked.push(format!(
            "the principals in '{pattern}', which has an unknown token"
        ));
        return found;
    };
    found.files.push(path.clone());
    let lines = read_lines_as_sshd(&resolve_path(&path), uid).unwrap_or_else(|why| {
        not_checked.push(format!("the principals of '{}': {why}", account.name));
        Vec::new()
    });
    for (number, line) in lines {
        if let Some(entry) = parse_principal_line(&line) {
            found.principals.push(Principal {
                file: path.clone(),
                line: number,
                entry: entry.map(|(options, name)| {
                    let command = classify(options.command.as_deref());
                    (name, options, command)
                }),
            });
        }
    }
    found
}

fn set<'a>(sshd: &'a SshdSettings, keyword: &str) -> Option<&'a str> {
    sshd.is_on(keyword).then(|| sshd.get(keyword))?
}

type Parsed = Result<(KeyOptions, String), &'static str>;

/// Parses a line as sshd does; `None` if it is empty or a comment. A `#` starts a
/// comment anywhere, and the last word is the principal. The options before it have
/// the form of those in a keys file.
fn parse_principal_line(line: &str) -> Option<Parsed> {
    let spaces = [' ', '\t'];
    let line = line.split('#').next()?;
    let line = line.trim_start_matches(spaces).trim_end();
    if line.is_empty() {
        return None;
    }
    let Some((options, name)) = line.rsplit_once(spaces) else {
        return Some(Ok((KeyOptions::default(), line.to_owned())));
    };
    let options = KeyOptions::parse_list(options.trim_end_matches(spaces));
    Some(options.map(|options| (options, name.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_principal_has_options_before_it() {
        let (options, name) = parse_principal_line("deploy").unwrap().unwrap();
        assert_eq!((options, &*name), (KeyOptions::default(), "deploy"));
        let line = "  restrict,command=\"/bin/x a b\" \t anna@example # a comment";
        let (options, name) = parse_principal_line(line).unwrap().unwrap();
        assert!(options.restrict && name == "anna@example");
        assert_eq!(options.command.as_deref(), Some("/bin/x a b"));
        for none in ["", "  ", "# x", "  # x"] {
            assert!(parse_principal_line(none).is_none(), "{none:?}");
        }
        assert!(parse_principal_line("nonsense anna").unwrap().is_err());
    }

    #[test]
    fn principals_are_read_where_an_authority_is_trusted() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let key =
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";
        std::fs::write(path("ca"), format!("# x\n{key} ca\n")).unwrap();
        std::fs::write(path("deploy"), "anna\n\ncommand=\"x\" bert\n").unwrap();
        let account = PasswdEntry {
            name: "deploy".to_owned(),
            gid: 998,
            shell: "/bin/sh".into(),
            home: directory.path().to_owned(),
        };
        let mut settings = SshdSettings::default();
        let mut set = |keyword: &str, value: String| {
            settings.0.insert(keyword.to_owned(), vec![value]);
            let mut not_checked = Vec::new();
            let none = |command: Option<&str>| match command {
                None => ForcedCommand::None,
                Some(_) => ForcedCommand::OtherProgram,
            };
            let found = read_certificates(&settings, &account, 998, none, &mut not_checked);
            (found, not_checked)
        };
        let (found, _) = set("authorizedprincipalsfile", "%h/%u".to_owned());
        assert!(found.authorities.is_empty() && found.principals.is_empty());
        let ca = path("ca").display().to_string();
        let (found, not_checked) = set("trustedusercakeys", ca);
        assert_eq!((found.authorities.len(), found.authorities[0].line), (1, 2));
        let lines: Vec<usize> = found.principals.iter().map(|line| line.line).collect();
        assert_eq!(lines, [1, 3]);
        let names: Vec<&str> = (found.principals.iter())
            .map(|line| &*line.entry.as_ref().unwrap().0)
            .collect();
        assert_eq!(names, ["anna", "bert"]);
        assert!(not_checked.is_empty(), "{not_checked:?}");
        let (_, not_checked) = set("trustedusercakeys", "/nonexistent/ca".to_owned());
        assert!(
            not_checked[0].contains("/nonexistent/ca"),
            "{not_checked:?}"
        );
    }
}
