//! Hooks that do what no hook should: whatever one does, the reply comes, it
//! says what happened, and nothing of the hook is left.

use std::fs;
use std::path::PathBuf;
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::audit::value;
use crate::direct::{live, put, serve, states};
use crate::gating::{
    appears, gate_failed, hook, none_is_left, returned, steps_on_record, timed_hook, told, touch,
    wait_for,
};
use crate::process::{Running, Upload, eventually, pids_with_argument};
use crate::site::Site;

/// A process that never ends by itself, and is known by its last word.
const STAYS: &str = "tail -f {dir}/stays";

/// A site with `a` live, `b` to be swapped to, and this hook before the swap.
fn site(hook: &str) -> Site {
    let site = Site::with_config(hook);
    touch(&site, "stays");
    put(&site, "b");
    site
}

/// The hook has failed the swap: nothing is live, and nothing is left of it.
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
fn one_that_takes_too_long_is_ended() {
    let script = format!("echo begun; exec {STAYS}");
    let site = site(&timed_hook("before_swap", &script, "1s"));
    failed(
        &site,
        &["hook before_swap 1 ('/bin/sh') did not end within 1 s"],
    );
    let step = steps_on_record(&site).pop().expect("a line");
    step.has(&[("outcome", "failed"), ("output", "begun")]);
    assert_eq!(step.get("exit"), None);
}

#[test]
fn one_that_hears_its_time_is_up_may_clean_up() {
    let script = "trap 'echo cleaned > {dir}/cleaned; exit 0' TERM; \
                  while :; do sleep 0.1; done";
    let site = site(&timed_hook("before_swap", script, "1s"));
    // It exits with 0, and was late even so.
    failed(&site, &["did not end within 1 s"]);
    assert!(site.dir().join("cleaned").exists());
}

#[test]
fn one_that_does_not_hear_is_killed() {
    let script = format!("trap '' TERM HUP INT; {STAYS} & exec {STAYS}");
    let site = site(&timed_hook("before_swap", &script, "1s"));
    failed(&site, &["did not end within 1 s"]);
}

#[test]
fn what_one_leaves_running_ends_with_it() {
    // In its group and out of it, with its output and without, as a daemon
    // does it.
    let script = format!(
        "{STAYS} & setsid {STAYS} & trap '' TERM HUP; \
         (setsid sh -c '{STAYS} > /dev/null 2>&1 < /dev/null &' &) ; \
         (setsid sh -c \"(trap '' TERM; {STAYS}) & touch {{dir}}/forked\" &) ; \
         {}; echo done",
        wait_for("forked")
    );
    let site = site(&hook("before_swap", &script));
    let reply = site.ssh("ci", "swap b");
    none_is_left(&site, "stays");
    assert_eq!(told(&reply, "hook: before_swap 1"), ["done"]);
    assert_eq!(reply.ok(), "ok swap b previous=-\n");
}

#[test]
fn one_that_writes_without_end_is_cut_in_the_reply_and_on_record() {
    let script = "head -c 8000000 /dev/zero; echo; yes yes | head -n 100000; echo last >&2";
    let site = site(&hook("before_swap", script));
    let reply = site.ssh("ci", "swap b");
    assert!(reply.stderr.len() < 128 << 10, "{}", reply.stderr.len());
    let lines = told(&reply, "hook: before_swap 1");
    assert!(lines[0].starts_with("\\x00\\x00") && lines[0].ends_with("..."));
    assert_eq!(lines[1], "yes");
    let last = lines.last().expect("many");
    assert!(
        last.starts_with("... ") && last.ends_with(" more bytes not shown"),
        "{last}"
    );
    // Short enough, or it could not be read.
    let step = steps_on_record(&site).pop().expect("a line");
    step.has(&[("outcome", "ok"), ("exit", "0")]);
    assert!(value(&step, "output").ends_with("more bytes not shown"));
    reply.ok();
}

/// A client that does not read is no reason to wait with the site locked.
#[test]
fn one_that_writes_much_for_a_client_that_reads_nothing() {
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
    // Its pipes are read once it is over, and hold less than it has to say.
    let reply = Running(command.spawn().expect("it starts")).reply();
    assert!(reply.stderr.len() <= 64 << 10, "{}", reply.stderr.len());
    assert_eq!(reply.ok(), "ok swap b previous=-\n");
    assert_eq!(steps_on_record(&site).len(), 6);
}

#[test]
fn one_that_closes_its_output_is_waited_for() {
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
fn one_that_dies_is_no_success() {
    let site = site(&hook("before_swap", "kill -SEGV $$"));
    failed(
        &site,
        &["hook before_swap 1 ('/bin/sh') was ended by signal 11"],
    );
}

#[test]
fn after_the_swap_one_that_hangs_or_dies_is_gone_back_from() {
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
                returned(&site).has(&[("release", "b"), ("live", "a"), ("outcome", "ok")]);
                put(&site, "c");
                site.ssh("ci", "swap c").ok();
            });
        }
    });
}

#[test]
fn before_a_rollback_one_that_hangs_is_ended() {
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

/// What has the runner killed is ended by nobody; it has nothing of ours.
#[test]
fn what_lives_on_does_not_hold_the_lock() {
    let script = format!(
        "setsid sh -c 'touch {{dir}}/forked; exec {STAYS} > /dev/null 2>&1' & {}; \
         kill -KILL $PPID",
        wait_for("forked")
    );
    let site = site(&hook("before_swap", &script));
    gate_failed(&site.ssh("ci", "swap b"));
    let stays = site.dir().join("stays");
    let left = || pids_with_argument(stays.to_str().expect("a plain path"));
    eventually("it stays", || !left().is_empty());
    site.configure("");
    assert_eq!(site.ssh("ci", "swap b").ok(), "ok swap b previous=-\n");
    let mut open = Vec::new();
    for pid in left() {
        let folder = fs::read_dir(format!("/proc/{pid}/fd")).expect("it is ours");
        let paths = folder.map(|entry| fs::read_link(entry.expect("an entry").path()));
        open.extend(paths.map(|path| path.expect("it stands still")));
        kill(Pid::from_raw(pid), Signal::SIGKILL).expect("it is there");
    }
    assert!(!open.is_empty(), "it lived on until then");
    let ours = |path: &&PathBuf| path.starts_with(site.root());
    assert_eq!(open.iter().find(ours), None);
}

/// The runner is the deploy user's own, so a hook can end it: that is no pass.
#[test]
fn one_that_ends_the_runner_is_no_success() {
    let config = hook("after_swap", "[ $DEPLOY_RELEASE = a ] || kill -KILL $PPID");
    let site = Site::with_config(&config);
    live(&site, &["a"]);
    put(&site, "b");
    let problem = gate_failed(&site.ssh("ci", "swap b"));
    assert!(problem.contains("'b' failed its gate"), "{problem}");
    // On the way back there is no runner either: that is said.
    assert!(
        problem.contains("'a' is live again and failed as well"),
        "{problem}"
    );
    assert_eq!(states(&site), ["a current", "b bad"]);
}

#[test]
fn one_that_makes_many_processes_has_them_all_ended() {
    // Each makes two more for a while, and all stay.
    let script = format!(
        "spread() {{ [ $1 -gt 0 ] || exec {STAYS}; \
         (spread $(($1 - 1))) & setsid sh -c 'exec {STAYS}' & (spread $(($1 - 1))) & wait; }}; \
         spread 5 & sleep 0.2; exit 1"
    );
    let site = site(&hook("before_swap", &script));
    failed(&site, &["exited with 1"]);
}
