//! `deploy-shell-admin run`: a command as the account, with nothing of root's.

use std::fs;
use std::os::unix::fs::{lchown, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};

use crate::process::{Process, copy_program, eventually, with_argument};
use crate::site::{Reply, Site, admin, set_mode};
use crate::terminal::on_a_terminal;

/// The account of the site: daemon.
const ACCOUNT: &str = "1";

/// A site of [`ACCOUNT`] for root, and of this user for another one.
fn site() -> Site {
    let site = Site::new();
    if Uid::effective().is_root() {
        site.give_to(ACCOUNT);
    }
    site
}

/// Returns the words of sh(1) that run a script as the account.
fn words(site: &Site, script: &str) -> String {
    let (admin, config) = (admin().display(), site.config_path().display());
    format!("'{admin}' run --stdin --config '{config}' -- sh -c '{script}'")
}

fn run(site: &Site, script: &str, input: &[u8]) -> Reply {
    sh(site, &words(site, script), input)
}

fn sh(site: &Site, script: &str, input: &[u8]) -> Reply {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    site.run(command, input)
}

/// Returns a command of the operator for the site, without its further arguments.
fn operator(program: &Path, site: &Site, subcommand: &str) -> Command {
    let mut command = Command::new(program);
    command.args([subcommand, "--config"]);
    command.arg(site.config_path());
    command
}

/// Returns whether this is root: only root runs a command as another account.
fn is_root() -> bool {
    let is_root = Uid::effective().is_root();
    if !is_root {
        println!("skipped: only root runs a command as another account");
    }
    is_root
}

/// A process of the account can trace the command, and use what it has.
#[test]
fn a_command_gets_nothing_of_roots() {
    if !is_root() {
        return;
    }
    let site = site();
    let private = site.dir().join("private");
    fs::create_dir(&private).expect("a directory");
    set_mode(&private, 0o700);
    // keyctl(1) is not everywhere: 250 is keyctl(2), 0 KEYCTL_GET_KEYRING_ID, -3 the session
    // keyring; aarch64 has 219.
    let keyctl = "python3 -c \"import ctypes, os, platform\n\
                  libc = ctypes.CDLL(None, use_errno=True)\n\
                  number = 250 if platform.machine() == \\\"x86_64\\\" else 219\n\
                  print(libc.syscall(number, 0, -3, 0), os.strerror(ctypes.get_errno()))\"";
    let script = format!(
        "id -un; id -Gn; pwd; env; for fd in /proc/$$/fd/*; do readlink $fd; done | sort -u; \
         (: < /dev/tty) || echo no terminal; grep NoNewPrivs /proc/self/status; umask; {keyctl}"
    );
    let script = format!(
        "cd '{}' && umask 077 && SECRET=x; export SECRET; {} 9< /etc/shadow",
        private.display(),
        words(&site, &script)
    );
    let reply = site.run(on_a_terminal(&site, &script), b"");
    let shown = reply.stdout.replace('\r', "");
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines[..3], ["daemon", "daemon", "/"], "{shown}");
    for line in [
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "PWD=/",
        "no terminal",
        "NoNewPrivs:\t1",
        "0022",
        "-1 Function not implemented",
    ] {
        assert!(lines.contains(&line), "{line}: {shown}");
    }
    for absent in ["SECRET", "private", "shadow", "/dev/pts", "/dev/tty0"] {
        assert!(!shown.contains(absent), "{absent}: {shown}");
    }
    // Without the filter, the call finds the keyring of a session.
    let filters = words(&site, "grep Seccomp_filters /proc/self/status");
    let reply = site.run(on_a_terminal(&site, &filters), b"");
    assert!(!reply.ok().contains("\t0"));
}

