//! The probe, against real servers that answer as they should not.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::{Value, json};

use crate::hook_runner::Fixture;
use crate::process::with_argument;
use crate::sandbox;
use crate::site::BIN;

/// A server with one function for all connections, which gets the connection's
/// number and the head of the request.
struct Server {
    port: u16,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(answer: impl Fn(usize, &str, &mut TcpStream) + Send + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        Server::on(listener, answer)
    }

    fn on(
        listener: TcpListener,
        answer: impl Fn(usize, &str, &mut TcpStream) + Send + 'static,
    ) -> Server {
        let port = listener.local_addr().expect("bound").port();
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let mut stream = stream.expect("a connection");
                if flag.load(Ordering::Relaxed) {
                    return;
                }
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
                    head.push(byte[0]);
                }
                answer(number, &String::from_utf8_lossy(&head), &mut stream);
            }
        });
        Server {
            port,
            stop,
            thread: Some(thread),
        }
    }

    /// Starts a server that sends these bytes and closes the connection.
    fn sending(answer: &[u8]) -> Server {
        let answer = answer.to_vec();
        Server::start(move |_, _, stream| {
            let _ = stream.write_all(&answer);
        })
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // A connection wakes the thread, on either protocol.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        let _ = TcpStream::connect(("::1", self.port));
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the server does not panic");
        }
    }
}

/// Waits until the other end closes the connection.
fn wait_until_closed(stream: &mut TcpStream) {
    let _ = stream.read_to_end(&mut Vec::new());
}

fn request(url: &str, contains: Option<&str>, time_limit: Duration) -> Value {
    json!({
        "url": url,
        "contains": contains,
        "exchange": { "host": null, "headers": [], "statuses": [200] },
        "time_limit": time_limit.as_millis() as u64,
        "sandbox_required": true,
    })
}

fn command(request: &Value) -> Command {
    let mut command = Command::new(BIN);
    command.env_clear().arg("probe");
    let (theirs, mut ours) = std::io::pipe().expect("a pipe");
    writeln!(ours, "{request}").expect("the pipe has room for it");
    command.stdin(theirs);
    command
}

/// Returns the exit status and the line.
#[track_caller]
fn outcome(mut command: Command) -> (i32, String) {
    let output = command.output().expect("the probe runs");
    let stdout = String::from_utf8(output.stdout).expect("ASCII");
    let line = stdout.strip_suffix('\n').expect("a line");
    assert!(!line.contains('\n') && line.len() <= 400, "{stdout}");
    assert!(line.bytes().all(|it| matches!(it, b' '..=b'~')), "{line:?}");
    assert!(output.stderr.is_empty());
    (
        output.status.code().expect("an exit status"),
        line.to_owned(),
    )
}

#[track_caller]
fn ask(url: &str, contains: Option<&str>) -> (i32, String) {
    outcome(command(&request(url, contains, Duration::from_secs(60))))
}

/// Asks with a short time limit, for a response that never ends.
#[track_caller]
fn ask_briefly(url: &str, contains: Option<&str>) -> (i32, String) {
    outcome(command(&request(url, contains, Duration::from_millis(600))))
}

#[test]
fn a_good_answer_passes() {
    let server = Server::start(|_, head, stream| {
        let lines: Vec<&str> = head.split("\r\n").collect();
        let host = format!("Host: {}", stream.local_addr().expect("bound"));
        let valid = lines[0] == "GET /health?deep=1 HTTP/1.1" && lines.contains(&host.as_str());
        let body = if valid { "release r2 is up" } else { "what?" };
        let length = body.len();
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}");
        stream.write_all(answer.as_bytes()).expect("it listens");
        // The probe does not wait for the connection to close.
        wait_until_closed(stream);
    });
    let url = server.url("/health?deep=1");
    assert_eq!(ask(&url, None), (0, "answers 200".to_owned()));
    let said = "answers 200, and the body contains 'release r2'";
    assert_eq!(ask(&url, Some("release r2")), (0, said.to_owned()));
    let said = "answers 200, but the body does not contain 'release r3'";
    assert_eq!(ask(&url, Some("release r3")), (75, said.to_owned()));
    // By name as well.
    let url = format!("http://localhost:{}/", server.port);
    assert_eq!(ask(&url, None), (0, "answers 200".to_owned()));
}

