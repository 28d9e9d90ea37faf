//! The automatic rollback: a release that fails its post-swap checks is
//! replaced by the one that was live before.

use jiff::Timestamp;

use crate::direct::{ask, listing, live, put, states};
use crate::gating::{
    gate_failed, hook, log, logged_steps, logging_hooks, make_fail, make_pass, rollback_line,
};
use crate::service::{Answer, Service, ok};
use crate::site::{Reply, Site};

/// The last records of the journal: event, release, previous.
fn journal(site: &Site, count: usize) -> Vec<String> {
    let journal = site.journal();
    let last = journal[journal.len() - count..].iter();
    last.map(|record| {
        let text = |key: &str| record[key].as_str().unwrap_or("-").to_owned();
        format!("{} {} {}", text("event"), text("release"), text("previous"))
    })
    .collect()
}

/// Returns from when to when the release was live, according to the problem.
#[track_caller]
fn span(problem: &str) -> [Timestamp; 2] {
    let (_, rest) = problem.split_once("it was live from ").expect(problem);
    let words: Vec<&str> = rest.split([' ', ',', ';']).collect();
    assert_eq!(words[1], "to", "{problem}");
    [words[0], words[2]].map(|time| time.parse().expect("RFC 3339"))
}

#[track_caller]
fn is_confirmed(site: &Site, release: &str) -> bool {
    let listing = listing(site);
    let rows = listing["releases"].as_array().expect("an array");
    let row = rows.iter().find(|row| row["release"] == release);
    row.expect("it is there")["proved"]
        .as_bool()
        .expect("it was live")
}

#[test]
fn the_previous_release_is_live_again() {
    let site = Site::with_config(&logging_hooks());
    live(&site, &["a", "b"]);
    put(&site, "c");
    make_fail(&site, "c", "after_swap");
    log(&site);
    let reply = site.ssh("ci", "swap c");
    reply.refused(69, "gate-failed");
    let problem = gate_failed(&reply);
    let start = "release 'c' failed its gate: hook after_swap 1 ('/bin/sh') exited with 1; ";
    assert!(problem.starts_with(start), "{problem}");
    assert!(problem.ends_with(", and 'b' is live again"), "{problem}");
    let [from, to] = span(&problem);
    assert!(from <= to, "{problem}");
    let swapped = site
        .journal()
        .into_iter()
        .rfind(|it| it["event"] == "swapped");
    let swapped: Timestamp = swapped.expect("a record")["time"]
        .as_str()
        .and_then(|time| time.parse().ok())
        .expect("a time");
    assert_eq!(from, swapped);
    // The hooks after the swap run again with the releases exchanged. No hook
    // runs before the automatic rollback.
    assert_eq!(
        log(&site),
        ["before_swap c b b", "after_swap c b c", "after_swap b c b"]
    );
    assert_eq!(states(&site), ["b current", "c bad", "a previous"]);
    rollback_line(&site).has(&[("release", "c"), ("live", "b"), ("outcome", "ok")]);
    assert_eq!(
        journal(&site, 5),
        [
            "activating c b",
            "swapped c b",
            "activating b c",
            "returned b c",
            "proved b -"
        ]
    );
    assert!(is_confirmed(&site, "b"));
    let steps = logged_steps(&site);
    let last: Vec<_> = steps[steps.len() - 3..]
        .iter()
        .map(|step| ["step", "release", "outcome"].map(|key| step.get(key).expect("it is there")))
        .collect();
    assert_eq!(
        last,
        [
            ["before_swap 1", "c", "ok"],
            ["after_swap 1", "c", "failed"],
            ["after_swap 1", "b", "ok"]
        ]
    );

    // No rollback goes to it until a swap clears it.
    ask(&site, "rollback c").refused(66, "no-such-release");
    assert_eq!(ask(&site, "rollback").ok(), "ok rollback a previous=b\n");
    make_pass(&site, "c");
    assert_eq!(ask(&site, "swap c").ok(), "ok swap c previous=a\n");
    assert_eq!(states(&site)[..2], ["c current", "a previous"]);
}

#[test]
fn the_health_check_runs_again_for_the_restored_release() {
    // The service answers correctly for the live release, except for c.
    let site = Site::new();
    let link = site.root().join("current");
    let service = Service::start(move |_, _| {
        let target = std::fs::read_link(&link).unwrap_or_default();
        match target.to_str().expect("a plain link") {
            "releases/c" => Answer::Elsewhere("/down"),
            other => ok(other),
        }
    });
    site.configure(&format!(
        "{}[health]\nurl = \"{}\"\ncontains = \"{{release}}\"\n",
        logging_hooks(),
        service.url("/")
    ));
    live(&site, &["a"]);
    put(&site, "c");
    let problem = gate_failed(&site.ssh("ci", "swap c"));
    assert!(problem.contains("health (http://"), "{problem}");
    assert!(problem.ends_with(", and 'a' is live again"), "{problem}");
    assert_eq!(
        service.requested_paths().len(),
        4,
        "a, c twice, and a again"
    );
    let last = logged_steps(&site).pop().expect("a line");
    last.has(&[("step", "health"), ("release", "a"), ("outcome", "ok")]);
    assert_eq!(states(&site), ["a current", "c bad"]);
}

#[test]
fn the_reply_says_if_neither_release_passes() {
    let site = Site::with_config(&logging_hooks());
    live(&site, &["a"]);
    put(&site, "b");
    for release in ["a", "b"] {
        make_fail(&site, release, "after_swap");
    }
    let problem = gate_failed(&site.ssh("ci", "swap b"));
    let end = "; 'a' is live again and failed as well: hook after_swap 1 ('/bin/sh') exited with 1";
    assert!(problem.ends_with(end), "{problem}");
    span(&problem);
    rollback_line(&site).has(&[("release", "b"), ("live", "a"), ("outcome", "failed")]);
    // The live release is the one from before, and it is not bad.
    assert_eq!(states(&site), ["a current", "b bad"]);
}

