//! Hooks that do what a hook should not do. In every case the client gets a reply
//! that says what happened, and no process of the hook remains.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread;

use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::audit::value;
use crate::direct::{ask, live, put, serve, states};
use crate::gating::{
    appears, gate_failed, hook, logged_steps, none_is_left, output_lines, rollback_line,
    timed_hook, touch, wait_for, wait_until_none_is_left,
};
use crate::hook_runner::Fixture;
use crate::process::{Running, Upload, eventually, pids_with_argument};
use crate::site::Site;

/// A command that never ends. Its last word identifies its process.
const STAYS: &str = "tail -f {dir}/stays";

/// A site with a pending release `b` and this hook before the swap.
fn site(hook: &str) -> Site {
    let site = Site::with_config(hook);
    touch(&site, "stays");
    put(&site, "b");
    site
}

/// Asserts that the hook makes the swap fail and that no process of it remains.
#[track_caller]
fn failed(site: &Site, words: &[&str]) -> String {
    let reply = site.ssh("ci", "swap b");
    let problem = gate_failed(&reply);
    none_is_left(site, "stays");
    for word in words {
        assert!(problem.contains(word), "{problem}");
    }
    assert_eq!(states(site), ["b bad"]);
    problem
}

#[test]
fn a_hook_that_exceeds_its_timeout_is_ended() {
    let script = format!("echo begun; exec {STAYS}");
    let site = site(&timed_hook("before_swap", &script, "1s"));
    failed(
        &site,
        &["hook before_swap 1 ('/bin/sh') did not end within 1 s"],
    );
    let step = logged_steps(&site).pop().expect("a line");
    step.has(&[("outcome", "failed"), ("output", "begun")]);
    assert_eq!(step.get("exit"), None);
}

#[test]
fn a_hook_can_clean_up_on_sigterm() {
    let script = "trap 'echo cleaned > {dir}/cleaned; exit 0' TERM; \
                  while :; do sleep 0.1; done";
    let site = site(&timed_hook("before_swap", script, "1s"));
    // The hook exits with 0, but too late.
    failed(&site, &["did not end within 1 s"]);
    assert!(site.dir().join("cleaned").exists());
}

#[test]
fn a_hook_that_ignores_sigterm_is_killed() {
    let script = format!("trap '' TERM HUP INT; {STAYS} & exec {STAYS}");
    let site = site(&timed_hook("before_swap", &script, "1s"));
    failed(&site, &["did not end within 1 s"]);
}

#[test]
fn processes_that_a_hook_leaves_running_are_killed() {
    // Inside and outside of its process group, with and without its output, and
    // as a daemon. The hook waits until each of them is `tail`, and no longer a shell.
    let script = format!(
        "{STAYS} & setsid {STAYS} & trap '' TERM HUP; \
         (setsid sh -c '{STAYS} > /dev/null 2>&1 < /dev/null &' &) ; \
         (setsid sh -c \"(trap '' TERM; {STAYS}) &\" &) ; \
         until [ $(pgrep -cfx '{STAYS}') = 4 ]; do sleep 0.05; done; echo done",
    );
    let site = site(&hook("before_swap", &script));
    let reply = site.ssh("ci", "swap b");
    none_is_left(&site, "stays");
    let lines = output_lines(&reply, "hook: before_swap 1");
    let [done, left] = lines.as_slice() else {
        panic!("{lines:?}");
    };
    assert_eq!(done, "done");
    let words = "... ended what the command left running (tail, ";
    assert!(
        left.starts_with(words) && left.ends_with("through systemd"),
        "{left}"
    );
    // The log has the same line, at the end of the field 'output', and the number.
    let logged = site.audit_lines().join("\n");
    assert!(logged.contains(words), "{logged}");
    let step = logged_steps(&site).pop().expect("a line");
    let ended: u32 = value(&step, "ended_processes").parse().expect("a number");
    assert!(ended >= 4, "{ended}");
    assert_eq!(reply.ok(), "ok swap b previous=-\n");
}

#[test]
fn endless_output_is_truncated_in_the_reply_and_the_audit_log() {
    let script = "head -c 8000000 /dev/zero; echo; yes yes | head -n 100000; echo last >&2";
    let site = site(&hook("before_swap", script));
    let reply = site.ssh("ci", "swap b");
    assert!(reply.stderr.len() < 128 << 10, "{}", reply.stderr.len());
    let lines = output_lines(&reply, "hook: before_swap 1");
    assert!(lines[0].starts_with("\\x00\\x00") && lines[0].ends_with("..."));
    assert_eq!(lines[1], "yes");
    let last = lines.last().expect("many");
    assert!(
        last.starts_with("... ") && last.ends_with(" more bytes not shown"),
        "{last}"
    );
    // The line is short enough to be parsed.
    let step = logged_steps(&site).pop().expect("a line");
    step.has(&[("outcome", "ok"), ("exit", "0")]);
    assert!(value(&step, "output").ends_with("more bytes not shown"));
    reply.ok();
}

