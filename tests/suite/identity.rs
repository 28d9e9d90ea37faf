//! The identity of a client: the key's label and fingerprint and the client's
//! address reach the audit log and the journal, and nothing else in the client's
//! command or environment has any influence.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::net::IpAddr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::process::Command;

use crate::direct::{ask, everything, live, payload, put, record, serve, states};
use crate::fields::Fields;
use crate::gating::hook;
use crate::receive::fingerprint;
use crate::site::{Site, write_file};

/// Returns the audit lines that one request adds.
fn audited(site: &Site, act: impl FnOnce()) -> Vec<Fields> {
    let heard = record(site).len();
    act();
    let lines = record(site);
    lines[heard..]
        .iter()
        .map(|line| Fields::read(line))
        .collect()
}

#[test]
fn label_and_fingerprint_reach_the_audit_log_and_the_journal() {
    let site = Site::new();
    put(&site, "a");
    site.add_key("laptop", Some("swap"));
    site.add_key("build_7@example", None);
    for (key, request) in [("laptop", "swap a"), ("build_7@example", "list")] {
        let lines = audited(&site, || {
            site.ssh(key, request).ok();
        });
        let [allowed, result] = &lines[..] else {
            panic!("{lines:?}");
        };
        let print = fingerprint(&site, key);
        assert!(print.starts_with("SHA256:"), "{print}");
        allowed.has(&[
            ("key", key),
            ("fingerprint", &print),
            ("request", request),
            ("decision", "allowed"),
        ]);
        // An sshd that runs as a proxy command has no peer address.
        assert!(allowed.client_is_unknown(), "{allowed:?}");
        result.has(&[("event", "result"), ("outcome", "ok"), ("exit", "0")]);
    }
    let journal = site.journal();
    let swapped = journal
        .iter()
        .find(|event| event["event"] == "swapped")
        .expect("the swap is in the journal");
    assert_eq!(swapped["key"], "laptop");
    assert_eq!(swapped["fingerprint"], fingerprint(&site, "laptop"));
}

#[test]
fn a_client_cannot_choose_its_label() {
    let site = Site::new();
    live(&site, &["a"]);
    let config = site.config_path().display().to_string();
    for request in [
        "list --key boss".to_owned(),
        "--key boss list".to_owned(),
        format!("serve --config {config} --key boss"),
        "swap a\" key=\"boss".to_owned(),
    ] {
        let lines = audited(&site, || {
            site.ssh("ci", &request).refused(64, "bad-request");
        });
        assert_eq!(lines.len(), 1, "{lines:?}");
        lines[0].has(&[("key", "ci"), ("decision", "refused")]);
    }
    // sshd drops these unless it is configured to accept them. This test sets
    // them directly.
    let mut command = serve(&site, "ci", "list");
    for name in ["KEY", "DEPLOY_SHELL_KEY", "SSH_KEY", "LOGNAME", "USER"] {
        command.env(name, "boss");
    }
    let lines = audited(&site, || {
        site.run(command, b"").ok();
    });
    for line in &lines[..1] {
        line.has(&[("key", "ci"), ("decision", "allowed")]);
    }
    let texts = record(&site);
    assert!(!texts.iter().any(|line| line.contains(" key=\"boss\"")));
}

/// The operator writes the label, and may mistype it.
#[test]
fn a_label_cannot_break_an_audit_line() {
    let site = Site::new();
    live(&site, &["a", "b"]);
    for label in [
        "x\" decision=\"denied",
        "x\ny",
        "é",
        "x\\",
        &"x".repeat(900),
    ] {
        let command = serve(&site, label, "swap a");
        let heard = record(&site).len();
        let reply = site.run(command, b"");
        assert!(matches!(reply.code, 0 | 78), "{label:?}: {reply:?}");
        for line in &record(&site)[heard..] {
            Fields::read(line);
        }
        ask(&site, "swap b").ok();
    }
    for event in site.journal() {
        assert!(event["seq"].is_u64(), "{event}");
    }
}

fn connection(site: &Site, value: impl AsRef<OsStr>, request: &str) -> Command {
    let mut command = serve(site, "ci", request);
    command.env("SSH_CONNECTION", value);
    command
}

#[test]
fn the_client_address_is_logged() {
    let site = Site::new();
    live(&site, &["a", "b"]);
    let mut to = ["a", "b"].into_iter().cycle();
    for (value, address) in [
        ("192.0.2.7 50000 192.0.2.1 22", "192.0.2.7"),
        ("2001:db8::7 50000 2001:db8::1 22", "2001:db8::7"),
    ] {
        let request = format!("swap {}", to.next().expect("it cycles"));
        let lines = audited(&site, || {
            site.run(connection(&site, value, &request), b"").ok();
        });
        assert_eq!(lines.len(), 2, "{lines:?}");
        lines[0].has(&[("client", address)]);
        let journal = site.journal();
        let last = journal.last().expect("an event");
        assert_eq!(last["event"], "swapped");
        assert_eq!(last["client"], address);
    }
}

