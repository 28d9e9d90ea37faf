//! docs/maintenance.md: its commands work as the page has them. Only the paths, the account
//! and the site of the page become those of the test.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use nix::unistd::{Gid, Group, Uid, User};
use serde_json::Value;

use crate::account::Installation;
use crate::direct::{ask, everything, listing, live, payload, put, states};
use crate::process::{Running, eventually};
use crate::readme::{block, find};
use crate::site::{BIN, Reply, Site, admin, generate_key, sha256, write_file};

const LEAKED: &str = "A key has leaked";

const PAGE: &str = include_str!("../../docs/maintenance.md");

/// Returns the commands of a section of the page that begin with `start`.
fn commands(section: &str, start: &str) -> String {
    let heading = format!("\n## {section}\n");
    let (_, text) = PAGE.split_once(&heading).expect("the section");
    let (text, _) = text.split_once("\n## ").unwrap_or((text, ""));
    block(text, start)
}

/// A node with one site, and the programs that the page uses.
struct Node {
    site: Site,
}

impl Node {
    fn new() -> Node {
        let site = Site::new();
        let bin = site.dir().join("bin");
        fs::create_dir(&bin).expect("a directory");
        fs::create_dir(site.dir().join("backup")).expect("a directory");
        symlink(admin(), bin.join("deploy-shell-admin")).expect("a symlink");
        Node { site }
    }

    fn program(&self, name: &str, script: &str) {
        let path = self.site.dir().join("bin").join(name);
        write_file(&path, 0o755, format!("#!/bin/sh\n{script}\n").as_bytes());
    }

    /// Makes `ssh deploy@node` a client with this key.
    fn client(&self, key: &str) {
        let ssh = self.site.ssh_command(key);
        let words = ssh.get_args().map(|word| word.to_str().expect("text"));
        let words: Vec<String> = words
            .map(|word| format!("'{}'", word.replace('\'', r"'\''")))
            .collect();
        let script = format!(
            "[ \"$1\" = deploy@node ] || exit 250\nshift\nexec {} {} -- \"$@\"",
            find("ssh").display(),
            words.join(" ")
        );
        self.program("ssh", &script);
    }

    /// Returns lines of the page for this node.
    fn translated(&self, lines: &str) -> String {
        let dir = self.site.dir().display();
        let user = User::from_uid(Uid::effective()).expect("readable");
        let user = user.expect("an entry").name;
        let group = Group::from_gid(Gid::effective()).expect("readable");
        let group = group.expect("an entry").name;
        let config = format!("--config {}", self.site.config_path().display());
        [
            (
                "/etc/deploy-shell/authorized_keys/deploy",
                "DIR/authorized_keys",
            ),
            ("/etc/deploy-shell/", "DIR/"),
            ("-C /etc deploy-shell", "-C DIR blog.toml authorized_keys"),
            ("-C /etc", "-C DIR"),
            ("/srv/www/example.com", "DIR/root"),
            ("/srv/new", "DIR/new"),
            ("/backup/", "DIR/backup/"),
            ("--site blog", config.as_str()),
            ("deploy:deploy", &format!("{user}:{group}")),
            ("DIR", &dir.to_string()),
        ]
        .iter()
        .fold(lines.to_owned(), |text, (old, new)| text.replace(old, new))
    }

    /// Runs lines of the page, but for `check`: the test's sshd is not set up as the README
    /// says.
    fn run(&self, lines: &str) -> Reply {
        let lines = self.translated(lines);
        let lines: Vec<&str> = (lines.lines())
            .filter(|line| !line.starts_with("deploy-shell-admin check "))
            .collect();
        let path = format!(
            "{}/bin:/usr/local/bin:/usr/bin:/bin",
            self.site.dir().display()
        );
        let mut command = Command::new("sh");
        command.args(["-euc", &lines.join("\n")]);
        command.current_dir(self.site.dir()).env_clear();
        command.env("PATH", path).stdin(Stdio::null());
        self.site.run(command, b"")
    }
}

/// Returns the files of the site and its listing.
fn content(site: &Site) -> (Vec<String>, Value) {
    let (tree, _) = everything(site);
    let tree = tree.iter().map(|(path, found)| format!("{path:?} {found}"));
    (tree.collect(), listing(site))
}