/// A client that does not read must not keep the site locked.
#[test]
fn much_output_for_a_client_that_reads_nothing() {
    let loud = hook(
        "before_swap",
        "yes \"$(head -c 400 /dev/zero | tr '\\0' x)\" | head -n 200",
    );
    let site = site(&loud.repeat(6));
    let mut command = serve(&site, "ci", "swap b");
    command
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    // The test reads the pipes after the process has ended. They hold less than
    // its output.
    let reply = Running(command.spawn().expect("it starts")).reply();
    assert!(reply.stderr.len() <= 64 << 10, "{}", reply.stderr.len());
    assert_eq!(reply.ok(), "ok swap b previous=-\n");
    assert_eq!(logged_steps(&site).len(), 6);
}

#[test]
fn a_hook_that_closes_its_output_is_waited_for() {
    let script = format!(
        "exec > /dev/null 2>&1 < /dev/null; touch {{dir}}/closed; {}; exit 7",
        wait_for("go")
    );
    let site = site(&hook("before_swap", &script));
    let mut swap = Upload::start(&site, "swap b");
    appears(&site, "closed");
    assert!(!swap.client.is_over());
    touch(&site, "go");
    let problem = gate_failed(&swap.finish());
    assert!(problem.contains("exited with 7"), "{problem}");
}

#[test]
fn a_hook_that_is_killed_by_a_signal_has_failed() {
    let site = site(&hook("before_swap", "kill -SEGV $$"));
    failed(
        &site,
        &["hook before_swap 1 ('/bin/sh') was ended by signal 11"],
    );
}

#[test]
fn a_hook_that_hangs_or_dies_after_the_swap_causes_a_rollback() {
    thread::scope(|scope| {
        for (script, timeout, words) in [
            (format!("exec {STAYS}"), "5s", "did not end within 5 s"),
            (
                format!("trap '' TERM; {STAYS} & setsid {STAYS} & {STAYS}"),
                "5s",
                "did not end within 5 s",
            ),
            (
                format!("{STAYS} & kill -KILL $$"),
                "100s",
                "was ended by signal 9",
            ),
        ] {
            scope.spawn(move || {
                let script = format!("[ $DEPLOY_RELEASE != b ] || {{ {script}; }}");
                let site = Site::with_config(&timed_hook("after_swap", &script, timeout));
                touch(&site, "stays");
                live(&site, &["a"]);
                put(&site, "b");
                let problem = gate_failed(&site.ssh("ci", "swap b"));
                let start =
                    format!("release 'b' failed its gate: hook after_swap 1 ('/bin/sh') {words}; ");
                assert!(problem.starts_with(&start), "{problem}");
                assert!(problem.ends_with(", and 'a' is live again"), "{problem}");
                none_is_left(&site, "stays");
                assert_eq!(states(&site), ["a current", "b bad"]);
                rollback_line(&site).has(&[("release", "b"), ("live", "a"), ("outcome", "ok")]);
                put(&site, "c");
                site.ssh("ci", "swap c").ok();
            });
        }
    });
}

#[test]
fn a_hook_that_hangs_before_a_rollback_is_ended() {
    let script = format!("{STAYS} & exec {STAYS}");
    let site = Site::with_config(&timed_hook("before_rollback", &script, "1s"));
    touch(&site, "stays");
    live(&site, &["a", "b"]);
    let problem = gate_failed(&site.ssh("ci", "rollback"));
    let end = "hook before_rollback 1 ('/bin/sh') did not end within 1 s; 'b' is live, as before";
    assert!(problem.ends_with(end), "{problem}");
    none_is_left(&site, "stays");
    assert_eq!(states(&site), ["b current", "a previous"]);
}

/// Nobody ends a process that has killed the hook runner. It has no descriptor of
/// the monitor.
#[test]
fn a_surviving_process_does_not_hold_the_lock() {
    let script = format!(
        "setsid sh -c 'touch {{dir}}/forked; exec {STAYS} > /dev/null 2>&1' & {}; \
         kill -KILL $PPID",
        wait_for("forked")
    );
    let site = site(&hook("before_swap", &script));
    gate_failed(&site.ssh("ci", "swap b"));
    let stays = site.dir().join("stays");
    let remaining = || pids_with_argument(stays.to_str().expect("a plain path"));
    eventually("it runs", || !remaining().is_empty());
    site.configure("");
    assert_eq!(site.ssh("ci", "swap b").ok(), "ok swap b previous=-\n");
    let mut open = Vec::new();
    for pid in remaining() {
        let directory = fs::read_dir(format!("/proc/{pid}/fd")).expect("the test owns it");
        let paths = directory.map(|entry| fs::read_link(entry.expect("an entry").path()));
        open.extend(paths.map(|path| path.expect("the process is idle")));
        kill(Pid::from_raw(pid), Signal::SIGKILL).expect("it exists");
    }
    assert!(!open.is_empty(), "the process survived until now");
    let below_root = |path: &&PathBuf| path.starts_with(site.root());
    assert_eq!(open.iter().find(below_root), None);
}

