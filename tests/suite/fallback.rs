//! The choice of the fallback when a release has failed. Each test prevents a
//! mistake that was once found in the program.

use std::fs;
use std::os::unix::fs::symlink;

use crate::direct::{ask, live, put, states};
use crate::gating::{gate_failed, hook, logging_hooks, make_fail, make_pass, touch};
use crate::process::copy_program;
use crate::site::Site;

/// Every release fails while `{dir}/outage` exists.
fn outage() -> String {
    hook("after_swap", "[ ! -e {dir}/outage ]")
}

fn end_outage(site: &Site) {
    fs::remove_file(site.dir().join("outage")).expect("it was there");
}

#[test]
fn an_outage_marks_no_good_release_bad() {
    let site = Site::with_config(&outage());
    live(&site, &["a", "b", "c"]);
    put(&site, "d");
    touch(&site, "outage");
    let problem = gate_failed(&ask(&site, "swap d"));
    assert!(
        problem.contains("'c' is live again and failed as well"),
        "{problem}"
    );
    // The live release was confirmed, so it stays however often it fails.
    for request in ["swap c", "rollback c", "swap c"] {
        let problem = gate_failed(&ask(&site, request));
        assert!(
            problem.ends_with("; it passed its checks before, so it stays live"),
            "{request}: {problem}"
        );
        assert_eq!(site.current().as_deref(), Some("c"));
    }
    assert_eq!(
        states(&site),
        ["c current", "d bad", "b previous", "a good"]
    );
    end_outage(&site);
    assert_eq!(ask(&site, "swap c").ok(), "ok swap c result=proved\n");
    assert_eq!(ask(&site, "rollback").ok(), "ok rollback b previous=c\n");
}

#[test]
fn a_release_older_than_the_journal_is_a_fallback() {
    let site = Site::with_config(&outage());
    // Made by hand, or by another tool: it has no manifest.
    fs::create_dir(site.root().join("releases/old")).expect("a directory");
    symlink("releases/old", site.root().join("current")).expect("a link");
    put(&site, "a");
    touch(&site, "outage");
    gate_failed(&ask(&site, "swap a"));
    assert_eq!(site.current().as_deref(), Some("old"));
}

#[test]
fn a_live_release_without_its_manifest_is_a_fallback() {
    let site = Site::with_config(&logging_hooks());
    live(&site, &["a", "b"]);
    put(&site, "c");
    make_fail(&site, "c", "after_swap");
    fs::remove_file(site.root().join(".deploy-shell/manifests/b")).expect("it was there");
    let problem = gate_failed(&ask(&site, "swap c"));
    assert!(problem.ends_with("'b' is live again"), "{problem}");
    assert_eq!(site.current().as_deref(), Some("b"));
}

#[test]
fn no_fallback_is_a_release_that_a_swap_would_refuse() {
    // The live release is gone, and the content of the one before it has changed.
    let config = format!(
        "verify_on_swap = true\n{}",
        hook(
            "after_swap",
            "[ $DEPLOY_RELEASE != c ] || { rm -rf {dir}/root/releases/b; exit 1; }"
        )
    );
    let site = Site::with_config(&config);
    live(&site, &["a", "b"]);
    put(&site, "c");
    fs::write(site.root().join("releases/a/index.html"), "defaced").expect("a file");
    gate_failed(&ask(&site, "swap c"));
    assert_eq!(site.current(), None);
    ask(&site, "rollback a").refused(65, "digest-mismatch");
}

/// Makes `release` live, in the state that a request leaves when it is killed during
/// its post-swap checks. `event` is that of its record, `swapped` or `rolled-back`.
pub fn killed_during_checks(site: &Site, event: &str, release: &str) {
    let previous = site.current();
    let link = site.root().join("current");
    if previous.is_some() {
        fs::remove_file(&link).expect("it was there");
    }
    symlink(format!("releases/{release}"), link).expect("a link");
    let journal = site.root().join(".deploy-shell/journal.jsonl");
    let text = fs::read_to_string(&journal).expect("the journal");
    let next = site.journal().len() + 1;
    let previous = previous.map_or("null".to_owned(), |previous| format!("\"{previous}\""));
    let record = format!(
        "{{\"seq\":{next},\"time\":\"2026-01-01T00:00:00Z\",\"event\":\"{event}\",\
         \"unproved\":true,\"release\":\"{release}\",\"previous\":{previous}}}\n"
    );
    fs::write(&journal, text + &record).expect("the journal");
}

#[test]
fn after_a_kill_no_fallback_is_a_release_that_a_swap_would_refuse() {
    let config = format!("verify_on_swap = true\n{}", logging_hooks());
    let site = Site::with_config(&config);
    live(&site, &["a"]);
    put(&site, "b");
    killed_during_checks(&site, "swapped", "b");
    fs::write(site.root().join("releases/a/index.html"), "defaced").expect("a file");
    make_fail(&site, "b", "after_swap");
    let problem = gate_failed(&ask(&site, "swap b"));
    assert!(problem.ends_with("nothing was moved"), "{problem}");
    assert_eq!(site.current().as_deref(), Some("b"));
    make_pass(&site, "b");
    assert_eq!(ask(&site, "swap b").ok(), "ok swap b result=proved\n");
}

const STAYS: &str = "; there is nothing good to go back to, and nothing was moved";

#[test]
fn after_a_kill_no_fallback_is_a_release_that_is_gone() {
    let site = Site::with_config(&logging_hooks());
    live(&site, &["a"]);
    put(&site, "b");
    killed_during_checks(&site, "swapped", "b");
    site.configure(&hook("after_swap", "rm -rf {dir}/root/releases/a; exit 1"));
    let problem = gate_failed(&ask(&site, "swap b"));
    assert!(problem.ends_with("nothing was moved"), "{problem}");
    assert_eq!(site.current().as_deref(), Some("b"));
}

