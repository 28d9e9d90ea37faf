//! The audit socket: absent, full, a stream socket, or replaced.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::archive::tarball;
use crate::fields::Fields;
use crate::process::{Upload, eventually};
use crate::receive::noise;
use crate::site::Site;

/// Returns a site whose audit log goes to `{dir}/other`, which does not exist yet.
pub fn site(required: bool) -> Site {
    Site::with_config(&format!(
        "[audit]\nsocket = \"{{dir}}/other\"\nrequired = {required}\n"
    ))
}

/// Binds a collector at `{dir}/other` whose reads time out.
pub fn bind(site: &Site) -> UnixDatagram {
    let socket = UnixDatagram::bind(site.dir().join("other")).expect("a socket");
    let patience = Some(Duration::from_secs(60));
    socket.set_read_timeout(patience).expect("a time limit");
    socket
}

#[track_caller]
fn next(socket: &UnixDatagram) -> Fields {
    let mut buffer = [0; 65536];
    let length = socket.recv(&mut buffer).expect("a line");
    Fields::read(&String::from_utf8_lossy(&buffer[..length]))
}

/// Checks that every request that changes the site is refused, and `list` works.
#[track_caller]
fn only_list_works(site: &Site) {
    let before = site.snapshot();
    let payload = tarball(&[("a", b"2")]);
    site.receive("r3", &payload)
        .refused(75, "audit-unreachable");
    for request in ["swap r2", "rollback", "rollback r1"] {
        site.ssh("ci", request).refused(75, "audit-unreachable");
    }
    assert_eq!(site.snapshot(), before);
    let list = site.ssh("ci", "list").ok();
    assert!(list.contains("r1") && list.contains("r2"), "{list}");
}

/// Receives two releases and makes the first live while the audit log works.
fn with_releases(site: &Site) {
    let socket = bind(site);
    let reader = thread::spawn(move || {
        let mut lines = 0;
        while lines < 6 {
            next(&socket);
            lines += 1;
        }
    });
    for release in ["r1", "r2"] {
        site.receive(release, &tarball(&[("id", release.as_bytes())]))
            .ok();
    }
    site.ssh("ci", "swap r1").ok();
    reader.join().expect("six lines");
    fs::remove_file(site.dir().join("other")).expect("the socket");
}

#[test]
fn without_a_required_audit_log_nothing_changes() {
    let site = site(true);
    with_releases(&site);
    only_list_works(&site);
}

#[test]
fn a_socket_without_a_reader_is_unreachable() {
    let site = site(true);
    with_releases(&site);
    // A syslogd that was killed leaves its socket, and nobody reads from it.
    drop(bind(&site));
    assert!(site.dir().join("other").exists());
    only_list_works(&site);
}

#[test]
fn every_request_works_without_an_optional_audit_log() {
    let site = site(false);
    for release in ["r1", "r2"] {
        site.receive(release, &tarball(&[("id", release.as_bytes())]))
            .ok();
        site.ssh("ci", &format!("swap {release}")).ok();
    }
    site.ssh("ci", "rollback").ok();
    site.ssh("ci", "list").ok();
    assert_eq!(site.current().as_deref(), Some("r1"));
    site.ssh("ci", "swap nothing")
        .refused(66, "no-such-release");
    site.ssh("ci", "nonsense").refused(64, "bad-request");
}

/// Sends until the socket is full.
fn fill(site: &Site) {
    let sender = UnixDatagram::unbound().expect("a socket");
    sender.set_nonblocking(true).expect("a flag");
    let path = site.dir().join("other");
    while sender.send_to(b"filler", &path).is_ok() {}
}

#[test]
fn a_full_socket_is_unreachable_and_blocks_no_request() {
    let site = site(true);
    with_releases(&site);
    let socket = bind(&site);
    fill(&site);
    // The harness kills a program after a minute, which is none of our exit
    // statuses.
    only_list_works(&site);
    site.ssh("ci", "nonsense").refused(64, "bad-request");
    drop(socket);
}

#[test]
fn a_full_optional_socket_blocks_no_request() {
    let site = site(false);
    let socket = bind(&site);
    fill(&site);
    site.receive("r1", &tarball(&[("a", b"1")])).ok();
    site.ssh("ci", "swap r1").ok();
    drop(socket);
}

