//! Proof by attack. A hostile process restricts itself with the program's own
//! sandbox code, and then tries every way out that it knows. The kernel must
//! refuse each of them.
//!
//! Each attempt runs in its own process (this test binary, executed again),
//! because most attempts end it. A control run without the sandbox shows that the
//! attempt works there: a check that cannot fail proves nothing.

#![forbid(unsafe_code)]
#![allow(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    reason = "the bans are for the program"
)]

use std::fs::{self, File, OpenOptions};
use std::io::{Error, ErrorKind, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::{ExitStatusExt, parent_id};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use deploy_shell::config::Config;
use deploy_shell::dir::Dir;
use deploy_shell::policy::Verb;
use deploy_shell::store::Store;
use deploy_shell::{privileges, sandbox};
use nix::libc;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::{Pid, getsid};

type Outcome = std::io::Result<()>;

/// An attack, and the sandboxed processes that must not succeed with it.
struct Attempt {
    name: &'static str,
    refused_to: &'static [&'static str],
    refusal: Refusal,
    run: fn(&Site) -> Outcome,
}

/// The result that proves that the sandbox refused an attempt.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Refusal {
    /// An error, or SIGSYS.
    Any,
    /// SIGSYS alone. This kernel may lack the call: then an error proves nothing, and
    /// the control run fails as well.
    Killed,
}

const SIGNAL: &str = "signal the parent";
const UNPACKER: &str = "unpacker";
const PROBE: &str = "probe";
const RECEIVE: &str = "receive";
const SWAP: &str = "swap";
const ROLLBACK: &str = "rollback";
const LIST: &str = "list";
/// The control run: no sandbox.
const CONTROL: &str = "control";
const EVERYONE: &[&str] = &[UNPACKER, PROBE, RECEIVE, SWAP, ROLLBACK, LIST];
const ALL_WITHOUT_EXEC: &[&str] = &[UNPACKER, PROBE, SWAP, ROLLBACK, LIST];

/// The site that is attacked: `site.toml`, `root/` with a release in it, and
/// `beside/`, which is outside of the site.
struct Site(PathBuf);

impl Site {
    fn path(&self, path: &str) -> PathBuf {
        self.0.join(path)
    }
}

