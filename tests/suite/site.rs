//! The harness: one site with its configuration, its keys, a real `sshd` for
//! every connection and a stand-in for syslog, all in one temporary folder.
//!
//! `sshd -i` runs as the client's `ProxyCommand`, so there is no port, no
//! daemon and no need to be root. Nothing outside the temporary folder is
//! written, except `/run/sshd`, which `sshd` demands when it runs as root.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, Uid, User};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

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

/// The longest a single request may take before its `ssh` is killed.
const PATIENCE: Duration = Duration::from_secs(60);

/// The longest any connection may live, so that a test that forgets a child
/// of `ssh_spawn` or a control master leaves no `sshd` behind.
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

    /// `extra` is TOML that follows `root = ".."`: top-level keys first, then
    /// tables. `{dir}` in it stands for the temporary folder. An `[audit]`
    /// table is added unless `extra` has one.
    pub fn with_config(extra: &str) -> Site {
        let dir = tempfile::Builder::new()
            .prefix("deploy-shell-")
            .tempdir()
            .expect("a temporary folder");
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
        site.write_folders();
        site.configure(extra);
        site.write_sshd();
        site.add_key("ci", None);
        site
    }

    fn write_folders(&self) {
        for name in ["", "releases", "shared"] {
            make_folder(&self.root().join(name), 0o755);
        }
        for name in ["", "manifests", "incoming", "trash"] {
            make_folder(&self.root().join(".deploy-shell").join(name), 0o700);
        }
    }

    /// Another configuration, in the terms of [`Site::with_config`].
    pub fn configure(&self, extra: &str) {
        let dir = self.dir().to_str().expect("a UTF-8 path");
        let mut text = format!("root = \"{dir}/root\"\n");
        text += &extra.replace("{dir}", dir);
        if !extra.lines().any(|line| line.trim() == "[audit]") {
            text += &format!("\n[audit]\nsocket = \"{dir}/audit.socket\"\n");
        }
        write_file(self.config_path(), 0o644, text.as_bytes());
    }

    fn write_sshd(&self) {
        if Uid::effective().is_root() {
            make_folder(Path::new("/run/sshd"), 0o755);
        }
        let (private, public) = host_key();
        write_file(&self.dir().join("host_key"), 0o600, private);
        let known = format!("node {}", String::from_utf8_lossy(public));
        write_file(&self.dir().join("known_hosts"), 0o644, known.as_bytes());
        write_file(&self.dir().join("authorized_keys"), 0o644, b"");

        let dir = self.dir().display();
        // HOME is not the account's, whose shell would read start-up files there.
        // StrictModes is off because a temporary folder is beneath a
        // world-writable one. UsePAM is off because an ordinary user's sshd
        // cannot use it.
        let config = format!(
            "HostKey {dir}/host_key\n\
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

    /// A new key pair and its `authorized_keys` line.
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

    /// `ssh` with every option, up to and including the destination.
    pub fn ssh_command(&self, key: &str) -> Command {
        let dir = self.dir().display();
        // ssh ends its proxy command with SIGHUP before sshd has removed the
        // note that ExposeAuthInfo makes it write.
        let proxy = format!(
            "ProxyCommand=sh -c 'trap \"\" HUP; timeout --kill-after=2 {CONNECTION_SECONDS} \
             /usr/sbin/sshd -i -f {dir}/sshd_config -E {dir}/sshd.log; :'"
        );
        let known = format!("UserKnownHostsFile={dir}/known_hosts");
        let mut command = Command::new("ssh");
        // The proxy command is run by $SHELL, whatever that is here.
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

    /// Runs a command to its end, or kills it with everything it started.
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
                    // A server that refuses early closes the pipe: no error here.
                    let _ = stdin.write_all(input);
                }
            });
            scope.spawn(|| {
                let started = Instant::now();
                while !done.load(Ordering::Relaxed) {
                    if started.elapsed() > PATIENCE {
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
            // No request may end so; say what sshd thought of it.
            let log = fs::read(self.dir().join("sshd.log")).unwrap_or_default();
            reply.stderr += &format!("[sshd log: {}]", String::from_utf8_lossy(&log));
        }
        reply
    }

    /// A request left running: stdin, stdout and stderr are pipes.
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

    /// The release the link points to.
    pub fn current(&self) -> Option<String> {
        let target = fs::read_link(self.root().join("current")).ok()?;
        let release = target
            .strip_prefix("releases")
            .unwrap_or_else(|_| panic!("current points to {}", target.display()));
        Some(release.to_str().expect("a UTF-8 link").to_owned())
    }

    pub fn releases(&self) -> Vec<String> {
        let names = children(&self.root().join("releases"));
        names.iter().map(|path| file_name(path)).collect()
    }

    /// Everything below the root, but for the lock and the journal.
    pub fn snapshot(&self) -> BTreeMap<PathBuf, String> {
        let mut found = BTreeMap::new();
        describe(self.root(), self.root(), &mut found);
        found.remove(Path::new(".deploy-shell/lock"));
        found.remove(Path::new(".deploy-shell/journal.jsonl"));
        found
    }

    /// What stands in the folders that are empty between requests.
    pub fn leftovers(&self) -> Vec<PathBuf> {
        let own = self.root().join(".deploy-shell");
        let mut found = children(&own.join("incoming"));
        found.extend(children(&own.join("trash")));
        found
    }

    pub fn journal(&self) -> Vec<serde_json::Value> {
        let path = self.root().join(".deploy-shell/journal.jsonl");
        let text = fs::read_to_string(path).unwrap_or_default();
        text.lines()
            .map(|line| serde_json::from_str(line).expect("a journal line is JSON"))
            .collect()
    }

    /// All audit lines so far, once none has come for a moment.
    pub fn audit_lines(&self) -> Vec<String> {
        self.collector.lines()
    }
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

/// Syslog's stand-in: keeps every datagram, in order.
struct Collector {
    heard: Arc<Mutex<(Vec<String>, Instant)>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Collector {
    fn start(path: &Path) -> Collector {
        let socket = UnixDatagram::bind(path).expect("the audit socket");
        set_mode(path, 0o666);
        // The wait is bounded only so that the thread sees it should end.
        socket
            .set_read_timeout(Some(Duration::from_millis(20)))
            .expect("a read timeout");
        let heard = Arc::new(Mutex::new((Vec::new(), Instant::now())));
        let stop = Arc::new(AtomicBool::new(false));
        let (sink, ended) = (Arc::clone(&heard), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            let mut buffer = vec![0; 65536];
            while !ended.load(Ordering::Relaxed) {
                if let Ok(length) = socket.recv(&mut buffer) {
                    let line = String::from_utf8_lossy(&buffer[..length]).into_owned();
                    let mut heard = sink.lock().expect("no test panics here");
                    heard.0.push(line);
                    heard.1 = Instant::now();
                }
            }
        });
        Collector {
            heard,
            stop,
            thread: Some(thread),
        }
    }

    fn lines(&self) -> Vec<String> {
        let quiet = Duration::from_millis(50);
        let asked = Instant::now();
        loop {
            let heard = self.heard.lock().expect("no test panics here");
            if heard.1.max(asked).elapsed() >= quiet {
                return heard.0.clone();
            }
            drop(heard);
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// One host key for the whole process: private part, public part.
fn host_key() -> &'static (Vec<u8>, Vec<u8>) {
    static KEY: OnceLock<(Vec<u8>, Vec<u8>)> = OnceLock::new();
    KEY.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("key");
        let public = generate_key(&path);
        let private = fs::read(&path).expect("the key was made");
        (private, public.into_bytes())
    })
}

/// A new key pair at `path`; returns the public line.
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

pub fn sha256(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A file with exactly this mode, whatever the umask.
pub fn write_file(path: &Path, mode: u32, content: &[u8]) {
    fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| file.write_all(content))
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    set_mode(path, mode);
    if mode & 0o111 != 0 {
        // To be executed. A child that another thread has started meanwhile may
        // hold what we wrote open, and then it is not (ETXTBSY); so it is written
        // once more, by a process of its own.
        let written = path.with_extension("written");
        fs::rename(path, &written).expect("another name");
        let copied = Command::new("cp").arg(&written).arg(path).status();
        assert!(copied.expect("cp runs").success(), "{}", path.display());
        fs::remove_file(&written).expect("it was there");
        set_mode(path, mode);
    }
}

pub fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

fn make_folder(path: &Path, mode: u32) {
    if !path.is_dir() {
        fs::create_dir_all(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        set_mode(path, mode);
    }
}

fn read_all(mut pipe: impl Read) -> String {
    let mut bytes = Vec::new();
    let _ = pipe.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The entries of a folder, sorted; none if there is no such folder.
fn children(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = match fs::read_dir(folder) {
        Ok(entries) => entries.map(|entry| entry.expect("entry").path()).collect(),
        Err(_) => Vec::new(),
    };
    found.sort();
    found
}

fn file_name(path: &Path) -> String {
    let name = path.file_name().expect("a name");
    name.to_str().expect("a UTF-8 name").to_owned()
}

fn describe(root: &Path, folder: &Path, found: &mut BTreeMap<PathBuf, String>) {
    for path in children(folder) {
        let meta = fs::symlink_metadata(&path).expect("it is there");
        let mode = meta.permissions().mode() & 0o7777;
        let kind = meta.file_type();
        let text = if kind.is_symlink() {
            let target = fs::read_link(&path).expect("a link");
            format!("link -> {}", target.display())
        } else if kind.is_dir() {
            describe(root, &path, found);
            format!("folder {mode:04o}")
        } else if kind.is_file() {
            let content = fs::read(&path).expect("a file");
            format!("file {mode:04o} {}", sha256(&content))
        } else {
            format!("special {kind:?}")
        };
        let below = path.strip_prefix(root).expect("beneath the root");
        found.insert(below.to_owned(), text);
    }
}