/// A swap that is done stays a success if its second line is lost.
#[test]
fn a_socket_that_fills_up_during_a_swap_keeps_its_success() {
    let site = site(true);
    with_releases(&site);
    let socket = bind(&site);
    fill(&site);
    // The socket has room for the first line only.
    let mut buffer = [0; 64];
    assert_eq!(socket.recv(&mut buffer).expect("a filler"), 6);
    let reply = site.ssh("ci", "swap r2").ok();
    assert_eq!(reply, "ok swap r2 previous=r1\n");
    assert_eq!(site.current().as_deref(), Some("r2"));
}

#[test]
fn a_stream_socket_gets_every_line() {
    let site = site(true);
    let listener = UnixListener::bind(site.dir().join("other")).expect("a socket");
    // The sender may use one connection for all lines or one for each.
    let reader = thread::spawn(move || {
        let mut lines = Vec::new();
        while lines.len() < 2 {
            let (stream, _) = listener.accept().expect("a connection");
            let timeout = Some(Duration::from_secs(60));
            stream.set_read_timeout(timeout).expect("a time limit");
            lines.extend(
                BufReader::new(stream)
                    .lines()
                    .map(|line| line.expect("text")),
            );
        }
        lines
    });
    site.receive("r1", &tarball(&[("a", b"1")])).ok();
    let lines = reader.join().expect("the lines");
    let lines: Vec<Fields> = lines.iter().map(|text| Fields::read(text)).collect();
    let events: Vec<_> = lines.iter().map(|line| line.get("event")).collect();
    assert_eq!(events, [Some("request"), Some("result")]);
}

/// The queue of connections is full, and connect(2) waits by default.
#[test]
fn a_stream_socket_without_accept_blocks_no_request() {
    let site = site(true);
    let path = site.dir().join("other");
    let listener = UnixListener::bind(&path).expect("a socket");
    let connected = Arc::new(AtomicUsize::new(0));
    let filler = thread::spawn({
        let connected = Arc::clone(&connected);
        // A connection stays in the queue after its client has closed it.
        // Terminates: connecting fails once the listener is gone.
        move || {
            while UnixStream::connect(&path).is_ok() {
                connected.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let mut before = 0;
    eventually("the queue is full", || {
        thread::sleep(Duration::from_secs(2));
        let now = connected.load(Ordering::Relaxed);
        now > 0 && std::mem::replace(&mut before, now) == now
    });
    let reply = site.receive("r1", &tarball(&[("a", b"1")]));
    drop(listener);
    filler.join().expect("it ends");
    reply.refused(75, "audit-unreachable");
}

/// Sends the first half of a payload, and waits until the daemon has the request's
/// line. Returns the daemon's socket, the upload and the other half.
fn half_an_upload(site: &Site) -> (UnixDatagram, Upload, Vec<u8>) {
    let mut payload = tarball(&[("noise", &noise(200_000))]);
    let daemon = bind(site);
    let mut upload = Upload::start(site, &Site::receive_command("r1", &payload));
    let rest = payload.split_off(payload.len() / 2);
    upload.send(&payload);
    next(&daemon).has(&[("event", "request")]);
    (daemon, upload, rest)
}

#[test]
fn a_syslogd_that_restarts_during_an_upload_gets_the_result() {
    let site = site(true);
    let (old, mut upload, tail) = half_an_upload(&site);

    fs::remove_file(site.dir().join("other")).expect("the socket");
    let new = bind(&site);
    drop(old);
    upload.send(&tail);
    upload.finish().ok();
    next(&new).has(&[("event", "result"), ("outcome", "ok")]);
}

/// As above, but the old daemon still runs without its name: a line sent to it
/// would be lost.
#[test]
fn the_result_goes_to_the_socket_that_has_the_name_now() {
    let site = site(true);
    let (_old, mut upload, tail) = half_an_upload(&site);
    fs::remove_file(site.dir().join("other")).expect("the socket");
    let new = bind(&site);
    upload.send(&tail);
    upload.finish().ok();
    next(&new).has(&[("event", "result")]);
}
