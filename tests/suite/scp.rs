//! Clients of scp's own protocol get the answer in it: without a line on stdout, curl
//! takes the silence for a success.

use std::fs;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;

use crate::check::me;
use crate::direct::record;
use crate::fields::Fields;
use crate::login_shell::wrapper;
use crate::process::Running;
use crate::site::{Reply, Site, write_file};

const REFUSED: &str = "deploy-shell: bad-request: scp is not served here";

/// Serves connections to the returned port by `sshd -i`, as long as the test runs.
fn listen(site: &Site) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let dir = site.dir().to_owned();
    thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            let input = OwnedFd::from(stream);
            let output = input.try_clone().expect("a second descriptor");
            let sshd = Command::new("/usr/sbin/sshd")
                .arg("-i")
                .arg("-f")
                .arg(dir.join("sshd_config"))
                .arg("-E")
                .arg(dir.join("sshd.log"))
                .stdin(Stdio::from(input))
                .stdout(Stdio::from(output))
                .spawn();
            let mut sshd = Running(sshd.expect("sshd starts"));
            sshd.0.wait().expect("sshd ends");
        }
    });
    port
}

/// Asserts that the client failed, and that the audit log has one refused request.
#[track_caller]
fn refused(site: &Site, client: &str, reply: &Reply) {
    assert_ne!(reply.code, 0, "{client}: {reply:?}");
    let lines = record(site);
    assert_eq!(lines.len(), 1, "{client}: {lines:?}");
    Fields::read(&lines[0]).has(&[("decision", "refused"), ("exit", "64")]);
    assert_eq!(site.releases(), [""; 0]);
}

#[track_caller]
fn shows_the_reason(reply: &Reply) {
    let said = format!("{}{}", reply.stdout, reply.stderr);
    assert!(said.contains(REFUSED), "{reply:?}");
}

#[test]
fn scp_in_both_directions_shows_the_reason_and_fails() {
    for upload in [true, false] {
        let site = Site::new();
        let (ssh, host) = wrapper(&site);
        let remote = format!("{host}:x");
        let local = site.dir().join("local");
        write_file(&local, 0o644, b"content");
        let mut scp = Command::new("scp");
        scp.arg("-O").arg("-S").arg(&ssh);
        if upload {
            scp.arg(&local).arg(&remote);
        } else {
            scp.arg(&remote).arg(&local);
        }
        let reply = site.run(scp, b"");
        refused(&site, "scp -O", &reply);
        // Once from stdout by scp, once from stderr by ssh.
        assert_eq!(reply.stderr.matches(REFUSED).count(), 2, "{reply:?}");
        assert_eq!(fs::read(&local).expect("a file"), b"content");
    }
}

#[test]
fn the_answer_is_a_line_of_the_protocol() {
    for request in ["scp -t /tmp", "scp -f /etc/passwd", "scp -p -r -d -t -- ."] {
        let site = Site::new();
        let reply = site.ssh("ci", request);
        assert_eq!(reply.code, 64, "{reply:?}");
        assert_eq!(reply.stdout, format!("\x01{REFUSED}\n"));
        assert!(
            reply.stderr.starts_with(&format!("{REFUSED}\n")),
            "{reply:?}"
        );
        // A configuration that does not load fails every client as well.
        fs::remove_file(site.config_path()).expect("removed");
        let reply = site.ssh("ci", request);
        assert_eq!(reply.code, 78, "{reply:?}");
        assert!(
            reply.stdout.starts_with("\x01deploy-shell: bad-config: "),
            "{reply:?}"
        );
    }
    let site = Site::new();
    for other in ["scp", "scp x y", "list -t", "rsync -t -f"] {
        site.ssh("ci", other).refused(64, "bad-request");
    }
}

/// A site with a port, a file to upload, and the private key of `ci`.
struct Upload {
    site: Site,
    port: u16,
    local: PathBuf,
    key: PathBuf,
}

fn upload() -> Upload {
    let site = Site::new();
    let port = listen(&site);
    let local = site.dir().join("local");
    write_file(&local, 0o644, b"content");
    let key = site.dir().join("key-ci");
    Upload {
        site,
        port,
        local,
        key,
    }
}

#[test]
fn curl_fails() {
    let known = Command::new("curl").arg("-V").output();
    if !known.is_ok_and(|known| String::from_utf8_lossy(&known.stdout).contains(" scp")) {
        println!("skipped: no curl with scp");
        return;
    }
    let Upload {
        site,
        port,
        local,
        key,
    } = upload();
    let mut curl = Command::new("curl");
    curl.args(["-sS", "-k", "--max-time", "30", "-u", &format!("{}:", me())])
        .arg("--key")
        .arg(&key)
        .arg("--pubkey")
        .arg(key.with_extension("pub"))
        .arg("-T")
        .arg(&local)
        .arg(format!("scp://127.0.0.1:{port}/tmp/x"));
    let reply = site.run(curl, b"");
    refused(&site, "curl", &reply);
}

#[test]
fn pscp_shows_the_reason_and_fails() {
    if Command::new("pscp").arg("-V").output().is_err() {
        println!("skipped: no pscp");
        return;
    }
    let Upload {
        site,
        port,
        local,
        key,
    } = upload();
    let ppk = site.dir().join("key.ppk");
    let made = Command::new("puttygen")
        .arg(&key)
        .args(["-O", "private", "-o"])
        .arg(&ppk)
        .status();
    assert!(made.expect("puttygen runs").success());
    let host = Command::new("ssh-keygen")
        .arg("-lf")
        .arg(site.dir().join("known_hosts"))
        .output()
        .expect("ssh-keygen runs");
    let host = String::from_utf8(host.stdout).expect("a fingerprint");
    let host = host.split(' ').nth(1).expect("a fingerprint");
    let mut pscp = Command::new("pscp");
    pscp.args([
        "-scp",
        "-batch",
        "-P",
        &port.to_string(),
        "-hostkey",
        host,
        "-i",
    ])
    .arg(&ppk)
    .arg(&local)
    .arg(format!("{}@127.0.0.1:x", me()));
    let reply = site.run(pscp, b"");
    refused(&site, "pscp", &reply);
    shows_the_reason(&reply);
}
