//! The hook runner, driven over its pipes as the monitor drives it. The hooks are
//! real programs, and do what hooks should not do.

mod fixture;

use std::fs;
use std::io::Write;
use std::os::unix::fs::{chown, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};

use crate::process::copy_program;
use crate::site::BIN;
pub use fixture::{Fixture, Runner};
use fixture::{hook, request, set_mode};

fn exists(pid: Pid) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[test]
fn a_hook_gets_its_configured_words_and_four_variables() {
    let fixture = Fixture::new();
    let mut runner = fixture.with_hook(&["/usr/bin/env"]);
    let (mut lines, end) = runner.run_hook();
    lines.sort();
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let ids = [
        "DEPLOY_PREVIOUS=r1",
        "DEPLOY_RELEASE=r2",
        "DEPLOY_SITE=blog",
    ];
    assert_eq!(lines, [&ids[..], &[path]].concat());
    assert_eq!(end, "exit 0");
    let (lines, _) = runner.run("before_swap 0 r1 - 60000");
    assert!(lines.contains(&"DEPLOY_PREVIOUS=".to_owned()), "{lines:?}");
    assert!(lines.contains(&"DEPLOY_RELEASE=r1".to_owned()), "{lines:?}");

    let words = [
        "a b",
        "\"q\" 'q'",
        "; exit 1",
        "$HOME",
        "`id`",
        "*",
        "",
        "{release}",
        "-x",
    ];
    let command = [&["/usr/bin/printf", "[%s]\\n"], &words[..]].concat();
    let (lines, end) = fixture.with_hook(&command).run_hook();
    let expected: Vec<String> = words.iter().map(|word| format!("[{word}]")).collect();
    assert_eq!((lines, end.as_str()), (expected, "exit 0"));
}

#[test]
fn a_hook_runs_in_its_release_with_only_three_descriptors_open() {
    let fixture = Fixture::new();
    let root = fs::canonicalize(fixture.path("root")).unwrap();
    let mut runner = fixture.with_hook(&["/bin/pwd", "-P"]);
    for release in ["r2", "r1"] {
        let (lines, _) = runner.run(&format!("before_swap 0 {release} - 60000"));
        let directory = root.join("releases").join(release);
        assert_eq!(lines, [directory.to_str().unwrap()]);
    }
    let (lines, end) = fixture.with_script("cat; umask; echo end").run_hook();
    assert_eq!(
        (lines, end),
        (
            vec!["0022".to_owned(), "end".to_owned()],
            "exit 0".to_owned()
        )
    );

    // The fourth descriptor is the directory that ls lists.
    let (lines, _) = fixture
        .with_hook(&["/bin/ls", "-l", "/proc/self/fd"])
        .run_hook();
    let open: Vec<&str> = lines
        .iter()
        .filter_map(|line| Some(line.split_once(" -> ")?.0.rsplit(' ').next().unwrap()))
        .collect();
    assert_eq!(open, ["0", "1", "2", "3"], "{lines:?}");
    assert!(lines[1].ends_with("0 -> /dev/null"), "{lines:?}");
    assert!(lines[4].ends_with("/fd"), "{lines:?}");
}

#[test]
fn a_hook_has_default_signals_and_a_new_process_group() {
    let fixture = Fixture::new();
    let (lines, _) = fixture
        .with_hook(&["/bin/cat", "/proc/self/status"])
        .run_hook();
    let mask = |lines: &[String], key: &str| {
        let line = lines.iter().find(|line| line.starts_with(key)).expect(key);
        u64::from_str_radix(&line[line.len() - 16..], 16).expect("a mask")
    };
    assert_eq!(mask(&lines, "SigBlk:"), 0);
    // libc uses the signals from 32 on.
    let classic = (1 << 31) - 1;
    assert_eq!(mask(&lines, "SigIgn:") & classic, 0);

    // Also if the caller ignores some.
    let mut ignoring = Command::new("/bin/sh");
    ignoring.args([
        "-c",
        "trap '' CHLD TERM HUP USR1 ALRM; exec env -i \"$0\" hooks",
        BIN,
    ]);
    let setup = fixture.setup(&hook(&["/bin/cat", "/proc/self/status"]));
    let (lines, end) = Runner::start(&mut ignoring, &setup).run_hook();
    assert_eq!((mask(&lines, "SigIgn:") & classic, &*end), (0, "exit 0"));

    // pid (name) state parent group session
    let (lines, _) = fixture
        .with_hook(&["/bin/cat", "/proc/self/stat"])
        .run_hook();
    let fields: Vec<&str> = lines[0].split(' ').collect();
    assert_eq!(fields[0], fields[4], "{lines:?}");
    assert_ne!(fields[3], fields[4], "{lines:?}");
}