const ATTEMPTS: &[Attempt] = &[
    Attempt {
        name: "read a file of the system",
        refused_to: EVERYONE,
        refusal: Refusal::Any,
        run: |_| File::open("/etc/passwd").map(drop),
    },
    Attempt {
        name: "read a secret beside the site",
        refused_to: EVERYONE,
        refusal: Refusal::Any,
        run: |site| File::open(site.path("beside/secret")).map(drop),
    },
    Attempt {
        name: "list a directory beside the site",
        refused_to: EVERYONE,
        refusal: Refusal::Any,
        run: |site| fs::read_dir(site.path("beside")).map(drop),
    },
    Attempt {
        name: "write beside the site",
        refused_to: EVERYONE,
        refusal: Refusal::Any,
        run: |site| fs::write(site.path("beside/new"), "x"),
    },
    Attempt {
        name: "write through the working directory's parent",
        refused_to: &[UNPACKER, PROBE],
        refusal: Refusal::Any,
        run: |_| fs::write("../escaped", "x"),
    },
    Attempt {
        name: "write through a symlink out of the staging directory",
        refused_to: EVERYONE,
        refusal: Refusal::Any,
        run: |site| {
            symlink(site.path("beside"), "way-out")?;
            fs::write("way-out/new", "x")
        },
    },
    Attempt {
        name: "read the configuration",
        refused_to: EVERYONE,
        refusal: Refusal::Any,
        run: |site| File::open(site.path("site.toml")).map(drop),
    },
    Attempt {
        name: "create a file in the site's root",
        refused_to: EVERYONE,
        refusal: Refusal::Any,
        run: |site| fs::write(site.path("root/new"), "x"),
    },
    Attempt {
        name: "change a file of a release",
        refused_to: EVERYONE,
        refusal: Refusal::Any,
        run: |site| append(&site.path("root/releases/r1/index.html")),
    },
    Attempt {
        name: "truncate a file of a release",
        refused_to: EVERYONE,
        refusal: Refusal::Any,
        run: |site| {
            let path = site.path("root/releases/r1/index.html");
            let file = OpenOptions::new().write(true).truncate(true).open(path);
            file.map(drop)
        },
    },
    Attempt {
        name: "add a file to a release",
        refused_to: EVERYONE,
        refusal: Refusal::Any,
        run: |site| fs::write(site.path("root/releases/r1/new.html"), "x"),
    },
    Attempt {
        name: "remove a file of a release",
        refused_to: &[UNPACKER, PROBE, RECEIVE, LIST],
        refusal: Refusal::Any,
        run: |site| fs::remove_file(site.path("root/releases/r1/index.html")),
    },
    Attempt {
        name: "move a release away",
        refused_to: &[UNPACKER, PROBE, RECEIVE, LIST],
        refusal: Refusal::Any,
        run: |site| {
            let (from, to) = ("root/releases/r1", "root/.deploy-shell/trash/r1");
            fs::rename(site.path(from), site.path(to))
        },
    },
    Attempt {
        name: "replace the current symlink",
        refused_to: &[UNPACKER, PROBE, RECEIVE, LIST],
        refusal: Refusal::Any,
        run: |site| {
            symlink("releases/r1", site.path("root/.deploy-shell/next"))?;
            fs::rename(
                site.path("root/.deploy-shell/next"),
                site.path("root/current"),
            )
        },
    },
    Attempt {
        name: "write the journal",
        refused_to: &[UNPACKER, PROBE, LIST],
        refusal: Refusal::Any,
        run: |site| append(&site.path("root/.deploy-shell/journal.jsonl")),
    },
    Attempt {
        name: "write a shared file",
        refused_to: EVERYONE,
        refusal: Refusal::Any,
        run: |site| append(&site.path("root/shared/.env")),
    },
    Attempt {
        name: "write a shared file through a release's symlink",
        refused_to: EVERYONE,
        refusal: Refusal::Any,
        run: |site| append(&site.path("root/releases/r1/.env")),
    },
    Attempt {
        name: "read a shared file through a new symlink",
        refused_to: &[UNPACKER],
        refusal: Refusal::Any,
        run: |_| {
            symlink("../../../../shared/.env", "mine")?;
            fs::read("mine").map(drop)
        },
    },
    Attempt {
        name: "execute a program of the system",
        refused_to: EVERYONE,
        refusal: Refusal::Any,
        run: |_| Command::new("/bin/true").status().map(drop),
    },
    Attempt {
        name: "execute this program itself",
        refused_to: ALL_WITHOUT_EXEC,
        refusal: Refusal::Any,
        run: |_| {
            Command::new("/proc/self/exe")
                .arg("nothing")
                .status()
                .map(drop)
        },
    },
    Attempt {
        name: "start a thread",
        refused_to: ALL_WITHOUT_EXEC,
        refusal: Refusal::Any,
        run: |_| std::thread::Builder::new().spawn(|| ()).map(drop),
    },
    Attempt {
        name: "connect out by TCP",
        refused_to: EVERYONE,
        refusal: Refusal::Any,
        run: |_| not_refused_by_peer(std::net::TcpStream::connect("127.0.0.1:9").map(drop)),
    },
    Attempt {
        name: "connect out by an abstract socket",
        refused_to: &[UNPACKER, PROBE],
        refusal: Refusal::Any,
        run: |_| {
            let name = std::os::unix::net::SocketAddr::from_abstract_name("deploy-shell-nobody")?;
            let made = std::os::unix::net::UnixStream::connect_addr(&name);
            not_refused_by_peer(made.map(drop))
        },
    },
    Attempt {
        name: "read a file of the upload",
        refused_to: &[UNPACKER, PROBE],
        refusal: Refusal::Any,
        run: |_| File::open("own").map(drop),
    },
    Attempt {
        name: "create a file in the working directory",
        refused_to: &[PROBE],
        refusal: Refusal::Any,
        run: |_| fs::write("new", "x"),
    },
    Attempt {
        name: "send by UDP",
        refused_to: EVERYONE,
        refusal: Refusal::Any,
        run: |_| std::net::UdpSocket::bind("127.0.0.1:0").map(drop),
    },
    Attempt {
        name: "create a local socket",
        refused_to: &[UNPACKER, PROBE],
        refusal: Refusal::Any,
        run: |_| std::os::unix::net::UnixDatagram::unbound().map(drop),
    },
    Attempt {
        name: "listen on a local socket",
        refused_to: EVERYONE,
        refusal: Refusal::Any,
        run: |site| {
            std::os::unix::net::UnixListener::bind(site.path("root/.deploy-shell/s")).map(drop)
        },
    },
    Attempt {
        name: "trace the parent",
        refused_to: EVERYONE,
        refusal: Refusal::Any,
        run: |_| {
            nix::sys::ptrace::seize(parent(), nix::sys::ptrace::Options::empty())?;
            Ok(())
        },
    },
    Attempt {
        name: SIGNAL,
        refused_to: EVERYONE,
        refusal: Refusal::Any,
        run: |_| Ok(kill(parent(), None)?),
    },
    Attempt {
        name: "read the parent's memory through /proc",
        refused_to: EVERYONE,
        refusal: Refusal::Any,
        run: |_| {
            let mut byte = [0];
            let path = format!("/proc/{}/environ", parent_id());
            File::open(path)?.read(&mut byte).map(drop)
        },
    },
    Attempt {
        name: "read the parent's memory by system call",
        refused_to: EVERYONE,
        refusal: Refusal::Any,
        run: |_| {
            let remote = nix::sys::uio::RemoteIoVec { base: 0, len: 1 };
            let mut byte = [0];
            let mut local = [std::io::IoSliceMut::new(&mut byte)];
            match nix::sys::uio::process_vm_readv(parent(), &mut local, &[remote]) {
                // Nothing is mapped at address 0: the kernel looked there.
                Ok(_) | Err(nix::Error::EFAULT) => Ok(()),
                Err(errno) => Err(errno.into()),
            }
        },
    },
    Attempt {
        name: "make a file set-user-id",
        refused_to: EVERYONE,
        refusal: Refusal::Any,
        run: |_| fs::set_permissions("own", fs::Permissions::from_mode(0o4777)),
    },
    Attempt {
        name: "change the owner of a file",
        refused_to: EVERYONE,
        refusal: Refusal::Any,
        run: |_| {
            let own = nix::unistd::geteuid().as_raw();
            std::os::unix::fs::chown("own", Some(own), None)
        },
    },
    Attempt {
        name: "create a hard link",
        refused_to: EVERYONE,
        refusal: Refusal::Any,
        run: |site| fs::hard_link(site.path("beside/secret"), "secret"),
    },
    Attempt {
        name: "create a fifo",
        refused_to: EVERYONE,
        refusal: Refusal::Any,
        run: |_| Ok(nix::unistd::mkfifo("fifo", nix::sys::stat::Mode::S_IRUSR)?),
    },
    Attempt {
        name: "remove its own file",
        refused_to: &[UNPACKER, PROBE, LIST],
        refusal: Refusal::Any,
        run: |_| fs::remove_file("own"),
    },
    Attempt {
        name: "fill the memory",
        refused_to: &[UNPACKER, PROBE],
        refusal: Refusal::Any,
        run: |_| {
            let mut all: Vec<u8> = Vec::new();
            let reserved = all.try_reserve_exact(3 << 30);
            reserved.map_err(|_| ErrorKind::OutOfMemory.into())
        },
    },
    Attempt {
        name: "write a file larger than the limit",
        refused_to: &[UNPACKER, PROBE],
        refusal: Refusal::Any,
        run: |_| {
            let file = OpenOptions::new()
                .create_new(true)
                .write(true)
                .open("large")?;
            std::os::unix::fs::FileExt::write_all_at(&file, b"x", MAX_FILE)
        },
    },
    Attempt {
        name: "call getpid(2) by the x32 ABI",
        refused_to: EVERYONE,
        refusal: Refusal::Killed,
        run: |_| raw_syscall(X32_GETPID),
    },
    Attempt {
        name: "call execve(2) by the x32 ABI",
        refused_to: EVERYONE,
        refusal: Refusal::Killed,
        run: |_| raw_syscall(X32_EXECVE),
    },
    #[cfg(target_arch = "x86_64")]
    Attempt {
        name: "call getpid(2) by the i386 ABI",
        refused_to: EVERYONE,
        refusal: Refusal::Killed,
        run: |_| raw_syscall(I386_GETPID),
    },
    Attempt {
        name: "create a process by clone3(2)",
        refused_to: EVERYONE,
        refusal: Refusal::Any,
        run: |_| raw_syscall(CLONE3),
    },
    Attempt {
        name: "create a namespace by clone(2)",
        refused_to: EVERYONE,
        refusal: Refusal::Any,
        run: |_| raw_syscall(CLONE_NEW_NAMESPACE),
    },
];