/// A hook runs as the same user and can kill the hook runner. The check has then
/// failed.
#[test]
fn a_hook_that_kills_the_hook_runner_has_failed() {
    let config = hook("after_swap", "[ $DEPLOY_RELEASE = a ] || kill -KILL $PPID");
    let site = Site::with_config(&config);
    live(&site, &["a"]);
    put(&site, "b");
    let problem = gate_failed(&site.ssh("ci", "swap b"));
    assert!(problem.contains("'b' failed its gate"), "{problem}");
    // The automatic rollback has no hook runner either, and says so.
    assert!(
        problem.contains("'a' is live again and failed as well"),
        "{problem}"
    );
    assert_eq!(states(&site), ["a current", "b bad"]);
}

#[test]
fn all_of_many_processes_are_killed() {
    // Each process starts two more for a while, and none ends.
    let script = format!(
        "spread() {{ [ $1 -gt 0 ] || exec {STAYS}; \
         (spread $(($1 - 1))) & setsid sh -c 'exec {STAYS}' & (spread $(($1 - 1))) & wait; }}; \
         spread 5 & sleep 0.2; exit 1"
    );
    let site = site(&hook("before_swap", &script));
    failed(&site, &["exited with 1"]);
}

/// Processes that fork faster than they are killed must not hold the lock, use up the
/// process numbers, or keep the release from being marked.
#[test]
fn chains_of_forks_do_not_hold_the_lock() {
    let site = Site::new();
    let source = site.dir().join("fork_chains.c");
    fs::write(&source, include_str!("unruly_hooks/fork_chains.c")).expect("the source");
    let compiled = Command::new("cc")
        .args(["-O1", "-Wall", "-Werror", "-o"])
        .args([&site.dir().join("fork_chains"), &source])
        .status();
    assert!(compiled.expect("cc runs").success(), "cc compiles");
    put(&site, "b");
    let script = "exec {dir}/fork_chains 100 {dir}/stop";
    site.configure(&timed_hook("before_swap", script, "1s"));
    let reply = ask(&site, "swap b");
    touch(&site, "stop");
    let problem = gate_failed(&reply);
    assert!(problem.contains("did not end within 1 s"), "{problem}");
    // Whether all of them could be killed depends on the machine.
    for line in output_lines(&reply, "hook: before_swap 1") {
        let named = line.contains(" (fork_chains) could not be killed, and still runs");
        assert!(
            named || line.ends_with(" more processes still run"),
            "{line}"
        );
    }
    wait_until_none_is_left(&site, "stop");
    assert_eq!(states(&site), ["b bad"]);
    site.configure("");
    assert_eq!(ask(&site, "swap b").ok(), "ok swap b previous=-\n");
}

/// Code of a release that forks without end must leave process numbers for others.
///
/// The limit follows what the account has: sshd has a process for each connection of the
/// account, and connections that send nothing must not fail a gate.
#[test]
fn a_hook_has_a_limit_of_processes_that_it_may_raise() {
    const OTHERS: u64 = 100;
    let sleep = || Command::new("sleep").arg("60").spawn().expect("sleep(1)");
    let mut others: Vec<_> = (0..OTHERS).map(|_| sleep()).collect();
    let fixture = Fixture::new();
    let (lines, _) = fixture
        .with_hook(&["/bin/cat", "/proc/self/limits"])
        .run_hook();
    for other in &mut others {
        other.kill().expect("it runs");
        other.wait().expect("it ends");
    }
    let line = lines
        .iter()
        .find_map(|line| line.strip_prefix("Max processes"));
    let mut limits = line.expect("a limit").split_whitespace();
    let soft: u64 = limits
        .next()
        .and_then(|it| it.parse().ok())
        .expect("a number");
    let (ours, _) = getrlimit(Resource::RLIMIT_NPROC).expect("our own");
    assert!(soft >= ours.min(4096 + OTHERS), "{soft}");
    // The user has fewer threads than that.
    assert!(soft < 100_000, "{soft}");
    let ours = fs::read_to_string("/proc/self/limits").expect("our own");
    let ours = ours
        .lines()
        .find_map(|line| line.strip_prefix("Max processes"));
    let hard = ours.and_then(|line| line.split_whitespace().nth(1));
    assert_eq!(limits.next(), hard);
}