#[test]
fn exits_and_signals_are_distinguished() {
    let fixture = Fixture::new();
    for (script, expected) in [
        ("exit 0", "exit 0"),
        ("exit 3", "exit 3"),
        ("exit 255", "exit 255"),
        ("kill -KILL $$", "signal 9"),
        ("kill -SEGV $$", "signal 11"),
        ("exec >&- 2>&- <&-; sleep 0.2; exit 4", "exit 4"),
    ] {
        let (lines, end) = fixture.with_script(script).run_hook();
        assert_eq!((lines, end.as_str()), (Vec::new(), expected), "{script}");
    }
}

#[test]
fn a_command_that_cannot_start_has_a_reason() {
    let fixture = Fixture::new();
    let plain = fixture.path("plain");
    fs::write(&plain, "not a program").unwrap();
    set_mode(&plain, 0o644);
    for (program, why) in [
        ("/nonexistent/hook", "no such file or directory"),
        (plain.to_str().unwrap(), "permission denied"),
        ("/etc/passwd/x", "not a directory"),
    ] {
        let (lines, end) = fixture.with_hook(&[program]).run_hook();
        assert!(lines.is_empty());
        let expected = format!("unusable '{program}' cannot be started: {why}");
        assert_eq!(end, expected);
    }
    let mut runner = fixture.with_hook(&["/bin/true"]);
    for request in [
        "before_swap 1 r1 - 1000",
        "after_swap 0 r1 - 1000",
        "before_rollback 0 r1 - 1000",
        "smoke 0 r1 - 1000",
        "health 0 r1 - 1000",
    ] {
        let (_, end) = runner.run(request);
        let expected = "not_started the site has no command ";
        assert!(end.starts_with(expected), "{end}");
    }
    assert_eq!(runner.run_hook().1, "exit 0");
}

#[test]
fn a_hook_does_not_run_in_a_release_that_others_can_write() {
    let fixture = Fixture::new();
    let mut runner = fixture.with_hook(&["/bin/true"]);
    symlink("r1", fixture.path("root/releases/link")).unwrap();
    fs::write(fixture.path("root/releases/file"), "").unwrap();
    for release in ["none", "link", "file"] {
        let (_, end) = runner.run(&format!("before_swap 0 {release} - 1000"));
        let expected = format!("not_started the directory of '{release}' cannot be entered: ");
        assert!(end.starts_with(&expected), "{end}");
    }
    set_mode(&fixture.path("root/releases/r2"), 0o775);
    let expected = "not_started the directory of 'r2' is not this user's, or others can write it";
    assert_eq!(runner.run_hook().1, expected);
    set_mode(&fixture.path("root/releases/r2"), 0o755);
    assert_eq!(runner.run_hook().1, "exit 0");
}

#[test]
fn every_request_reports_a_site_that_cannot_be_opened() {
    let fixture = Fixture::new();
    fs::remove_dir_all(fixture.path("root/releases")).unwrap();
    let mut runner = fixture.with_hook(&["/bin/true"]);
    for _ in 0..2 {
        let (_, end) = runner.run_hook();
        assert!(end.starts_with("not_started '"), "{end}");
        assert!(end.contains("cannot be opened"), "{end}");
    }
}

