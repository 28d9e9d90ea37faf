//! The harness: one site with its configuration, its keys, a real `sshd` for
//! every connection and a socket that takes the place of syslog, all in one
//! temporary directory.
//!
//! `sshd -i` runs as the `ProxyCommand` of the client, so the tests need no port,
//! no daemon and no root. They write nothing outside of the temporary directory,
//! except `/run/sshd`, which `sshd` needs when it runs as root.

// The paths are written out, because tests/crash.rs includes this file as well.
#[path = "site/collector.rs"]
mod collector;
#[path = "site/files.rs"]
mod files;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, Uid, User};
use tempfile::TempDir;

use collector::Collector;
pub use files::children;
use files::{describe, file_name, make_directory};
pub use files::{set_mode, sha256, write_file};

pub const BIN: &str = env!("CARGO_BIN_EXE_deploy-shell");

/// The path of `deploy-shell-admin`, beside `deploy-shell`.
///
/// Cargo builds only the programs of this package for its tests, so under cargo
/// this builds the other one, once for each run.
pub fn admin() -> &'static Path {
    static ADMIN: OnceLock<PathBuf> = OnceLock::new();
    ADMIN.get_or_init(|| {
        if let Some(cargo) = std::env::var_os("CARGO") {
            let built = Command::new(cargo)
                .args([
                    "build",
                    "--quiet",
                    "--locked",
                    "--package",
                    "deploy-shell-admin",
                ])
                .current_dir(env!("CARGO_MANIFEST_DIR"))
                .status()
                .expect("cargo starts");
            assert!(built.success(), "deploy-shell-admin does not build");
        }
        let path = Path::new(BIN).with_file_name("deploy-shell-admin");
        assert!(path.exists(), "build {path:?} first");
        path
    })
}

/// Returns a printed command with the path of the program of this build.
pub fn with_admin(command: &str) -> String {
    let program = format!("'{}' ", admin().display());
    command.replace("deploy-shell-admin ", &program)
}

/// The harness kills the `ssh` of a request that takes longer. The longest request makes and
/// removes 100,000 files, which takes a slow disk over a minute beside other tests.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(300);

/// The maximum life of a connection: a test that forgets a child of `ssh_spawn` or
/// a control master leaves no `sshd` behind.
const CONNECTION_SECONDS: u32 = 600;

pub struct Site {
    dir: TempDir,
    root: PathBuf,
    config: PathBuf,
    user: String,
    collector: Collector,
}

#[derive(Clone, Debug)]
pub struct Reply {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Site {
    pub fn new() -> Site {
        Site::with_config("")
    }

    /// Creates a site. `extra` is TOML that follows `root = ".."`: top-level keys
    /// first, then tables. `{dir}` in it becomes the temporary directory. The
    /// harness adds an `[audit]` table if `extra` has none, and raises the limits of a
    /// key that `extra` does not name: one key stands for many clients here.
    pub fn with_config(extra: &str) -> Site {
        let dir = tempfile::Builder::new()
            .prefix("deploy-shell-")
            .tempdir()
            .expect("a temporary directory");
        set_mode(dir.path(), 0o755);
        let collector = Collector::start(&dir.path().join("audit.socket"));
        let user = User::from_uid(Uid::effective())
            .expect("the user database can be read")
            .expect("the user running the tests has an account")
            .name;
        let site = Site {
            root: dir.path().join("root"),
            config: dir.path().join("blog.toml"),
            dir,
            user,
            collector,
        };
        site.write_directories();
        site.configure(extra);
        site.write_sshd();
        site.add_key("ci", None);
        site
    }

    fn write_directories(&self) {
        for name in ["", "releases", "shared"] {
            make_directory(&self.root().join(name), 0o755);
        }
        for name in ["", "manifests", "incoming", "trash"] {
            make_directory(&self.root().join(".deploy-shell").join(name), 0o700);
        }
    }

    /// Replaces the configuration; `extra` is as in [`Site::with_config`].
    pub fn configure(&self, extra: &str) {
        let dir = self.dir().to_str().expect("a UTF-8 path");
        let mut text = format!("root = \"{dir}/root\"\n");
        text += &with_raised_limits(&extra.replace("{dir}", dir));
        if !extra.lines().any(|line| line.trim() == "[audit]") {
            text += &format!("\n[audit]\nsocket = \"{dir}/audit.socket\"\n");
        }
        write_file(self.config_path(), 0o644, text.as_bytes());
    }

