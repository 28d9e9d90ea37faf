//! Processes that the tests start, watch and end.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command};
use std::thread;
use std::time::{Duration, Instant};

use crate::site::{Reply, Site};

/// Long enough for a slow, busy machine; only a process that hangs exceeds it.
const TIMEOUT: Duration = Duration::from_secs(120);

/// A process that ends with its test.
pub struct Running(pub Child);

impl Running {
    pub fn is_over(&mut self) -> bool {
        self.0.try_wait().expect("the child exists").is_some()
    }

    /// Waits until the process ends by itself, and returns its reply.
    pub fn reply(mut self) -> Reply {
        eventually("the process ends", || self.is_over());
        let status = self.0.wait().expect("the child exists");
        Reply {
            code: status.code().unwrap_or(-1),
            stdout: text(self.0.stdout.take()),
            stderr: text(self.0.stderr.take()),
        }
    }
}

fn text(pipe: Option<impl Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        pipe.read_to_end(&mut bytes).expect("the output is read");
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until `is_so` is true because of another process.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < TIMEOUT, "timeout: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Copies a program that is to be executed, by cp(1). A copy by this process could
/// fail to execute (ETXTBSY): a child that another thread starts meanwhile inherits
/// the file that is open for writing.
pub fn copy_program(from: impl AsRef<Path>, to: &Path) {
    let copied = Command::new("cp").arg(from.as_ref()).arg(to).status();
    assert!(copied.expect("cp runs").success(), "{}", to.display());
}

/// Daemons are in directories that are not in an ordinary user's PATH.
pub fn daemon(name: &str) -> PathBuf {
    ["/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/bin", "/bin"]
        .iter()
        .map(|directory| PathBuf::from(directory).join(name))
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("'{name}' is not installed"))
}

/// A client that sends its payload piece by piece.
pub struct Upload {
    pub client: Running,
    stdin: Option<ChildStdin>,
}

impl Upload {
    pub fn start(site: &Site, request: &str) -> Upload {
        Upload::start_as(site, "ci", request)
    }

    pub fn start_as(site: &Site, key: &str, request: &str) -> Upload {
        let mut child = site.ssh_spawn(key, request);
        let stdin = child.stdin.take();
        Upload {
            client: Running(child),
            stdin,
        }
    }

    /// Starts it, and waits until the server has recorded the request.
    pub fn taken_up(site: &Site, request: &str) -> Upload {
        let before = site.audit_lines().len();
        // The line has the start of a long request.
        let shown = request.get(..100).unwrap_or(request);
        let upload = Upload::start(site, request);
        eventually("the request is in the audit log", || {
            site.audit_lines()[before..]
                .iter()
                .any(|line| line.contains("event=\"request\"") && line.contains(shown))
        });
        upload
    }

    /// Sends bytes. A server that refuses early closes the pipe; the test looks at its
    /// reply, so a failed write is ignored.
    pub fn send(&mut self, bytes: &[u8]) {
        let stdin = self.stdin.as_mut().expect("not finished yet");
        let _ = stdin.write_all(bytes);
    }

    /// Sends the end of file.
    pub fn close(&mut self) {
        self.stdin = None;
    }

    pub fn finish(mut self) -> Reply {
        self.close();
        self.client.reply()
    }

    /// Returns the reply to a client that never closes its pipe.
    pub fn outlast(self) -> Reply {
        let Upload { client, stdin } = self;
        let reply = client.reply();
        drop(stdin);
        reply
    }

    /// Kills the client by SIGKILL, so that it ends without telling the server.
    pub fn kill(mut self) {
        self.client.0.kill().expect("the child exists");
        self.client.0.wait().expect("the child exists");
    }
}

/// A process as `/proc` shows it.
#[derive(Debug)]
pub struct Process {
    pub pid: i32,
    pub parent: i32,
    pub arguments: Vec<String>,
}

fn processes() -> Vec<Process> {
    let directory = fs::read_dir("/proc").expect("/proc");
    let pids = directory.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter_map(process).collect()
}

/// Returns none if the process has ended.
fn process(pid: i32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?;
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let arguments = arguments.strip_suffix(b"\0")?.split(|&byte| byte == 0);
    Some(Process {
        pid,
        parent: parent.parse().ok()?,
        arguments: arguments
            .map(|argument| String::from_utf8_lossy(argument).into_owned())
            .collect(),
    })
}

impl Process {
    /// Compares whole arguments: the shell by which sshd starts the program has the
    /// same words in one argument.
    fn serves(&self, site: &Site) -> bool {
        let config = site.config_path().to_str().expect("the path is UTF-8");
        let named = |word: &str| self.arguments.iter().any(|argument| argument == word);
        named("serve") && named(config)
    }
}

/// Returns the processes that serve a request to `site` now.
pub fn serving(site: &Site) -> Vec<Process> {
    let mut all = processes();
    all.retain(|process| process.serves(site));
    all
}

/// Returns the processes that have `word` as one of their arguments.
pub fn with_argument(word: &str) -> Vec<Process> {
    let mut all = processes();
    all.retain(|process| process.arguments.iter().any(|argument| argument == word));
    all
}

pub fn pids_with_argument(word: &str) -> Vec<i32> {
    let found = with_argument(word);
    found.iter().map(|process| process.pid).collect()
}

/// Returns the other children of those processes: the unpackers.
pub fn unpacking(site: &Site) -> Vec<Process> {
    let mut all = processes();
    let servers: Vec<i32> = all
        .iter()
        .filter(|process| process.serves(site))
        .map(|process| process.pid)
        .collect();
    all.retain(|process| {
        servers.contains(&process.parent) && process.arguments.iter().any(|word| word == "unpack")
    });
    all
}