#[test]
fn a_program_that_cannot_be_compared_with_the_root_does_not_run() {
    let fixture = Fixture::new();
    let mut runner = fixture.with_hook(&["/bin/true"]);
    assert_eq!(runner.run_hook().1, "exit 0");
    // The hook runner has opened the directory of the releases. Only the path of
    // the root leads nowhere now.
    let (root, moved) = (fixture.path("root"), fixture.path("moved"));
    fs::rename(&root, &moved).unwrap();
    let expected = format!(
        "not_started '{}' cannot be resolved: no such file or directory",
        root.display()
    );
    assert_eq!(runner.run_hook().1, expected);
    fs::rename(&moved, &root).unwrap();
    assert_eq!(runner.run_hook().1, "exit 0");

    // The kernel can start this program step by step, and its whole path is too
    // long to be resolved.
    let name = "d".repeat(200);
    let mut real = root.clone();
    let mut program = fixture.path("deep");
    symlink(&real, &program).unwrap();
    for step in 0..25 {
        real.push(&name);
        // Each symlink shortens the path by one name.
        let shortcut = fixture.path(&format!("s{step}"));
        fs::create_dir(program.join(&name)).unwrap();
        symlink(program.join(&name), &shortcut).unwrap();
        program = shortcut;
    }
    program.push("hook");
    copy_program("/bin/true", &program);
    assert!(Command::new(&program).status().unwrap().success());
    let program = program.to_str().unwrap();
    let expected = format!("unusable '{program}' cannot be started: file name too long");
    assert_eq!(fixture.with_hook(&[program]).run_hook().1, expected);
}

#[test]
fn output_is_escaped_and_truncated() {
    let fixture = Fixture::new();
    for (script, count, last) in [
        ("printf one; printf two >&2", 1, "onetwo"),
        (
            "printf 'a\\033[31mb\\000c\\377\\n'",
            1,
            "a\\x1b[31mb\\x00c\\xff",
        ),
        (
            "head -c 5000000 /dev/zero | tr '\\000' a",
            2,
            "... 4999499 more bytes not shown",
        ),
        (
            "yes | head -n 1000000",
            201,
            "... 1999600 more bytes not shown",
        ),
    ] {
        let (lines, end) = fixture.with_script(script).run_hook();
        assert_eq!(lines.len(), count, "{script}");
        assert_eq!((lines[count - 1].as_str(), end.as_str()), (last, "exit 0"));
    }
    // Escaping makes the output longer.
    let (lines, _) = fixture
        .with_script("head -c 3000000 /dev/urandom")
        .run_hook();
    let shown: usize = lines.iter().map(String::len).sum();
    assert!(shown <= (32 << 10) + 100, "{shown}");
    // Both streams write more than a pipe holds, and neither blocks.
    let both =
        "for i in 1 2 3 4 5 6 7 8; do head -c 200000 /dev/zero >&2; head -c 200000 /dev/zero; done";
    assert_eq!(fixture.with_script(both).run_hook().1, "exit 0");
}

#[test]
fn no_process_of_a_hook_outlives_it() {
    let fixture = Fixture::new();
    let in_background = "sleep 1000 & echo $! > {dir}/pid; echo started";
    // A process in a new session and group, whose parent has ended.
    let daemon = "(setsid sh -c 'echo $$ > {dir}/other; sleep 1000 & echo $! > {dir}/pid; wait' &) \
                  ; while ! test -s {dir}/pid; do sleep 0.01; done; echo started";
    // A process that ignores signals and closes its output.
    let stubborn = "(setsid sh -c 'trap \"\" TERM HUP INT; exec >&- 2>&-; sleep 1000 & \
                    echo $! > {dir}/pid; wait' &); while ! test -s {dir}/pid; do sleep 0.01; done; \
                    echo started";
    for script in [in_background, daemon, stubborn] {
        let _ = fs::remove_file(fixture.path("pid"));
        for (last, end) in [("", "exit 0"), ("; exit 5", "exit 5")] {
            let script = format!("rm -f {{dir}}/pid; {script}{last}");
            let mut runner = fixture.with_script(&script);
            let (lines, ended) = runner.run_hook();
            let [started, left] = lines.as_slice() else {
                panic!("{script}: {lines:?}");
            };
            assert_eq!((started.as_str(), ended.as_str()), ("started", end));
            let words = "... ended what the command left running (";
            assert!(left.starts_with(words), "{script}: {left}");
            // The hook runner itself continues.
            assert!(!exists(fixture.pid("pid")), "{script}");
            assert_eq!(runner.run_hook().1, end);
            assert!(!exists(fixture.pid("pid")), "{script}");
        }
    }
    assert!(!exists(fixture.pid("other")));
}