#[test]
fn a_text_is_found_across_chunks() {
    let server = Server::start(|_, _, stream| {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        for part in [
            head,
            "4\r\nrele\r\n",
            "5;x=y\r\nase r\r\n",
            "1\r\n2\r\n",
            "0\r\n\r\n",
        ] {
            // The probe may have closed the connection by now.
            let _ = stream.write_all(part.as_bytes());
            thread::sleep(Duration::from_millis(20));
        }
    });
    assert_eq!(ask(&server.url("/"), Some("release r2")).0, 0);
}

#[test]
fn temporary_failures_are_not_final() {
    // The port of an outgoing connection: nothing can listen on it.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let held = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
    let port = held.local_addr().expect("bound").port();
    let (code, said) = ask(&format!("http://127.0.0.1:{port}/"), None);
    let refused = format!("no connection to 127.0.0.1:{port}: connection refused");
    assert_eq!((code, said), (75, refused));
    let server = Server::start(|number, _, stream| {
        let answer: &[u8] = match number {
            0 => b"",
            1 => b"HTTP/1.1 503 Service Unavailable\r\n\r\n",
            2 => b"HTTP/1.1 404 Not Found\r\n\r\n",
            3 => b"HTTP/1.1 200 OK\r\nContent-Le",
            _ => b"HTTP/1.1 200 OK\r\n\r\n",
        };
        let _ = stream.write_all(answer);
    });
    for (code, said) in [
        (75, "closes the connection without an answer"),
        (75, "answers 503"),
        (75, "answers 404"),
        (75, "the answer breaks off"),
        (0, "answers 200"),
    ] {
        assert_eq!(ask(&server.url("/"), None), (code, said.to_owned()));
    }
}

#[test]
fn permanent_failures_are_final() {
    for (answer, said) in [
        (
            &b"HTTP/1.1 301 Moved\r\nLocation: /x\r\n\r\n"[..],
            "answers 301",
        ),
        (b"HTTP/1.1 401 Unauthorized\r\n\r\n", "answers 401"),
        (b"SSH-2.0-OpenSSH_9.9\r\n", "does not answer in HTTP: "),
        // A TLS alert.
        (b"\x15\x03\x01\x00\x02\x02\x46", "does not answer in HTTP: "),
        (b"\x1b[2J\x00\xff\r\n\r\n", "does not answer in HTTP: "),
    ] {
        let server = Server::sending(answer);
        let (code, line) = ask(&server.url("/"), Some("r2"));
        assert_eq!(code, 69, "{line}");
        assert!(line.starts_with(said), "{line}");
    }
    let (code, said) = ask("http://no-such-host.invalid/", None);
    assert_eq!(code, 69, "{said}");
}

#[test]
fn a_redirect_is_not_followed() {
    let requests = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&requests);
    let other = Server::start(move |_, _, _| {
        count.fetch_add(1, Ordering::Relaxed);
    });
    let answer = format!("HTTP/1.1 302 Found\r\nLocation: {}\r\n\r\n", other.url("/"));
    let server = Server::sending(answer.as_bytes());
    assert_eq!(ask(&server.url("/"), None), (69, "answers 302".to_owned()));
    drop(other);
    assert_eq!(requests.load(Ordering::Relaxed), 0);
}