/// The calls of `attack/raw_syscalls.c`.
const X32_GETPID: i32 = 1;
const X32_EXECVE: i32 = 2;
#[cfg(target_arch = "x86_64")]
const I386_GETPID: i32 = 3;
const CLONE3: i32 = 4;
const CLONE_NEW_NAMESPACE: i32 = 5;

/// Makes a system call by the preloaded object, which replaces getsid(3).
fn raw_syscall(which: i32) -> Outcome {
    match getsid(Some(Pid::from_raw(which))) {
        // Bad arguments: the kernel's implementation of the call examined them.
        Ok(_) | Err(nix::Error::EFAULT | nix::Error::EINVAL) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// The maximum size of a file in this test, in bytes.
const MAX_FILE: u64 = 1 << 20;

fn append(path: &Path) -> Outcome {
    let mut file = OpenOptions::new().append(true).open(path)?;
    file.write_all(b"x")
}

/// Nothing listens there: a refusal by the peer means that the connection got out.
fn not_refused_by_peer(outcome: Outcome) -> Outcome {
    match outcome {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(()),
        other => other,
    }
}

fn parent() -> Pid {
    Pid::from_raw(parent_id() as i32)
}

/// The exit statuses of an attempt: it succeeded, it failed with an error, or the
/// sandbox was not complete.
const SUCCEEDED: u8 = 10;
const FAILED: u8 = 11;
const NOT_SANDBOXED: u8 = 12;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    match args
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .as_slice()
    {
        [_, "attempt", who, name, site] => {
            ExitCode::from(attack_from_inside(who, name, Path::new(site)))
        }
        // Stands for the program's own image: it was executed.
        [_, "nothing"] => ExitCode::SUCCESS,
        _ => run_all(),
    }
}

/// Inside: enters the sandbox of `who`, then makes the attempt.
fn attack_from_inside(who: &str, name: &str, site: &Path) -> u8 {
    let attempt = ATTEMPTS
        .iter()
        .find(|attempt| attempt.name == name)
        .expect("a known attempt");
    // With SIGXFSZ blocked, a file that is too large is an error, as in the program.
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGXFSZ);
    signals.thread_block().expect("SIGXFSZ can be blocked");
    let verb = match who {
        RECEIVE => Some(Verb::Receive),
        SWAP => Some(Verb::Swap),
        ROLLBACK => Some(Verb::Rollback),
        LIST => Some(Verb::List),
        _ => None,
    };
    let enforcement = match (who, verb) {
        (CONTROL, _) => None,
        (PROBE, _) => Some(sandbox::restrict_probe()),
        (_, Some(verb)) => {
            let config = Config::load(&site.join("site.toml")).expect("the configuration");
            let store = Store::open(&config).expect("the site");
            let records = store.records(verb.writes()).expect("the records");
            Some(privileges::restrict_monitor(verb, &store, &records))
        }
        _ => {
            let staging = Dir::working().expect("the staging directory");
            let enforcement = sandbox::restrict_unpacker(&staging, MAX_FILE, 1 << 30);
            Some(sandbox::restrict_unpacker_syscalls(enforcement))
        }
    };
    if enforcement.is_some_and(|enforcement| !enforcement.is_full()) {
        return NOT_SANDBOXED;
    }
    match (attempt.run)(&Site(site.to_owned())) {
        Ok(()) => SUCCEEDED,
        Err(_) => FAILED,
    }
}

