//! The report of `check`, and its findings about sshd's settings. Unit tests beside
//! the code provoke every finding with made-up facts; here the facts are real.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::lchown;
use std::path::Path;
use std::process::Command;

use nix::unistd::{Uid, User};

use crate::operator::{operator, text};
use crate::process::copy_program;
use crate::site::{Reply, Site, admin, set_mode, write_file};

const DROP_IN: &str = include_str!("../../sshd/50-deploy-shell.conf");

/// Returns the arguments that check a site with its own sshd configuration.
pub fn arguments(site: &Site) -> Vec<String> {
    let sshd_config = site.dir().join("sshd_config");
    ["check", "--config", text(site.config_path())]
        .into_iter()
        .chain(["--sshd-config", text(&sshd_config)])
        .map(str::to_owned)
        .collect()
}

pub fn check(site: &Site) -> Reply {
    let arguments = arguments(site);
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    operator(site, &words, b"")
}

/// Returns the codes of all findings. Each must have a problem and a remedy.
#[track_caller]
pub fn codes(reply: &Reply) -> BTreeSet<String> {
    assert_eq!(reply.stderr, "", "{reply:?}");
    let lines: Vec<&str> = reply.stdout.lines().collect();
    let mut found = BTreeSet::new();
    let mut count = 0;
    for (at, line) in lines.iter().enumerate() {
        let printable = line.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        assert!(printable, "{line:?}");
        if let Some(finding) = line.strip_prefix("finding: ") {
            let (code, problem) = finding.split_once(": ").expect("a code and a problem");
            let remedy = lines
                .get(at + 1)
                .and_then(|line| line.strip_prefix("  remedy: "));
            assert!(!problem.is_empty() && !remedy.expect("a remedy").is_empty());
            found.insert(code.to_owned());
            count += 1;
        }
    }
    let last = match count {
        0 => "no findings".to_owned(),
        1 => "1 finding".to_owned(),
        many => format!("{many} findings"),
    };
    assert_eq!(lines.last(), Some(&last.as_str()), "{reply:?}");
    assert_eq!(reply.code, i32::from(count > 0), "{reply:?}");
    found
}

/// Returns the codes that are new since `before`, of which none may be gone.
#[track_caller]
pub fn added(before: &BTreeSet<String>, reply: &Reply) -> Vec<String> {
    let now = codes(reply);
    assert!(before.is_subset(&now), "{before:?} {reply:?}");
    now.difference(before).cloned().collect()
}

/// Puts lines first in the site's sshd configuration, where they override others.
pub fn prefix_sshd(site: &Site, lines: &str) {
    let path = site.dir().join("sshd_config");
    let rest = fs::read_to_string(&path).expect("the configuration");
    write_file(&path, 0o644, format!("{lines}\n{rest}").as_bytes());
}

/// Gives the site's sshd the drop-in for `user`, so that `check` finds nothing in
/// its settings.
pub fn quiet_sshd(site: &Site, user: &str) {
    let drop_in = DROP_IN
        .replace("Match User deploy", &format!("Match User {user}"))
        .replace(
            "/etc/deploy-shell/authorized_keys/%u",
            text(&site.dir().join("authorized_keys")),
        );
    let path = site.dir().join("sshd_config");
    let rest = fs::read_to_string(&path).expect("the configuration");
    let rest = rest.replace("StrictModes no", "StrictModes yes");
    write_file(&path, 0o644, format!("{drop_in}\n{rest}").as_bytes());
}

pub fn me() -> String {
    let user = User::from_uid(Uid::effective()).expect("the user database");
    user.expect("an account").name
}

/// Returns the account that a checked site serves: the user of the tests. About a site of
/// root's `check` says little else than that, so root takes an account that every Debian
/// has: locked, without a shell, with a home directory of root's.
pub fn deployer() -> User {
    if !Uid::effective().is_root() {
        return User::from_uid(Uid::effective())
            .expect("readable")
            .expect("an account");
    }
    let account = User::from_name("daemon").expect("the user database");
    account.expect("an account named daemon")
}

