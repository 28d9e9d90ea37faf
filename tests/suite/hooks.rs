//! Hooks: when they run, what they get, and what the client and the audit log see.

use std::fs;
use std::io::{BufRead, BufReader};
use std::thread;

use crate::archive::tarball;
use crate::audit::value;
use crate::direct::{ask, everything, live, payload, put, states};
use crate::gating::{
    appears, gate_failed, hook, log, logged_steps, logging_hooks, make_fail, make_pass,
    output_lines, touch, wait_for,
};
use crate::process::{Running, Upload};
use crate::site::{Site, write_file};

#[test]
fn each_hook_runs_in_its_stage() {
    let site = Site::with_config(&logging_hooks());
    put(&site, "a");
    put(&site, "b");
    assert_eq!(log(&site), [] as [&str; 0], "a receive runs no hook");
    // The release, the previous release, and the one that is live during the hook.
    site.ssh("ci", "swap a").ok();
    assert_eq!(log(&site), ["before_swap a - ", "after_swap a - a"]);
    site.ssh("ci", "swap b").ok();
    assert_eq!(log(&site), ["before_swap b a a", "after_swap b a b"]);
    site.ssh("ci", "rollback").ok();
    assert_eq!(log(&site), ["before_rollback a b b", "after_swap a b a"]);
    site.ssh("ci", "swap b").ok();
    log(&site);
    site.ssh("ci", "rollback a").ok();
    assert_eq!(log(&site), ["before_rollback a b b", "after_swap a b a"]);

    // A request that changes nothing runs no hook.
    for request in ["swap a", "rollback a", "list"] {
        site.ssh("ci", request).ok();
    }
    site.ssh("ci", "swap nowhere")
        .refused(66, "no-such-release");
    site.ssh("ci", "swap b --if-current b")
        .refused(75, "not-current");
    site.ssh("ci", "rollback b").refused(66, "no-such-release");
    assert_eq!(log(&site), [] as [&str; 0]);
}

#[test]
fn hooks_of_a_stage_run_in_order_until_one_fails() {
    let one = |name: &str| {
        hook(
            "before_swap",
            &format!("echo {name}; echo {name} >> {{dir}}/log"),
        )
    };
    let config = [
        one("one"),
        one("two"),
        hook("before_swap", "[ -e {dir}/well ]"),
        one("four"),
    ];
    let site = Site::with_config(&config.concat());
    put(&site, "a");
    let reply = site.ssh("ci", "swap a");
    let problem = gate_failed(&reply);
    assert!(problem.contains("before_swap 3"), "{problem}");
    assert_eq!(log(&site), ["one", "two"]);
    touch(&site, "well");
    let reply = site.ssh("ci", "swap a");
    assert_eq!(log(&site), ["one", "two", "four"]);
    let lines: Vec<String> = output_lines(&reply, "hook");
    assert_eq!(
        lines,
        [
            "before_swap 1: one",
            "before_swap 2: two",
            "before_swap 4: four"
        ]
    );
    assert_eq!(reply.ok(), "ok swap a previous=-\n");
}

#[test]
fn a_client_cannot_change_words_or_variables() {
    let config = r#"
        [[hooks.before_swap]]
        command = ["/usr/bin/printf", "<%s>\n", "a b", "$HOME", "*", "'", "\"", "", "--", "\u001b[2J\u0007", "é"]
        [[hooks.before_swap]]
        command = ["/usr/bin/env"]
        [[hooks.before_swap]]
        command = ["/bin/pwd"]
        [[hooks.before_swap]]
        command = ["/usr/bin/id", "-u"]
    "#;
    let site = Site::with_config(config);
    put(&site, "r1");
    // A client asks sshd to set variables.
    let mut command = site.ssh_command("ci");
    command.args([
        "-o",
        "SetEnv=LANG=evil DEPLOY_RELEASE=evil",
        "--",
        "swap r1",
    ]);
    let reply = site.run(command, b"");
    let lines = |number: u32| -> Vec<String> {
        output_lines(&reply, &format!("hook: before_swap {number}"))
    };
    assert_eq!(
        lines(1),
        [
            "<a b>",
            "<$HOME>",
            "<*>",
            "<'>",
            "<\">",
            "<>",
            "<-->",
            "<\\x1b[2J\\x07>",
            "<\\xc3\\xa9>"
        ]
    );
    let mut variables = lines(2);
    variables.sort();
    let path = variables.pop().expect("four");
    assert_eq!(
        variables,
        ["DEPLOY_PREVIOUS=", "DEPLOY_RELEASE=r1", "DEPLOY_SITE=blog"]
    );
    let path = path.strip_prefix("PATH=").expect("the path");
    assert!(path.split(':').all(|directory| directory.starts_with('/')));
    let release = fs::canonicalize(site.root().join("releases/r1")).expect("it exists");
    assert_eq!(lines(3), [release.to_str().expect("a plain path")]);
    assert_eq!(lines(4), [nix::unistd::geteuid().to_string()]);
    reply.ok();

    put(&site, "r2");
    let reply = site.ssh("ci", "swap r2");
    let variables = output_lines(&reply, "hook: before_swap 2");
    assert!(
        variables.contains(&"DEPLOY_PREVIOUS=r1".to_owned()),
        "{variables:?}"
    );
}

