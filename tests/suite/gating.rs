//! What the tests of hooks and gates share: sites with commands of their
//! own, and what can be seen of those.

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

/// A hook of each stage that writes down that it ran, with its variables and
/// what is live. `sick-RELEASE` in the directory of the test makes the stage
/// whose name it holds fail for that release.
pub fn logging_hooks() -> String {
    ["before_swap", "after_swap", "before_rollback"]
        .map(|stage| {
            let script = format!(
                "live=$(readlink {{dir}}/root/current)\n\
                 echo \"{stage} $DEPLOY_RELEASE ${{DEPLOY_PREVIOUS:--}} ${{live#releases/}}\" \
                 >> {{dir}}/log\n\
                 ! grep -qsx {stage} \"{{dir}}/sick-$DEPLOY_RELEASE\""
            );
            hook(stage, &script)
        })
        .concat()
}

/// Makes a stage fail for a release from now on.
pub fn sicken(site: &Site, release: &str, stage: &str) {
    let path = site.dir().join(format!("sick-{release}"));
    fs::write(path, format!("{stage}\n")).expect("a file");
}

pub fn cure(site: &Site, release: &str) {
    fs::remove_file(site.dir().join(format!("sick-{release}"))).expect("it was sick");
}

/// What hooks have written down since this was last asked.
pub fn log(site: &Site) -> Vec<String> {
    let path = site.dir().join("log");
    let text = fs::read_to_string(&path).unwrap_or_default();
    let _ = fs::remove_file(&path);
    text.lines().map(str::to_owned).collect()
}

/// Lets hooks go on that wait for it.
pub fn touch(site: &Site, name: &str) {
    fs::write(site.dir().join(name), "").expect("a file");
}

/// Waits until a hook has made this.
pub fn appears(site: &Site, name: &str) {
    let path = site.dir().join(name);
    eventually(name, || path.exists());
}

/// In a script: waits until the test makes this.
pub fn wait_for(name: &str) -> String {
    format!("until [ -e {{dir}}/{name} ]; do sleep 0.05; done")
}

/// A refusal by the gate: 69, no word on stdout, and a problem with its
/// remedy as the last lines. Gives the problem.
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
    // What came before are lines of hooks, of gates, and warnings.
    for line in lines {
        let marked = line.starts_with("deploy-shell: ");
        assert!(marked && !line.contains("gate-failed"), "{reply:?}");
    }
    problem
        .strip_prefix("deploy-shell: gate-failed: ")
        .expect("it was asserted")
        .to_owned()
}

/// What a command has written, as the client was told.
pub fn told(reply: &Reply, step: &str) -> Vec<String> {
    let start = format!("deploy-shell: {step}: ");
    let lines = reply.stderr.lines();
    let lines = lines.filter_map(|line| line.strip_prefix(&start));
    lines.map(str::to_owned).collect()
}

/// The hooks and gates on record, newest last.
pub fn steps_on_record(site: &Site) -> Vec<Fields> {
    let lines = record(site);
    let lines = lines.iter().map(|line| Fields::read(line));
    lines
        .filter(|fields| matches!(fields.get("event"), Some("hook" | "gate")))
        .collect()
}

/// Returns the audit line of the one automatic rollback.
#[track_caller]
pub fn returned(site: &Site) -> Fields {
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

/// No process is left that has `marker` in the directory of the test as one of
/// its words.
#[track_caller]
pub fn none_is_left(site: &Site, marker: &str) {
    let left = marked(site, marker);
    assert!(left.is_empty(), "{left:?}");
}

/// The same, of what may still be about to end.
pub fn none_stays(site: &Site, marker: &str) {
    eventually("all have ended", || marked(site, marker).is_empty());
}

fn marked(site: &Site, marker: &str) -> Vec<i32> {
    let path = site.dir().join(marker);
    pids_with_argument(path.to_str().expect("a plain path"))
}