/// Gives `path` and everything below it to `account`.
pub fn give(path: &Path, account: &User) {
    let (uid, gid) = (account.uid.as_raw(), account.gid.as_raw());
    lchown(path, Some(uid), Some(gid)).expect("root may give files away");
    if path.is_dir() && !path.is_symlink() {
        for entry in fs::read_dir(path).expect("a directory") {
            give(&entry.expect("an entry").path(), account);
        }
    }
}

/// Gives the site to [`deployer`], and its sshd the recommended settings.
pub fn quiet(site: Site) -> Site {
    let account = deployer();
    give(site.root(), &account);
    quiet_sshd(&site, &account.name);
    site
}

/// Returns a site whose sshd has the recommended settings.
pub fn quiet_site() -> Site {
    quiet(Site::new())
}

/// Returns the remedy of the only finding with this code.
#[track_caller]
pub fn remedy(reply: &Reply, code: &str) -> String {
    let start = format!("finding: {code}: ");
    let mut lines = reply.stdout.lines();
    lines
        .find(|line| line.starts_with(&start))
        .unwrap_or_else(|| panic!("{code}: {reply:?}"));
    let remedy = lines
        .next()
        .and_then(|line| line.strip_prefix("  remedy: "));
    assert!(!lines.any(|line| line.starts_with(&start)), "{reply:?}");
    remedy.expect("a remedy").to_owned()
}

#[test]
fn the_capabilities_of_each_key_are_listed() {
    let site = quiet_site();
    site.add_key("builder", Some("receive"));
    site.add_key("anna", Some("swap,rollback,list"));
    let before = site.snapshot();
    let reply = check(&site);
    codes(&reply);
    let file = site.dir().join("authorized_keys");
    let print = crate::receive::fingerprint(&site, "ci");
    let start = format!("key ci ({print}, {} line 1): ", file.display());
    let line_of = |start: &str| {
        let line = reply.stdout.lines().find(|line| line.starts_with(start));
        line.unwrap_or_else(|| panic!("{start}: {reply:?}"))
            .to_owned()
    };
    let ci = line_of(&start);
    for words in [
        "may receive, swap, rollback and list on site blog; someone with this key can publish any content \
         (no signatures are required), ",
        "make any received release live, ",
        "go back to any release that was live and good",
    ] {
        assert!(ci.contains(words), "{ci}");
    }
    assert!(ci.ends_with("; nothing else"), "{ci}");
    let builder = line_of("key builder (");
    assert!(
        builder.contains("line 2): may receive on site blog; "),
        "{builder}"
    );
    assert!(
        builder.contains("not live until another key swaps to it"),
        "{builder}"
    );
    let anna = line_of("key anna (");
    assert!(
        !anna.contains("content") && anna.ends_with("; nothing else"),
        "{anna}"
    );
    // check changes nothing.
    assert_eq!(site.snapshot(), before);
    assert!(site.audit_lines().is_empty());
    assert!(site.journal().is_empty());
}

