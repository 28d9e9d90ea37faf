//! Signals and terminals: a client or an operator who sends a signal to the process of
//! a request cannot take the request off the record.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::direct::{live, payload, record, serve};
use crate::fields::Fields;
use crate::mode::Mode;
use crate::process::{Upload, eventually, serving};
use crate::receive::{many_files, stopped_unpacker};
use crate::site::{Site, children, generate_key, write_file};
use crate::strace;

const TERMINATION: [Signal; 7] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGALRM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
];

/// Asserts that the last two lines of the audit log are those of one request, and
/// returns the line of its result.
#[track_caller]
fn request_and_result(site: &Site) -> Fields {
    let lines = record(site);
    let [.., first, second] = lines.as_slice() else {
        panic!("{lines:?}");
    };
    Fields::read(first).has(&[("event", "request"), ("decision", "allowed")]);
    let result = Fields::read(second);
    result.has(&[("event", "result")]);
    result
}

#[test]
fn a_signal_during_a_receive_ends_it_with_a_result() {
    for signal in TERMINATION {
        let site = Site::with_config("[limits]\nidle_timeout = \"100s\"\n");
        let payload = payload("r1");
        let mut upload = Upload::taken_up(&site, &Site::receive_command("r1", &payload));
        upload.send(&payload[..10]);
        for process in serving(&site) {
            kill(Pid::from_raw(process.pid), signal).expect("the process exists");
        }
        let reply = upload.outlast();
        reply.refused(74, "io-error");
        assert!(reply.stderr.contains(signal.as_str()), "{reply:?}");
        request_and_result(&site).has(&[("outcome", "failed"), ("exit", "74")]);
        assert!(site.leftovers().is_empty(), "{signal}");
    }
}

/// Sends SIGTERM to the processes of the upload, and checks its result, which says `when`.
#[track_caller]
fn ends_by_sigterm(site: &Site, upload: Upload, when: &str) {
    for process in serving(site) {
        kill(Pid::from_raw(process.pid), Signal::SIGTERM).expect("the process exists");
    }
    let reply = upload.outlast();
    reply.refused(74, "io-error");
    let problem = format!("SIGTERM ended the request, {when}");
    assert!(reply.stderr.contains(&problem), "{reply:?}");
    request_and_result(site).has(&[("outcome", "failed"), ("exit", "74")]);
    assert!(site.leftovers().is_empty());
}

#[test]
fn a_signal_while_the_payload_is_unpacked_ends_a_receive_with_a_result() {
    for mode in Mode::BOTH {
        let site = mode.site("");
        let (_, upload, _) = stopped_unpacker(mode, &site, &many_files(5000));
        ends_by_sigterm(&site, upload, "while the payload was unpacked");
        assert_eq!(site.releases(), [""; 0]);
    }
}

/// An operator who ends the connections of a key sees nothing of it published afterwards.
#[test]
fn a_signal_while_a_receive_waits_for_the_lock_ends_it_with_a_result() {
    let site = Site::new();
    live(&site, &["r0"]);
    let state = site.root().join(".deploy-shell");
    let lock = File::open(state.join("lock")).expect("the lock");
    lock.lock().expect("the lock");
    let payload = payload("r1");
    let mut upload = Upload::taken_up(&site, &Site::receive_command("r1", &payload));
    upload.send(&payload);
    upload.close();
    // The wait comes right after the background sync has ended.
    eventually("the release is staged", || {
        let staged = children(&state.join("incoming"));
        let is_done = |directory: &PathBuf| {
            let manifest = fs::read_to_string(directory.join("manifest"));
            manifest.is_ok_and(|text| text.contains("\n# files "))
        };
        staged.iter().any(is_done)
    });
    ends_by_sigterm(&site, upload, "before the release was published");
    assert_eq!(site.releases(), ["r0"]);
}

/// strace sends the signal at the system call that writes the first audit line.
#[test]
fn a_signal_does_not_end_a_request_between_its_audit_lines() {
    let site = Site::new();
    live(&site, &["a", "b"]);
    for signal in TERMINATION {
        for (request, release) in [("list", None), ("swap a", Some("a")), ("swap b", Some("b"))] {
            let inject = format!("inject=sendto,sendmsg:signal={signal}:when=1");
            let options = ["-q", "-o", "/dev/null", "-e", &inject];
            let command = strace::under(&options, &serve(&site, "ci", request));
            site.run(command, b"").ok();
            let result = request_and_result(&site);
            result.has(&[("outcome", "ok"), ("request", request)]);
            assert_eq!(result.get("release"), release, "{signal}");
        }
    }
}