#[test]
fn a_command_has_its_input_its_output_and_its_status() {
    let site = site();
    let reply = run(&site, "cat; echo problem >&2; exit 7", b"a\tb\n");
    assert_eq!(
        (reply.code, &*reply.stdout, &*reply.stderr),
        (7, "a\tb\n", "problem\n")
    );
    // Bytes that control a terminal are shown.
    let reply = run(&site, "printf \"\\033[31m\\r\\n\\377\"", b"");
    assert_eq!(reply.stdout, "\\x1b[31m\\x0d\n\\xff");
    assert_eq!(run(&site, "kill -TERM $$", b"").code, 128 + 15);
    let again = run(&site, "cat /dev/stdin > /dev/stderr", b"again");
    assert_eq!(again.stderr, "again");
    // Without --stdin it leaves the rest of a script.
    let mut script = words(&site, "cat").replace("--stdin ", "");
    script += "\necho next\n";
    assert_eq!(
        site.run(Command::new("sh"), script.as_bytes()).stdout,
        "next\n"
    );
    // Half of the input or of the output is no success.
    let whole = words(&site, "cat > /dev/null");
    for (what, script) in [
        ("read the input", format!("{whole} < /")),
        (
            "write the output",
            format!("{} > /dev/full", words(&site, "echo a")),
        ),
    ] {
        let reply = sh(&site, &script, b"");
        assert_eq!(reply.code, 74, "{script}: {reply:?}");
        assert!(
            reply.stderr.contains(&format!("cannot {what}: ")),
            "{reply:?}"
        );
    }
    // What the command leaves behind keeps nobody.
    assert_eq!(run(&site, "sleep 10 & echo done", b"").stdout, "done\n");
    let mut missing = operator(admin(), &site, "run");
    missing.args(["--", "no-such-program"]);
    let reply = site.run(missing, b"");
    assert!(
        reply
            .stderr
            .contains("cannot start 'no-such-program': no such file"),
        "{reply:?}"
    );
}

/// The account can put what another user has made at the name `.deploy-shell`.
#[test]
fn the_account_does_not_choose_the_user() {
    if !is_root() {
        return;
    }
    let site = site();
    let state = site.root().join(".deploy-shell");
    fs::rename(&state, site.root().join("away")).expect("moved");
    let places: [&dyn Fn(); 3] = [
        &|| fs::create_dir(&state).expect("a directory"),
        &|| fs::write(&state, "").expect("a file"),
        &|| symlink("/usr", &state).expect("a symlink"),
    ];
    for place in places {
        place();
        lchown(&state, Some(2), Some(2)).expect("given to bin");
        let reply = run(&site, "id -un", b"");
        if state.is_symlink() || state.is_file() {
            assert_eq!(reply.stdout, "daemon\n");
        } else {
            reply.refused(78, "bad-layout");
            assert!(reply.stderr.contains(" --owner ACCOUNT\n"), "{reply:?}");
        }
        if state.is_dir() && !state.is_symlink() {
            fs::remove_dir(&state).expect("removed");
        } else {
            fs::remove_file(&state).expect("removed");
        }
    }
    // The operator names it.
    let script = words(&site, "id -un").replace(" -- ", " --owner bin -- ");
    assert_eq!(sh(&site, &script, b"").stdout, "bin\n");
}

