//! Proof by attack. The confinement of the program, put on by the program's
//! own code, with a hostile process inside: it tries to get out in every way
//! it knows, and each has to be refused by the kernel.
//!
//! Every attempt is a process of its own (this binary, executed anew), because
//! most attempts end it. A control run without confinement shows that each
//! attempt would have worked: a check that cannot fail is none.

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
use deploy_shell::sandbox;
use deploy_shell::store::Store;
use nix::libc;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;

type Outcome = std::io::Result<()>;

/// What is tried, and by which confined processes it must be refused.
struct Attempt {
    name: &'static str,
    refused_to: &'static [&'static str],
    run: fn(&Ground) -> Outcome,
}

const SIGNAL: &str = "signal the parent";
const UNPACKER: &str = "unpacker";
const PROBE: &str = "probe";
const RECEIVE: &str = "receive";
const SWAP: &str = "swap";
const ROLLBACK: &str = "rollback";
const LIST: &str = "list";
const EVERYONE: &[&str] = &[UNPACKER, PROBE, RECEIVE, SWAP, ROLLBACK, LIST];
const MONITORS_WITHOUT_EXEC: &[&str] = &[UNPACKER, PROBE, SWAP, ROLLBACK, LIST];

/// The site that is attacked: `site.toml`, `root/` with a release in it, and
/// `beside/`, which is none of the program's business.
struct Ground(PathBuf);

impl Ground {
    fn at(&self, path: &str) -> PathBuf {
        self.0.join(path)
    }
}