    fn write_sshd(&self) {
        if Uid::effective().is_root() {
            make_directory(Path::new("/run/sshd"), 0o755);
        }
        let (private, public) = host_key();
        write_file(&self.dir().join("host_key"), 0o600, private);
        let known = format!("node {}", String::from_utf8_lossy(public));
        write_file(&self.dir().join("known_hosts"), 0o644, known.as_bytes());
        write_file(&self.dir().join("authorized_keys"), 0o644, b"");

        let dir = self.dir().display();
        // HOME is not that of the account, whose shell would read start-up files
        // there. StrictModes is off because the temporary directory is below a
        // world-writable one. UsePAM is off because the sshd of an ordinary user
        // cannot use it. The key exchange is that of older clients. The default of
        // OpenSSH 9 takes nearly as much processor time as the rest of a connection, and the
        // tests make thousands. `sshd/demo` uses the default.
        let config = format!(
            "HostKey {dir}/host_key\n\
             KexAlgorithms curve25519-sha256\n\
             AuthorizedKeysFile {dir}/authorized_keys\n\
             AuthenticationMethods publickey\n\
             PasswordAuthentication no\n\
             KbdInteractiveAuthentication no\n\
             PermitRootLogin prohibit-password\n\
             StrictModes no\n\
             UsePAM no\n\
             SetEnv HOME={dir}\n\
             ExposeAuthInfo yes\n\
             PermitUserEnvironment no\n\
             PrintMotd no\n\
             PrintLastLog no\n\
             MaxSessions 100\n\
             PidFile none\n\
             LogLevel ERROR\n\
             Subsystem sftp internal-sftp\n"
        );
        write_file(&self.dir().join("sshd_config"), 0o644, config.as_bytes());
    }

    /// Makes a key pair and appends its `authorized_keys` line.
    pub fn add_key(&self, label: &str, allow: Option<&str>) {
        let path = self.dir().join(format!("key-{label}"));
        let public = generate_key(&path);
        let mut command = format!(
            "{BIN} serve --config {} --key {label}",
            self.config_path().display()
        );
        if let Some(verbs) = allow {
            command += &format!(" --allow {verbs}");
        }
        let line = format!("restrict,command=\"{command}\" {public}");
        fs::OpenOptions::new()
            .append(true)
            .open(self.dir().join("authorized_keys"))
            .and_then(|mut file| file.write_all(line.as_bytes()))
            .expect("the key is added");
    }

    /// Returns `ssh` with every option, up to and including the destination.
    pub fn ssh_command(&self, key: &str) -> Command {
        let dir = self.dir().display();
        // ssh ends its proxy command with SIGHUP before sshd has removed the file
        // that it writes for ExposeAuthInfo.
        let proxy = format!(
            "ProxyCommand=sh -c 'trap \"\" HUP; timeout --kill-after=2 {CONNECTION_SECONDS} \
             /usr/sbin/sshd -i -f {dir}/sshd_config -E {dir}/sshd.log; :'"
        );
        let known = format!("UserKnownHostsFile={dir}/known_hosts");
        let mut command = Command::new("ssh");
        // $SHELL runs the proxy command.
        command.env("SHELL", "/bin/sh");
        command.env_remove("SSH_AUTH_SOCK");
        command.args(["-F", "none", "-T", "-i"]);
        command.arg(self.dir().join(format!("key-{key}")));
        for option in [
            proxy.as_str(),
            known.as_str(),
            "GlobalKnownHostsFile=/dev/null",
            "StrictHostKeyChecking=yes",
            "HostKeyAlias=node",
            "UpdateHostKeys=no",
            "BatchMode=yes",
            "IdentitiesOnly=yes",
            "PreferredAuthentications=publickey",
            "LogLevel=ERROR",
        ] {
            command.args(["-o", option]);
        }
        command.arg(format!("{}@node", self.user));
        command
    }

    pub fn ssh(&self, key: &str, request: &str) -> Reply {
        self.ssh_with_input(key, request, b"")
    }

    pub fn ssh_with_input(&self, key: &str, request: &str, input: &[u8]) -> Reply {
        let mut command = self.ssh_command(key);
        command.arg("--").arg(request);
        self.run(command, input)
    }

