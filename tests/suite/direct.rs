//! The program started as `sshd` starts it, but without `sshd`: quick enough
//! for histories of many steps, and in an environment that is exactly what
//! the test says.

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

/// The forced command of `key`, with this request and no other variable.
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

/// One request with the key that may do everything, and nothing on stdin.
pub fn ask(site: &Site, request: &str) -> Reply {
    site.run(serve(site, "ci", request), b"")
}

/// The archive every helper here sends for `release`: no two are the same.
pub fn payload(release: &str) -> Vec<u8> {
    tarball(&[
        ("index.html", release.as_bytes()),
        ("assets/app.js", b"let one = 1;\n"),
    ])
}

/// The one line of a success that had nothing to warn of.
#[track_caller]
fn smooth(reply: Reply) -> String {
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
    let stdout = smooth(site.run(serve(site, "ci", request), &payload));
    assert!(
        stdout.starts_with(&format!("ok receive {release} ")),
        "{stdout}"
    );
}

/// Receives each of these and makes it live, one after the other.
#[track_caller]
pub fn live(site: &Site, releases: &[&str]) {
    for release in releases {
        put(site, release);
        smooth(ask(site, &format!("swap {release}")));
    }
}

/// What `list --json` says.
#[track_caller]
pub fn listing(site: &Site) -> Value {
    let text = ask(site, "list --json").ok();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Every release with its state, in the order of the listing.
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

/// The whole state a request may change: the tree and the journal's bytes.
pub fn everything(site: &Site) -> (BTreeMap<PathBuf, String>, Vec<u8>) {
    let journal = site.root().join(".deploy-shell/journal.jsonl");
    (site.snapshot(), fs::read(journal).unwrap_or_default())
}

/// Every audit line of the requests that have ended. Datagrams keep their
/// order, so behind a mark of our own nothing sent before it is still to come,
/// however busy the machine is.
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

/// Runs a command whose stdin holds `payload` and then stays open, as that of
/// a client which has not finished sending: whoever reads to the end, hangs.
#[track_caller]
pub fn held_open(mut command: Command, payload: &[u8]) -> Reply {
    let (theirs, mut ours) = std::io::pipe().expect("a pipe");
    // One pipe's buffer holds it, so this cannot block.
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