/// Outside: the control run of every attempt, and the attempt by every process that
/// must not succeed with it.
fn run_all() -> ExitCode {
    let objects = tempfile::tempdir().expect("a temporary directory");
    let preload = compile_raw_syscalls(objects.path());
    let (mut passed, mut failed) = (0, 0);
    let mut verdict = |holds: bool, line: String| {
        println!("{} {line}", if holds { "ok    " } else { "FAILED" });
        if holds { passed += 1 } else { failed += 1 }
    };
    for attempt in ATTEMPTS {
        let name = attempt.name;
        let (result, _) = run(name, CONTROL, &preload);
        if attempt.refusal == Refusal::Killed && result != Ended::Succeeded {
            println!("note: this kernel does not know it without a sandbox: {name} ({result:?})");
            if result != Ended::Failed {
                // The processor refuses it before any filter runs.
                println!("skipped: {name}");
                continue;
            }
        } else {
            verdict(
                result == Ended::Succeeded,
                format!("without a sandbox: {name} ({result:?})"),
            );
        }
        for who in attempt.refused_to {
            if name == SIGNAL && *who == RECEIVE && kernel_is_before(6, 12) {
                println!("skipped: Landlock confines signals from Linux 6.12 on");
                continue;
            }
            let (result, untouched) = run(name, who, &preload);
            let refused = match attempt.refusal {
                Refusal::Any => matches!(result, Ended::Failed | Ended::Killed),
                Refusal::Killed => result == Ended::Killed,
            };
            verdict(
                refused && untouched,
                format!("refused to {who}: {name} ({result:?})"),
            );
        }
    }
    println!("{passed} passed, {failed} failed");
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Compiles the system calls that safe Rust cannot make.
fn compile_raw_syscalls(directory: &Path) -> PathBuf {
    let (source, object) = (directory.join("raw.c"), directory.join("raw.so"));
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).expect("our directory");
    fs::write(&source, include_str!("attack/raw_syscalls.c")).expect("the source is written");
    let status = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
        .args([&object, &source])
        .status();
    assert!(status.expect("cc runs").success(), "cc compiles");
    object
}