/// As hooks-and-health.md says. The first command shows that the release chooses code otherwise.
#[test]
fn a_command_in_another_directory_finds_no_file_of_the_release() {
    let config = r#"
        [[hooks.before_swap]]
        command = ["/usr/bin/python3", "-c", "import json; print(json.__file__)"]
        [[hooks.before_swap]]
        command = ["/usr/bin/env", "-C", "/", "/usr/bin/python3", "-c", "import json; print(json.__file__)"]
    "#;
    let site = Site::with_config(config);
    let payload = tarball(&[("json.py", b"")]);
    site.receive("r1", &payload).ok();
    let reply = site.ssh("ci", "swap r1");
    let found = |number: u32| output_lines(&reply, &format!("hook: before_swap {number}"));
    let release = fs::canonicalize(site.root().join("releases/r1/json.py")).expect("it exists");
    assert_eq!(found(1), [release.to_str().expect("a plain path")]);
    assert!(found(2)[0].starts_with("/usr/lib/"), "{reply:?}");
    reply.ok();
}

#[test]
fn output_is_shown_while_the_hook_runs() {
    let script = format!(
        "echo first; printf 'sec\\033[1mond\\n' >&2; {}; printf last",
        wait_for("go")
    );
    let site = Site::with_config(&hook("before_swap", &script));
    put(&site, "a");
    let mut child = site.ssh_spawn("ci", "swap a");
    let stderr = child.stderr.take().expect("a pipe");
    let mut running = Running(child);
    let mut lines = BufReader::new(stderr)
        .lines()
        .map(|line| line.expect("text"));
    let mut next = || lines.next().unwrap_or_default();
    assert_eq!(next(), "deploy-shell: hook: before_swap 1: first");
    assert_eq!(next(), "deploy-shell: hook: before_swap 1: sec\\x1b[1mond");
    assert!(!running.is_over());
    assert_eq!(site.current(), None);
    touch(&site, "go");
    assert_eq!(next(), "deploy-shell: hook: before_swap 1: last");
    assert_eq!(next(), "");
    assert_eq!(running.reply().ok(), "ok swap a previous=-\n");
}

#[test]
fn the_audit_log_has_the_exit_and_output_of_each_hook() {
    let config = [
        hook("before_swap", "echo one; echo 'two \"2\"'; exit 0"),
        hook("after_swap", "echo fine"),
        hook("after_swap", "echo why; exit $(cat {dir}/exit)"),
    ];
    let site = Site::with_config(&config.concat());
    put(&site, "a");
    fs::write(site.dir().join("exit"), "3").expect("a file");
    gate_failed(&site.ssh("ci", "swap a"));
    let steps = logged_steps(&site);
    let [before, after, failed] = &steps[..] else {
        panic!("{steps:?}");
    };
    for line in [before, after, failed] {
        line.has(&[
            ("event", "hook"),
            ("site", "blog"),
            ("key", "ci"),
            ("release", "a"),
        ]);
        assert_eq!(value(line, "what"), "'/bin/sh'");
        assert!(value(line, "ms").parse::<u64>().is_ok());
    }
    before.has(&[("step", "before_swap 1"), ("outcome", "ok"), ("exit", "0")]);
    assert_eq!(value(before, "output"), "one | two \"2\"");
    after.has(&[
        ("step", "after_swap 1"),
        ("outcome", "ok"),
        ("output", "fine"),
    ]);
    failed.has(&[
        ("step", "after_swap 2"),
        ("outcome", "failed"),
        ("exit", "3"),
    ]);
    failed.has(&[("why", "exited with 3"), ("output", "why")]);
}

#[test]
fn a_failing_hook_before_the_swap_changes_nothing() {
    let site = Site::with_config(&logging_hooks());
    live(&site, &["a"]);
    put(&site, "b");
    make_fail(&site, "b", "before_swap");
    log(&site);
    let before = site.snapshot();
    let reply = site.ssh("ci", "swap b");
    // The hook wrote nothing, so the reply has no line of it.
    reply.refused(69, "gate-failed");
    let problem = gate_failed(&reply);
    assert!(
        problem.contains("'b'") && problem.ends_with("'a' is live, as before"),
        "{problem}"
    );
    assert_eq!(log(&site), ["before_swap b a a"], "no other hook ran");
    assert!(site.snapshot() == before, "only the journal changed");
    assert_eq!(states(&site), ["a current", "b bad"]);
    let last = site.journal().pop().expect("a record");
    assert_eq!(
        (&last["event"], &last["release"]),
        (&"failed".into(), &"b".into())
    );
    ask(&site, "rollback b").refused(66, "no-such-release");

    make_pass(&site, "b");
    assert_eq!(ask(&site, "swap b").ok(), "ok swap b previous=a\n");
    assert_eq!(states(&site), ["b current", "a previous"]);
}