#[test]
fn an_invalid_address_reaches_neither_log_nor_journal() {
    let site = Site::new();
    live(&site, &["a", "b"]);
    let mut to = ["a", "b"].into_iter().cycle();
    let long = "evil ".repeat(24_000);
    let hostile: Vec<OsString> = [
        "",
        " ",
        "UNKNOWN 65535 UNKNOWN 65535",
        "evil",
        "evil 1 evil 2",
        "evil\" decision=\"evil 1 2 3",
        "evil\n<86>1 - - evil 1 request - event=\"evil\" 1 2 3",
        "192.0.2.7\"evil 50000 192.0.2.1 22",
        "192.0.2.7\nevil 50000 192.0.2.1 22",
        "192.0.2.7/evil 50000 192.0.2.1 22",
        "192.0.2.7evil 50000 192.0.2.1 22",
        "192.0.2.7 evil evil evil",
        "192.0.2.7 50000 192.0.2.1 22 evil",
        "192.0.2.256 1 evil 2",
        "fe80::1%evil 1 2 3",
        "[2001:db8::1]evil 1 2 3",
        "$(evil) 1 2 3",
        "\u{202e}evil 1 2 3",
        &long,
    ]
    .into_iter()
    .map(OsString::from)
    .chain([OsString::from_vec(b"evil\xff\x9b 1 2 3".to_vec())])
    .collect();
    for value in &hostile {
        let request = format!("swap {}", to.next().expect("it cycles"));
        let lines = audited(&site, || {
            site.run(connection(&site, value, &request), b"").ok();
        });
        assert_eq!(lines.len(), 2, "{value:?}: {lines:?}");
        let client = lines[0].get("client").unwrap_or("-");
        let address = client.parse::<IpAddr>().is_ok();
        assert!(address || client == "-", "{value:?}: {lines:?}");
    }
    let journal = fs::read(site.root().join(".deploy-shell/journal.jsonl")).expect("a journal");
    assert!(!String::from_utf8_lossy(&journal).contains("evil"));
    for line in record(&site) {
        assert!(!line.contains("evil"), "{line}");
    }
}

/// `SSH_USER_AUTH` names a file of sshd. An invalid file costs the fingerprint,
/// never the request, and adds nothing to the audit log.
#[test]
fn an_invalid_key_file_gives_no_fingerprint() {
    let site = Site::new();
    live(&site, &["a", "b"]);
    let path = site.dir().join("auth");
    let public = fs::read_to_string(site.dir().join("key-ci.pub")).expect("a public key");
    let many = format!("publickey {public}").repeat(2000);
    let mut contents: Vec<Vec<u8>> = [
        "",
        "\n",
        "evil",
        "publickey",
        "publickey evil",
        "publickey ssh-ed25519 evil\n",
        "publickey ssh-ed25519 AAAA\" evil=\"\n",
        "password\n",
        "keyboard-interactive evil\n",
        &many,
        &"evil".repeat(100_000),
    ]
    .into_iter()
    .map(Vec::from)
    .collect();
    contents.push(b"publickey \xff\xfe\x00evil".to_vec());
    let is_key = |content: &[u8]| content.starts_with(b"publickey ");
    let run = |path: &OsStr| {
        let mut command = serve(&site, "ci", "list");
        command.env("SSH_USER_AUTH", path);
        let lines = audited(&site, || {
            site.run(command, b"").ok();
        });
        lines[0].get("fingerprint").map(str::to_owned)
    };
    let good = format!("publickey {public}");
    write_file(&path, 0o600, good.as_bytes());
    assert_eq!(run(path.as_os_str()), Some(fingerprint(&site, "ci")));
    for content in contents {
        write_file(&path, 0o600, &content);
        let found = run(path.as_os_str());
        let expected = match is_key(&content) {
            true if content == many.as_bytes() => Some(fingerprint(&site, "ci")),
            true => Some("unreadable".to_owned()),
            // A login without a key.
            false => None,
        };
        let shown = content[..content.len().min(60)].escape_ascii().to_string();
        assert_eq!(found, expected, "{shown}");
    }
    let directory = site.dir().as_os_str();
    // sshd removes its file when the client leaves.
    assert_eq!(run(OsStr::new("/nonexistent")).as_deref(), Some("gone"));
    for path in ["", "evil\n", "/dev/null"].map(OsStr::new) {
        assert_eq!(run(path).as_deref(), Some("unreadable"), "{path:?}");
    }
    assert_eq!(run(directory).as_deref(), Some("unreadable"));
    write_file(&path, 0o600, &vec![b'\n'; (1 << 20) + 1]);
    assert_eq!(run(path.as_os_str()).as_deref(), Some("unreadable"));
    for line in record(&site) {
        assert!(!line.contains("evil"), "{line}");
    }
}