    /// Runs a command to its end, or kills its process group after a timeout.
    pub fn run(&self, mut command: Command, input: &[u8]) -> Reply {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        if input.is_empty() {
            command.stdin(Stdio::null());
        } else {
            command.stdin(Stdio::piped());
        }
        let mut child = command.process_group(0).spawn().expect("it starts");
        let group = Pid::from_raw(i32::try_from(child.id()).expect("a process id"));
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().expect("stdout is a pipe");
        let stderr = child.stderr.take().expect("stderr is a pipe");
        let done = AtomicBool::new(false);
        let (status, stdout, stderr) = thread::scope(|scope| {
            scope.spawn(|| {
                if let Some(mut stdin) = stdin {
                    // A server that refuses early closes the pipe, which is no error.
                    let _ = stdin.write_all(input);
                }
            });
            scope.spawn(|| {
                let started = Instant::now();
                while !done.load(Ordering::Relaxed) {
                    if started.elapsed() > REQUEST_TIMEOUT {
                        let _ = killpg(group, Signal::SIGKILL);
                        return;
                    }
                    thread::park_timeout(Duration::from_millis(20));
                }
            });
            let stdout = scope.spawn(|| read_all(stdout));
            let stderr = scope.spawn(|| read_all(stderr));
            let status = child.wait().expect("the child can be waited for");
            let texts = (
                stdout.join().expect("stdout is read"),
                stderr.join().expect("stderr is read"),
            );
            done.store(true, Ordering::Relaxed);
            (status, texts.0, texts.1)
        });
        let mut reply = Reply {
            code: status.code().unwrap_or(-1),
            stdout,
            stderr,
        };
        if reply.code == 255 || reply.code == -1 {
            // No request may end in this way. The log of sshd says why.
            let log = fs::read(self.dir().join("sshd.log")).unwrap_or_default();
            reply.stderr += &format!("[sshd log: {}]", String::from_utf8_lossy(&log));
        }
        reply
    }

    /// Starts a request. stdin, stdout and stderr are pipes.
    pub fn ssh_spawn(&self, key: &str, request: &str) -> Child {
        self.ssh_command(key)
            .arg("--")
            .arg(request)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("ssh starts")
    }

    pub fn receive(&self, release: &str, payload: &[u8]) -> Reply {
        self.ssh_with_input("ci", &Site::receive_command(release, payload), payload)
    }

