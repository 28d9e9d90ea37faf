//! Starts the program as `sshd` does, but without `sshd`: fast enough for
//! histories of many steps, and with exactly the environment that the test sets.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;

use crate::archive::tarball;
use crate::process::{Running, eventually};
use crate::site::{BIN, Reply, Site};

/// Returns the forced command of `key`, with this request and no other variable.
pub fn serve(site: &Site, key: &str, request: impl AsRef<[u8]>) -> Command {
    let mut command = Command::new(BIN);
    command
        .env_clear()
        .arg("serve")
        .arg("--config")
        .arg(site.config_path())
        .args(["--key", key])
        .env("SSH_ORIGINAL_COMMAND", OsStr::from_bytes(request.as_ref()));
    command
}

/// Sends one request with the key that may use every verb, and an empty stdin.
pub fn ask(site: &Site, request: &str) -> Reply {
    site.run(serve(site, "ci", request), b"")
}

/// Returns the archive that every helper here sends for `release`. Each release
/// has a different one.
pub fn payload(release: &str) -> Vec<u8> {
    tarball(&[
        ("index.html", release.as_bytes()),
        ("assets/app.js", b"let one = 1;\n"),
    ])
}

/// Returns the one line of a success without warnings.
#[track_caller]
fn success_line(reply: Reply) -> String {
    assert_eq!(reply.stderr, "", "{reply:?}");
    let stdout = reply.ok();
    assert_eq!(stdout.find('\n'), Some(stdout.len() - 1), "{stdout:?}");
    stdout
}

/// Receives `release`; it stays pending.
#[track_caller]
pub fn put(site: &Site, release: &str) {
    let payload = payload(release);
    let request = Site::receive_command(release, &payload);
    let stdout = success_line(site.run(serve(site, "ci", request), &payload));
    assert!(
        stdout.starts_with(&format!("ok receive {release} ")),
        "{stdout}"
    );
}

/// Receives each release and makes it live, one after the other.
#[track_caller]
pub fn live(site: &Site, releases: &[&str]) {
    for release in releases {
        put(site, release);
        success_line(ask(site, &format!("swap {release}")));
    }
}

/// Returns the document of `list --json`.
#[track_caller]
pub fn listing(site: &Site) -> Value {
    let text = ask(site, "list --json").ok();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Returns every release with its state, in the order of the listing.
#[track_caller]
pub fn states(site: &Site) -> Vec<String> {
    let listing = listing(site);
    let releases = listing["releases"].as_array().expect("an array");
    releases
        .iter()
        .map(|row| {
            let text = |key: &str| row[key].as_str().expect("a string").to_owned();
            format!("{} {}", text("release"), text("state"))
        })
        .collect()
}

/// Returns all that a request may change: the tree and the journal's bytes.
pub fn everything(site: &Site) -> (BTreeMap<PathBuf, String>, Vec<u8>) {
    let journal = site.root().join(".deploy-shell/journal.jsonl");
    (site.snapshot(), fs::read(journal).unwrap_or_default())
}

/// Returns every audit line of the requests that have ended. Datagrams keep their
/// order, so every line sent before our mark has arrived once the mark arrives,
/// on a busy machine too.
pub fn record(site: &Site) -> Vec<String> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mark = format!("mark {}", NEXT.fetch_add(1, Ordering::Relaxed));
    let socket = UnixDatagram::unbound().expect("a socket");
    socket
        .send_to(mark.as_bytes(), site.dir().join("audit.socket"))
        .expect("the collector listens");
    let mut lines = Vec::new();
    eventually("the mark arrives", || {
        lines = site.audit_lines();
        lines.contains(&mark)
    });
    lines.retain(|line| !line.starts_with("mark "));
    lines
}

/// Runs a command whose stdin contains `payload` and then stays open, like that of
/// a client that has not finished sending: a program that reads to the end hangs.
#[track_caller]
pub fn held_open(mut command: Command, payload: &[u8]) -> Reply {
    let (theirs, mut ours) = std::io::pipe().expect("a pipe");
    // The pipe's buffer has room for the payload, so this cannot block.
    assert!(payload.len() <= 16 << 10);
    ours.write_all(payload).expect("the payload is in the pipe");
    command
        .stdin(theirs)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let reply = Running(command.spawn().expect("it starts")).reply();
    drop(ours);
    reply
}