const ATTEMPTS: &[Attempt] = &[
    Attempt {
        name: "read a file of the system",
        refused_to: EVERYONE,
        run: |_| File::open("/etc/passwd").map(drop),
    },
    Attempt {
        name: "read a secret beside the site",
        refused_to: EVERYONE,
        run: |ground| File::open(ground.at("beside/secret")).map(drop),
    },
    Attempt {
        name: "list a folder beside the site",
        refused_to: EVERYONE,
        run: |ground| fs::read_dir(ground.at("beside")).map(drop),
    },
    Attempt {
        name: "write beside the site",
        refused_to: EVERYONE,
        run: |ground| fs::write(ground.at("beside/new"), "x"),
    },
    Attempt {
        name: "write through the working directory's parent",
        refused_to: &[UNPACKER, PROBE],
        run: |_| fs::write("../escaped", "x"),
    },
    Attempt {
        name: "write through a link out of the staging folder",
        refused_to: EVERYONE,
        run: |ground| {
            symlink(ground.at("beside"), "way-out")?;
            fs::write("way-out/new", "x")
        },
    },
    Attempt {
        name: "read the configuration",
        refused_to: EVERYONE,
        run: |ground| File::open(ground.at("site.toml")).map(drop),
    },
    Attempt {
        name: "make a file in the site's root",
        refused_to: EVERYONE,
        run: |ground| fs::write(ground.at("root/new"), "x"),
    },
    Attempt {
        name: "alter a file of a release",
        refused_to: EVERYONE,
        run: |ground| append(&ground.at("root/releases/r1/index.html")),
    },
    Attempt {
        name: "truncate a file of a release",
        refused_to: EVERYONE,
        run: |ground| {
            let path = ground.at("root/releases/r1/index.html");
            let file = OpenOptions::new().write(true).truncate(true).open(path);
            file.map(drop)
        },
    },
    Attempt {
        name: "add a file to a release",
        refused_to: EVERYONE,
        run: |ground| fs::write(ground.at("root/releases/r1/new.html"), "x"),
    },
    Attempt {
        name: "remove a file of a release",
        refused_to: &[UNPACKER, PROBE, RECEIVE, LIST],
        run: |ground| fs::remove_file(ground.at("root/releases/r1/index.html")),
    },
    Attempt {
        name: "move a release away",
        refused_to: &[UNPACKER, PROBE, RECEIVE, LIST],
        run: |ground| {
            let (from, to) = ("root/releases/r1", "root/.deploy-shell/trash/r1");
            fs::rename(ground.at(from), ground.at(to))
        },
    },
    Attempt {
        name: "move the live link",
        refused_to: &[UNPACKER, PROBE, RECEIVE, LIST],
        run: |ground| {
            symlink("releases/r1", ground.at("root/.deploy-shell/next"))?;
            fs::rename(
                ground.at("root/.deploy-shell/next"),
                ground.at("root/current"),
            )
        },
    },
    Attempt {
        name: "write the journal",
        refused_to: &[UNPACKER, PROBE, LIST],
        run: |ground| append(&ground.at("root/.deploy-shell/journal.jsonl")),
    },
    Attempt {
        name: "write what the application shares",
        refused_to: EVERYONE,
        run: |ground| append(&ground.at("root/shared/.env")),
    },
    Attempt {
        name: "write what is shared through a release's link",
        refused_to: EVERYONE,
        run: |ground| append(&ground.at("root/releases/r1/.env")),
    },
    Attempt {
        name: "read what is shared through a link of its own",
        refused_to: &[UNPACKER],
        run: |_| {
            symlink("../../../../shared/.env", "mine")?;
            fs::read("mine").map(drop)
        },
    },
    Attempt {
        name: "execute a program of the system",
        refused_to: EVERYONE,
        run: |_| Command::new("/bin/true").status().map(drop),
    },
    Attempt {
        name: "execute this program itself",
        refused_to: MONITORS_WITHOUT_EXEC,
        run: |_| {
            Command::new("/proc/self/exe")
                .arg("nothing")
                .status()
                .map(drop)
        },
    },
    Attempt {
        name: "start a thread",
        refused_to: MONITORS_WITHOUT_EXEC,
        run: |_| std::thread::Builder::new().spawn(|| ()).map(drop),
    },
    Attempt {
        name: "connect out by TCP",
        refused_to: EVERYONE,
        run: |_| not_refused_by_peer(std::net::TcpStream::connect("127.0.0.1:9").map(drop)),
    },
    Attempt {
        name: "connect out by an abstract socket",
        refused_to: &[UNPACKER, PROBE],
        run: |_| {
            let name = std::os::unix::net::SocketAddr::from_abstract_name("deploy-shell-nobody")?;
            let made = std::os::unix::net::UnixStream::connect_addr(&name);
            not_refused_by_peer(made.map(drop))
        },
    },
    Attempt {
        name: "read a file of the upload",
        refused_to: &[UNPACKER, PROBE],
        run: |_| File::open("own").map(drop),
    },
    Attempt {
        name: "make a file in the working directory",
        refused_to: &[PROBE],
        run: |_| fs::write("new", "x"),
    },
    Attempt {
        name: "send by UDP",
        refused_to: EVERYONE,
        run: |_| std::net::UdpSocket::bind("127.0.0.1:0").map(drop),
    },
    Attempt {
        name: "make a local socket",
        refused_to: &[UNPACKER, PROBE],
        run: |_| std::os::unix::net::UnixDatagram::unbound().map(drop),
    },
    Attempt {
        name: "listen on a local socket",
        refused_to: EVERYONE,
        run: |ground| {
            std::os::unix::net::UnixListener::bind(ground.at("root/.deploy-shell/s")).map(drop)
        },
    },
    Attempt {
        name: "trace the parent",
        refused_to: EVERYONE,
        run: |_| {
            nix::sys::ptrace::seize(parent(), nix::sys::ptrace::Options::empty())?;
            Ok(())
        },
    },
    Attempt {
        name: SIGNAL,
        refused_to: EVERYONE,
        run: |_| Ok(kill(parent(), None)?),
    },
    Attempt {
        name: "read the parent's memory through /proc",
        refused_to: EVERYONE,
        run: |_| {
            let mut byte = [0];
            let path = format!("/proc/{}/environ", parent_id());
            File::open(path)?.read(&mut byte).map(drop)
        },
    },
    Attempt {
        name: "read the parent's memory by system call",
        refused_to: EVERYONE,
        run: |_| {
            let remote = nix::sys::uio::RemoteIoVec { base: 0, len: 1 };
            let mut byte = [0];
            let mut local = [std::io::IoSliceMut::new(&mut byte)];
            match nix::sys::uio::process_vm_readv(parent(), &mut local, &[remote]) {
                // Nothing is mapped at 0: it was looked for.
                Ok(_) | Err(nix::Error::EFAULT) => Ok(()),
                Err(errno) => Err(errno.into()),
            }
        },
    },
    Attempt {
        name: "make a file executable for all and set-user-id",
        refused_to: EVERYONE,
        run: |_| fs::set_permissions("own", fs::Permissions::from_mode(0o4777)),
    },
    Attempt {
        name: "give a file away",
        refused_to: EVERYONE,
        run: |_| {
            let own = nix::unistd::geteuid().as_raw();
            std::os::unix::fs::chown("own", Some(own), None)
        },
    },
    Attempt {
        name: "make a hard link",
        refused_to: EVERYONE,
        run: |ground| fs::hard_link(ground.at("beside/secret"), "secret"),
    },
    Attempt {
        name: "make a fifo",
        refused_to: EVERYONE,
        run: |_| Ok(nix::unistd::mkfifo("fifo", nix::sys::stat::Mode::S_IRUSR)?),
    },
    Attempt {
        name: "remove what it made",
        refused_to: &[UNPACKER, PROBE, LIST],
        run: |_| fs::remove_file("own"),
    },
    Attempt {
        name: "fill the memory",
        refused_to: &[UNPACKER, PROBE],
        run: |_| {
            let mut all: Vec<u8> = Vec::new();
            let reserved = all.try_reserve_exact(3 << 30);
            reserved.map_err(|_| ErrorKind::OutOfMemory.into())
        },
    },
    Attempt {
        name: "write a file beyond the limit",
        refused_to: &[UNPACKER, PROBE],
        run: |_| {
            let file = OpenOptions::new()
                .create_new(true)
                .write(true)
                .open("large")?;
            std::os::unix::fs::FileExt::write_all_at(&file, b"x", MAX_FILE)
        },
    },
];