fn kernel_is_before(major: u32, minor: u32) -> bool {
    let name = nix::sys::utsname::uname().expect("uname");
    let release = name.release().to_string_lossy().into_owned();
    let mut numbers = release
        .split(['.', '-'])
        .map_while(|part| part.parse::<u32>().ok());
    (numbers.next(), numbers.next()) < (Some(major), Some(minor))
}

#[derive(Debug, PartialEq, Eq)]
enum Ended {
    Succeeded,
    Failed,
    Killed,
    NotSandboxed,
    Otherwise(String),
}

/// Makes one attempt at a new site. Returns its end, and whether everything outside
/// the site is unchanged.
fn run(name: &str, who: &str, preload: &Path) -> (Ended, bool) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let site = Site(directory.path().to_owned());
    let staging = prepare(&site).expect("the site");
    let status = Command::new(std::env::current_exe().expect("this binary"))
        .args(["attempt", who, name])
        .arg(&site.0)
        .env("LD_PRELOAD", preload)
        .current_dir(staging)
        .stderr(Stdio::null())
        .stdin(Stdio::null())
        .status()
        .expect("this binary runs");
    let ended = match (status.code().map(u8::try_from), status.signal()) {
        (Some(Ok(SUCCEEDED)), _) => Ended::Succeeded,
        (Some(Ok(FAILED)), _) => Ended::Failed,
        (Some(Ok(NOT_SANDBOXED)), _) => Ended::NotSandboxed,
        (None, Some(libc::SIGSYS)) => Ended::Killed,
        _ => Ended::Otherwise(status.to_string()),
    };
    let beside = fs::read_dir(site.path("beside")).map(Iterator::count);
    let secret = fs::read(site.path("beside/secret")).unwrap_or_default();
    (
        ended,
        beside.is_ok_and(|count| count == 1) && secret == b"secret",
    )
}

fn prepare(site: &Site) -> Result<PathBuf, Error> {
    let root = site.path("root");
    fs::set_permissions(&site.0, fs::Permissions::from_mode(0o755))?;
    let state = root.join(".deploy-shell");
    let staging = state.join("incoming/r2.1.0/tree");
    for directory in [
        "releases/r1",
        "shared",
        ".deploy-shell/manifests",
        ".deploy-shell/trash",
    ] {
        fs::create_dir_all(root.join(directory))?;
    }
    fs::create_dir_all(&staging)?;
    fs::create_dir(site.path("beside"))?;
    for directory in [
        "",
        "releases",
        ".deploy-shell/incoming",
        ".deploy-shell/manifests",
        ".deploy-shell/trash",
    ] {
        fs::set_permissions(root.join(directory), fs::Permissions::from_mode(0o755))?;
    }
    fs::set_permissions(&state, fs::Permissions::from_mode(0o700))?;
    fs::write(site.path("beside/secret"), "secret")?;
    fs::write(root.join("releases/r1/index.html"), "live")?;
    fs::write(root.join("shared/.env"), "KEY=1")?;
    symlink("../../shared/.env", root.join("releases/r1/.env"))?;
    fs::write(state.join("journal.jsonl"), "")?;
    fs::write(staging.join("own"), "own")?;
    symlink("releases/r1", root.join("current"))?;
    let config = site.path("site.toml");
    fs::write(&config, format!("root = \"{}\"\n", root.display()))?;
    fs::set_permissions(&config, fs::Permissions::from_mode(0o644))?;
    Ok(staging)
}
