//! The findings of `check` about lines of authorized_keys. Some tests compare its
//! reading of a line with sshd itself.

use std::fs;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::check::{added, check, codes, deployer, give, prefix_sshd, quiet_site};
use crate::operator::text;
use crate::process::Running;
use crate::site::{BIN, Reply, Site, write_file};

fn keys(site: &Site) -> PathBuf {
    site.dir().join("authorized_keys")
}

/// Returns the public key of `label`, without options.
fn public(site: &Site, label: &str) -> String {
    let path = site.dir().join(format!("key-{label}.pub"));
    fs::read_to_string(path).expect("a public key")
}

/// Writes a keys file of one line: `options`, with the forced command in place of
/// `SERVE`, before the key.
fn only_key(site: &Site, options: &str) {
    let serve = format!(
        "command=\"{BIN} serve --config {} --key ci\"",
        text(site.config_path())
    );
    let line = format!(
        "{} {}",
        options.replace("SERVE", &serve),
        public(site, "ci")
    );
    write_file(&keys(site), 0o644, line.as_bytes());
}

#[test]
fn every_option_that_widens_a_key_is_found() {
    let site = quiet_site();
    only_key(&site, "restrict,SERVE");
    let before = codes(&check(&site));
    for (options, expected) in [
        ("restrict,pty,SERVE", &["key-terminal"][..]),
        ("SERVE,restrict,PORT-forwarding", &["key-port-forwarding"]),
        ("restrict,agent-forwarding,SERVE", &["key-agent-forwarding"]),
        ("restrict,x11-forwarding,SERVE", &["key-x11-forwarding"]),
        ("restrict,user-rc,SERVE", &["key-user-rc"]),
        (
            "restrict,permitopen=\"127.0.0.1:80\",SERVE",
            &["key-permitopen"],
        ),
        (
            "restrict,permitlisten=\"8080\",SERVE",
            &["key-permitlisten"],
        ),
        ("restrict,tunnel=\"0\",SERVE", &["key-tunnel"]),
        ("restrict,environment=\"A=1\",SERVE", &["key-environment"]),
        ("restrict,cert-authority,SERVE", &["key-cert-authority"]),
        ("restrict,no-touch-required,SERVE", &["key-no-touch"]),
        ("pty,restrict,SERVE", &[]),
        ("restrict,from=\"192.0.2.0/24\",SERVE", &[]),
        ("restrict", &["key-without-command", "sftp-reachable"]),
        (
            "restrict,command=\"/bin/sh\"",
            &["command-is-another-program"],
        ),
        (
            "restrict,command=\"deploy-shell init\"",
            &["command-is-not-serve"],
        ),
        ("restrict,unheard-of,SERVE", &["key-line-unread"]),
        ("restrict,SERVE,SERVE", &["key-line-unread"]),
        (
            "no-port-forwarding,no-agent-forwarding,no-X11-forwarding,no-pty,no-user-rc,SERVE",
            &["key-without-restrict"],
        ),
        (
            "SERVE",
            &[
                "key-agent-forwarding",
                "key-port-forwarding",
                "key-terminal",
                "key-user-rc",
                "key-without-restrict",
                "key-x11-forwarding",
            ],
        ),
    ] {
        only_key(&site, options);
        let reply = check(&site);
        assert_eq!(added(&before, &reply), expected, "{options}: {reply:?}");
    }
}

#[test]
fn a_command_that_a_shell_interprets_is_found() {
    let site = quiet_site();
    only_key(&site, "restrict,SERVE");
    let before = codes(&check(&site));
    let config = text(site.config_path());
    for (command, code) in [
        (
            format!("{BIN} serve --config {config} --key ci; id"),
            "command-is-not-plain",
        ),
        (
            format!("{BIN} serve --config {config} --key $USER"),
            "command-is-not-plain",
        ),
        (
            format!("env {BIN} serve --config {config} --key ci"),
            "command-is-another-program",
        ),
        (
            format!("{BIN} serve --config {config} --key ci --allow all"),
            "command-is-not-serve",
        ),
        (
            format!("{BIN} serve --config {config}"),
            "key-without-label",
        ),
        (
            format!("deploy-shell serve --config {config} --key ci"),
            "command-without-path",
        ),
    ] {
        only_key(&site, &format!("restrict,command=\"{command}\""));
        let reply = check(&site);
        assert_eq!(added(&before, &reply), [code], "{command}: {reply:?}");
    }
}