#[test]
fn descendants_that_keep_forking_are_killed() {
    let fixture = Fixture::new();
    // Each process starts the next one in a new session, and ends.
    let chain = "next() { n=$1; test $n -gt 0 || exec sleep 1000; \
                 setsid sh -c \"$2\" sh $((n - 1)) \"$2\" & }; next \"$1\" \"$2\"";
    let script = format!("f='{chain}'; for i in 1 2 3 4 5; do sh -c \"$f\" sh 20 \"$f\"; done");
    let mut runner = fixture.with_script(&script);
    let (lines, ended) = runner.run_hook();
    assert_eq!(ended, "exit 0");
    // The chains may have ended by themselves.
    let words = "... ended what the command left running (";
    assert!(
        lines.len() <= 1 && lines.iter().all(|line| line.starts_with(words)),
        "{lines:?}"
    );
    let children = format!("/proc/{0}/task/{0}/children", runner.child.id());
    if let Ok(text) = fs::read_to_string(children) {
        assert_eq!(text, "");
    }
}

/// More than the hook runner reaps at once, in one group and in a tree.
#[test]
fn hundreds_of_processes_are_ended_and_none_is_named_as_running() {
    let fixture = Fixture::new();
    let script = "for i in 0 1 2 3 4 5 6 7 8 9; do ( \
                  for j in 0 1 2 3 4 5 6 7 8 9; do ( \
                  for k in 0 1 2 3 4 5; do sleep 1000 & done; wait ) & done; wait ) & done; \
                  echo started";
    let mut runner = fixture.with_script(script);
    let (lines, ended) = runner.run_hook();
    assert_eq!(ended, "exit 0");
    assert!(
        lines.iter().all(|line| !line.contains("still run")),
        "{lines:?}"
    );
    let children = format!("/proc/{0}/task/{0}/children", runner.child.id());
    if let Ok(text) = fs::read_to_string(children) {
        assert_eq!(text, "");
    }
}

#[test]
fn a_hook_that_exceeds_its_time_is_killed_with_its_descendants() {
    let fixture = Fixture::new();
    // This hook handles SIGTERM, and has time to write a line.
    let polite = "trap 'echo bye; exit 0' TERM; sleep 1000 & echo $! > {dir}/pid; wait";
    let deaf = "trap '' TERM; sleep 1000 & echo $! > {dir}/pid; wait; wait";
    let away = "trap '' TERM; setsid sleep 1000 & echo $! > {dir}/pid; exec >&- 2>&-; wait; wait";
    let loud = "sleep 1000 & echo $! > {dir}/pid; yes > /dev/stderr";
    for (script, first) in [
        (polite, Some("bye")),
        (deaf, None),
        (away, None),
        (loud, Some("y")),
    ] {
        let mut runner = fixture.with_script(script);
        let (lines, end) = runner.run("before_swap 0 r2 - 400");
        assert_eq!(end, "timed_out", "{script}");
        assert_eq!(lines.first().map(String::as_str), first, "{script}");
        assert!(!exists(fixture.pid("pid")), "{script}");
    }
    // The hook's own timeout applies if the request's is longer.
    let own = "[[hooks.before_swap]]\ncommand = [\"/bin/sleep\", \"1000\"]\ntimeout = \"1s\"\n";
    assert_eq!(fixture.runner(own).run_hook().1, "timed_out");
}

#[test]
fn closed_input_ends_the_hook_and_the_hook_runner() {
    let fixture = Fixture::new();
    for script in [
        "sleep 1000 & echo $! > {dir}/pid; echo up; wait",
        "trap '' TERM; setsid sleep 1000 & echo $! > {dir}/pid; echo up; wait; wait",
    ] {
        let mut runner = fixture.with_script(script);
        runner.send(&request("before_swap 0 r2 - 600000"));
        assert_eq!(runner.next().as_deref(), Some("{\"output\":\"up\"}"));
        let pid = fixture.pid("pid");
        assert!(exists(pid));
        runner.stdin = None;
        runner.assert_ends();
        assert!(!exists(pid), "{script}");
    }
    let mut runner = fixture.with_script("echo $$ > {dir}/pid; echo up; sleep 1000");
    runner.send(&request("before_swap 0 r2 - 600000"));
    assert_eq!(runner.next().as_deref(), Some("{\"output\":\"up\"}"));
    runner.send(&request("before_swap 0 r2 - 600000"));
    runner.assert_ends();
    assert!(!exists(fixture.pid("pid")));
}