#[test]
fn a_failing_hook_before_a_rollback_keeps_the_live_release() {
    let site = Site::with_config(&logging_hooks());
    live(&site, &["a", "b", "c"]);
    make_fail(&site, "b", "before_rollback");
    log(&site);
    let problem = gate_failed(&site.ssh("ci", "rollback"));
    assert!(problem.contains("before_rollback 1"), "{problem}");
    assert_eq!(log(&site), ["before_rollback b c c"]);
    // A hook before a rollback may fail for a reason that is not the target's:
    // the target stays the fallback.
    assert_eq!(states(&site), ["c current", "b previous", "a good"]);
    make_pass(&site, "b");
    assert_eq!(ask(&site, "rollback").ok(), "ok rollback b previous=c\n");
}

#[test]
fn a_program_that_cannot_start_is_the_operators_fault() {
    let command = |program: &str| format!("[[hooks.before_swap]]\ncommand = [\"{program}\"]\n");
    for (program, mode) in [
        ("{dir}/nowhere", None),
        ("{dir}/plain", Some(0o644)),
        ("{dir}", None),
        ("{dir}/not-a-program", Some(0o755)),
    ] {
        let site = Site::with_config(&command(program));
        if let Some(mode) = mode {
            let path = program.replace("{dir}", site.dir().to_str().expect("a plain path"));
            write_file(path.as_ref(), mode, b"\x7fELF and nothing more");
        }
        put(&site, "a");
        let before = site.snapshot();
        let reply = site.ssh("ci", "swap a");
        reply.refused(78, "bad-config");
        assert!(reply.stderr.contains("hook before_swap 1"), "{reply:?}");
        assert!(reply.stderr.contains("cannot be started: "), "{reply:?}");
        assert!(
            reply.stderr.contains("\ninstall the program, "),
            "{reply:?}"
        );
        assert!(site.snapshot() == before, "{program}");
        assert_eq!(states(&site), ["a pending"], "{program}");
        // Only the start itself finds out that a file is no program.
        if program.ends_with("not-a-program") {
            let step = logged_steps(&site).pop().expect("a line");
            step.has(&[("outcome", "failed")]);
            assert_eq!(step.get("exit"), None, "there is no exit status");
        }
    }
}

/// Every program of a request is looked at before the first one runs.
#[test]
fn a_missing_program_of_a_later_step_is_found_before_the_swap() {
    let missing = "command = [\"{dir}/tool\"]\n";
    let script = "#!{dir}/no-such-interpreter\n";
    for (table, step) in [
        ("[[hooks.after_swap]]", "hook after_swap 1: "),
        ("[[hooks.before_rollback]]", "hook before_rollback 1: "),
        ("[health]", "health: "),
    ] {
        let site = Site::new();
        live(&site, &["a", "b"]);
        put(&site, "c");
        let ran = ["before_swap", "before_rollback"].map(|it| hook(it, "echo ran >> {dir}/log"));
        // The list of a stage that is under test has one hook.
        let ran: String = ran.into_iter().filter(|it| !it.contains(table)).collect();
        site.configure(&format!("{ran}{table}\n{missing}"));
        let before = site.snapshot();
        let requests = match table {
            "[[hooks.before_rollback]]" => ["rollback", "rollback a"],
            _ => ["swap c", "rollback"],
        };
        let dir = site.dir().to_str().expect("a plain path");
        let tool = site.dir().join("tool");
        for (text, mode, word) in [
            (None, 0, "no such file or directory"),
            (Some("#!/bin/sh\n"), 0o644, "permission denied"),
            (Some(script), 0o755, "no-such-interpreter': no such file"),
        ] {
            if let Some(text) = text {
                write_file(&tool, mode, text.replace("{dir}", dir).as_bytes());
            }
            for request in requests {
                let reply = site.ssh("ci", request);
                reply.refused(78, "bad-config");
                for word in [step, "cannot be started: ", word] {
                    assert!(reply.stderr.contains(word), "{table} {request}: {reply:?}");
                }
            }
        }
        assert_eq!(log(&site), [] as [&str; 0], "{table}: no hook ran");
        assert!(site.snapshot() == before, "{table}");
        assert_eq!(states(&site), ["b current", "a previous", "c pending"]);
        write_file(&tool, 0o755, b"#!/bin/sh\n");
        site.ssh("ci", "rollback").ok();
    }
}

