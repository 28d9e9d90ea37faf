//! Code that the tests of hooks and checks share: configures hooks, and returns what
//! the client, the log of the hooks and the audit log have of them.

use std::fs;

use crate::direct::record;
use crate::fields::Fields;
use crate::process::{eventually, pids_with_argument};
use crate::site::{Reply, Site};

/// Configures one hook, a script of sh, with a long timeout.
pub fn hook(stage: &str, script: &str) -> String {
    timed_hook(stage, script, "100s")
}

pub fn timed_hook(stage: &str, script: &str, timeout: &str) -> String {
    let command = format!("command = ['/bin/sh', '-c', '''{script}''']");
    format!("[[hooks.{stage}]]\n{command}\ntimeout = \"{timeout}\"\n")
}

/// Configures a hook of each stage that writes a line with its stage, its variables
/// and the live release. The file `failing-RELEASE` in the directory of the test
/// contains the name of the stage that fails for that release.
pub fn logging_hooks() -> String {
    ["before_swap", "after_swap", "before_rollback"]
        .map(|stage| {
            let script = format!(
                "live=$(readlink {{dir}}/root/current)\n\
                 echo \"{stage} $DEPLOY_RELEASE ${{DEPLOY_PREVIOUS:--}} ${{live#releases/}}\" \
                 >> {{dir}}/log\n\
                 ! grep -qsx {stage} \"{{dir}}/failing-$DEPLOY_RELEASE\""
            );
            hook(stage, &script)
        })
        .concat()
}

/// Makes a stage fail for a release from now on.
pub fn make_fail(site: &Site, release: &str, stage: &str) {
    let path = site.dir().join(format!("failing-{release}"));
    fs::write(path, format!("{stage}\n")).expect("a file");
}

pub fn make_pass(site: &Site, release: &str) {
    fs::remove_file(site.dir().join(format!("failing-{release}"))).expect("the file exists");
}

/// Returns the lines that hooks have written since the last call.
pub fn log(site: &Site) -> Vec<String> {
    let path = site.dir().join("log");
    let text = fs::read_to_string(&path).unwrap_or_default();
    let _ = fs::remove_file(&path);
    text.lines().map(str::to_owned).collect()
}

/// Makes the file `name`, for which a hook waits.
pub fn touch(site: &Site, name: &str) {
    fs::write(site.dir().join(name), "").expect("a file");
}

/// Waits until a hook has made the file `name`.
pub fn appears(site: &Site, name: &str) {
    let path = site.dir().join(name);
    eventually(name, || path.exists());
}

/// Returns a command for a script: wait until the test makes the file `name`.
pub fn wait_for(name: &str) -> String {
    format!("until [ -e {{dir}}/{name} ]; do sleep 0.05; done")
}

/// Asserts that the request exited with 69, wrote nothing to stdout, and ended stderr
/// with a problem and its remedy. Returns the problem.
#[track_caller]
pub fn gate_failed(reply: &Reply) -> String {
    let mut lines: Vec<&str> = reply.stderr.lines().collect();
    let last = lines.split_off(lines.len().saturating_sub(2));
    let stderr = format!("{}\n", last.join("\n"));
    let end = Reply {
        stderr,
        ..reply.clone()
    };
    end.refused(69, "gate-failed");
    let [problem, remedy] = last[..] else {
        panic!("no remedy: {reply:?}");
    };
    assert!(!remedy.starts_with("deploy-shell: "), "{reply:?}");
    // The lines before are those of hooks and checks, and warnings.
    for line in lines {
        let marked = line.starts_with("deploy-shell: ");
        assert!(marked && !line.contains("gate-failed"), "{reply:?}");
    }
    problem
        .strip_prefix("deploy-shell: gate-failed: ")
        .expect("it was asserted")
        .to_owned()
}

/// Returns the lines of a step's command, as the client sees them.
pub fn output_lines(reply: &Reply, step: &str) -> Vec<String> {
    let start = format!("deploy-shell: {step}: ");
    let lines = reply.stderr.lines();
    let lines = lines.filter_map(|line| line.strip_prefix(&start));
    lines.map(str::to_owned).collect()
}

/// Returns the audit lines of hooks and checks, newest last.
pub fn logged_steps(site: &Site) -> Vec<Fields> {
    let lines = record(site);
    let lines = lines.iter().map(|line| Fields::read(line));
    lines
        .filter(|fields| matches!(fields.get("event"), Some("hook" | "gate")))
        .collect()
}

/// Returns the audit line of the one automatic rollback.
#[track_caller]
pub fn rollback_line(site: &Site) -> Fields {
    let lines = record(site);
    let lines = lines.iter().map(|line| Fields::read(line));
    let mut returned = lines.filter(|line| line.get("event") == Some("return"));
    let one = returned
        .next()
        .expect("an automatic rollback is in the audit log");
    assert!(
        returned.next().is_none(),
        "more than one is in the audit log"
    );
    one
}

/// Asserts that no process is left that has the path of `marker`, in the directory of
/// the test, as an argument.
#[track_caller]
pub fn none_is_left(site: &Site, marker: &str) {
    let left = marked(site, marker);
    assert!(left.is_empty(), "{left:?}");
}

/// Waits until no such process is left.
pub fn wait_until_none_is_left(site: &Site, marker: &str) {
    eventually("all have ended", || marked(site, marker).is_empty());
}

fn marked(site: &Site, marker: &str) -> Vec<i32> {
    let path = site.dir().join(marker);
    pids_with_argument(path.to_str().expect("a plain path"))
}
