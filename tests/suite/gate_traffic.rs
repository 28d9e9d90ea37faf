//! Swaps under load on a site with hooks and health checks, some to a release that
//! fails: no HTTP request fails, and no response mixes two releases.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use crate::archive::tarball;
use crate::direct::states;
use crate::gating::{gate_failed, hook, logging_hooks, make_fail};
use crate::process::Running;
use crate::service::{Answer, Service, ok};
use crate::site::{Site, set_mode};
use crate::web::{Load, Nginx};

const ROUNDS: usize = 4;
const RELEASES: [&str; 3] = ["release-a", "release-b", "failing"];

/// Returns 64 KiB that name one release and nothing else.
fn page(release: &str) -> Vec<u8> {
    let mut page = format!("{release}\n").repeat(7000).into_bytes();
    page.truncate(64 << 10);
    page
}

fn receive_all(site: &Site) {
    // nginx may run as another user than we do.
    set_mode(site.root(), 0o755);
    for release in RELEASES {
        let payload = tarball(&[("page.txt", &page(release)), ("index.html", b"up")]);
        site.receive(release, &payload).ok();
    }
}

/// Swaps back and forth, and sometimes to a release that fails. Between two swaps,
/// the load gets more answers.
fn back_and_forth(site: &Site, load: &Load) {
    for round in 0..ROUNDS {
        for (from, to) in [(0, 1), (1, 0)] {
            load.wait_for_answers();
            let [from, to] = [from, to].map(|number| RELEASES[number]);
            let reply = site.ssh("ci", &format!("swap {to}"));
            assert_eq!(reply.ok(), format!("ok swap {to} previous={from}\n"));
            if round % 2 == 0 {
                load.wait_for_answers();
                let problem = gate_failed(&site.ssh("ci", "swap failing"));
                let end = format!("'{to}' is live again");
                assert!(problem.ends_with(&end), "{problem}");
            }
        }
    }
    load.wait_for_answers();
    assert_eq!(states(site)[0], "release-a current");
}

fn assert_no_request_failed(site: &Site, load: Load) {
    let counts = load.stop();
    println!("{counts:?}");
    assert_eq!((counts.failed, counts.wrong), (0, 0), "{counts:?}");
    // The load ran while the symlink moved: it got pages of both releases.
    assert!(
        counts.whole[..2].iter().all(|seen| *seen > 100),
        "{counts:?}"
    );
    assert_eq!(Nginx::log(site), "");
}

/// nginx serves files below the current symlink, and the health check requests the
/// page from it.
#[test]
fn no_request_fails_while_files_are_swapped_with_a_gate() {
    let site = Site::new();
    receive_all(&site);
    site.ssh("ci", "swap release-a").ok();
    let nginx = Nginx::live(&site);
    let url = format!("http://127.0.0.1:{}/page.txt", nginx.ports[0]);
    let root = site.root().to_owned();
    // The smoke test reads the candidate's own files.
    let smoke = Service::start(move |_, _| {
        match fs::read_to_string(root.join("preview/index.html")).as_deref() {
            Ok("up") => ok(""),
            _ => Answer::Elsewhere("/nowhere"),
        }
    });
    site.configure(&format!(
        "{}[health]\nsmoke_url = \"{}\"\nurl = \"{url}\"\ncontains = \"{{release}}\"\n\
         interval = \"1s\"\n",
        logging_hooks(),
        smoke.url("/")
    ));
    make_fail(&site, "failing", "after_swap");
    let load = Load::start(site.dir(), &url, &RELEASES.map(page));
    back_and_forth(&site, &load);
    assert_no_request_failed(&site, load);
}

/// An application that reads its release when it starts. As with systemd's
/// socket activation, the listening socket stays when the application is
/// restarted, and connections wait in it meanwhile. systemd cannot run here: a signal
/// takes the place of `systemctl restart`, and this program that of systemd.
const SERVER: &str = r#"
import os, signal, socket, sys
root = sys.argv[1]
listener = socket.socket()
listener.bind(("127.0.0.1", 0))
listener.listen(1024)
listener.settimeout(0.05)
signals = [signal.SIGHUP, signal.SIGTERM]
signal.pthread_sigmask(signal.SIG_BLOCK, signals)
print(listener.getsockname()[1], os.getpid(), flush=True)

def application():
    over = []
    signal.signal(signal.SIGTERM, lambda *_: over.append(True))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
    release = root + "/" + os.readlink(root + "/current")
    page = open(release + "/page.txt", "rb").read()
    name = os.path.basename(release).encode()
    parent = os.getppid()
    with open(sys.argv[2], "wb") as runs:
        runs.write(name)
    while not over and os.getppid() == parent:
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            continue
        connection.settimeout(10)
        health = connection.recv(4096).startswith(b"GET /health ")
        body = name if health else page
        status = b"501 Failing" if health and name == b"failing" else b"200 OK"
        head = b"HTTP/1.0 %s\r\nContent-Length: %d\r\n\r\n" % (status, len(body))
        connection.sendall(head + body)
        connection.close()

while True:
    child = os.fork()
    if child == 0:
        application()
        os._exit(0)
    signal.sigwait(signals)
    os.kill(child, signal.SIGTERM)
    os.waitpid(child, 0)
"#;

/// An application behind nginx: the hook after the swap restarts it, and its health
/// page names the release that it runs.
#[test]
fn no_request_fails_while_an_application_is_restarted() {
    let site = Site::new();
    receive_all(&site);
    site.ssh("ci", "swap release-a").ok();
    let script = site.dir().join("server.py");
    fs::write(&script, SERVER).expect("the script");
    let server = Command::new("python3")
        .arg(script)
        .arg(site.root())
        .arg(site.dir().join("runs"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn();
    let mut server = Running(server.expect("python3 starts"));
    let mut line = String::new();
    let stdout = server.0.stdout.as_mut().expect("a pipe");
    BufReader::new(stdout).read_line(&mut line).expect("a line");
    let (port, pid) = line.trim().split_once(' ').expect("two numbers");
    let proxy = format!("location / {{ proxy_pass http://127.0.0.1:{port}; }}");
    let nginx = Nginx::start(&site, &[proxy]);
    // As systemctl does, the command returns when the old process has ended.
    let restart = format!(
        "kill -HUP {pid}; until [ \"$(cat {{dir}}/runs)\" = $DEPLOY_RELEASE ]; do sleep 0.02; done"
    );
    site.configure(&format!(
        "{}[health]\nurl = \"http://127.0.0.1:{port}/health\"\n\
         contains = \"{{release}}\"\ninterval = \"1s\"\n",
        hook("after_swap", &restart)
    ));
    let url = format!("http://127.0.0.1:{}/page.txt", nginx.ports[0]);
    let load = Load::start(site.dir(), &url, &RELEASES.map(page));
    back_and_forth(&site, &load);
    assert_no_request_failed(&site, load);
}
