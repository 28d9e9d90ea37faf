//! The runner of hooks, driven over its pipes as the monitor drives it. The
//! hooks are real programs, and do what hooks should not.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};
use tempfile::TempDir;

use crate::process::{copy_program, eventually};
use crate::site::BIN;

/// Reached only where something hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// A site with releases `r1` and `r2`.
pub struct Ground(TempDir);

impl Ground {
    pub fn new() -> Ground {
        let dir = tempfile::Builder::new().prefix("deploy-shell-").tempdir();
        let ground = Ground(dir.expect("a temporary folder"));
        for folder in ["", "root", "root/releases/r1", "root/releases/r2"] {
            let path = ground.at(folder);
            fs::create_dir_all(&path).expect("a folder");
            set_mode(&path, 0o755);
        }
        set_mode(&ground.at("root/releases"), 0o755);
        ground
    }

    pub fn at(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    /// Starts the runner under this configuration; `{dir}` in it is our folder.
    pub fn runner(&self, config: &str) -> Talk {
        let dir = self.0.path().to_str().expect("a UTF-8 path");
        let path = self.at("blog.toml");
        let text = format!("root = \"{dir}/root\"\n{}", config.replace("{dir}", dir));
        fs::write(&path, text).expect("the configuration");
        set_mode(&path, 0o644);
        Talk::start(Command::new(BIN).arg("runner").arg("--config").arg(path))
    }

    /// With one hook, of these words.
    pub fn with_hook(&self, words: &[&str]) -> Talk {
        self.runner(&format!("[[hooks.before_swap]]\ncommand = {words:?}\n"))
    }

    /// With one hook, a shell's script: what an operator would not write, but
    /// what his programs may do.
    fn with_script(&self, script: &str) -> Talk {
        self.with_hook(&["/bin/sh", "-c", script])
    }

    /// The number that a process has left in a file.
    fn pid(&self, file: &str) -> Pid {
        let text = fs::read_to_string(self.at(file)).expect("it has left its number");
        Pid::from_raw(text.trim().parse().expect("a number"))
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("its mode");
}

/// A runner, and what it says.
pub struct Talk {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Talk {
    fn start(command: &mut Command) -> Talk {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the runner starts");
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
        Talk {
            child,
            stdin,
            lines,
        }
    }

    fn say(&mut self, text: &str) {
        let stdin = self.stdin.as_mut().expect("not closed yet");
        stdin.write_all(text.as_bytes()).expect("it listens");
    }

    /// The next line; None when it has closed its output.
    fn next(&mut self) -> Option<String> {
        use std::sync::mpsc::RecvTimeoutError::{Disconnected, Timeout};
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => Some(line),
            Err(Disconnected) => None,
            Err(Timeout) => panic!("the runner hangs"),
        }
    }

    /// A task, to its end: the lines of output, and the end.
    #[track_caller]
    pub fn run(&mut self, task: &str) -> (Vec<String>, String) {
        self.say(&format!("{task}\n"));
        let mut lines = Vec::new();
        loop {
            let line = self.next().expect("the runner answers");
            assert!(line.len() <= 510, "{line}");
            assert!(line.bytes().all(|it| matches!(it, b' '..=b'~')), "{line:?}");
            match line.strip_prefix("out ") {
                Some(text) => lines.push(text.to_owned()),
                None => return (lines, line),
            }
        }
    }

    /// The first hook before the swap, with time enough.
    #[track_caller]
    fn hook(&mut self) -> (Vec<String>, String) {
        self.run("run before_swap 0 r2 r1 60000")
    }

    /// It ends by itself, without another word.
    #[track_caller]
    fn ends(mut self) {
        assert_eq!(self.next(), None);
        eventually("the runner ends", || {
            self.child.try_wait().expect("a child of ours").is_some()
        });
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        self.stdin = None;
        // On closed input it ends, and with it all it has started.
        let _ = self.child.wait();
    }
}

fn exists(pid: Pid) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[test]
fn a_hook_has_its_words_and_four_variables() {
    let ground = Ground::new();
    let mut talk = ground.with_hook(&["/usr/bin/env"]);
    let (mut lines, end) = talk.hook();
    lines.sort();
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let ids = [
        "DEPLOY_PREVIOUS=r1",
        "DEPLOY_RELEASE=r2",
        "DEPLOY_SITE=blog",
    ];
    assert_eq!(lines, [&ids[..], &[path]].concat());
    assert_eq!(end, "exit 0");
    let (lines, _) = talk.run("run before_swap 0 r1 - 60000");
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
    let (lines, end) = ground.with_hook(&command).hook();
    let expected: Vec<String> = words.iter().map(|word| format!("[{word}]")).collect();
    assert_eq!((lines, end.as_str()), (expected, "exit 0"));
}

#[test]
fn a_hook_stands_in_its_release_with_nothing_open_and_nothing_to_read() {
    let ground = Ground::new();
    let root = fs::canonicalize(ground.at("root")).unwrap();
    let mut talk = ground.with_hook(&["/bin/pwd", "-P"]);
    for release in ["r2", "r1"] {
        let (lines, _) = talk.run(&format!("run before_swap 0 {release} - 60000"));
        let folder = root.join("releases").join(release);
        assert_eq!(lines, [folder.to_str().unwrap()]);
    }
    let (lines, end) = ground.with_script("cat; umask; echo end").hook();
    assert_eq!(
        (lines, end),
        (
            vec!["0022".to_owned(), "end".to_owned()],
            "exit 0".to_owned()
        )
    );

    // The one more is the folder that is being listed.
    let (lines, _) = ground.with_hook(&["/bin/ls", "-l", "/proc/self/fd"]).hook();
    let open: Vec<&str> = lines
        .iter()
        .filter_map(|line| Some(line.split_once(" -> ")?.0.rsplit(' ').next().unwrap()))
        .collect();
    assert_eq!(open, ["0", "1", "2", "3"], "{lines:?}");
    assert!(lines[1].ends_with("0 -> /dev/null"), "{lines:?}");
    assert!(lines[4].ends_with("/fd"), "{lines:?}");
}

#[test]
fn a_hook_has_the_usual_signals_and_a_group_of_its_own() {
    let ground = Ground::new();
    let (lines, _) = ground.with_hook(&["/bin/cat", "/proc/self/status"]).hook();
    let mask = |lines: &[String], key: &str| {
        let line = lines.iter().find(|line| line.starts_with(key)).expect(key);
        u64::from_str_radix(&line[line.len() - 16..], 16).expect("a mask")
    };
    let ours = fs::read_to_string("/proc/self/status").expect("our own");
    let ours: Vec<String> = ours.lines().map(str::to_owned).collect();
    assert_eq!(mask(&lines, "SigBlk:"), 0);
    // What was ignored before us stays so; we add nothing, SIGPIPE included. The
    // numbers from 32 on are libc's own affair.
    let classic = (1 << 31) - 1;
    let pipe = 1 << (Signal::SIGPIPE as u64 - 1);
    assert_eq!(
        mask(&lines, "SigIgn:") & classic & !mask(&ours, "SigIgn:"),
        0
    );
    assert_eq!(mask(&lines, "SigIgn:") & pipe, 0);

    // pid (name) state parent group session
    let (lines, _) = ground.with_hook(&["/bin/cat", "/proc/self/stat"]).hook();
    let fields: Vec<&str> = lines[0].split(' ').collect();
    assert_eq!(fields[0], fields[4], "{lines:?}");
    assert_ne!(fields[3], fields[4], "{lines:?}");
}

#[test]
fn ends_are_told_apart() {
    let ground = Ground::new();
    for (script, expected) in [
        ("exit 0", "exit 0"),
        ("exit 3", "exit 3"),
        ("exit 255", "exit 255"),
        ("kill -KILL $$", "signal 9"),
        ("kill -SEGV $$", "signal 11"),
        ("exec >&- 2>&- <&-; sleep 0.2; exit 4", "exit 4"),
    ] {
        let (lines, end) = ground.with_script(script).hook();
        assert_eq!((lines, end.as_str()), (Vec::new(), expected), "{script}");
    }
}

#[test]
fn what_cannot_be_started_says_why() {
    let ground = Ground::new();
    let plain = ground.at("plain");
    fs::write(&plain, "no program").unwrap();
    set_mode(&plain, 0o644);
    for (program, why) in [
        ("/nonexistent/hook", "no such file or directory"),
        (plain.to_str().unwrap(), "permission denied"),
        ("/etc/passwd/x", "not a directory"),
    ] {
        let (lines, end) = ground.with_hook(&[program]).hook();
        assert!(lines.is_empty());
        let expected = format!("failed '{program}' cannot be started: {why}");
        assert_eq!(end, expected);
    }
    let mut talk = ground.with_hook(&["/bin/true"]);
    for task in [
        "run before_swap 1 r1 - 1000",
        "run after_swap 0 r1 - 1000",
        "run before_rollback 0 r1 - 1000",
        "run smoke 0 r1 - 1000",
        "run health 0 r1 - 1000",
    ] {
        let (_, end) = talk.run(task);
        assert!(end.starts_with("failed there is no command "), "{end}");
    }
    assert_eq!(talk.hook().1, "exit 0");
}

#[test]
fn a_release_that_is_not_ours_is_not_entered() {
    let ground = Ground::new();
    let mut talk = ground.with_hook(&["/bin/true"]);
    symlink("r1", ground.at("root/releases/link")).unwrap();
    fs::write(ground.at("root/releases/file"), "").unwrap();
    for release in ["none", "link", "file"] {
        let (_, end) = talk.run(&format!("run before_swap 0 {release} - 1000"));
        let expected = format!("failed the folder of '{release}' cannot be entered: ");
        assert!(end.starts_with(&expected), "{end}");
    }
    set_mode(&ground.at("root/releases/r2"), 0o775);
    let expected = "failed the folder of 'r2' is not ours, or others can write it";
    assert_eq!(talk.hook().1, expected);
    set_mode(&ground.at("root/releases/r2"), 0o755);
    assert_eq!(talk.hook().1, "exit 0");
}

#[test]
fn a_site_that_cannot_be_opened_is_told_to_whoever_asks() {
    let ground = Ground::new();
    let mut talk = ground.runner("colour = 1\n");
    for _ in 0..2 {
        let (_, end) = talk.hook();
        assert!(
            end.starts_with("failed '") && end.contains("colour"),
            "{end}"
        );
    }
    fs::remove_dir_all(ground.at("root/releases")).unwrap();
    let (_, end) = ground.with_hook(&["/bin/true"]).hook();
    assert!(
        end.starts_with("failed '") && end.contains("cannot be opened"),
        "{end}"
    );
}

#[test]
fn output_of_any_kind_and_size_is_shown_in_part() {
    let ground = Ground::new();
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
        let (lines, end) = ground.with_script(script).hook();
        assert_eq!(lines.len(), count, "{script}");
        assert_eq!((lines[count - 1].as_str(), end.as_str()), (last, "exit 0"));
    }
    // Escaped, it is longer than it was.
    let (lines, _) = ground.with_script("head -c 3000000 /dev/urandom").hook();
    let shown: usize = lines.iter().map(String::len).sum();
    assert!(shown <= (32 << 10) + 100, "{shown}");
    // Two streams, each more than a pipe takes, and nobody waits for ever.
    let both =
        "for i in 1 2 3 4 5 6 7 8; do head -c 200000 /dev/zero >&2; head -c 200000 /dev/zero; done";
    assert_eq!(ground.with_script(both).hook().1, "exit 0");
}

#[test]
fn nothing_that_a_hook_started_outlives_it() {
    let ground = Ground::new();
    let background = "sleep 1000 & echo $! > {dir}/pid; echo started";
    // Another session, another group, and no parent.
    let daemon = "(setsid sh -c 'echo $$ > {dir}/other; sleep 1000 & echo $! > {dir}/pid; wait' &) \
                  ; while ! test -s {dir}/pid; do sleep 0.01; done; echo started";
    // It ignores what it can, closes what it has, and changes nothing.
    let stubborn = "(setsid sh -c 'trap \"\" TERM HUP INT; exec >&- 2>&-; sleep 1000 & \
                    echo $! > {dir}/pid; wait' &); while ! test -s {dir}/pid; do sleep 0.01; done; \
                    echo started";
    for script in [background, daemon, stubborn] {
        let _ = fs::remove_file(ground.at("pid"));
        for (last, end) in [("", "exit 0"), ("; exit 5", "exit 5")] {
            let script = format!("rm -f {{dir}}/pid; {script}{last}");
            let mut talk = ground.with_script(&script);
            let (lines, ended) = talk.hook();
            assert_eq!((lines, ended.as_str()), (vec!["started".to_owned()], end));
            // The runner itself goes on.
            assert!(!exists(ground.pid("pid")), "{script}");
            assert_eq!(talk.hook().1, end);
            assert!(!exists(ground.pid("pid")), "{script}");
        }
    }
    assert!(!exists(ground.pid("other")));
}

#[test]
fn a_brood_that_multiplies_is_ended() {
    let ground = Ground::new();
    // Each of them starts the next in a session of its own, and ends.
    let chain = "next() { n=$1; test $n -gt 0 || exec sleep 1000; \
                 setsid sh -c \"$2\" sh $((n - 1)) \"$2\" & }; next \"$1\" \"$2\"";
    let script = format!("f='{chain}'; for i in 1 2 3 4 5; do sh -c \"$f\" sh 20 \"$f\"; done");
    let mut talk = ground.with_script(&script);
    assert_eq!(talk.hook(), (Vec::new(), "exit 0".to_owned()));
    let children = format!("/proc/{0}/task/{0}/children", talk.child.id());
    if let Ok(text) = fs::read_to_string(children) {
        assert_eq!(text, "");
    }
}

#[test]
fn a_hook_out_of_time_is_ended_with_all_it_started() {
    let ground = Ground::new();
    // It takes the hint, and has the time to say so.
    let polite = "trap 'echo bye; exit 0' TERM; sleep 1000 & echo $! > {dir}/pid; wait";
    let deaf = "trap '' TERM; sleep 1000 & echo $! > {dir}/pid; wait; wait";
    let away = "trap '' TERM; setsid sleep 1000 & echo $! > {dir}/pid; exec >&- 2>&-; wait; wait";
    let loud = "sleep 1000 & echo $! > {dir}/pid; yes > /dev/stderr";
    for (script, says) in [
        (polite, Some("bye")),
        (deaf, None),
        (away, None),
        (loud, Some("y")),
    ] {
        let mut talk = ground.with_script(script);
        let (lines, end) = talk.run("run before_swap 0 r2 - 400");
        assert_eq!(end, "timeout", "{script}");
        assert_eq!(lines.first().map(String::as_str), says, "{script}");
        assert!(!exists(ground.pid("pid")), "{script}");
    }
    // The hook's own limit holds where the task's is longer.
    let own = "[[hooks.before_swap]]\ncommand = [\"/bin/sleep\", \"1000\"]\ntimeout = \"1s\"\n";
    assert_eq!(ground.runner(own).hook().1, "timeout");
}

#[test]
fn closed_input_ends_the_hook_and_the_runner() {
    let ground = Ground::new();
    for script in [
        "sleep 1000 & echo $! > {dir}/pid; echo up; wait",
        "trap '' TERM; setsid sleep 1000 & echo $! > {dir}/pid; echo up; wait; wait",
    ] {
        let mut talk = ground.with_script(script);
        talk.say("run before_swap 0 r2 - 600000\n");
        assert_eq!(talk.next().as_deref(), Some("out up"));
        let pid = ground.pid("pid");
        assert!(exists(pid));
        // What is asked in between is asked by no monitor of ours.
        talk.stdin = None;
        talk.ends();
        assert!(!exists(pid), "{script}");
    }
    let mut talk = ground.with_script("echo $$ > {dir}/pid; echo up; sleep 1000");
    talk.say("run before_swap 0 r2 - 600000\n");
    assert_eq!(talk.next().as_deref(), Some("out up"));
    talk.say("run before_swap 0 r2 - 600000\n");
    talk.ends();
    assert!(!exists(ground.pid("pid")));
}

#[test]
fn signals_do_not_part_the_runner_from_its_hook() {
    let ground = Ground::new();
    let mut talk = ground.with_script("echo up; while ! test -e {dir}/go; do sleep 0.01; done");
    talk.say("run before_swap 0 r2 - 600000\n");
    assert_eq!(talk.next().as_deref(), Some("out up"));
    let runner = Pid::from_raw(talk.child.id() as i32);
    for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM] {
        kill(runner, signal).unwrap();
    }
    fs::write(ground.at("go"), "").unwrap();
    assert_eq!(talk.next().as_deref(), Some("exit 0"));
}