#[test]
fn a_backup_is_restored() {
    let node = Node::new();
    let site = &node.site;
    live(site, &["a", "b"]);
    put(site, "c");
    fs::write(site.root().join("shared/kept"), "x").expect("a file");
    let before = content(site);
    node.run(&commands("Back up", "umask ")).ok();
    // The damaged site is still there. Its account may work in it meanwhile.
    fs::remove_dir_all(site.root().join("releases/b")).expect("a release");
    fs::remove_file(site.config_path()).expect("the configuration");
    fs::remove_file(site.dir().join("authorized_keys")).expect("the keys");

    let restored = node.run(&commands("Restore", "mv "));
    assert_eq!(restored.ok(), "a ok\nb ok\nc ok\n");
    assert_eq!(content(site), before);
    node.run(&commands("Restore", "old=")).ok();
    site.ssh("ci", "rollback").ok();
    site.ssh("ci", "swap c").ok();
}

#[test]
fn a_site_moves_to_another_directory() {
    let node = Node::new();
    let site = &node.site;
    live(site, &["a", "b"]);
    let old = site.snapshot();
    let moved = node.run(&commands("Move a site", "mkdir "));
    assert_eq!(moved.ok(), "a ok\nb ok\n");
    site.ssh("ci", "rollback").ok();
    let new = site.dir().join("new/current");
    assert_eq!(
        fs::read_link(new).expect("a symlink"),
        PathBuf::from("releases/a")
    );
    assert_eq!(site.snapshot(), old, "the old directory changes");
}

#[test]
fn a_site_moves_to_another_node() {
    let node = Node::new();
    let site = &node.site;
    live(site, &["a", "b"]);
    // The other node is another directory of this machine.
    let (dir, other) = (site.dir().display(), site.dir().join("other"));
    fs::create_dir(&other).expect("a directory");
    node.program(
        "ssh",
        &format!(
            "[ \"$1\" = root@new ] || exit 250\n\
             exec sh -euc \"$(printf %s \"$2\" | sed 's|{dir}/|{dir}/other/|g')\""
        ),
    );
    let script = commands("Move a site", "mv ");
    // The root of the configuration is another one here.
    let script = script.replace(
        "< /etc/deploy-shell/blog.toml",
        "< /etc/deploy-shell/blog.toml\nsed -i 's|/root\"|/other/root\"|' /etc/deploy-shell/other/blog.toml",
    );
    assert_eq!(node.run(&script).ok(), "a ok\nb ok\n");
    // The keys of the old node are gone, and the new one has them.
    assert_eq!(site.ssh("ci", "list").code, 255);
    let keys = fs::read_to_string(other.join("authorized_keys")).expect("the keys");
    assert!(keys.contains("--key ci"), "{keys}");
    let mut serve = Command::new(BIN);
    serve.env_clear().env("SSH_ORIGINAL_COMMAND", "rollback");
    serve.args(["serve", "--key", "ci", "--config"]);
    serve.arg(other.join("blog.toml"));
    assert_eq!(site.run(serve, b"").ok(), "ok rollback a previous=b\n");
    assert_eq!(site.current().as_deref(), Some("b"));
}

/// Makes the client's new key, of the label `ci-2026`, and adds one whose label begins like
/// that of the old one.
fn make_keys(site: &Site) {
    site.add_key("ci-other", None);
    generate_key(&site.dir().join("key-ci-2026"));
    fs::copy(
        site.dir().join("key-ci-2026.pub"),
        site.dir().join("new.pub"),
    )
    .expect("a copy");
}

