//! A real nginx under load while releases go back and forth beneath it: no
//! request fails, and no response is of two releases.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::archive::tarball;
use crate::process::{Running, daemon, eventually};
use crate::site::{Site, set_mode};

const SWAPS: usize = 1000;
/// So many go through one connection, which the harness bounds in time.
const BLOCK: usize = 250;
const RELEASES: [&str; 2] = ["release-a", "release-b"];

/// 64 KiB that name one release and nothing else.
fn page(release: &str) -> Vec<u8> {
    let mut page = format!("{release}\n").repeat(7000).into_bytes();
    page.truncate(64 << 10);
    page
}

/// nginx with `root` on the link, on a port of its own.
pub struct Nginx {
    _process: Running,
    pub port: u16,
}

impl Nginx {
    pub fn start(site: &Site) -> Nginx {
        // The port is free when it is chosen; should another process be
        // quicker, the next one is tried.
        for _ in 0..10 {
            let port = TcpListener::bind("127.0.0.1:0")
                .and_then(|listener| listener.local_addr())
                .expect("a free port")
                .port();
            let mut process = Running(Nginx::spawn(site, port));
            let mut answers = false;
            eventually("nginx listens or ends", || {
                answers = get(port, "/").is_ok();
                answers || process.is_over()
            });
            if answers {
                return Nginx {
                    _process: process,
                    port,
                };
            }
        }
        let log = fs::read_to_string(site.dir().join("nginx/error.log"));
        panic!("nginx does not start: {}", log.unwrap_or_default());
    }

