//! `sshd/`: each setting of the drop-in has its effect, for one user only, and the
//! README explains every line.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use nix::unistd::{Uid, User};

use crate::process::{Running, eventually};
use crate::site::{Reply, Site, write_file};

const DROP_IN: &str = include_str!("../../sshd/50-deploy-shell.conf");
const README: &str = include_str!("../../sshd/README.md");
const EXAMPLE: &str = include_str!("../../sshd/authorized_keys.example");

/// The configuration of a server that allows everything, so that only the drop-in
/// restricts anything.
const LAX_SERVER: &str = "\
    PermitEmptyPasswords yes\n\
    AuthorizedKeysCommand /usr/bin/true\n\
    AuthorizedKeysCommandUser nobody\n\
    AuthorizedPrincipalsFile /etc/ssh/principals\n\
    TrustedUserCAKeys /etc/ssh/ca.pub\n\
    HostbasedAuthentication yes\n\
    PubkeyAuthentication no\n\
    ForceCommand /usr/bin/true\n\
    ChrootDirectory /srv\n\
    AcceptEnv LANG LC_*\n\
    Banner /etc/issue\n\
    X11Forwarding yes\n\
    PermitTunnel yes\n\
    GatewayPorts yes\n\
    StreamLocalBindUnlink yes\n\
    MaxSessions 50\n\
    MaxAuthTries 20\n";

/// Returns the keywords that the drop-in sets, with their values.
fn settings() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for line in DROP_IN.lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') || line.starts_with("Match ") {
            continue;
        }
        let (keyword, value) = line.split_once(' ').expect("keyword and value");
        let before = found.insert(keyword.to_owned(), value.to_owned());
        assert_eq!(before, None, "'{keyword}' is set twice");
    }
    found
}

/// Writes a configuration that includes the drop-in first, as that of Debian does.
fn server_config(site: &Site, drop_in: &str, rest: &str) -> PathBuf {
    let dir = site.dir().display();
    write_file(&site.dir().join("drop-in.conf"), 0o644, drop_in.as_bytes());
    let text = format!("Include {dir}/drop-in.conf\nHostKey {dir}/host_key\nPort 22\n{rest}");
    let path = site.dir().join("server_config");
    write_file(&path, 0o644, text.as_bytes());
    path
}

/// Returns the effective settings for a user (`sshd -T`): keyword in lower case, and
/// values.
fn effective(config: &PathBuf, user: &str) -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new("/usr/sbin/sshd")
        .args(["-T", "-f"])
        .arg(config)
        .args(["-C", &format!("user={user},host=x,addr=127.0.0.1")])
        .stdin(Stdio::null())
        .output()
        .expect("sshd starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let (keyword, value) = line.split_once(' ').unwrap_or((line, ""));
        // sshd up to 10.4 writes keywords in lower case, later ones as documented.
        let values = found.entry(keyword.to_lowercase()).or_default();
        values.insert(value.to_owned());
    }
    found
}

#[test]
fn the_drop_in_passes_the_test_mode_of_sshd() {
    let site = Site::new();
    let output = Command::new("/usr/sbin/sshd")
        .args(["-t", "-f"])
        .arg(server_config(&site, DROP_IN, ""))
        .output()
        .expect("sshd starts");
    assert!(output.status.success(), "{output:?}");
    // A warning would need the judgement of an administrator.
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn sshd_reports_every_keyword_as_written() {
    let site = Site::new();
    let found = effective(&server_config(&site, DROP_IN, LAX_SERVER), "deploy");
    let settings = settings();
    assert!(settings.len() > 25, "{settings:?}");
    for (keyword, value) in settings {
        let values = found.get(&keyword.to_lowercase());
        let expected = BTreeSet::from([value]);
        // `sshd -T` leaves out some keywords without a value.
        match values {
            None => assert_eq!(expected, BTreeSet::from(["none".into()]), "{keyword}"),
            Some(values) => assert_eq!(values, &expected, "{keyword}"),
        }
    }
}

#[test]
fn no_other_user_is_affected() {
    let site = Site::new();
    // A block without an end would include the last line.
    let rest = format!("{LAX_SERVER}AllowTcpForwarding local\n");
    for rest in ["", &rest] {
        let with = effective(&server_config(&site, DROP_IN, rest), "other");
        let without = effective(&server_config(&site, "", rest), "other");
        assert_eq!(with, without);
    }
    let pasted = format!("{DROP_IN}AllowTcpForwarding local\n");
    let found = effective(&server_config(&site, &pasted, ""), "other");
    assert_eq!(
        found["allowtcpforwarding"],
        BTreeSet::from(["local".into()])
    );
}

#[test]
fn newer_versions_know_the_line_for_them() {
    let site = Site::new();
    let text = DROP_IN.replace("#UnusedConnectionTimeout", "UnusedConnectionTimeout");
    assert_ne!(text, DROP_IN);
    let output = Command::new("/usr/sbin/sshd")
        .args(["-t", "-f"])
        .arg(server_config(&site, &text, ""))
        .output()
        .expect("sshd starts");
    assert_eq!(
        output.status.success(),
        openssh_version() >= (9, 2),
        "{output:?}"
    );
}

fn openssh_version() -> (u32, u32) {
    let output = Command::new("ssh").arg("-V").output().expect("ssh starts");
    let text = String::from_utf8_lossy(&output.stderr);
    let numbers = text.strip_prefix("OpenSSH_").expect("an OpenSSH client");
    let (major, rest) = numbers.split_once('.').expect("a version");
    let minor: String = rest.chars().take_while(char::is_ascii_digit).collect();
    let parse = |digits: &str| digits.parse().expect("a number");
    (parse(major), parse(&minor))
}

#[test]
fn the_readme_explains_every_line_and_no_other() {
    let section = README
        .split("## Why each line")
        .nth(1)
        .expect("the section");
    let section = section.split("\n## ").next().expect("its text");
    let mut rows = BTreeMap::new();
    for line in section.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").collect();
        let [setting, reason] = cells[..] else {
            panic!("not two cells: {line}");
        };
        let setting = setting.trim().trim_matches('`');
        let (keyword, value) = setting.split_once(' ').expect("keyword and value");
        assert!(reason.trim().len() > 10, "no reason: {line}");
        rows.insert(keyword.to_owned(), value.to_owned());
    }
    let mut expected = settings();
    expected.insert("UnusedConnectionTimeout".into(), "60".into());
    assert_eq!(rows, expected);
}