#[test]
fn no_other_variable_has_any_influence() {
    let site = Site::new();
    live(&site, &["a", "b"]);
    put(&site, "c");
    let config = site.config_path().as_os_str();
    let other = Site::new();
    let directory = site.dir().join("elsewhere");
    fs::create_dir(&directory).expect("a directory");
    let directory = directory.as_os_str();
    let variables: [(&str, &OsStr); 31] = [
        ("DEPLOY_SHELL_CONFIG", other.config_path().as_os_str()),
        ("DEPLOY_SHELL_SITE", OsStr::new("other")),
        ("DEPLOY_SHELL_ALLOW", OsStr::new("list")),
        ("DEPLOY_SHELL_KEY", OsStr::new("boss")),
        ("DEPLOY_SHELL_ROOT", other.root().as_os_str()),
        ("DEPLOY_SHELL_LOG", OsStr::new("trace")),
        ("DEPLOY_RELEASE", OsStr::new("c")),
        ("CONFIG", config),
        ("ALLOW", OsStr::new("list")),
        ("HOME", directory),
        ("XDG_CONFIG_HOME", directory),
        ("PATH", directory),
        ("PWD", directory),
        ("SHELL", OsStr::new("/bin/false")),
        ("USER", OsStr::new("root")),
        ("LOGNAME", OsStr::new("root")),
        ("TZ", OsStr::new("Asia/Kathmandu")),
        ("TZ", OsStr::new("/etc/shadow")),
        ("LANG", OsStr::new("tr_TR.UTF-8")),
        ("LC_ALL", OsStr::new("de_DE.UTF-8")),
        ("LANGUAGE", OsStr::new("fr")),
        ("RUST_BACKTRACE", OsStr::new("full")),
        ("RUST_LOG", OsStr::new("trace")),
        ("RUST_MIN_STACK", OsStr::new("1")),
        // More than the address space.
        ("RUST_MIN_STACK", OsStr::new("9223372036854775807")),
        ("TMPDIR", directory),
        ("TMPDIR", OsStr::new("/nonexistent")),
        ("COLUMNS", OsStr::new("20")),
        ("CLICOLOR_FORCE", OsStr::new("1")),
        ("TERM", OsStr::new("dumb")),
        ("SSH_CLIENT", OsStr::from_bytes(b"\xff 1 22")),
    ];
    let bad = payload("d");
    let receive = Site::receive_command("d", &payload("e"));
    let requests = [
        ("list", &[][..]),
        ("list --json", &[]),
        ("swap b", &[]),
        ("swap nowhere", &[]),
        ("swap c --if-current a", &[]),
        ("swap a;b", &[]),
        (&receive, &bad),
    ];
    let plain = requests.map(|(request, input)| site.run(serve(&site, "ci", request), input));
    assert_eq!(
        plain.each_ref().map(|reply| reply.code),
        [0, 0, 0, 66, 75, 64, 65]
    );
    let before = everything(&site);
    for (name, value) in variables {
        for ((request, input), plain) in requests.iter().zip(&plain) {
            let mut command = serve(&site, "ci", request);
            command.env(name, value);
            let reply = site.run(command, input);
            let case = format!("{request} with {name}={value:?}");
            assert_eq!(reply.code, plain.code, "{case}");
            assert_eq!(reply.stdout, plain.stdout, "{case}");
            assert_eq!(reply.stderr, plain.stderr, "{case}");
        }
    }
    assert!(everything(&site) == before);
    assert_eq!(fs::read_dir(directory).expect("a directory").count(), 0);
    assert!(record(&other).is_empty());
    assert_eq!(other.releases(), [] as [&str; 0]);
}

/// The spool belongs below the root: another directory may be on another file
/// system, or shared.
#[test]
fn a_receive_needs_no_temporary_directory() {
    let site = Site::new();
    let archive = payload("a");
    let mut command = serve(&site, "ci", Site::receive_command("a", &archive));
    command
        .env("TMPDIR", "/nonexistent")
        .env("HOME", "/nonexistent");
    site.run(command, &archive).ok();
    assert_eq!(site.releases(), ["a"]);
}

/// A forced command without a request: only `ssh node`.
#[test]
fn without_a_request_nothing_happens() {
    let site = Site::new();
    live(&site, &["a"]);
    let before = everything(&site);
    let mut command = serve(&site, "ci", "");
    command.env_remove("SSH_ORIGINAL_COMMAND");
    command
        .env("SSH_ORIGINAL_COMMANDS", "list")
        .env("COMMAND", "list");
    site.run(command, b"list\n").refused(64, "bad-request");
    assert!(everything(&site) == before);
}

/// execve(2) keeps that a caller ignores a signal. Without SIGCHLD no exit status of a
/// child can be had.
#[test]
fn ignored_signals_of_the_caller_have_no_influence() {
    let site = Site::with_config(&hook("after_swap", "exit 0"));
    let archive = payload("a");
    for (request, input) in [
        (Site::receive_command("a", &archive), archive.as_slice()),
        ("swap a".to_owned(), b""),
    ] {
        let served = serve(&site, "ci", &request);
        let mut command = Command::new("/bin/sh");
        command.env_clear().env("SSH_ORIGINAL_COMMAND", request);
        command.args([
            "-c",
            "trap '' CHLD TERM; unset PWD OLDPWD; exec \"$0\" \"$@\"",
        ]);
        command.arg(served.get_program()).args(served.get_args());
        site.run(command, input).ok();
    }
    assert_eq!(states(&site), ["a current"]);
}