/// Where the account owns a directory above the root, it can put the site of another user there.
#[test]
fn the_account_does_not_put_another_users_site_at_the_root() {
    if !is_root() {
        return;
    }
    let site = site();
    let give = |path: &Path, uid| lchown(path, Some(uid), Some(uid)).expect("given");
    let (home, victim) = (site.dir().join("home"), site.dir().join("victim"));
    for (directory, uid) in [(&home, 1), (&victim, 2), (&home.join("www"), 1)] {
        fs::create_dir(directory).expect("a directory");
        set_mode(directory, 0o755);
        give(directory, uid);
    }
    let copy = |to: &Path, user: &str| {
        let script = "cp -RpP \"$1\" \"$2\" && chown -hR \"$3\" \"$2\"";
        let mut command = Command::new("sh");
        command
            .args(["-ec", script, "sh"])
            .arg(site.root())
            .arg(to)
            .arg(user);
        assert!(command.status().expect("sh starts").success());
    };
    let root = home.join("www/root");
    copy(&root, "daemon");
    copy(&victim.join("root"), "bin");
    let text = fs::read_to_string(site.config_path()).expect("the configuration");
    let (_, rest) = text.split_once('\n').expect("several lines");
    let text = format!("root = {:?}\n{rest}", root.to_str().expect("UTF-8"));
    fs::write(site.config_path(), text).expect("written");
    let history = || site.run(operator(admin(), &site, "history"), b"");
    assert_eq!(run(&site, "id -un", b"").stdout, "daemon\n");
    history().ok();
    let away = home.join("away");
    // At the root itself.
    fs::rename(&root, &away).expect("moved");
    symlink(victim.join("root"), &root).expect("a symlink");
    run(&site, "id -un", b"").refused(78, "bad-layout");
    history().refused(78, "bad-layout");
    fs::remove_file(&root).expect("removed");
    copy(&root, "bin");
    run(&site, "id -un", b"").refused(78, "bad-layout");
    history().refused(78, "bad-layout");
    // Above it.
    fs::rename(home.join("www"), home.join("www.old")).expect("moved");
    symlink(&victim, home.join("www")).expect("a symlink");
    give(&home.join("www"), 1);
    run(&site, "id -un", b"").refused(78, "bad-layout");
    let reply = history();
    reply.refused(78, "bad-layout");
    assert!(
        reply
            .stderr
            .contains("belongs to user 1, who can then replace"),
        "{reply:?}"
    );
    // By the group of a directory above it. `history` changes nothing.
    fs::remove_file(home.join("www")).expect("removed");
    fs::rename(home.join("www.old"), home.join("www")).expect("moved back");
    fs::remove_dir_all(&root).expect("removed");
    fs::rename(&away, &root).expect("moved back");
    set_mode(&home, 0o775);
    run(&site, "id -un", b"").refused(78, "bad-layout");
    let mut drop = operator(admin(), &site, "drop");
    drop.arg("none");
    let reply = site.run(drop, b"");
    reply.refused(78, "bad-layout");
    let problem = "is writable for its group, who can then replace";
    assert!(reply.stderr.contains(problem), "{reply:?}");
    history().ok();
}

#[test]
fn an_interrupted_command_ends_and_a_slow_reader_gets_all_output() {
    let site = site();
    let slow = format!(
        "{} | (sleep 3; wc -c)",
        words(&site, "head -c 300000 /dev/zero | tr \"\\000\" x")
    );
    assert_eq!(sh(&site, &slow, b"").stdout.trim(), "300000");
    let mark = format!("{}", 100_000 + std::process::id());
    let script = format!(
        "'{}' run --config '{}' -- sleep {mark}",
        admin().display(),
        site.config_path().display()
    );
    let mut child = on_a_terminal(&site, &script)
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("script starts");
    eventually("the command runs", || {
        let sleeps = with_argument(&mark);
        sleeps.iter().any(|process| process.arguments[0] == "sleep")
    });
    // The first of its processes. nohup(1) and a shell in the background ignore other signals.
    let all = with_argument(&mark);
    let is_first = |process: &&Process| !all.iter().any(|other| other.pid == process.parent);
    let first = all.iter().find(is_first).expect("a process");
    kill(Pid::from_raw(first.pid), Signal::SIGTERM).expect("a signal");
    eventually("the command ends", || with_argument(&mark).is_empty());
    child.wait().expect("ended");
}

#[test]
fn no_command_runs_as_root_or_for_another_user() {
    if !is_root() {
        return;
    }
    let site = site();
    site.give_to("0");
    run(&site, "touch /made", b"").refused(78, "bad-layout");
    site.give_to(ACCOUNT);
    set_mode(site.dir(), 0o755);
    let copy = site.dir().join("deploy-shell-admin");
    copy_program(admin(), &copy);
    let mut command = operator(&copy, &site, "run");
    command.args(["--", "id"]).uid(2).gid(2);
    let reply = site.run(command, b"");
    assert_ne!(reply.code, 0, "{reply:?}");
    assert!(!reply.stdout.contains("uid="), "{reply:?}");
}
