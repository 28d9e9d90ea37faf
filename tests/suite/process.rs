//! Processes the tests start, watch and end.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command};
use std::thread;
use std::time::{Duration, Instant};

use crate::site::{Reply, Site};

/// Long enough for a slow, busy machine; reached only where something hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// A process that does not outlive its test.
pub struct Running(pub Child);

impl Running {
    pub fn is_over(&mut self) -> bool {
        self.0.try_wait().expect("a child of ours").is_some()
    }

    /// The end the process comes to by itself.
    pub fn reply(mut self) -> Reply {
        eventually("the process ends", || self.is_over());
        let status = self.0.wait().expect("a child of ours");
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
        pipe.read_to_end(&mut bytes).expect("what was printed");
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only where it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits for something another process does in its own time.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// A copy of a program, to be executed. Made by a process of its own: a child
/// that another thread starts meanwhile would hold a file of ours open for
/// writing, and what is open for writing is not executed (ETXTBSY).
pub fn copy_program(from: impl AsRef<Path>, to: &Path) {
    let copied = Command::new("cp").arg(from.as_ref()).arg(to).status();
    assert!(copied.expect("cp runs").success(), "{}", to.display());
}

/// Daemons live in folders that an ordinary user's PATH leaves out.
pub fn daemon(name: &str) -> PathBuf {
    ["/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/bin", "/bin"]
        .iter()
        .map(|folder| PathBuf::from(folder).join(name))
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
        let mut child = site.ssh_spawn("ci", request);
        let stdin = child.stdin.take();
        Upload {
            client: Running(child),
            stdin,
        }
    }

    /// Starts it and waits until the server has taken the request up.
    pub fn taken_up(site: &Site, request: &str) -> Upload {
        let before = site.audit_lines().len();
        let upload = Upload::start(site, request);
        eventually("the request is on record", || {
            site.audit_lines()[before..]
                .iter()
                .any(|line| line.contains("event=\"request\"") && line.contains(request))
        });
        upload
    }

    /// A server that refuses before it has read everything closes the pipe:
    /// its reply is the test's business, not this.
    pub fn send(&mut self, bytes: &[u8]) {
        let stdin = self.stdin.as_mut().expect("not finished yet");
        let _ = stdin.write_all(bytes);
    }

    /// End of file.
    pub fn close(&mut self) {
        self.stdin = None;
    }

    pub fn finish(mut self) -> Reply {
        self.close();
        self.client.reply()
    }

    /// The reply to a client that goes on without ever closing its pipe.
    pub fn outlast(self) -> Reply {
        let Upload { client, stdin } = self;
        let reply = client.reply();
        drop(stdin);
        reply
    }

    /// SIGKILL: no farewell to the server, and no end of file by the client.
    pub fn kill(mut self) {
        self.client.0.kill().expect("a child of ours");
        self.client.0.wait().expect("a child of ours");
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
    let folder = fs::read_dir("/proc").expect("/proc");
    let pids = folder.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter_map(process).collect()
}

/// None where it has ended in between.
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
    /// By its own arguments: the shell sshd starts it with names the same
    /// words, but as one argument.
    fn serves(&self, site: &Site) -> bool {
        let config = site.config_path().to_str().expect("a plain path");
        let named = |word: &str| self.arguments.iter().any(|argument| argument == word);
        named("serve") && named(config)
    }
}

/// The processes that serve requests to `site` right now.
pub fn serving(site: &Site) -> Vec<Process> {
    let mut all = processes();
    all.retain(|process| process.serves(site));
    all
}

/// The processes that were started with `word` among their words.
pub fn holding(word: &str) -> Vec<i32> {
    let mut all = processes();
    all.retain(|process| process.arguments.iter().any(|argument| argument == word));
    all.iter().map(|process| process.pid).collect()
}

/// The children those processes have started for another purpose.
pub fn unpacking(site: &Site) -> Vec<Process> {
    let mut all = processes();
    let servers: Vec<i32> = all
        .iter()
        .filter(|process| process.serves(site))
        .map(|process| process.pid)
        .collect();
    all.retain(|process| servers.contains(&process.parent) && !process.serves(site));
    all
}