#[test]
fn termination_signals_do_not_end_the_hook_runner() {
    let fixture = Fixture::new();
    let mut runner = fixture.with_script("echo up; while ! test -e {dir}/go; do sleep 0.01; done");
    runner.send(&request("before_swap 0 r2 - 600000"));
    assert_eq!(runner.next().as_deref(), Some("{\"output\":\"up\"}"));
    let pid = Pid::from_raw(runner.child.id() as i32);
    for signal in [
        Signal::SIGHUP,
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGTERM,
    ] {
        kill(pid, signal).unwrap();
    }
    fs::write(fixture.path("go"), "").unwrap();
    assert_eq!(runner.next().as_deref(), Some("{\"outcome\":{\"exit\":0}}"));
}

#[test]
fn an_invalid_request_ends_the_hook_runner() {
    let fixture = Fixture::new();
    let good = request("before_swap 0 r2 - 1000");
    let setup = fixture.setup(&hook(&["/bin/true"]));
    for bad in [
        "\n",
        "{}\n",
        &request("before_swap 0 ../r2 - 1000"),
        &good.replace('}', ",\"command\":[\"/bin/sh\"]}"),
        &request("before_swap 00 r2 - 1000"),
        &good.repeat(2),
        &setup,
        &"x".repeat(5000),
    ] {
        let mut runner = fixture.with_hook(&["/bin/true"]);
        runner.send(bad);
        runner.assert_ends();
    }
    // A line without its line feed is no request.
    let mut runner = fixture.with_hook(&["/bin/true"]);
    runner.send(good.trim_end());
    runner.stdin = None;
    runner.assert_ends();
}

#[test]
fn an_invalid_setup_ends_the_hook_runner() {
    let fixture = Fixture::new();
    let good = fixture.setup(&hook(&["/bin/true"]));
    for bad in [
        "\n".to_owned(),
        request("before_swap 0 r2 - 1000"),
        good.replacen('{', "{\"more\":1,", 1),
        good.replace("/bin/true", "bin/true"),
        good.replace("\"blog\"", "\"../blog\""),
    ] {
        assert_ne!(bad, good);
        Runner::start(Command::new(BIN).arg("hooks"), &bad).assert_ends();
    }
    let extra_argument = Command::new(BIN).env_clear().args(["hooks", "x"]).output();
    assert_eq!(extra_argument.expect("it runs").status.code(), Some(64));
}

/// A forced command such as `deploy-shell $SSH_ORIGINAL_COMMAND` in a shell would
/// otherwise let a client name the program that the hook runner executes.
#[test]
fn no_child_process_runs_with_an_environment() {
    let fixture = Fixture::new();
    let setup = fixture.setup(&hook(&["/bin/touch", "{dir}/touched"]));
    let input = format!("{setup}{}", request("before_swap 0 r2 - 1000"));
    for (word, variable) in [
        ("hooks", "SSH_ORIGINAL_COMMAND"),
        ("hooks", "PATH"),
        ("unpack", "SSH_CONNECTION"),
        ("probe", "http_proxy"),
        ("look-up", "HOME"),
    ] {
        let mut command = Command::new(BIN);
        command.env_clear().env(variable, "hooks").arg(word);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        // The child may have ended already.
        _ = child
            .stdin
            .take()
            .expect("a pipe")
            .write_all(input.as_bytes());
        let output = child.wait_with_output().expect("it ends");
        assert_eq!(output.status.code(), Some(64), "{word} {variable}");
        let said = String::from_utf8_lossy(&output.stderr);
        let start = format!("deploy-shell: bad-request: cannot start '{word}': its environment");
        assert!(said.starts_with(&start), "{said}");
    }
    assert!(!fixture.path("touched").exists());
    // The control: the same input without an environment runs the hook.
    let mut runner = Runner::start(Command::new(BIN).arg("hooks"), &setup);
    runner.run("before_swap 0 r2 - 1000");
    assert!(fixture.path("touched").exists());
}