#[test]
fn the_drill_of_a_leaked_key_ends_what_it_can_do() {
    let node = Node::new();
    let site = &node.site;
    make_keys(site);
    live(site, &["ours"]);
    put(site, "theirs");
    // The attacker makes a release live, and marks ours as bad.
    for request in ["swap theirs", "swap ours", "rollback theirs"] {
        site.ssh("ci", request).ok();
    }
    assert_eq!(states(site), ["theirs current", "ours bad"]);
    site.ssh("ci", "sh -c id").refused(64, "bad-request");
    let dir = site.dir().display();
    node.program("journalctl", &format!("cat '{dir}/log'"));
    node.program("pkill", &format!("echo \"$*\" >> '{dir}/pkill'"));
    fs::write(site.dir().join("log"), site.audit_lines().join("\n")).expect("the log");

    let shown = node.run(&commands(LEAKED, "sed ")).ok();
    let is_swap = |line: &str| line.contains("  swapped ") && line.contains("  theirs ");
    assert!(shown.lines().any(is_swap), "{shown}");
    assert!(shown.contains("sh -c id"), "{shown}");
    assert!(!shown.contains("ci-other"), "{shown}");
    let ended = fs::read_to_string(site.dir().join("pkill")).expect("it was run");
    let expected = "-f ^sshd[^:]*: deploy( |@|$)\n-u deploy -x deploy-shell\n";
    assert_eq!(ended, expected);
    assert_eq!(site.ssh("ci", "list").code, 255, "the key still logs in");
    site.ssh("ci-other", "list").ok();

    node.client("ci-2026");
    let digest = sha256(&payload("ours"));
    let second = commands(LEAKED, "ssh deploy@node list");
    let second = second.replace("RELEASE", "ours").replace("HEX", &digest);
    let output = node.run(&second).ok();
    assert!(output.contains(&digest), "{output}");
    assert!(
        output.ends_with("ok swap ours previous=theirs\n"),
        "{output}"
    );

    let third = commands(LEAKED, "deploy-shell-admin drop");
    let output = node.run(&third.replace("THEIRS", "theirs")).ok();
    assert!(output.contains("theirs dropped: "), "{output}");
    assert!(output.ends_with("ours ok\n"), "{output}");
    assert_eq!(states(site), ["ours current"]);
    ask(site, "swap theirs").refused(66, "no-such-release");
}

/// Returns the lines of the drill that end processes, for the account of the installation.
fn pkill_lines(installation: &Installation) -> Vec<String> {
    let name = &installation.account.name;
    let translated = |line: &str| {
        line.replace("deploy( ", &format!("{name}( "))
            .replace("-u deploy ", &format!("-u {name} "))
    };
    let drill = commands(LEAKED, "sed ");
    let lines = drill.lines().filter(|line| line.starts_with("pkill "));
    lines.map(translated).collect()
}

fn end_processes(line: &str) {
    let done = Command::new("sh").args(["-c", line]).status();
    assert!(done.expect("sh starts").success(), "{line}");
}

/// sshd tells no process that its connection has ended, and such an upload reads no more.
#[test]
fn the_drill_ends_an_upload_that_was_sent_whole() {
    let Some(installation) = Installation::create() else {
        return;
    };
    let site = &installation.site;
    installation.receive("first").ok();
    let lock = fs::File::open(site.root().join(".deploy-shell/lock")).expect("the lock");
    lock.lock().expect("it is free");
    let payload = payload("a");
    let mut upload = installation.ssh_command(&[]);
    upload.args(["--", &Site::receive_command("a", &payload)]);
    upload.stdin(Stdio::piped());
    let mut upload = Running(upload.spawn().expect("ssh starts"));
    let mut stdin = upload.0.stdin.take().expect("a pipe");
    stdin.write_all(&payload).expect("sent");
    drop(stdin);
    let incoming = site.root().join(".deploy-shell/incoming");
    let staged = || fs::read_dir(&incoming).expect("it exists").flatten();
    eventually("the release is staged", || {
        staged().any(|staging| {
            let manifest = fs::read_to_string(staging.path().join("manifest"));
            manifest.is_ok_and(|manifest| manifest.contains("\n# files "))
        })
    });
    for line in pkill_lines(&installation) {
        end_processes(&line);
    }
    eventually("the upload ends", || staged().next().is_none());
    drop(lock);
    assert!(upload.is_over());
    assert_eq!(site.releases(), ["first"]);
}

/// The second step of the drill, with a real account.
#[test]
fn the_drill_ends_the_connections_of_the_account() {
    let Some(installation) = Installation::create() else {
        return;
    };
    let connections = &pkill_lines(&installation)[0];
    // An upload that waits for its client.
    let site = &installation.site;
    let mut upload = installation.ssh_command(&[]);
    upload.args(["--", &Site::receive_command("a", b"")]);
    upload
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut upload = Running(upload.spawn().expect("ssh starts"));
    let is_request = |line: &String| line.contains("event=\"request\"");
    eventually("the upload begins", || {
        site.audit_lines().iter().any(is_request)
    });
    end_processes(connections);
    eventually("the connection ends", || upload.is_over());
    assert_eq!(upload.reply().code, 255);
    installation.request("list").ok();
}

#[test]
fn rotating_a_key_removes_no_other() {
    let node = Node::new();
    let site = &node.site;
    make_keys(site);
    node.run(&commands("Rotate a key", "deploy-shell-admin authorize"))
        .ok();
    for label in ["ci-2026", "ci-other"] {
        site.ssh(label, "list").ok();
    }
    assert_eq!(site.ssh("ci", "list").code, 255);
}