#[test]
fn what_is_no_task_ends_the_runner() {
    let ground = Ground::new();
    for bad in [
        "\n",
        "run\n",
        "run before_swap 0 ../r2 - 1000\n",
        "run before_swap 0 r2 - 1000 /bin/sh\n",
        "run before_swap 00 r2 - 1000\n",
        "run before_swap 0 r2 - 1000\nrun before_swap 0 r2 - 1000\n",
        "run before_swap 0 r2 - 1000\r\n",
        &"x".repeat(5000),
    ] {
        let mut talk = ground.with_hook(&["/bin/true"]);
        talk.say(bad);
        talk.ends();
    }
    // Half a line is none.
    let mut talk = ground.with_hook(&["/bin/true"]);
    talk.say("run before_swap 0 r2 - 1000");
    talk.stdin = None;
    talk.ends();
}

/// A runner of an ordinary user, whoever we are. None: nobody else can reach
/// our program.
fn as_ordinary_user(ground: &Ground, config: &str) -> Option<Talk> {
    if !Uid::effective().is_root() {
        return Some(ground.runner(config));
    }
    drop(ground.runner(config));
    for path in ["blog.toml", "root/releases/r1", "root/releases/r2"] {
        chown(ground.at(path), Some(NOBODY), Some(NOBODY)).expect("root may");
    }
    let become_nobody = |program: &str| {
        let mut command = Command::new("setpriv");
        command.arg(format!("--reuid={NOBODY}"));
        command.arg(format!("--regid={NOBODY}"));
        command.args(["--clear-groups", program]);
        command
    };
    let reached = become_nobody(BIN).arg("--version").output();
    if !reached.expect("setpriv runs").status.success() {
        println!("skipped: another user cannot reach the program");
        return None;
    }
    // The pipes are to be that user's own as well.
    let mut command = become_nobody("sh");
    command.args(["-c", "cat | \"$0\" runner --config \"$1\" | cat", BIN]);
    Some(Talk::start(command.arg(ground.at("blog.toml"))))
}