/// A hook may do anything to the root; this one blocks the rename.
#[test]
fn the_reply_says_why_the_automatic_rollback_failed() {
    let config = hook(
        "after_swap",
        "[ $DEPLOY_RELEASE != b ] || { cd {dir}/root/.deploy-shell; rm back; mkdir next; exit 1; }",
    );
    let site = Site::with_config(&config);
    live(&site, &["a"]);
    put(&site, "b");
    let reply = site.ssh("ci", "swap b");
    reply.refused(74, "io-error");
    let words = "release 'b' failed its gate: hook after_swap 1 ('/bin/sh') exited with 1; it is \
                 still live, because the automatic rollback to 'a' failed: cannot move the symlink ";
    assert!(reply.stderr.contains(words), "{reply:?}");
    // The remedy works.
    assert!(
        reply.stderr.ends_with("'list' shows what is live\n"),
        "{reply:?}"
    );
    rollback_line(&site).has(&[("release", "b"), ("live", "b"), ("outcome", "failed")]);
    std::fs::remove_dir(site.root().join(".deploy-shell/next")).expect("an empty directory");
    assert_eq!(
        site.ssh("ci", "rollback").ok(),
        "ok rollback a previous=b\n"
    );
    assert_eq!(states(&site), ["a current", "b bad"]);
}

#[test]
fn a_first_release_that_fails_leaves_no_symlink() {
    let site = Site::with_config(&logging_hooks());
    put(&site, "a");
    make_fail(&site, "a", "after_swap");
    let problem = gate_failed(&site.ssh("ci", "swap a"));
    assert!(
        problem.ends_with(", and nothing is live, as before"),
        "{problem}"
    );
    span(&problem);
    rollback_line(&site).has(&[("release", "a"), ("live", "-"), ("outcome", "ok")]);
    assert_eq!(site.current(), None);
    assert!(site.root().join("current").symlink_metadata().is_err());
    assert_eq!(log(&site), ["before_swap a - ", "after_swap a - a"]);
    assert_eq!(states(&site), ["a bad"]);
    assert!(listing(&site)["current"].is_null());
    assert_eq!(journal(&site, 2), ["activating - a", "returned - a"]);
    ask(&site, "rollback").refused(66, "no-such-release");

    make_pass(&site, "a");
    assert_eq!(ask(&site, "swap a").ok(), "ok swap a previous=-\n");
    assert_eq!(states(&site), ["a current"]);
}

#[test]
fn a_failed_rollback_restores_the_release_it_left() {
    let site = Site::with_config(&logging_hooks());
    live(&site, &["a", "b", "c"]);
    make_fail(&site, "b", "after_swap");
    log(&site);
    let problem = gate_failed(&site.ssh("ci", "rollback"));
    assert!(
        problem.starts_with("release 'b' failed its gate: "),
        "{problem}"
    );
    assert!(problem.ends_with("'c' is live again"), "{problem}");
    assert_eq!(
        log(&site),
        [
            "before_rollback b c c",
            "after_swap b c b",
            "after_swap c b c"
        ]
    );
    // The rollback from c was undone, so c is not bad.
    assert_eq!(states(&site), ["c current", "b bad", "a previous"]);
    assert!(is_confirmed(&site, "c"));
    put(&site, "d");
    ask(&site, "swap d").ok();
    assert_eq!(states(&site)[..2], ["d current", "c previous"]);
    assert_eq!(ask(&site, "rollback").ok(), "ok rollback c previous=d\n");
}

#[test]
fn a_release_removed_meanwhile_is_no_fallback() {
    let config = hook(
        "after_swap",
        "[ $DEPLOY_RELEASE = a ] || { rm -rf {dir}/root/releases/a; exit 1; }",
    );
    let site = Site::with_config(&config);
    live(&site, &["a"]);
    put(&site, "b");
    let problem = gate_failed(&site.ssh("ci", "swap b"));
    assert!(
        problem.ends_with("; 'a' is gone, and nothing is live"),
        "{problem}"
    );
    assert_eq!(site.current(), None, "not a link that leads nowhere");
    rollback_line(&site).has(&[("release", "b"), ("live", "-"), ("outcome", "failed")]);
    assert_eq!(states(&site), ["b bad", "a missing"]);
}

#[test]
fn a_failed_release_is_not_pruned_at_once() {
    let site = Site::with_config(&format!("keep = 0\nmin_age = \"0s\"\n{}", logging_hooks()));
    live(&site, &["a", "b"]);
    put(&site, "c");
    make_fail(&site, "c", "after_swap");
    gate_failed(&site.ssh("ci", "swap c"));
    assert_eq!(
        site.releases(),
        ["a", "b", "c"],
        "what failed can be looked at"
    );
    assert_eq!(
        ask(&site, "rollback").ok(),
        "ok rollback a previous=b pruned=c\n"
    );
}

/// A request with a condition has the same automatic rollback; the condition
/// names the release that was live.
#[test]
fn a_condition_compares_the_release_that_is_really_live() {
    let site = Site::with_config(&logging_hooks());
    live(&site, &["a"]);
    put(&site, "b");
    put(&site, "c");
    make_fail(&site, "b", "after_swap");
    gate_failed(&site.ssh("ci", "swap b --if-current a"));
    site.ssh("ci", "swap c --if-current b")
        .refused(75, "not-current");
    let reply: Reply = site.ssh("ci", "swap c --if-current a");
    assert_eq!(reply.ok(), "ok swap c previous=a\n");
}