/// A key without `restrict`, on a server that allows terminals. The byte 0x03 of a
/// payload would be Ctrl-C there.
#[test]
fn a_payload_through_a_terminal_is_refused() {
    if !nix::unistd::Uid::effective().is_root() {
        println!("skipped: only root's sshd can give a terminal to a session");
        return;
    }
    let site = Site::new();
    let line = std::fs::read_to_string(site.dir().join("authorized_keys")).expect("the keys");
    let bare = line.replace("restrict,", "");
    assert_ne!(bare, line);
    write_file(&site.dir().join("authorized_keys"), 0o644, bare.as_bytes());
    let request = Site::receive_command("r1", &payload("r1"));
    let mut command = site.ssh_command("ci");
    command.args(["-tt", "--", &request]);
    // A control character would end the session if it came before the program runs.
    let reply = site.run(command, b"payload\n");
    assert_eq!(reply.code, 64, "{reply:?}");
    // The terminal joins stdout and stderr.
    let said = reply.stdout + &reply.stderr;
    assert!(
        said.contains("a payload cannot come through a terminal"),
        "{said}"
    );
    assert!(said.contains("ssh -T"), "{said}");
    let lines = record(&site);
    assert_eq!(lines.len(), 1, "{lines:?}");
    Fields::read(&lines[0]).has(&[("decision", "refused"), ("exit", "64")]);
    assert_eq!(site.releases(), [""; 0]);
    // Other requests read nothing from it.
    let mut command = site.ssh_command("ci");
    command.args(["-tt", "--", "list --json"]);
    let reply = site.run(command, b"\n");
    assert_eq!(reply.code, 0, "{reply:?}");
    request_and_result(&site).has(&[("outcome", "ok")]);
}

/// A client that has sent everything may wait for the answer before it closes its
/// input, as paramiko does.
#[test]
fn a_payload_is_whole_when_its_digest_is_right() {
    for mode in Mode::BOTH {
        for idle in ["1s", "100s"] {
            let site = mode.site(&format!("[limits]\nidle_timeout = \"{idle}\"\n"));
            let payload = payload("r1");
            let mut upload = Upload::start(&site, &mode.command("r1", &payload));
            // A pause before the end compares digests in vain, and spoils nothing.
            let (start, end) = payload.split_at(payload.len() / 2);
            upload.send(start);
            if idle == "100s" {
                std::thread::sleep(std::time::Duration::from_secs(2));
            }
            upload.send(end);
            let stdout = upload.outlast().ok();
            assert!(stdout.starts_with("ok receive r1 sha256="), "{stdout}");
            assert_eq!(site.releases(), ["r1"]);
            eventually("the request has ended", || serving(&site).is_empty());
            request_and_result(&site).has(&[("outcome", "ok"), ("release", "r1")]);
        }
    }
}

#[test]
fn a_payload_that_did_not_come_is_named() {
    for mode in Mode::BOTH {
        let site = mode.site("[limits]\nidle_timeout = \"1s\"\n");
        let request = mode.command("r1", &payload("r1"));
        let reply = site.ssh("ci", &request);
        reply.refused(65, "digest-mismatch");
        let expected = "deploy-shell: digest-mismatch: nothing came: the payload has 0 bytes\n\
                    send the payload with '< FILE'\n";
        assert_eq!(reply.stderr, expected);
        let reply = Upload::start(&site, &request).outlast();
        reply.refused(74, "timeout");
        assert!(
            reply.stderr.ends_with("\nsend the payload with '< FILE'\n"),
            "{reply:?}"
        );
    }
}

/// Signs `key-NAME` of the site as a certificate, and has sshd accept it.
fn certify(site: &Site, name: &str, key_id: &str, serial: &str) {
    let dir = site.dir();
    let path = dir.join("authority");
    if !path.exists() {
        generate_key(&path);
        let config = dir.join("sshd_config");
        let text = std::fs::read_to_string(&config).expect("the configuration");
        let authority = format!("{text}TrustedUserCAKeys {}.pub\n", path.display());
        write_file(&config, 0o644, authority.as_bytes());
    }
    let public = dir.join(format!("key-{name}"));
    generate_key(&public);
    let user = nix::unistd::User::from_uid(nix::unistd::Uid::effective());
    let user = user.expect("the user database").expect("an account").name;
    // As many principals as sshd takes: its note about the key has over 40 KB then.
    let more = (1..256).map(|number| format!(",{number:0>120}"));
    let principals = user + &more.collect::<String>();
    let command = format!(
        "force-command={} serve --config {} --key {name}",
        crate::site::BIN,
        site.config_path().display()
    );
    let signed = Command::new("ssh-keygen")
        .args(["-q", "-s"])
        .arg(&path)
        .args([
            "-I",
            key_id,
            "-n",
            &principals,
            "-z",
            serial,
            "-O",
            &command,
        ])
        .arg(public.with_extension("pub"))
        .status();
    assert!(signed.expect("ssh-keygen runs").success());
}

#[test]
fn a_certificate_is_identified_in_the_audit_log() {
    let site = Site::new();
    live(&site, &["a"]);
    let longest = u64::MAX.to_string();
    let long = "i".repeat(300);
    for (name, key_id, serial) in [
        ("one", "anna@example", "7"),
        ("two", "x\" decision=\"denied", "0"),
        ("three", &long, &longest),
    ] {
        certify(&site, name, key_id, serial);
        site.ssh(name, "swap a").ok();
        let print = crate::receive::fingerprint(&site, name);
        let result = request_and_result(&site);
        result.has(&[("key", name), ("fingerprint", &print), ("serial", serial)]);
        let shown = result.get("key_id").expect("a key id");
        let escaped = key_id.replace('"', "\\\"");
        let start = shown.strip_suffix("...").unwrap_or(shown);
        assert!(escaped.starts_with(start) && start.len() > 10, "{shown}");
        assert!(shown.len() <= 64, "{shown}");
    }
}