/// A request does not need the programs that it does not start.
#[test]
fn a_program_that_a_request_does_not_start_may_be_missing() {
    let missing = "command = [\"{dir}/nowhere\"]\n";
    let site = Site::with_config(&format!("[[hooks.before_rollback]]\n{missing}"));
    live(&site, &["a", "b"]);
    site.ssh("ci", "rollback").refused(78, "bad-config");
    site.configure(&format!("[[hooks.before_swap]]\n{missing}"));
    ask(&site, "rollback").ok();
    // A request that changes nothing starts nothing.
    ask(&site, "swap a").ok();
}

/// The monitor keeps the lock during a hook. A list needs no lock.
#[test]
fn other_clients_can_list_and_receive_while_a_hook_runs() {
    let script = format!("touch {{dir}}/runs; {}", wait_for("go"));
    let site = Site::with_config(&hook("before_swap", &script));
    put(&site, "a");
    let swap = Upload::start(&site, "swap a");
    appears(&site, "runs");
    site.ssh("ci", "list --json").ok();
    thread::scope(|scope| {
        // The payload becomes a release when the lock is free.
        let sent = scope.spawn(|| site.receive("b", &payload("b")));
        let refused = scope.spawn(|| site.ssh("ci", "swap a"));
        refused.join().expect("it ends").refused(75, "busy");
        touch(&site, "go");
        sent.join().expect("it ends").ok();
    });
    assert_eq!(swap.finish().ok(), "ok swap a previous=-\n");
    assert_eq!(states(&site), ["a current", "b pending"]);
}

#[test]
fn a_hook_can_send_a_request_to_the_site() {
    let site = Site::with_config(&hook("after_swap", "exec {dir}/inner"));
    let mut inner = "#!/bin/sh\nexport SHELL=/bin/sh\nexec".to_owned();
    let command = site.ssh_command("ci");
    for word in [command.get_program()]
        .into_iter()
        .chain(command.get_args())
    {
        let word = word.to_str().expect("plain words");
        inner += &format!(" '{}'", word.replace('\'', "'\\''"));
    }
    write_file(
        &site.dir().join("inner"),
        0o755,
        format!("{inner} list\n").as_bytes(),
    );
    put(&site, "a");
    let reply = site.ssh("ci", "swap a");
    let lines = output_lines(&reply, "hook: after_swap 1");
    assert!(lines[0].starts_with("RELEASE "), "{reply:?}");
    assert!(lines[1].starts_with("a        current "), "{reply:?}");
    reply.ok();
}

#[test]
fn a_hook_has_no_descriptor_and_no_sandbox_of_the_monitor() {
    let config = r#"
        [[hooks.before_swap]]
        command = ["/bin/ls", "-l", "/proc/self/fd"]
        [[hooks.before_swap]]
        command = ["/bin/grep", "-E", "^(SigBlk|NoNewPrivs|Seccomp|CapEff):", "/proc/self/status"]
    "#;
    let site = Site::with_config(config);
    put(&site, "a");
    let reply = site.ssh("ci", "swap a");
    let lines = output_lines(&reply, "hook: before_swap 1");
    let open: Vec<[&str; 2]> = lines
        .iter()
        .filter_map(|line| line.split_once(" -> "))
        .map(|(left, target)| [left.rsplit(' ').next().unwrap_or_default(), target])
        .collect();
    assert_eq!(open.len(), 4, "{reply:?}");
    assert_eq!(open[0], ["0", "/dev/null"]);
    // One pipe is stdout and stderr. The last one is the directory that ls lists.
    assert!(open[1][1].starts_with("pipe:"), "{reply:?}");
    assert_eq!([open[1][1], "2"], [open[2][1], open[2][0]]);
    assert!(open[3][1].starts_with("/proc/"), "{reply:?}");

    // sudo works in a hook if it works outside.
    let own = fs::read_to_string("/proc/self/status").expect("our own");
    let lines = output_lines(&reply, "hook: before_swap 2");
    assert_eq!(lines.len(), 4, "{reply:?}");
    for line in lines {
        let line = line.replace("\\x09", "\t");
        assert!(
            own.contains(&line),
            "{line} differs from the test's own: {own}"
        );
    }
    reply.ok();
}

#[test]
fn a_program_below_the_root_cannot_be_a_hook() {
    for program in ["{dir}/root/current/migrate", "{dir}/root/shared/run"] {
        let config = format!("[[hooks.before_swap]]\ncommand = [\"{program}\"]\n");
        let site = Site::with_config(&config);
        let before = everything(&site);
        site.ssh("ci", "list").refused(78, "bad-config");
        assert!(everything(&site) == before);
    }
}
