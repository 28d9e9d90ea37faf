//! The audit log: its lines for each kind of request, and that no request can
//! change their format.

use crate::archive::tarball;
use crate::direct::serve;
use crate::fields::Fields;
use crate::process::{Upload, eventually};
use crate::receive::{fingerprint, noise};
use crate::site::{Site, sha256};

/// Returns a value without its escapes.
#[track_caller]
pub fn value(fields: &Fields, key: &str) -> String {
    let text = fields.get(key);
    let text = text.unwrap_or_else(|| panic!("no {key} in {fields:?}"));
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        match rest.next().expect("something is escaped") {
            b'x' => {
                let digits = [rest.next(), rest.next()].map(|digit| digit.expect("two digits"));
                let digits = std::str::from_utf8(&digits).expect("two digits");
                bytes.push(u8::from_str_radix(digits, 16).expect("two hex digits"));
            }
            other => {
                assert!(
                    b"\\\"".contains(&other),
                    "\\{} in {text}",
                    char::from(other)
                );
                bytes.push(other);
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[track_caller]
fn number(fields: &Fields, key: &str) -> u64 {
    value(fields, key).parse().expect("a number")
}

/// Returns the lines that `act` added to the audit log.
#[track_caller]
fn added(site: &Site, act: impl FnOnce()) -> Vec<String> {
    let before = site.audit_lines().len();
    act();
    site.audit_lines().split_off(before)
}

#[track_caller]
fn logged(site: &Site, act: impl FnOnce()) -> Vec<Fields> {
    let lines = added(site, act);
    lines.iter().map(|line| Fields::read(line)).collect()
}

#[track_caller]
fn one(lines: Vec<Fields>) -> Fields {
    let [line] = <[Fields; 1]>::try_from(lines).expect("one line");
    line
}

/// Returns two lines, an allowed request and its result.
#[track_caller]
fn pair(lines: Vec<Fields>) -> [Fields; 2] {
    let [first, second] = <[Fields; 2]>::try_from(lines).expect("two lines");
    first.has(&[("event", "request"), ("decision", "allowed")]);
    second.has(&[("event", "result")]);
    [first, second]
}

#[test]
fn an_allowed_request_has_two_lines() {
    let site = Site::new();
    let payload = tarball(&[("a", b"12345"), ("b/c", b"678")]);
    let key = fingerprint(&site, "ci");
    let who = [("site", "blog"), ("key", "ci"), ("fingerprint", &key)];
    let ok = [("outcome", "ok"), ("exit", "0")];
    for release in ["r1", "r2"] {
        let [first, second] = pair(logged(&site, || {
            site.receive(release, &payload).ok();
        }));
        let request = Site::receive_command(release, &payload);
        first.has(&[("request", &request)]);
        first.has(&who);
        second.has(&who);
        second.has(&ok);
        second.has(&[("release", release), ("files", "2"), ("bytes", "8")]);
        let sent = u64::try_from(payload.len()).expect("small");
        assert_eq!(number(&second, "payload"), sent);
        number(&second, "ms");
    }
    for request in [
        "swap r1",
        "swap r2 --if-current r1",
        "rollback",
        "rollback r1",
        "list",
        "list --json",
    ] {
        let [first, second] = pair(logged(&site, || {
            site.ssh("ci", request).ok();
        }));
        first.has(&[("request", request)]);
        first.has(&who);
        second.has(&who);
        second.has(&ok);
        number(&second, "ms");
    }
}

#[test]
fn the_client_is_an_address_or_unknown() {
    let site = Site::new();
    for (connection, client) in [
        ("192.0.2.7 50000 192.0.2.1 22", Some("192.0.2.7")),
        ("2001:db8::7 50000 2001:db8::1 22", Some("2001:db8::7")),
        ("UNKNOWN 65535 UNKNOWN 65535", None),
        ("192.0.2.7\" exit=\"0 1 2 3", None),
    ] {
        // An sshd on a pipe knows no address.
        let mut command = serve(&site, "ci", "list");
        command.env("SSH_CONNECTION", connection);
        for line in pair(logged(&site, || {
            site.run(command, b"").ok();
        })) {
            match client {
                Some(address) => line.has(&[("client", address)]),
                None => assert!(line.client_is_unknown(), "{line:?}"),
            }
        }
    }
}

#[test]
fn an_allowed_request_that_fails_has_two_lines() {
    let site = Site::new();
    let wrong = format!("receive r1 --sha256 {}", sha256(b"other"));
    for (request, exit, code) in [
        ("swap r9", 66, "no-such-release"),
        ("rollback", 66, "no-such-release"),
        (&wrong, 65, "digest-mismatch"),
    ] {
        let [first, second] = pair(logged(&site, || {
            site.ssh("ci", request).refused(exit, code);
        }));
        first.has(&[("request", request)]);
        second.has(&[("outcome", "failed"), ("code", code)]);
        assert_eq!(number(&second, "exit"), u64::try_from(exit).expect("small"));
        number(&second, "ms");
    }
}

#[test]
fn a_denied_request_has_one_line() {
    let site = Site::new();
    site.add_key("viewer", Some("list"));
    let line = one(logged(&site, || {
        site.ssh("viewer", "swap r1").refused(77, "denied");
    }));
    line.has(&[
        ("event", "request"),
        ("key", "viewer"),
        ("fingerprint", &fingerprint(&site, "viewer")),
        ("request", "swap r1"),
        ("decision", "denied"),
        ("exit", "77"),
        ("code", "denied"),
    ]);
}

#[test]
fn a_bad_request_has_one_line() {
    let site = Site::new();
    for request in [
        "swap",
        "list --help",
        "rm -rf /",
        "swap \u{e9}",
        "sftp-server",
    ] {
        let line = one(logged(&site, || {
            site.ssh("ci", request).refused(64, "bad-request");
        }));
        line.has(&[
            ("event", "request"),
            ("decision", "refused"),
            ("exit", "64"),
            ("code", "bad-request"),
        ]);
        assert_eq!(value(&line, "request"), request);
    }
}

/// The header: priority and version, time, host, program, process, message id and
/// structured data (RFC 5424, section 6).
#[test]
fn every_line_begins_with_the_syslog_header() {
    let site = Site::new();
    let lines = added(&site, || {
        site.ssh("ci", "list").ok();
        site.ssh("ci", "nonsense").refused(64, "bad-request");
    });
    let host = nix::unistd::gethostname().expect("a host name");
    let heads: Vec<Vec<&str>> = lines
        .iter()
        .map(|line| line.splitn(8, ' ').take(7).collect())
        .collect();
    // authpriv is facility 10; info is 6, and warning, for a refusal, is 4.
    let begins: Vec<[&str; 4]> = heads
        .iter()
        .map(|head| [head[0], head[3], head[5], head[6]])
        .collect();
    assert_eq!(
        begins,
        [
            ["<86>1", "deploy-shell", "request", "-"],
            ["<86>1", "deploy-shell", "result", "-"],
            ["<84>1", "deploy-shell", "request", "-"],
        ]
    );
    assert_eq!(heads[0][4], heads[1][4], "one process");
    assert_ne!(heads[0][4], heads[2][4], "another process");
    for head in heads {
        let time = head[1];
        time.parse::<jiff::Timestamp>().expect("RFC 3339");
        let fraction = time.split_once('.').expect("a fraction").1;
        // Always six digits, the maximum (section 6.2.3.1), so that lines sort by
        // their text.
        assert_eq!(fraction.len(), "123456Z".len(), "{time}");
        assert!(time.ends_with('Z'), "{time}");
        assert_eq!(head[2], host);
    }
}

#[test]
fn the_facility_is_the_configured_one() {
    let site =
        Site::with_config("[audit]\nsocket = \"{dir}/audit.socket\"\nfacility = \"local3\"\n");
    let lines = added(&site, || {
        site.ssh("ci", "list").ok();
    });
    assert_eq!(lines.len(), 2);
    // local3 is facility 19.
    for line in lines {
        assert!(line.starts_with("<158>1 "), "{line}");
    }
}

/// Every request gets a line that is shorter than the limit of the oldest syslog,
/// printable ASCII, and has the same fields.
#[test]
fn no_request_changes_the_format_of_its_line() {
    let site = Site::new();
    let requests: Vec<Vec<u8>> = vec![
        vec![b'a'; 4096],
        vec![b'a'; 4097],
        vec![b'a'; 100_000],
        vec![b'"'; 4096],
        vec![b'\\'; 4096],
        vec![0x1b; 4096],
        vec![0xff; 4096],
        "\u{1f600}".repeat(1024).into_bytes(),
        b"list\n<86>1 - - deploy-shell 1 request - event=\"request\"".to_vec(),
        b"x\" decision=\"allowed\" exit=\"0".to_vec(),
        b"x\\\" decision=\\\"allowed".to_vec(),
        b"\r\n\t\x07\x7f".to_vec(),
        b"%s%n%x".to_vec(),
        b" ".to_vec(),
    ];
    for request in requests {
        // Without ssh, which might shorten them.
        let command = serve(&site, "ci", &request);
        let line = one(logged(&site, || {
            site.run(command, b"").refused(64, "bad-request");
        }));
        line.has(&[
            ("event", "request"),
            ("site", "blog"),
            ("key", "ci"),
            ("decision", "refused"),
            ("exit", "64"),
        ]);
        let shown = value(&line, "request");
        let whole = String::from_utf8_lossy(&request);
        if request.len() < 200 {
            assert_eq!(shown, whole);
        } else {
            let kept = shown.strip_suffix("...").expect("a mark of the cut");
            // The cut may split a character of several bytes.
            let kept = kept.trim_end_matches('\u{fffd}');
            assert!(shown.len() > 50 && whole.starts_with(kept), "{line:?}");
        }
    }
}

/// The longest well-formed request is cut, and the line keeps the decision at its
/// end.
#[test]
fn a_request_with_signatures_fits() {
    let site = Site::new();
    let signature = format!(" --signature {}", "QUJD".repeat(240));
    let request = Site::receive_command("r1", b"") + &signature.repeat(4);
    assert!((3900..=4096).contains(&request.len()));
    let lines = logged(&site, || {
        assert_ne!(site.ssh("ci", &request).code, 0);
    });
    let shown = value(&lines[0], "request");
    let shown = shown.strip_suffix("...").expect("a mark of the cut");
    assert!(request.starts_with(shown) && shown.len() > 200, "{shown}");
    assert!(lines[0].get("decision").is_some(), "{lines:?}");
}

#[test]
fn a_client_that_disconnects_is_logged() {
    let site = Site::new();
    let payload = tarball(&[("noise", &noise(500_000))]);
    let [_, second] = pair(logged(&site, || {
        let mut upload = Upload::taken_up(&site, &Site::receive_command("r1", &payload));
        upload.send(&payload[..1000]);
        upload.kill();
        eventually("the result is logged", || site.audit_lines().len() == 2);
    }));
    second.has(&[
        ("outcome", "failed"),
        ("exit", "65"),
        ("code", "digest-mismatch"),
    ]);
}