#[test]
fn the_example_keys_are_valid_and_restricted() {
    let lines: Vec<&str> = EXAMPLE
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .collect();
    assert_eq!(lines.len(), 3);
    let site = Site::new();
    for line in lines {
        assert!(line.starts_with("restrict,"), "{line}");
        assert!(line.contains("command=\"/usr/local/bin/deploy-shell serve --site "));
        let file = site.dir().join("example");
        write_file(&file, 0o644, line.as_bytes());
        let output = Command::new("ssh-keygen").arg("-lf").arg(&file).output();
        let output = output.expect("ssh-keygen starts");
        assert!(output.status.success(), "{line}: {output:?}");
    }
}

/// Creates a site whose sshd has the drop-in, and whose key runs `command` without
/// `restrict`.
fn site_with_a_lax_key(command: &str) -> Site {
    let site = Site::new();
    let keys = site.dir().join("authorized_keys");
    let line = fs::read_to_string(&keys).expect("the keys");
    let public = line.split("\" ").nth(1).expect("the public key");
    let line = format!("command=\"{command}\" {public}");
    write_file(&keys, 0o644, line.as_bytes());

    let me = User::from_uid(Uid::effective())
        .expect("readable")
        .expect("an account");
    let ours = DROP_IN
        .replace("Match User deploy", &format!("Match User {}", me.name))
        .replace(
            "/etc/deploy-shell/authorized_keys/%u",
            keys.to_str().expect("UTF-8"),
        );
    write_file(&site.dir().join("drop-in.conf"), 0o644, ours.as_bytes());
    let config = site.dir().join("sshd_config");
    let rest = fs::read_to_string(&config).expect("the configuration");
    // The server accepts the locale, as that of Debian does.
    let include = format!("Include {}/drop-in.conf\n", site.dir().display());
    let text = format!("{include}AcceptEnv LC_*\n{rest}");
    write_file(&config, 0o644, text.as_bytes());
    site
}

fn ask(site: &Site, options: &[&str], request: &[&str]) -> Reply {
    let mut command = site.ssh_command("ci");
    command.env("LC_ALL", "C").env("LC_PROBE", "sent");
    command.args(options).args(request);
    site.run(command, b"")
}

#[test]
fn a_key_without_restrict_has_no_further_rights() {
    let site = site_with_a_lax_key("env");
    let reply = ask(&site, &["-o", "SendEnv=LC_PROBE"], &["list"]).ok();
    assert!(reply.contains("SSH_ORIGINAL_COMMAND=list\n"), "{reply}");
    assert!(!reply.contains("LC_PROBE"), "{reply}");

    let socket = site.dir().join("agent");
    let mut agent = Command::new("ssh-agent");
    agent.arg("-D").arg("-a").arg(&socket).stdout(Stdio::null());
    let _agent = Running(agent.spawn().expect("ssh-agent starts"));
    eventually("the agent listens", || socket.exists());
    let mut command = site.ssh_command("ci");
    command.env("SSH_AUTH_SOCK", &socket).args(["-A", "list"]);
    let reply = site.run(command, b"").ok();
    assert!(!reply.contains("SSH_AUTH_SOCK"), "{reply}");

    // With -tt, the client exits if the server refuses a terminal.
    let reply = ask(&site, &["-tt"], &["list"]);
    assert_eq!(reply.code, 255, "{reply:?}");
    assert!(
        reply.stderr.contains("PTY allocation request failed"),
        "{reply:?}"
    );

    // Only with -v does the client say who refused.
    for (forward, said) in [
        ("-W127.0.0.1:22", "administratively prohibited"),
        ("-R0:127.0.0.1:22", "remote port forwarding failed"),
        ("-R/tmp/never:127.0.0.1:22", "remote port forwarding failed"),
    ] {
        let reply = ask(
            &site,
            &["-v", "-o", "ExitOnForwardFailure=yes", forward],
            &[],
        );
        assert_eq!(reply.code, 255, "{forward}: {reply:?}");
        assert_eq!(reply.stdout, "", "{forward}: {reply:?}");
        assert!(reply.stderr.contains(said), "{forward}: {reply:?}");
    }
}

#[test]
fn ssh_user_auth_names_the_key_that_was_used() {
    let site = site_with_a_lax_key("cat $SSH_USER_AUTH");
    let reply = ask(&site, &[], &["list"]);
    let public = fs::read_to_string(site.dir().join("key-ci.pub")).expect("the key");
    let words: Vec<&str> = public.split(' ').take(2).collect();
    assert_eq!(reply.ok(), format!("publickey {}\n", words.join(" ")));
}
