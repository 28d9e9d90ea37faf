//! A site for the hook runner, and the pipes to it.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use deploy_shell::config::Config;
use deploy_shell::hooks::Setup;
use deploy_shell::message;
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use crate::process::eventually;
use crate::site::BIN;

/// Only a hook runner that hangs takes this long.
const HANG: Duration = Duration::from_secs(120);

/// A site with releases `r1` and `r2`.
pub struct Fixture(TempDir);

impl Fixture {
    pub fn new() -> Fixture {
        let dir = tempfile::Builder::new().prefix("deploy-shell-").tempdir();
        let fixture = Fixture(dir.expect("a temporary directory"));
        for directory in ["", "root", "root/releases/r1", "root/releases/r2"] {
            let path = fixture.path(directory);
            fs::create_dir_all(&path).expect("create a directory");
            set_mode(&path, 0o755);
        }
        set_mode(&fixture.path("root/releases"), 0o755);
        fixture
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    /// Returns the setup of a configuration as one line; `{dir}` is the temporary
    /// directory.
    pub fn setup(&self, config: &str) -> String {
        let dir = self.0.path().to_str().expect("a UTF-8 path");
        let text = format!("root = \"{dir}/root\"\n{}", config.replace("{dir}", dir));
        let config = Config::parse(Path::new("/etc/deploy-shell/blog.toml"), &text);
        let setup = Setup::new(&config.expect("a valid configuration"));
        let line = message::encode(&setup.expect("something to run"));
        format!("{}\n", line.expect("JSON"))
    }

    /// Starts the hook runner for a configuration.
    pub fn runner(&self, config: &str) -> Runner {
        Runner::start(Command::new(BIN).arg("hooks"), &self.setup(config))
    }

    /// Starts the hook runner for a site with one hook.
    pub fn with_hook(&self, words: &[&str]) -> Runner {
        self.runner(&hook(words))
    }

    /// Starts the hook runner for a site with one hook, a shell script. It does
    /// what an operator would not write, but an operator's program can do.
    pub fn with_script(&self, script: &str) -> Runner {
        self.with_hook(&["/bin/sh", "-c", script])
    }

    /// Returns the process number that a hook has written to a file.
    pub fn pid(&self, file: &str) -> Pid {
        let text = fs::read_to_string(self.path(file)).expect("the hook has written its number");
        Pid::from_raw(text.trim().parse().expect("a number"))
    }
}

pub fn hook(words: &[&str]) -> String {
    format!("[[hooks.before_swap]]\ncommand = {words:?}\n")
}

pub fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set the mode");
}

/// Returns a request, as one line, from the words
/// `STAGE INDEX RELEASE PREVIOUS MILLISECONDS`.
pub fn request(words: &str) -> String {
    let words: Vec<&str> = words.split(' ').collect();
    let [stage, index, release, previous, time_limit] = words[..] else {
        panic!("not a request: {words:?}");
    };
    let previous = match previous {
        "-" => "null".to_owned(),
        release => format!("\"{release}\""),
    };
    format!(
        "{{\"stage\":\"{stage}\",\"index\":{index},\"release\":\"{release}\",\
         \"previous\":{previous},\"time_limit\":{time_limit},\"dry_run\":false}}\n"
    )
}

/// A hook runner, and the lines that it writes.
pub struct Runner {
    pub child: Child,
    pub stdin: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Runner {
    pub fn start(command: &mut Command, setup: &str) -> Runner {
        let mut child = command
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start the hook runner");
        let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in stdout.lines() {
                if sender.send(line.expect("ASCII")).is_err() {
                    return;
                }
            }
        });
        let stdin = child.stdin.take();
        let mut runner = Runner {
            child,
            stdin,
            lines,
        };
        runner.send(setup);
        runner
    }

    pub fn send(&mut self, text: &str) {
        let stdin = self.stdin.as_mut().expect("not closed yet");
        stdin.write_all(text.as_bytes()).expect("write a message");
    }

    /// Returns the next line; none if the hook runner has closed its output.
    pub fn next(&mut self) -> Option<String> {
        use std::sync::mpsc::RecvTimeoutError::{Disconnected, Timeout};
        match self.lines.recv_timeout(HANG) {
            Ok(line) => Some(line),
            Err(Disconnected) => None,
            Err(Timeout) => panic!("the hook runner hangs"),
        }
    }

    /// Sends a request, and returns the lines of output and how the command ended.
    #[track_caller]
    pub fn run(&mut self, words: &str) -> (Vec<String>, String) {
        self.send(&request(words));
        let mut lines = Vec::new();
        loop {
            let line = self.next().expect("the hook runner answers");
            let response: Value = serde_json::from_str(&line).expect("a response");
            if let Some(text) = response["output"].as_str() {
                assert_shown(text);
                lines.push(text.to_owned());
                continue;
            }
            if response["ended_processes"].is_u64() {
                continue;
            }
            return match &response["outcome"] {
                Value::String(word) => (lines, word.clone()),
                Value::Object(outcome) => {
                    let (word, value) = outcome.iter().next().expect("one outcome");
                    let value = value.as_str().map_or(value.to_string(), |text| {
                        assert_shown(text);
                        text.to_owned()
                    });
                    (lines, format!("{word} {value}"))
                }
                _ => panic!("not a response: {line}"),
            };
        }
    }

    /// Runs the first hook before the swap, with enough time.
    #[track_caller]
    pub fn run_hook(&mut self) -> (Vec<String>, String) {
        self.run("before_swap 0 r2 r1 60000")
    }

    /// Asserts that the hook runner ends by itself, without another line.
    #[track_caller]
    pub fn assert_ends(mut self) {
        assert_eq!(self.next(), None);
        eventually("the hook runner ends", || {
            self.child.try_wait().expect("a child process").is_some()
        });
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        self.stdin = None;
        // The closed input ends the hook runner, and everything that it started.
        let _ = self.child.wait();
    }
}

#[track_caller]
fn assert_shown(text: &str) {
    assert!(text.len() <= 500, "{text}");
    assert!(text.bytes().all(|it| matches!(it, b' '..=b'~')), "{text:?}");
}