/// The limit of a file's size in this test, in bytes.
const MAX_FILE: u64 = 1 << 20;

fn append(path: &Path) -> Outcome {
    let mut file = OpenOptions::new().append(true).open(path)?;
    file.write_all(b"x")
}

/// Nothing listens there; to be told so is to have got out.
fn not_refused_by_peer(outcome: Outcome) -> Outcome {
    match outcome {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(()),
        other => other,
    }
}

fn parent() -> Pid {
    Pid::from_raw(parent_id() as i32)
}

/// The exit statuses of an attempt: it got out, it was told no, or the
/// confinement itself could not be put on.
const GOT_OUT: u8 = 10;
const TOLD_NO: u8 = 11;
const NOT_CONFINED: u8 = 12;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    match args
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .as_slice()
    {
        [_, "attempt", who, name, ground] => ExitCode::from(attempt(who, name, Path::new(ground))),
        // The stand-in for the program's own image: it was executed.
        [_, "nothing"] => ExitCode::SUCCESS,
        _ => everything(),
    }
}

/// Inside: put the confinement on, then try.
fn attempt(who: &str, name: &str, ground: &Path) -> u8 {
    let attempt = ATTEMPTS
        .iter()
        .find(|attempt| attempt.name == name)
        .expect("a known attempt");
    // A file too large is then an error and not a death, as in the program.
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
    let on = match (who, verb) {
        ("nobody", _) => None,
        (PROBE, _) => Some(sandbox::probe()),
        (_, Some(verb)) => {
            let config = Config::load(&ground.join("site.toml")).expect("the configuration");
            let store = Store::open(&config).expect("the site");
            let records = store.records(verb.writes()).expect("the records");
            Some(sandbox::monitor(verb, &store, &records))
        }
        _ => {
            let staging = Dir::working().expect("the staging folder");
            let on = sandbox::unpacker(&staging, MAX_FILE, 1 << 30);
            Some(sandbox::unpacker_calls(on))
        }
    };
    if on.is_some_and(|on| !on.is_full()) {
        return NOT_CONFINED;
    }
    match (attempt.run)(&Ground(ground.to_owned())) {
        Ok(()) => GOT_OUT,
        Err(_) => TOLD_NO,
    }
}