#[test]
fn a_bad_release_is_no_fallback_for_one_that_fails_as_well() {
    let site = Site::with_config(&logging_hooks());
    put(&site, "b");
    put(&site, "c");
    killed_during_checks(&site, "swapped", "b");
    for release in ["b", "c"] {
        make_fail(&site, release, "after_swap");
    }
    // b was live, and its checks had not passed.
    let problem = gate_failed(&ask(&site, "swap c"));
    assert!(
        problem.contains("'b' is live again and failed as well"),
        "{problem}"
    );
    for _ in 0..2 {
        let problem = gate_failed(&ask(&site, "swap b"));
        assert!(problem.ends_with(STAYS), "{problem}");
        assert_eq!(states(&site), ["b current", "c bad"]);
    }
    make_pass(&site, "b");
    assert_eq!(ask(&site, "swap b").ok(), "ok swap b result=proved\n");
}

#[test]
fn after_a_kill_a_release_that_a_rollback_left_is_no_fallback() {
    for (releases, end, after) in [
        (
            &["a", "b", "c"][..],
            ", and 'a' is live again",
            &["a current", "b bad", "c bad"][..],
        ),
        (&["b", "c"], STAYS, &["b current", "c bad"]),
    ] {
        let site = Site::with_config(&logging_hooks());
        live(&site, releases);
        killed_during_checks(&site, "rolled-back", "b");
        make_fail(&site, "b", "after_swap");
        let problem = gate_failed(&ask(&site, "swap b"));
        assert!(problem.ends_with(end), "{problem}");
        assert_eq!(states(&site), after);
    }
}

#[test]
fn the_fallback_skips_an_unconfirmed_release() {
    let site = Site::with_config(&logging_hooks());
    live(&site, &["a"]);
    put(&site, "b");
    killed_during_checks(&site, "swapped", "b");
    put(&site, "c");
    make_fail(&site, "c", "after_swap");
    let problem = gate_failed(&ask(&site, "swap c"));
    assert!(problem.ends_with("'a' is live again"), "{problem}");
    assert_eq!(site.current().as_deref(), Some("a"));
}

#[test]
fn a_release_that_its_own_hooks_remove_does_not_go_live() {
    for (takes, after) in [
        (
            "rm -rf {dir}/root/releases/b",
            &["a current", "b missing"][..],
        ),
        (
            "rm {dir}/root/.deploy-shell/manifests/b",
            &["a current", "b missing"],
        ),
        // Another release's content under its name.
        (
            "cd {dir}/root/.deploy-shell/manifests; cp a b",
            &["a current", "b pending"],
        ),
    ] {
        let site = Site::with_config("");
        live(&site, &["a"]);
        put(&site, "b");
        site.configure(&hook("before_swap", takes));
        let problem = gate_failed(&ask(&site, "swap b"));
        let end = "it is gone, or not what it was when this request began; 'a' is live, as before";
        assert!(problem.ends_with(end), "{problem}");
        assert_eq!(site.current().as_deref(), Some("a"));
        assert_eq!(states(&site), after, "{takes}");
        site.configure("");
        put(&site, "c");
        ask(&site, "swap c").ok();
    }
}

#[test]
fn a_rollback_does_not_go_to_a_release_that_its_hooks_remove() {
    let config = hook("before_rollback", "rm -rf {dir}/root/releases/a");
    let site = Site::with_config(&config);
    live(&site, &["a", "b"]);
    gate_failed(&ask(&site, "rollback"));
    assert_eq!(states(&site), ["b current", "a missing"]);
}

#[test]
fn a_hook_that_could_not_run_marks_no_release_bad() {
    let site = Site::new();
    put(&site, "a");
    // Preflight finds the program, and the first hook removes it.
    site.configure(&format!(
        "{}[[hooks.before_swap]]\ncommand = [\"{{dir}}/program\"]\n",
        hook("before_swap", "rm {dir}/program")
    ));
    copy_program("/bin/true", &site.dir().join("program"));
    let reply = ask(&site, "swap a");
    reply.refused(78, "bad-config");
    let problem = "release 'a' was not tried: hook before_swap 2 ('";
    assert!(reply.stderr.contains(problem), "{reply:?}");
    assert!(
        reply.stderr.contains("; nothing is live, as before\n"),
        "{reply:?}"
    );
    assert_eq!(states(&site), ["a pending"]);
}

#[test]
fn a_hook_program_inside_the_root_is_not_run() {
    let site = Site::with_config("[[hooks.before_swap]]\ncommand = [\"{dir}/link\"]\n");
    for target in ["root/releases/a/index.html", "/proc/self/cwd/index.html"] {
        let link = site.dir().join("link");
        let _ = fs::remove_file(&link);
        symlink(target, link).expect("a link");
        put(&site, "a");
        let reply = ask(&site, "swap a");
        reply.refused(78, "bad-config");
        let words = match target {
            "/proc/self/cwd/index.html" => "cannot be started: no such file",
            _ => "leads into the site's own root",
        };
        assert!(reply.stderr.contains(words), "{reply:?}");
    }
}

#[test]
fn repeated_failures_do_not_fill_the_disk() {
    let config = format!(
        "keep = 1\nmin_age = \"0s\"\n[pending]\nmax = 2\n{}",
        logging_hooks()
    );
    let site = Site::with_config(&config);
    live(&site, &["a"]);
    for round in 0..6 {
        let release = format!("r{round}");
        put(&site, &release);
        make_fail(&site, &release, "after_swap");
        gate_failed(&ask(&site, &format!("swap {release}")));
        make_pass(&site, &release);
    }
    assert_eq!(site.releases(), ["a", "r5"]);
}