    fn spawn(site: &Site, port: u16) -> std::process::Child {
        let own = site.dir().join("nginx");
        fs::create_dir_all(&own).expect("a folder");
        let link = site.root().join("current");
        // One process, as the user of the test, and nothing outside its folder.
        let config = format!(
            "daemon off;\n\
             master_process off;\n\
             pid nginx.pid;\n\
             error_log error.log warn;\n\
             events {{ worker_connections 256; }}\n\
             http {{\n\
             access_log off;\n\
             client_body_temp_path body;\n\
             proxy_temp_path proxy;\n\
             fastcgi_temp_path fastcgi;\n\
             uwsgi_temp_path uwsgi;\n\
             scgi_temp_path scgi;\n\
             keepalive_requests 1000000;\n\
             server {{\n\
             listen 127.0.0.1:{port};\n\
             root {};\n\
             disable_symlinks off;\n\
             }}\n\
             }}\n",
            link.display()
        );
        fs::write(own.join("nginx.conf"), config).expect("its configuration");
        Command::new(daemon("nginx"))
            .arg("-p")
            .arg(&own)
            .arg("-c")
            .arg(own.join("nginx.conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nginx starts")
    }
}

/// The whole answer, header and body.
pub fn get(port: u16, path: &str) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

/// wrk, which looks at each response itself.
struct Load {
    process: Running,
}

/// What it counted.
#[derive(Debug, Default)]
struct Counts {
    /// Whole responses of the first and of the second release.
    whole: [u64; 2],
    /// Responses with another status or another body.
    wrong: u64,
    /// Connections refused or broken, and requests that took too long.
    failed: u64,
}

impl Load {
    fn start(folder: &Path, port: u16) -> Load {
        let script = folder.join("check.lua");
        let pages = RELEASES.map(|release| folder.join(release));
        for (release, path) in RELEASES.iter().zip(&pages) {
            fs::write(path, page(release)).expect("a page");
        }
        let lua = format!(
            r#"
            local threads = {{}}
            local function read(path)
                local file = assert(io.open(path, "rb"))
                local bytes = file:read("*a")
                file:close()
                return bytes
            end
            function setup(thread) table.insert(threads, thread) end
            function init(args)
                first, second, wrong = 0, 0, 0
                one, two = read("{}"), read("{}")
            end
            -- A moment between requests, so that swaps get their share of the
            -- processor, too.
            function delay() return 2 end
            function response(status, headers, body)
                if status ~= 200 then wrong = wrong + 1
                elseif body == one then first = first + 1
                elseif body == two then second = second + 1
                else wrong = wrong + 1 end
            end
            function done(summary, latency, requests)
                local a, b, c = 0, 0, 0
                for _, thread in ipairs(threads) do
                    a = a + thread:get("first")
                    b = b + thread:get("second")
                    c = c + thread:get("wrong")
                end
                local e = summary.errors
                local failed = e.connect + e.read + e.write + e.timeout
                io.write(string.format("counts %d %d %d %d\n", a, b, c, failed))
            end
            "#,
            pages[0].display(),
            pages[1].display()
        );
        fs::write(&script, lua).expect("the script");
        let process = Command::new("wrk")
            .args([
                "-t",
                "1",
                "-c",
                "8",
                "-d",
                "1800s",
                "--timeout",
                "30s",
                "-s",
            ])
            .arg(&script)
            .arg(format!("http://127.0.0.1:{port}/page.txt"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("wrk starts");
        Load {
            process: Running(process),
        }
    }

    /// Ends it as an impatient user would: it still prints what it has counted.
    fn stop(self) -> Counts {
        let pid = i32::try_from(self.process.0.id()).expect("a process id");
        kill(Pid::from_raw(pid), Signal::SIGINT).expect("wrk still runs");
        let report = self.process.reply().ok();
        let counts = report.lines().find_map(|line| line.strip_prefix("counts "));
        let counts: Vec<u64> = counts
            .unwrap_or_else(|| panic!("no counts: {report}"))
            .split(' ')
            .map(|number| number.parse().expect("a number"))
            .collect();
        Counts {
            whole: [counts[0], counts[1]],
            wrong: counts[2],
            failed: counts[3],
        }
    }
}

/// One connection that many requests share, as an operator's ControlMaster.
struct Master<'a> {
    site: &'a Site,
    _process: Running,
    // A socket's path may have 104 bytes at most, so it has a short one.
    folder: tempfile::TempDir,
}

impl Master<'_> {
    fn start(site: &Site) -> Master<'_> {
        let folder = tempfile::Builder::new().prefix("m").tempdir();
        let folder = folder.expect("a folder");
        let socket = folder.path().join("s");
        let process = site
            .ssh_command("ci")
            .args(["-N", "-M", "-S"])
            .arg(&socket)
            .stdin(Stdio::null())
            .spawn()
            .expect("ssh starts");
        let process = Running(process);
        eventually("the connection stands", || socket.exists());
        Master {
            site,
            _process: process,
            folder,
        }
    }

    fn request(&self, request: &str) -> String {
        let mut command = self.site.ssh_command("ci");
        command.arg("-S").arg(self.folder.path().join("s"));
        // Without its master it fails, instead of connecting anew.
        command.args(["-o", "ProxyCommand=false", "--", request]);
        self.site.run(command, b"").ok()
    }
}

#[test]
fn a_thousand_swaps_under_load_fail_nobody() {
    let site = Site::new();
    // nginx may run as another user than we do.
    set_mode(site.root(), 0o755);
    for release in RELEASES {
        let payload = tarball(&[("page.txt", &page(release)), ("index.html", b"up")]);
        site.receive(release, &payload).ok();
    }
    site.ssh("ci", "swap release-a").ok();
    let nginx = Nginx::start(&site);
    let load = Load::start(site.dir(), nginx.port);
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
    // The load was there while the link moved: it has seen both, many times.
    for seen in counts.whole {
        assert!(seen > 1000, "{counts:?}");
    }
    let log = fs::read_to_string(site.dir().join("nginx/error.log"));
    assert_eq!(log.expect("nginx' log"), "");
    assert_eq!(site.current().as_deref(), Some(RELEASES[SWAPS % 2]));
    let journal = site.journal();
    let swapped = journal.iter().filter(|event| event["event"] == "swapped");
    assert_eq!(swapped.count(), SWAPS + 1);
}