/// Outside: every attempt by everyone it must be refused to, and the control.
fn everything() -> ExitCode {
    let (mut passed, mut failed) = (0, 0);
    let mut verdict = |holds: bool, line: String| {
        println!("{} {line}", if holds { "ok    " } else { "FAILED" });
        if holds { passed += 1 } else { failed += 1 }
    };
    for attempt in ATTEMPTS {
        let (told, _) = run(attempt.name, "nobody");
        verdict(
            told == Told::GotOut,
            format!("nobody is kept from: {} ({told:?})", attempt.name),
        );
        for who in attempt.refused_to {
            if attempt.name == SIGNAL && *who == RECEIVE && kernel_is_before(6, 12) {
                println!("skipped: Landlock keeps signals inward from Linux 6.12 on");
                continue;
            }
            let (told, untouched) = run(attempt.name, who);
            let refused = matches!(told, Told::No | Told::Killed);
            verdict(
                refused && untouched,
                format!("{who} is kept from: {} ({told:?})", attempt.name),
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

fn kernel_is_before(major: u32, minor: u32) -> bool {
    let name = nix::sys::utsname::uname().expect("uname");
    let release = name.release().to_string_lossy().into_owned();
    let mut numbers = release
        .split(['.', '-'])
        .map_while(|part| part.parse::<u32>().ok());
    (numbers.next(), numbers.next()) < (Some(major), Some(minor))
}

#[derive(Debug, PartialEq, Eq)]
enum Told {
    GotOut,
    No,
    Killed,
    NotConfined,
    Else(String),
}

/// One attempt on fresh ground: what came of it, and whether what lies outside
/// the site is as it was.
fn run(name: &str, who: &str) -> (Told, bool) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let ground = Ground(folder.path().to_owned());
    let staging = prepare(&ground).expect("the ground");
    let status = Command::new(std::env::current_exe().expect("this binary"))
        .args(["attempt", who, name])
        .arg(&ground.0)
        .current_dir(staging)
        .stderr(Stdio::null())
        .stdin(Stdio::null())
        .status()
        .expect("this binary runs");
    let told = match (status.code().map(u8::try_from), status.signal()) {
        (Some(Ok(GOT_OUT)), _) => Told::GotOut,
        (Some(Ok(TOLD_NO)), _) => Told::No,
        (Some(Ok(NOT_CONFINED)), _) => Told::NotConfined,
        (None, Some(libc::SIGSYS)) => Told::Killed,
        _ => Told::Else(status.to_string()),
    };
    let beside = fs::read_dir(ground.at("beside")).map(Iterator::count);
    let secret = fs::read(ground.at("beside/secret")).unwrap_or_default();
    (
        told,
        beside.is_ok_and(|count| count == 1) && secret == b"secret",
    )
}

fn prepare(ground: &Ground) -> Result<PathBuf, Error> {
    let root = ground.at("root");
    fs::set_permissions(&ground.0, fs::Permissions::from_mode(0o755))?;
    let state = root.join(".deploy-shell");
    let staging = state.join("incoming/r2.1.0/tree");
    for folder in [
        "releases/r1",
        "shared",
        ".deploy-shell/manifests",
        ".deploy-shell/trash",
    ] {
        fs::create_dir_all(root.join(folder))?;
    }
    fs::create_dir_all(&staging)?;
    fs::create_dir(ground.at("beside"))?;
    for folder in [
        "",
        "releases",
        ".deploy-shell/incoming",
        ".deploy-shell/manifests",
        ".deploy-shell/trash",
    ] {
        fs::set_permissions(root.join(folder), fs::Permissions::from_mode(0o755))?;
    }
    fs::set_permissions(&state, fs::Permissions::from_mode(0o700))?;
    fs::write(ground.at("beside/secret"), "secret")?;
    fs::write(root.join("releases/r1/index.html"), "live")?;
    fs::write(root.join("shared/.env"), "KEY=1")?;
    symlink("../../shared/.env", root.join("releases/r1/.env"))?;
    fs::write(state.join("journal.jsonl"), "")?;
    fs::write(staging.join("own"), "own")?;
    symlink("releases/r1", root.join("current"))?;
    let config = ground.at("site.toml");
    fs::write(&config, format!("root = \"{}\"\n", root.display()))?;
    fs::set_permissions(&config, fs::Permissions::from_mode(0o644))?;
    Ok(staging)
}