#[test]
fn every_unsafe_setting_of_sshd_is_found() {
    // The settings that a Match block can change.
    let set = [
        ("AllowAgentForwarding yes", "agent-forwarding"),
        ("X11Forwarding yes", "x11-forwarding"),
        ("PermitTunnel yes", "tunnel"),
        ("GatewayPorts yes", "gateway-ports"),
        ("PermitUserRC yes", "user-rc"),
        ("PermitTTY yes", "terminal"),
        ("TrustedUserCAKeys /etc/ssh/ca.pub", "user-ca"),
        (
            "AuthorizedPrincipalsFile /etc/ssh/principals",
            "principals-file",
        ),
        ("ForceCommand /usr/bin/true", "force-command"),
        ("ExposeAuthInfo no", "auth-info"),
        ("AcceptEnv LC_*", "accept-env"),
        ("AcceptEnv SSH_ORIGINAL_COMMAND", "accept-env"),
        (
            "DisableForwarding no\nAllowTcpForwarding yes",
            "tcp-forwarding",
        ),
        (
            "DisableForwarding no\nAllowStreamLocalForwarding yes",
            "socket-forwarding",
        ),
        (
            "AuthenticationMethods any\nPasswordAuthentication yes",
            "password-login",
        ),
        (
            "AuthenticationMethods any\nPermitEmptyPasswords yes",
            "empty-passwords",
        ),
        (
            "AuthenticationMethods any\nKbdInteractiveAuthentication yes",
            "keyboard-interactive",
        ),
        (
            "AuthenticationMethods any\nHostbasedAuthentication yes",
            "host-based",
        ),
        (
            "AuthorizedKeysCommand /usr/bin/true\nAuthorizedKeysCommandUser nobody",
            "keys-command",
        ),
        (
            "AuthorizedPrincipalsCommand /usr/bin/true\nAuthorizedPrincipalsCommandUser nobody",
            "principals-command",
        ),
    ];
    let blocks = set.map(|(lines, code)| {
        (
            format!("Match User {}\n{lines}\nMatch all", deployer().name),
            code,
        )
    });
    // The settings that hold for all users.
    let global = [
        ("PermitUserEnvironment yes".to_owned(), "user-environment"),
        ("StrictModes no".to_owned(), "strict-modes"),
    ];
    let before = codes(&check(&quiet_site()));
    for (lines, code) in blocks.into_iter().chain(global) {
        let site = quiet_site();
        prefix_sshd(&site, &lines);
        assert_eq!(added(&before, &check(&site)), [code], "{lines}");
    }
}

#[test]
fn a_password_in_addition_to_a_key_is_no_finding() {
    let before = codes(&check(&quiet_site()));
    let site = quiet_site();
    // sshd requires both: nobody can log in with the password alone.
    let lines = "AuthenticationMethods publickey,password\nPasswordAuthentication yes";
    prefix_sshd(
        &site,
        &format!("Match User {}\n{lines}\nMatch all", deployer().name),
    );
    assert_eq!(added(&before, &check(&site)), [""; 0]);
}

/// One cause, one finding: the drop-in makes all of them go.
#[test]
fn a_missing_drop_in_is_one_finding() {
    let site = Site::new();
    give(site.root(), &deployer());
    let reply = check(&site);
    let found = codes(&reply);
    assert!(found.contains("drop-in-missing"), "{reply:?}");
    // The drop-in cannot set it for one account.
    assert!(found.contains("strict-modes"), "{reply:?}");
    for code in [
        "tcp-forwarding",
        "socket-forwarding",
        "agent-forwarding",
        "terminal",
        "user-rc",
    ] {
        assert!(!found.contains(code), "{code}: {reply:?}");
        let named =
            |line: &str| line.starts_with("finding: drop-in-missing") && line.contains(code);
        assert!(reply.stdout.lines().any(named), "{code}: {reply:?}");
    }
    assert!(remedy(&reply, "drop-in-missing").contains("install sshd/50-deploy-shell.conf as "));
    // The audit has the fingerprint, and the forced command replaces the sftp server.
    assert!(
        !found.contains("auth-info") && !found.contains("sftp-reachable"),
        "{found:?}"
    );
    // The remedy is what ends it.
    quiet_sshd(&site, &deployer().name);
    let repaired = codes(&check(&site));
    assert!(!repaired.contains("drop-in-missing"), "{repaired:?}");
    assert!(repaired.len() < found.len(), "{repaired:?}");
}

#[test]
fn an_sshd_without_an_answer_is_a_finding() {
    let site = Site::new();
    give(site.root(), &deployer());
    assert!(codes(&check(&site)).contains("drop-in-missing"));
    prefix_sshd(&site, "NoSuchKeyword yes");
    let reply = check(&site);
    let found = codes(&reply);
    assert!(!found.contains("drop-in-missing"), "{reply:?}");
    assert!(found.contains("sshd-not-asked"), "{reply:?}");
    let expected = format!(
        "sshd cannot be asked what it allows '{}': 'sshd -T' fails: ",
        deployer().name
    );
    assert!(reply.stdout.contains(&expected), "{reply:?}");
    assert!(!reply.stdout.contains("; nothing else\n"), "{reply:?}");
}