    pub fn receive_command(release: &str, payload: &[u8]) -> String {
        format!("receive {release} --sha256 {}", sha256(payload))
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn config_path(&self) -> &Path {
        &self.config
    }

    /// Returns the release that the current symlink names.
    pub fn current(&self) -> Option<String> {
        let target = fs::read_link(self.root().join("current")).ok()?;
        let release = target
            .strip_prefix("releases")
            .unwrap_or_else(|_| panic!("current names {}", target.display()));
        Some(release.to_str().expect("a UTF-8 target").to_owned())
    }

    /// Gives everything below the root to another account. Only root can.
    #[track_caller]
    pub fn give_to(&self, account: &str) {
        self.give_below("", account);
    }

    /// As [`Site::give_to`], for everything at and below a path in the root.
    #[track_caller]
    pub fn give_below(&self, path: &str, account: &str) {
        let mut chown = Command::new("chown");
        chown.args(["-R", "--no-dereference", account]);
        let changed = chown.arg(self.root().join(path)).status();
        assert!(changed.expect("chown starts").success());
    }

    /// Runs a printed command. It may be one of the account's, which must not be root.
    #[track_caller]
    pub fn follow(&self, command: &str) {
        let is_root = Uid::effective().is_root();
        if is_root {
            self.give_to("daemon");
        }
        let done = Command::new("sh")
            .args(["-ec", &with_admin(command)])
            .output();
        let done = done.expect("sh starts");
        assert!(done.status.success(), "{command}: {done:?}");
        if is_root {
            self.give_to("root");
        }
    }

    pub fn releases(&self) -> Vec<String> {
        let names = children(&self.root().join("releases"));
        names.iter().map(|path| file_name(path)).collect()
    }

    /// Describes everything below the root except the lock, the journal and the counters.
    pub fn snapshot(&self) -> BTreeMap<PathBuf, String> {
        let mut found = BTreeMap::new();
        describe(self.root(), self.root(), &mut found);
        found.remove(Path::new(".deploy-shell/lock"));
        found.remove(Path::new(".deploy-shell/journal.jsonl"));
        found.retain(|path, _| !path.starts_with(".deploy-shell/limits"));
        found
    }

    /// Returns the content of the directories that are empty between requests.
    pub fn leftovers(&self) -> Vec<PathBuf> {
        let own = self.root().join(".deploy-shell");
        let mut found = children(&own.join("incoming"));
        found.extend(children(&own.join("trash")));
        found
    }

    /// Returns the records of the journal, since its checkpoint.
    pub fn journal(&self) -> Vec<serde_json::Value> {
        let mut lines = self.journal_lines();
        lines.retain(|line| !line["seq"].is_null());
        lines
    }

    /// Returns all records: those of the journal and of its old parts.
    pub fn history(&self) -> Vec<serde_json::Value> {
        let state = self.root().join(".deploy-shell");
        let number = |name: &str| -> Option<u64> {
            let number = name.strip_prefix("journal-")?.strip_suffix(".jsonl.zst")?;
            number.parse().ok()
        };
        let mut parts: Vec<u64> = fs::read_dir(&state)
            .expect("the state directory")
            .filter_map(|entry| number(entry.expect("an entry").file_name().to_str()?))
            .collect();
        parts.sort_unstable();
        let mut text = Vec::new();
        for part in parts {
            let part = fs::File::open(state.join(format!("journal-{part}.jsonl.zst")));
            text.extend(zstd::decode_all(part.expect("a part")).expect("zstd frames"));
        }
        text.extend(fs::read(state.join("journal.jsonl")).expect("a journal"));
        let text = String::from_utf8(text).expect("UTF-8");
        let lines = text.lines();
        let lines = lines.map(|line| serde_json::from_str(line).expect("a line is JSON"));
        lines
            .filter(|line: &serde_json::Value| !line["seq"].is_null())
            .collect()
    }

    pub fn journal_lines(&self) -> Vec<serde_json::Value> {
        let path = self.root().join(".deploy-shell/journal.jsonl");
        let text = fs::read_to_string(path).unwrap_or_default();
        text.lines()
            .map(|line| serde_json::from_str(line).expect("a journal line is JSON"))
            .collect()
    }

    /// Makes every record of the journal older by this duration.
    pub fn age_journal(&self, by: jiff::SignedDuration) {
        let mut text = String::new();
        for mut line in self.journal_lines() {
            if let Some(time) = line["time"].as_str() {
                let time: jiff::Timestamp = time.parse().expect("RFC 3339");
                line["time"] = (time - by).to_string().into();
            }
            text += &format!("{line}\n");
        }
        let path = self.root().join(".deploy-shell/journal.jsonl");
        fs::write(path, text).expect("the journal");
    }

    /// Returns the audit lines of removed releases so far.
    pub fn removal_lines(&self) -> Vec<String> {
        let mut lines = self.audit_lines();
        lines.retain(|line| line.contains("event=\"pruned\""));
        lines
    }

    /// Returns all audit lines so far, once no line has come for 50 ms.
    pub fn audit_lines(&self) -> Vec<String> {
        self.collector.lines()
    }
}

/// Adds each limit of a key that `config` does not have.
fn with_raised_limits(config: &str) -> String {
    let mut config = config.to_owned();
    for (table, key, value) in [
        ("[pending]", "max_per_key", 100_000),
        ("[limits]", "attempts_per_hour", 100_000),
        ("[limits]", "swaps_per_minute", 100_000),
        ("[limits]", "uploads_per_key", 100),
        ("[limits]", "uploads", 101),
    ] {
        let is_set = |line: &str| line.starts_with(&format!("{key} = "));
        if config.lines().any(is_set) {
            continue;
        }
        let added = format!("{table}\n{key} = {value}\n");
        let header = format!("{table}\n");
        if config.contains(&header) {
            config = config.replacen(&header, &added, 1);
        } else {
            config += &format!("\n{added}");
        }
    }
    config
}

impl Reply {
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.stdout
    }

    #[track_caller]
    pub fn refused(&self, code: i32, word: &str) {
        assert_eq!(self.code, code, "{self:?}");
        assert_eq!(self.stdout, "", "{self:?}");
        let start = format!("deploy-shell: {word}: ");
        assert!(self.stderr.starts_with(&start), "{self:?}");
        assert!(self.stderr.ends_with('\n'), "{self:?}");
        let lines: Vec<&str> = self.stderr.lines().collect();
        assert!(lines.len() <= 2, "{self:?}");
        for line in lines {
            let printable = line.bytes().all(|byte| (b' '..=b'~').contains(&byte));
            assert!(printable && !line.is_empty(), "{self:?}");
        }
    }
}

/// Returns the host key of this process: the private and the public part.
fn host_key() -> &'static (Vec<u8>, Vec<u8>) {
    static KEY: OnceLock<(Vec<u8>, Vec<u8>)> = OnceLock::new();
    KEY.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("key");
        let public = generate_key(&path);
        let private = fs::read(&path).expect("the key was made");
        (private, public.into_bytes())
    })
}

/// Makes a key pair at `path` and returns the public line.
pub fn generate_key(path: &Path) -> String {
    let status = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f"])
        .arg(path)
        .stdin(Stdio::null())
        .status()
        .expect("ssh-keygen starts");
    assert!(status.success(), "ssh-keygen: {status}");
    fs::read_to_string(path.with_extension("pub")).expect("the public key")
}

fn read_all(mut pipe: impl Read) -> String {
    let mut bytes = Vec::new();
    let _ = pipe.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}