#[test]
fn a_response_that_never_ends_is_abandoned_in_time() {
    let late = "no answer, or no end of it, in time";
    let mute = Server::start(|_, _, stream| wait_until_closed(stream));
    assert_eq!(ask_briefly(&mute.url("/"), None), (75, late.to_owned()));
    // Each byte would restart an idle timeout.
    let drip = Server::start(|_, _, stream| {
        for byte in "HTTP/1.1 200 OK\r\nA: b\r\n".bytes().cycle() {
            if stream.write_all(&[byte]).is_err() {
                return;
            }
            thread::sleep(Duration::from_millis(50));
        }
    });
    assert_eq!(ask_briefly(&drip.url("/"), None), (75, late.to_owned()));
    let fields = Server::start(|_, _, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n");
        while stream
            .write_all(b"A: bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\r\n")
            .is_ok()
        {}
    });
    let (code, said) = ask(&fields.url("/"), None);
    assert_eq!(
        (code, said.as_str()),
        (69, "does not answer in HTTP: too many fields")
    );
    let field = Server::start(|_, _, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nA: ");
        while stream.write_all(&[b'b'; 4096]).is_ok() {}
    });
    let (code, said) = ask(&field.url("/"), None);
    assert_eq!(
        (code, said.as_str()),
        (69, "does not answer in HTTP: its head is too long")
    );
    for framing in ["", "Content-Length: 999999999999\r\n"] {
        let body = Server::start(move |_, _, stream| {
            let _ = write!(stream, "HTTP/1.1 200 OK\r\n{framing}\r\n");
            while stream.write_all(&[b'.'; 4096]).is_ok() {}
        });
        let (code, said) = ask(&body.url("/"), Some("r2"));
        let expected = "answers 200, but the body does not contain 'r2'";
        assert_eq!((code, said.as_str()), (75, expected));
        // Without a required text, only the head counts.
        assert_eq!(ask(&body.url("/"), None).0, 0);
    }
}

#[test]
fn a_service_can_listen_on_ipv6() {
    let Ok(listener) = TcpListener::bind("[::1]:0") else {
        println!("skipped: this machine has no IPv6");
        return;
    };
    let server = Server::on(listener, |_, head, stream| {
        let body = if head.contains("\r\nHost: [::1]:") {
            "well"
        } else {
            "no"
        };
        let _ = write!(stream, "HTTP/1.1 200 OK\r\n\r\n{body}");
    });
    let url = format!("http://[::1]:{}/", server.port);
    assert_eq!(ask(&url, Some("well")).0, 0);
}

#[test]
fn without_its_sandbox_the_probe_reads_nothing() {
    let read = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&read);
    let server = Server::start(move |_, head, stream| {
        count.fetch_add(usize::from(!head.is_empty()), Ordering::Relaxed);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
    });
    let mechanisms = [sandbox::LANDLOCK, sandbox::SECCOMP, sandbox::NO_NEW_PRIVS];
    for (calls, piece) in mechanisms
        .into_iter()
        .zip(["landlock", "seccomp", "no_new_privs"])
    {
        let run = |optional: bool| {
            let mut request = request(&server.url("/"), None, Duration::from_secs(60));
            request["sandbox_required"] = json!(!optional);
            let command = command(&request);
            sandbox::on_a_kernel_without(calls, || outcome(command))
        };
        let before = read.load(Ordering::Relaxed);
        let (code, said) = run(false);
        assert_eq!(code, 78, "{said}");
        assert!(said.contains(piece), "{said}");
        let (code, said) = run(true);
        assert_eq!(code, 0, "{said}");
        assert!(said.starts_with("answers 200 (sandbox without "), "{said}");
        assert!(said.contains(piece), "{said}");
        // Only the second probe sent a request.
        assert_eq!(read.load(Ordering::Relaxed), before + 1);
    }
}

#[test]
fn the_hook_runner_starts_the_probe() {
    let server = Server::start(|_, head, stream| {
        let body = match head.split(' ').nth(1) {
            Some("/live") => "this is r2.",
            _ => "preview",
        };
        let _ = write!(stream, "HTTP/1.1 200 OK\r\n\r\n{body}");
    });
    let fixture = Fixture::new();
    let config = format!(
        "[health]\nurl = \"{}\"\ncontains = \"is {{release}}.\"\nsmoke_url = \"{}\"\n",
        server.url("/live"),
        server.url("/preview"),
    );
    let mut runner = fixture.runner(&config);
    let said = |text: &str| vec![text.to_owned()];
    assert_eq!(
        runner.run("health 0 r2 r1 60000"),
        (
            said("answers 200, and the body contains 'is r2.'"),
            "exit 0".to_owned()
        )
    );
    assert_eq!(
        runner.run("health 0 r1 - 60000"),
        (
            said("answers 200, but the body does not contain 'is r1.'"),
            "exit 75".to_owned()
        )
    );
    let (lines, end) = runner.run("smoke 0 r1 - 60000");
    assert_eq!((lines, end), (said("answers 200"), "exit 0".to_owned()));
    drop(server);
    let (_, end) = runner.run("smoke 0 r1 - 60000");
    assert_eq!(end, "exit 75");

    // A command in place of a url.
    let command = "[health]\ncommand = [\"/bin/sh\", \"-c\", \"echo $DEPLOY_RELEASE; exit 7\"]\n";
    let mut runner = fixture.runner(command);
    let (lines, end) = runner.run("health 0 r2 - 60000");
    assert_eq!((lines, end), (said("r2"), "exit 7".to_owned()));
    // A service that hangs is a temporary failure.
    let mute = Server::start(|_, _, stream| wait_until_closed(stream));
    let config = format!("[health]\nurl = \"{}\"\n", mute.url("/"));
    let (lines, end) = fixture.runner(&config).run("health 0 r2 - 300");
    let late = said("no answer, or no end of it, in time");
    assert_eq!((lines, end), (late, "exit 75".to_owned()));
}