#[test]
fn a_key_of_another_site_is_listed_and_no_finding() {
    let site = quiet_site();
    only_key(&site, "restrict,SERVE");
    let before = codes(&check(&site));
    let shop = site.dir().join("shop.toml");
    write_file(&shop, 0o644, b"root = \"/srv/shop\"\n");
    for (config, words) in [
        (
            "shop.toml",
            "may swap on another site, 'shop', and nothing on this one; ",
        ),
        (
            "none.toml",
            "which does not exist; someone with this key can do nothing; nothing else",
        ),
    ] {
        let config = site.dir().join(config);
        let command = format!(
            "{BIN} serve --config {} --key ci --allow swap",
            text(&config)
        );
        only_key(&site, &format!("restrict,command=\"{command}\""));
        let reply = check(&site);
        // It is the only line, so nobody can deploy to this site.
        assert_eq!(added(&before, &reply), ["no-key-registered"], "{reply:?}");
        assert!(reply.stdout.contains(words), "{reply:?}");
    }
}

#[test]
fn keys_and_labels_that_occur_twice_are_found() {
    let site = quiet_site();
    only_key(&site, "restrict,SERVE");
    let before = codes(&check(&site));
    let line = fs::read_to_string(keys(&site)).expect("the keys");
    let fewer = line.replace("--key ci", "--key ci --allow list");
    site.add_key("other", None);
    let other = line.replace(&public(&site, "ci"), &public(&site, "other"));
    for (second, code) in [
        (&line, "key-twice"),
        (&fewer, "key-twice-differing"),
        (&other, "label-shared"),
    ] {
        write_file(
            &keys(&site),
            0o644,
            format!("{line}\n# and\n{second}").as_bytes(),
        );
        let reply = check(&site);
        assert_eq!(added(&before, &reply), [code], "{reply:?}");
    }
}

#[test]
fn weak_keys_are_found() {
    let site = quiet_site();
    only_key(&site, "restrict,SERVE");
    let before = codes(&check(&site));
    for (kind, bits, expected) in [
        ("rsa", "2048", &["weak-rsa-key"][..]),
        ("rsa", "3072", &[]),
        ("ecdsa", "256", &[]),
    ] {
        let path = site.dir().join(format!("key-{kind}{bits}"));
        let made = Command::new("ssh-keygen")
            .args(["-q", "-N", "", "-t", kind, "-b", bits, "-f", text(&path)])
            .status();
        assert!(made.expect("ssh-keygen starts").success());
        let key = public(&site, &format!("{kind}{bits}"));
        only_key(&site, "restrict,SERVE");
        let line = fs::read_to_string(keys(&site)).expect("the keys");
        let line = line.replace(&public(&site, "ci"), &key);
        write_file(&keys(&site), 0o644, line.as_bytes());
        let reply = check(&site);
        assert_eq!(added(&before, &reply), expected, "{kind} {bits}: {reply:?}");
        let print = crate::receive::fingerprint(&site, &format!("{kind}{bits}"));
        assert!(
            reply.stdout.contains(&format!("key ci ({print}, ")),
            "{reply:?}"
        );
    }
}

