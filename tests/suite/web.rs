//! A real nginx in front of a site, and a real load that checks each answer.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::process::{Running, daemon, eventually};
use crate::site::Site;

/// A running nginx. Each of its servers has its own port.
pub struct Nginx {
    _process: Running,
    pub ports: Vec<u16>,
}

impl Nginx {
    /// Starts a server for each of `servers`, which are lines of its configuration.
    pub fn start(site: &Site, servers: &[String]) -> Nginx {
        // Another process may take a free port before nginx does. Then this tries
        // other ports.
        for _ in 0..10 {
            let ports = free_ports(servers.len());
            let mut process = Running(Nginx::spawn(site, servers, &ports));
            let mut answers = false;
            eventually("nginx listens or ends", || {
                answers = ports.iter().all(|port| get(*port, "/").is_ok());
                answers || process.is_over()
            });
            if answers {
                return Nginx {
                    _process: process,
                    ports,
                };
            }
        }
        panic!("nginx does not start: {}", Nginx::log(site));
    }

    /// Starts a server whose root is the current symlink.
    pub fn live(site: &Site) -> Nginx {
        let link = site.root().join("current");
        Nginx::start(site, &[format!("root {};", link.display())])
    }

    fn spawn(site: &Site, servers: &[String], ports: &[u16]) -> Child {
        let own = site.dir().join("nginx");
        fs::create_dir_all(&own).expect("a directory");
        let servers: String = servers
            .iter()
            .zip(ports)
            .map(|(server, port)| format!("server {{ listen 127.0.0.1:{port};\n{server}\n}}\n"))
            .collect();
        // One process, as the user of the test, that writes only below its directory.
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
             disable_symlinks off;\n\
             {servers}\
             }}\n"
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

    /// Returns the error log.
    pub fn log(site: &Site) -> String {
        fs::read_to_string(site.dir().join("nginx/error.log")).unwrap_or_default()
    }
}

fn free_ports(count: usize) -> Vec<u16> {
    let listeners: Vec<TcpListener> = (0..count)
        .map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port"))
        .collect();
    let ports = listeners.iter().map(|listener| listener.local_addr());
    ports
        .map(|address| address.expect("a port").port())
        .collect()
}

/// Returns the whole answer, header and body.
pub fn get(port: u16, path: &str) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

/// A running wrk, which checks each response.
pub struct Load {
    process: Running,
    directory: std::path::PathBuf,
}

/// The counts of wrk.
#[derive(Debug, Default)]
pub struct Counts {
    /// Complete responses, for each page.
    pub whole: Vec<u64>,
    /// Responses with another status or another body.
    pub wrong: u64,
    /// Refused or broken connections, and timeouts.
    pub failed: u64,
}

impl Load {
    /// Requests `url` until [`Load::stop`]. Each answer must be one of `pages`.
    pub fn start(directory: &Path, url: &str, pages: &[Vec<u8>]) -> Load {
        let directory = directory.join("load");
        fs::create_dir(&directory).expect("a directory");
        for (number, page) in pages.iter().enumerate() {
            fs::write(directory.join(format!("{}", number + 1)), page).expect("a page");
        }
        let lua = format!(
            r#"
            local threads = {{}}
            function setup(thread) table.insert(threads, thread) end
            function init(args)
                pages, counts, answered, wrong = {{}}, {{}}, 0, 0
                for number = 1, {count} do
                    local file = assert(io.open("{directory}/" .. number, "rb"))
                    pages[number], counts[number] = file:read("*a"), 0
                    file:close()
                end
            end
            -- A moment between requests, so that swaps get their share of the
            -- processor as well.
            function delay() return 2 end
            function response(status, headers, body)
                answered = answered + 1
                -- One byte for each hundred answers: `wait_for_answers` counts them.
                if answered % 100 == 1 then
                    local file = assert(io.open("{directory}/alive", "a"))
                    file:write(".")
                    file:close()
                end
                if status == 200 then
                    for number, page in ipairs(pages) do
                        if body == page then
                            counts[number] = counts[number] + 1
                            return
                        end
                    end
                end
                wrong = wrong + 1
            end
            function done(summary, latency, requests)
                local sums, w = {{}}, 0
                for _, thread in ipairs(threads) do
                    w = w + thread:get("wrong")
                    for number, count in ipairs(thread:get("counts")) do
                        sums[number] = (sums[number] or 0) + count
                    end
                end
                local e = summary.errors
                local failed = e.connect + e.read + e.write + e.timeout
                io.write(string.format("counts %d %d %s\n", w, failed, table.concat(sums, " ")))
            end
            "#,
            count = pages.len(),
            directory = directory.display(),
        );
        let script = directory.join("check.lua");
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
            .arg(url)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("wrk starts");
        Load {
            process: Running(process),
            directory,
        }
    }

    /// Waits for a few hundred more answers.
    pub fn wait_for_answers(&self) {
        let signs = || fs::metadata(self.directory.join("alive")).map_or(0, |file| file.len());
        let before = signs();
        eventually("the load goes on", || signs() > before + 2);
    }

    /// Interrupts wrk, which then prints its counts.
    pub fn stop(self) -> Counts {
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
            wrong: counts[0],
            failed: counts[1],
            whole: counts[2..].to_vec(),
        }
    }
}