/// The account that owns nothing.
const NOBODY: u32 = 65534;

#[test]
fn a_hook_cannot_answer_in_the_runners_place() {
    let ground = Ground::new();
    let script = "cd /proc/$PPID || exit 5; for fd in 0 1; do \
                  (echo 'exit 0' > fd/$fd) 2>/dev/null && echo reached; done; \
                  cat environ mem > /dev/null 2>&1 && echo read; exit 3";
    let config = format!(
        "[[hooks.after_swap]]\ncommand = {:?}\n",
        ["/bin/sh", "-c", script]
    );
    if let Some(mut talk) = as_ordinary_user(&ground, &config) {
        let (lines, end) = talk.run("run after_swap 0 r2 - 60000");
        assert_eq!((lines, end), (Vec::new(), "exit 3".to_owned()));
    }
}

#[test]
fn what_runs_as_another_user_is_told_and_not_waited_for() {
    if !Uid::effective().is_root() {
        println!("skipped: only root can make a program that becomes root");
        return;
    }
    let ground = Ground::new();
    // What sudo does: another identity, real and effective.
    let become_root = ground.at("become-root");
    copy_program("/usr/bin/setpriv", &become_root);
    set_mode(&become_root, 0o4755);
    let config = "[[hooks.after_swap]]\n\
        command = [\"/bin/sh\", \"-c\", \"{dir}/become-root --reuid=0 sleep 1000 & \
        until grep -qx sleep /proc/$!/comm; do sleep 0.01; done; echo up; exit 0\"]\n\
        [[hooks.after_swap]]\n\
        command = [\"{dir}/become-root\", \"--reuid=0\", \"sleep\", \"1000\"]\n\
        [[hooks.after_swap]]\n\
        command = [\"/bin/echo\", \"well\"]\n";
    let Some(mut talk) = as_ordinary_user(&ground, config) else {
        return;
    };
    let mut left = Vec::new();
    for (task, expected) in [
        ("run after_swap 0 r2 - 60000", "exit 0"),
        ("run after_swap 1 r2 - 300", "timeout"),
    ] {
        let (lines, end) = talk.run(task);
        assert_eq!(end, expected, "{lines:?}");
        let last = lines.last().expect("it is told");
        let rest = last.strip_prefix("... process ");
        let pid = rest.and_then(|it| it.strip_suffix(" goes on, and cannot be ended"));
        let pid = pid.expect(last);
        left.push(Pid::from_raw(pid.parse().expect("a number")));
    }
    // It goes on, and so do we; what was told once is not told again.
    let (lines, end) = talk.run("run after_swap 2 r2 - 60000");
    assert_eq!((lines, end), (vec!["well".to_owned()], "exit 0".to_owned()));
    for pid in left {
        assert!(exists(pid));
        kill(pid, Signal::SIGKILL).expect("root may");
    }
}
