//! A real nginx under load while the live release changes: no HTTP request fails, and
//! no response mixes two releases.

use std::process::Stdio;

use crate::archive::tarball;
use crate::process::{Running, eventually};
use crate::site::{Site, set_mode};
use crate::web::{Load, Nginx};

const SWAPS: usize = 1000;
/// The number of requests through one connection, whose life the harness limits.
const BLOCK: usize = 250;
const RELEASES: [&str; 2] = ["release-a", "release-b"];

/// Returns 64 KiB that name one release and nothing else.
fn page(release: &str) -> Vec<u8> {
    let mut page = format!("{release}\n").repeat(7000).into_bytes();
    page.truncate(64 << 10);
    page
}

/// One connection that many requests share, as an operator's ControlMaster.
struct Master<'a> {
    site: &'a Site,
    _process: Running,
    // The path of a socket may have 104 bytes at most, so this directory is short.
    directory: tempfile::TempDir,
}

impl Master<'_> {
    fn start(site: &Site) -> Master<'_> {
        let directory = tempfile::Builder::new().prefix("m").tempdir();
        let directory = directory.expect("a directory");
        let socket = directory.path().join("s");
        let process = site
            .ssh_command("ci")
            .args(["-N", "-M", "-S"])
            .arg(&socket)
            .stdin(Stdio::null())
            .spawn()
            .expect("ssh starts");
        let process = Running(process);
        eventually("the connection is open", || socket.exists());
        Master {
            site,
            _process: process,
            directory,
        }
    }

    fn request(&self, request: &str) -> String {
        let mut command = self.site.ssh_command("ci");
        command.arg("-S").arg(self.directory.path().join("s"));
        // Without its master the client fails instead of opening a new connection.
        command.args(["-o", "ProxyCommand=false", "--", request]);
        self.site.run(command, b"").ok()
    }
}

#[test]
fn no_request_fails_during_a_thousand_swaps() {
    let site = Site::new();
    // nginx may run as another user than we do.
    set_mode(site.root(), 0o755);
    for release in RELEASES {
        let payload = tarball(&[("page.txt", &page(release)), ("index.html", b"up")]);
        site.receive(release, &payload).ok();
    }
    site.ssh("ci", "swap release-a").ok();
    let nginx = Nginx::live(&site);
    let url = format!("http://127.0.0.1:{}/page.txt", nginx.ports[0]);
    let load = Load::start(site.dir(), &url, &RELEASES.map(page));
    for block in 0..SWAPS / BLOCK {
        let master = Master::start(&site);
        for number in (1..=BLOCK).map(|number| block * BLOCK + number) {
            let [to, from] = [number % 2, (number + 1) % 2].map(|index| RELEASES[index]);
            let reply = master.request(&format!("swap {to}"));
            let expected = format!("ok swap {to} previous={from}\n");
            assert_eq!(reply, expected, "swap {number}, live: {:?}", site.current());
        }
    }
    let counts = load.stop();
    println!(
        "{SWAPS} swaps, {} requests: {counts:?}",
        counts.whole.iter().sum::<u64>()
    );
    assert_eq!(counts.failed, 0, "{counts:?}");
    assert_eq!(counts.wrong, 0, "{counts:?}");
    // The load ran while the symlink moved: it got many pages of both releases.
    assert!(counts.whole.iter().all(|seen| *seen > 1000), "{counts:?}");
    assert_eq!(Nginx::log(&site), "");
    assert_eq!(site.current().as_deref(), Some(RELEASES[SWAPS % 2]));
    // The journal itself was replaced by checkpoints meanwhile.
    let history = site.history();
    let swapped = history.iter().filter(|event| event["event"] == "swapped");
    assert_eq!(swapped.count(), SWAPS + 1);
}