/// `internal-sftp` serves a key without `command=`, even with deploy-shell as the
/// login shell. `check` finds that, and an sftp client shows it.
#[test]
fn sftp_without_a_command_is_found_and_works() {
    let site = quiet_site();
    only_key(&site, "restrict");
    let without = codes(&check(&site));
    // The harness's sshd has the subsystem, and the drop-in keeps it.
    assert!(without.contains("sftp-reachable"), "{without:?}");
    only_key(&site, "restrict,SERVE");
    assert!(!codes(&check(&site)).contains("sftp-reachable"));

    prefix_sshd(
        &site,
        &format!(
            "Match User {}\nForceCommand /usr/bin/true\nMatch all",
            deployer().name
        ),
    );
    only_key(&site, "restrict");
    let forced = codes(&check(&site));
    assert!(
        !forced.contains("sftp-reachable") && forced.contains("force-command"),
        "{forced:?}"
    );

    // Below a temporary directory, StrictModes would refuse the keys.
    let site = Site::new();
    give(site.root(), &deployer());
    only_key(&site, "restrict");
    assert!(codes(&check(&site)).contains("sftp-reachable"));
    let mut command = site.ssh_command("ci");
    command.args(["-s", "sftp"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut client = Running(command.spawn().expect("ssh starts"));
    // SSH_FXP_INIT, version 3 (draft-ietf-secsh-filexfer-02), and a version back.
    let mut stdin = client.0.stdin.take().expect("a pipe");
    stdin.write_all(&[0, 0, 0, 5, 1, 0, 0, 0, 3]).expect("sent");
    let mut response = [0; 5];
    let mut stdout = client.0.stdout.take().expect("a pipe");
    stdout.read_exact(&mut response).expect("a response");
    assert_eq!(response[4], 2, "{response:?}");
}

/// Returns whether sshd took the key and started its command. As root, that one refuses
/// the site of another account.
fn is_accepted(reply: &Reply) -> bool {
    let denied = reply.stderr.contains("Permission denied");
    assert_eq!(denied, reply.code == 255, "{reply:?}");
    assert!(denied || [0, 78].contains(&reply.code), "{reply:?}");
    !denied
}

/// If sshd understood a line differently, the key would grant something else than
/// `check` reports.
#[test]
fn sshd_accepts_the_lines_that_check_reads_and_skips_the_others() {
    let site = Site::new();
    give(site.root(), &deployer());
    for options in [
        "restrict,SERVE",
        "SERVE,restrict",
        "RESTRICT,Pty,SERVE",
        "restrict,from=\"127.0.0.1,!192.0.2.1,*\",SERVE",
        "restrict,environment=\"A=\\\"1 2\\\"\",SERVE",
        "restrict,no-pty,no-x11-forwarding,SERVE",
        "restrict,permitopen=\"h:1\",permitopen=\"h:2\",permitlisten=\"3\",tunnel=\"0\",SERVE",
        "restrict,no-touch-required,verify-required,no-user-rc,SERVE",
        "restrict,,SERVE",
        "restrict,SERVE,",
        ",restrict,SERVE",
        "restrict,SERVE,SERVE",
        "restrict;SERVE",
        "restricted,SERVE",
        "no-restrict,SERVE",
        "restrict,unheard-of,SERVE",
        "restrict,from=127.0.0.1,SERVE",
        "restrict,SERVE\"",
        "restrict, SERVE",
    ] {
        only_key(&site, options);
        let read = !codes(&check(&site)).contains("key-line-unread");
        let reply = site.ssh("ci", "list");
        assert_eq!(is_accepted(&reply), read, "{options}: {reply:?}");
    }
}

/// The last digit of a padded key has bits that belong to no byte. sshd accepts
/// only zeros there.
#[test]
fn sshd_and_check_refuse_bits_after_the_last_byte_of_a_key() {
    let site = Site::new();
    give(site.root(), &deployer());
    let path = site.dir().join("key-padded");
    // The blob has 104 bytes, so its base64 ends with one '='.
    let made = Command::new("ssh-keygen")
        .args(["-q", "-N", "", "-t", "ecdsa", "-b", "256", "-C", "", "-f"])
        .arg(&path)
        .status();
    assert!(made.expect("ssh-keygen starts").success());
    let valid = public(&site, "padded");
    let digits = valid.trim_end().strip_suffix('=').expect("padding");
    let (start, last) = digits.split_at(digits.len() - 1);
    // The two low bits are 0, so the next digit sets one of them.
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let at = alphabet.find(last).expect("a base64 digit");
    let invalid = format!("{start}{}=\n", &alphabet[at + 1..at + 2]);
    only_key(&site, "restrict,SERVE");
    let line = fs::read_to_string(keys(&site)).expect("the keys");
    for (key, accepted) in [(&valid, true), (&invalid, false)] {
        let line = line.replace(&public(&site, "ci"), key);
        write_file(&keys(&site), 0o644, line.as_bytes());
        let read = !codes(&check(&site)).contains("key-line-unread");
        let reply = site.ssh("padded", "list");
        assert_eq!(read, accepted, "{key}");
        assert_eq!(is_accepted(&reply), accepted, "{key}: {reply:?}");
    }
}
