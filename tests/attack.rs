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

#[path = "attack/attempt.rs"]
mod attempt;
#[path = "attack/attempts.rs"]
mod attempts;
#[path = "attack/raw_syscalls.rs"]
mod raw_syscalls;

use std::fs;
use std::io::Error;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use deploy_shell::assemble;
use deploy_shell::config::{Config, Reuse};
use deploy_shell::dir::Dir;
use deploy_shell::policy::Verb;
use deploy_shell::privileges;
use deploy_shell::sandbox::{self, Access};
use deploy_shell::store::Store;
use nix::libc;
use nix::sys::signal::{SigSet, Signal};

use attempt::{
    ASSEMBLER, CONNECT, CONTROL, COPIER, LINKER, LIST, MAX_FILE, PROBE, RECEIVE, ROLLBACK, Refusal,
    SIGNAL, SWAP, Site, UNPACKER,
};
use attempts::ATTEMPTS;

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
        // Takes the place of the program's own image: it was executed.
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
        (PROBE, _) => Some(sandbox::restrict_to_descriptors()),
        (_, Some(verb)) => {
            let config = Config::load(&site.join("site.toml")).expect("the configuration");
            let store = Store::open(&config).expect("the site");
            // For `list` too, which must get no right to them.
            let records = store.records(true).expect("the records");
            Some(privileges::restrict_to_verb(
                verb,
                &store,
                &records,
                &config.audit.socket,
            ))
        }
        (ASSEMBLER, None) => {
            let tree = Dir::cwd().expect("the staging directory");
            let directories = &[(&tree, Access::Read)];
            let partial =
                sandbox::restrict_assembler_before_threads(directories, MAX_FILE, 1 << 30);
            Some(sandbox::restrict_assembler_after_threads(
                partial, false, None,
            ))
        }
        (COPIER | LINKER, None) => {
            let tree = Dir::cwd().expect("the staging directory");
            let base = Dir::open_root(&site.join("root/releases/r1")).expect("the base");
            let reuse = if who == COPIER {
                Reuse::Clone
            } else {
                Reuse::Link
            };
            let (staging, from) = assemble::delta_access(reuse);
            let directories = [(&tree, staging), (&base, from)];
            let partial =
                sandbox::restrict_assembler_before_threads(&directories, MAX_FILE, 1 << 30);
            Some(sandbox::restrict_assembler_after_threads(
                partial, true, None,
            ))
        }
        _ => {
            let staging = Dir::cwd().expect("the staging directory");
            let partial = sandbox::restrict_unpacker_before_threads(&staging, MAX_FILE, 1 << 30);
            Some(sandbox::restrict_unpacker_after_threads(partial))
        }
    };
    if enforcement.is_some_and(|enforcement| !enforcement.is_acceptable()) {
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
            println!("note: this kernel lacks the call, so the control run fails: {name}");
            if result != Ended::Failed {
                // The processor refuses it before any filter runs.
                println!("skipped: {name}");
                continue;
            }
        } else if attempt.refusal == Refusal::AnyIfPossible && result != Ended::Succeeded {
            println!("skipped: this user or kernel cannot do it without a sandbox: {name}");
            continue;
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
            if name.contains("openat2(2)")
                && ![UNPACKER, ASSEMBLER, PROBE].contains(who)
                && kernel_is_before(6, 2)
            {
                println!("skipped: Landlock controls truncation from Linux 6.2 on");
                continue;
            }
            if name == CONNECT
                && [RECEIVE, SWAP, ROLLBACK, LIST].contains(who)
                && kernel_is_before(7, 1)
            {
                println!("skipped: Landlock controls connecting by a path from Linux 7.1 on");
                continue;
            }
            let (result, untouched) = run(name, who, &preload);
            let refused = match attempt.refusal {
                Refusal::Any | Refusal::AnyIfPossible => {
                    matches!(result, Ended::Failed | Ended::Killed)
                }
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

/// Compiles the system calls that safe Rust cannot make. `tests/machine` does so before,
/// because its systems have no compiler, and passes the object.
fn compile_raw_syscalls(directory: &Path) -> PathBuf {
    if let Some(object) = std::env::var_os("RAW_SYSCALLS") {
        return object.into();
    }
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
    let sockets = ["log/audit", "sockets/other"]
        .map(|socket| UnixDatagram::bind(site.path(socket)).expect("a socket"));
    let status = Command::new(std::env::current_exe().expect("this binary"))
        .args(["attempt", who, name])
        .arg(&site.0)
        .env("LD_PRELOAD", preload)
        .current_dir(staging)
        .stderr(Stdio::null())
        .stdin(Stdio::null())
        .status()
        .expect("this binary runs");
    drop(sockets);
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
    let other = state.join("incoming/r3.1.0/tree");
    for directory in [
        "releases/r1",
        "shared",
        ".deploy-shell/manifests",
        ".deploy-shell/trash",
    ] {
        fs::create_dir_all(root.join(directory))?;
    }
    fs::create_dir_all(&staging)?;
    fs::create_dir_all(&other)?;
    for directory in ["beside", "log", "sockets"] {
        fs::create_dir(site.path(directory))?;
    }
    for directory in [
        "",
        "releases",
        ".deploy-shell/incoming",
        ".deploy-shell/manifests",
        ".deploy-shell/trash",
    ] {
        fs::set_permissions(root.join(directory), fs::Permissions::from_mode(0o755))?;
    }
    let incoming = state.join("incoming");
    fs::set_permissions(&incoming, fs::Permissions::from_mode(0o2755))?;
    fs::set_permissions(&state, fs::Permissions::from_mode(0o700))?;
    fs::write(site.path("beside/secret"), "secret")?;
    fs::write(root.join("releases/r1/index.html"), "live")?;
    fs::write(root.join("shared/.env"), "KEY=1")?;
    symlink("../../shared/.env", root.join("releases/r1/.env"))?;
    fs::write(state.join("journal.jsonl"), "")?;
    fs::write(state.join("lock"), "")?;
    fs::write(staging.join("own"), "own")?;
    fs::write(other.join("theirs"), "theirs")?;
    symlink("releases/r1", root.join("current"))?;
    let config = site.path("site.toml");
    let text = format!(
        "root = \"{}\"\n[audit]\nsocket = \"{}\"\n",
        root.display(),
        site.path("log/audit").display()
    );
    fs::write(&config, text)?;
    fs::set_permissions(&config, fs::Permissions::from_mode(0o644))?;
    Ok(staging)
}