#[test]
fn the_host_the_headers_and_the_statuses_are_the_configured_ones() {
    let server = Server::start(|_, head, stream| {
        let has = |line: &str| head.split("\r\n").filter(|it| *it == line).count() == 1;
        let hosts = head.to_ascii_lowercase().matches("\r\nhost:").count();
        let whole = hosts == 1
            && has("Host: www.example.com")
            && has("X-Forwarded-Proto: https")
            && has("Authorization: Bearer hunter2");
        let status = match head.split(' ').nth(1) {
            _ if !whole => 400,
            Some("/live") => 204,
            _ => 301,
        };
        let _ = write!(stream, "HTTP/1.1 {status} X\r\nLocation: /login\r\n\r\n");
    });
    let fixture = Fixture::new();
    let config = |more: &str| {
        format!(
            "[health]\nurl = \"{}\"\nsmoke_url = \"{}\"\nhost = \"www.example.com\"\n\
             headers = [\"X-Forwarded-Proto: https\", \"Authorization: Bearer hunter2\"]\n{more}",
            server.url("/live"),
            server.url("/preview"),
        )
    };
    let one = |text: &str, end: &str| (vec![text.to_owned()], end.to_owned());
    let mut runner = fixture.runner(&config("statuses = [204, 301]\n"));
    assert_eq!(
        runner.run("smoke 0 r1 - 60000"),
        one("answers 301", "exit 0")
    );
    assert_eq!(
        runner.run("health 0 r1 - 60000"),
        one("answers 204", "exit 0")
    );
    // Without the key, only 200 passes.
    let mut runner = fixture.runner(&config(""));
    assert_eq!(
        runner.run("smoke 0 r1 - 60000"),
        one("answers 301", "exit 69")
    );
    assert_eq!(
        runner.run("health 0 r1 - 60000"),
        one("answers 204", "exit 75")
    );
}

#[test]
fn an_invalid_request_is_refused() {
    let good = request("http://127.0.0.1:9/", None, Duration::from_millis(100));
    for (key, value) in [
        ("url", json!("https://127.0.0.1/")),
        ("time_limit", json!("1")),
        ("exchange", json!(null)),
        (
            "exchange",
            json!({ "host": null, "headers": ["Content-Length: 1"], "statuses": [200] }),
        ),
        ("more", json!(1)),
    ] {
        let mut bad = good.clone();
        bad[key] = value;
        let output = command(&bad).output().expect("the probe runs");
        assert_eq!(output.status.code(), Some(64), "{bad}");
        assert!(output.stdout.is_empty(), "{bad}");
    }
}

/// Every local user can read argv, and the address can have a token.
#[test]
fn the_process_list_has_no_address_and_no_text() {
    let server = Server::start(|_, _, stream| {
        // Also the probes of other tests.
        let probes = with_argument("probe");
        assert!(!probes.is_empty());
        for probe in probes {
            assert_eq!(probe.arguments[1..], ["probe"], "{probe:?}");
        }
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret");
    });
    let mut request = request(
        &server.url("/?token=secret"),
        Some("secret"),
        Duration::from_secs(60),
    );
    request["exchange"]["headers"] = json!(["Authorization: Bearer secret"]);
    assert_eq!(outcome(command(&request)).0, 0);
}