/// Gives the releases to an account other than root, which root uses for the hook
/// runner. Returns false, and prints the reason, if that account cannot reach the
/// program.
pub fn reachable_as_nobody(fixture: &Fixture) -> bool {
    for path in ["root/releases/r1", "root/releases/r2"] {
        chown(fixture.path(path), Some(NOBODY), Some(NOBODY)).expect("chown as root");
    }
    let reached = become_nobody(BIN).arg("--version").output();
    let reached = reached.expect("setpriv runs").status.success();
    if !reached {
        println!("skipped: another user cannot reach the program");
    }
    reached
}

fn become_nobody(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.arg(format!("--reuid={NOBODY}"));
    command.arg(format!("--regid={NOBODY}"));
    command.args(["--clear-groups", program]);
    command
}

/// Starts the hook runner as a user other than root; none if that user cannot
/// reach the program.
fn as_ordinary_user(fixture: &Fixture, config: &str) -> Option<Runner> {
    if !Uid::effective().is_root() {
        return Some(fixture.runner(config));
    }
    if !reachable_as_nobody(fixture) {
        return None;
    }
    // The pipes must belong to that user as well.
    let mut command = become_nobody("sh");
    command.args(["-c", "cat | env -i \"$0\" hooks | cat", BIN]);
    Some(Runner::start(&mut command, &fixture.setup(config)))
}

/// Makes the program `become-root`, which sets the real and the effective user, as sudo
/// does.
pub fn become_root_program(fixture: &Fixture) {
    let become_root = fixture.path("become-root");
    copy_program("/usr/bin/setpriv", &become_root);
    set_mode(&become_root, 0o4755);
}

/// The account that owns nothing.
pub const NOBODY: u32 = 65534;

#[test]
fn a_hook_cannot_answer_in_place_of_the_hook_runner() {
    let fixture = Fixture::new();
    let script = "cd /proc/$PPID || exit 5; for fd in 0 1; do \
                  (echo '{\"outcome\":{\"exit\":0}}' > fd/$fd) 2>/dev/null && echo reached; done; \
                  cat environ mem > /dev/null 2>&1 && echo read; exit 3";
    let config = format!(
        "[[hooks.after_swap]]\ncommand = {:?}\n",
        ["/bin/sh", "-c", script]
    );
    if let Some(mut runner) = as_ordinary_user(&fixture, &config) {
        let (lines, end) = runner.run("after_swap 0 r2 - 60000");
        assert_eq!((lines, end), (Vec::new(), "exit 3".to_owned()));
    }
}

#[test]
fn a_process_of_another_user_is_reported_and_not_waited_for() {
    if !Uid::effective().is_root() {
        println!("skipped: only root can make a set-user-ID program");
        return;
    }
    let fixture = Fixture::new();
    become_root_program(&fixture);
    let config = "[[hooks.after_swap]]\n\
        command = [\"/bin/sh\", \"-c\", \"{dir}/become-root --reuid=0 sleep 1000 & \
        until grep -qx sleep /proc/$!/comm; do sleep 0.01; done; echo up; exit 0\"]\n\
        [[hooks.after_swap]]\n\
        command = [\"{dir}/become-root\", \"--reuid=0\", \"sleep\", \"1000\"]\n\
        [[hooks.after_swap]]\n\
        command = [\"/bin/echo\", \"well\"]\n";
    let Some(mut runner) = as_ordinary_user(&fixture, config) else {
        return;
    };
    let mut remaining = Vec::new();
    for (request, expected) in [
        ("after_swap 0 r2 - 60000", "exit 0"),
        ("after_swap 1 r2 - 300", "timed_out"),
    ] {
        let (lines, end) = runner.run(request);
        assert_eq!(end, expected, "{lines:?}");
        let last = lines.last().expect("a remark");
        let rest = last.strip_prefix("... process ");
        let pid =
            rest.and_then(|it| it.strip_suffix(" (sleep) could not be killed, and still runs"));
        let pid = pid.expect(last);
        remaining.push(Pid::from_raw(pid.parse().expect("a number")));
    }
    // The process still runs, and so does the hook runner. It is reported once.
    let (lines, end) = runner.run("after_swap 2 r2 - 60000");
    assert_eq!((lines, end), (vec!["well".to_owned()], "exit 0".to_owned()));
    for pid in remaining {
        assert!(exists(pid));
        kill(pid, Signal::SIGKILL).expect("kill as root");
    }
}