#[test]
fn certificates_and_principals_are_listed_and_judged() {
    let before = codes(&check(&quiet_site()));
    let site = quiet_site();
    let dir = text(site.dir()).to_owned();
    let print = crate::receive::fingerprint(&site, "ci");
    let public = fs::read_to_string(site.dir().join("key-ci.pub")).expect("a key");
    write_file(&site.dir().join("ca.pub"), 0o644, public.as_bytes());
    write_file(&site.dir().join("authorized_keys"), 0o644, b"");
    let line = |words: &str| {
        let lines = format!("Match User {}\n{words}\nMatch all", deployer().name);
        prefix_sshd(&site, &lines);
        check(&site)
    };
    let reply = line(&format!("TrustedUserCAKeys {dir}/ca.pub"));
    assert_eq!(added(&before, &reply), ["user-ca"]);
    assert!(!reply.stdout.contains("nobody"), "{reply:?}");
    let authority = format!("authority ({print}, {dir}/ca.pub line 1): its certificates log in");
    assert!(reply.stdout.contains(&authority), "{reply:?}");

    let serve = format!(
        "{} serve --config {} --key",
        crate::site::BIN,
        text(site.config_path())
    );
    let principals = format!(
        "restrict,command=\"{serve} anna\" anna\n# comment\nrestrict,pty,command=\"{serve} b\" b\nc\nodd d\n"
    );
    write_file(&site.dir().join("principals"), 0o644, principals.as_bytes());
    let reply = line(&format!("AuthorizedPrincipalsFile {dir}/principals"));
    let expected = [
        "principal-line-unread",
        "principal-permissions",
        "principal-without-command",
        "principals-file",
        "user-ca",
    ];
    assert_eq!(added(&before, &reply), expected, "{reply:?}");
    let anna = format!("principal anna ({dir}/principals line 1): each certificate for it: may ");
    assert!(reply.stdout.contains(&anna), "{reply:?}");

    set_mode(&site.dir().join("principals"), 0o646);
    let reply = check(&site);
    assert!(codes(&reply).contains("sshd-config-writable"), "{reply:?}");
}

#[test]
fn a_channel_timeout_that_is_too_short_is_found() {
    let before = codes(&check(&quiet_site()));
    let site = quiet_site();
    prefix_sshd(
        &site,
        &format!(
            "Match User {}\nChannelTimeout session:*=2s\nMatch all",
            deployer().name
        ),
    );
    let reply = check(&site);
    // Only OpenSSH 9.2 and newer know it.
    if codes(&reply).contains("sshd-not-asked") {
        println!("skipped: this sshd has no ChannelTimeout");
        return;
    }
    assert_eq!(added(&before, &reply), ["channel-timeout"], "{reply:?}");
}

#[test]
fn a_configuration_that_does_not_load_is_an_error() {
    let site = Site::with_config("colour = 1\n");
    check(&site).refused(78, "bad-config");
    let none = site.dir().join("none.toml");
    operator(&site, &["check", "--config", text(&none)], b"").refused(78, "bad-config");
    let reply = operator(&site, &["check"], b"");
    assert_eq!((reply.code, reply.stdout.as_str()), (64, ""), "{reply:?}");
}

/// Without root's rights, the report says what could not be checked.
#[test]
fn another_user_gets_a_report_of_what_was_not_checked() {
    if !Uid::effective().is_root() {
        return; // Only root can become another user.
    }
    let site = quiet_site();
    let program = site.dir().join("deploy-shell-admin");
    copy_program(text(admin()), &program);
    set_mode(&program, 0o755);
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(&program)
        .args(arguments(&site))
        .env_clear()
        .env("PATH", "/usr/bin:/bin");
    let reply = site.run(command, b"");
    codes(&reply);
    for expected in [
        "not checked: whether 'daemon' has a password, is locked or has expired: '/etc/shadow' cannot be read: permission denied",
        "finding: sshd-not-asked: sshd cannot be asked what it allows 'daemon': 'sshd -T' fails: ",
        "not checked: what the account can do, and its sandbox: run check as root or as 'daemon'",
    ] {
        assert!(reply.stdout.contains(expected), "{reply:?}");
    }
    assert!(!reply.stdout.contains("\nsandbox: "), "{reply:?}");
}
