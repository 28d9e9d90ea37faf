//! The verbs of a key: sends every verb in each of its forms with every set of
//! granted verbs, and checks the file system after each.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::direct::{ask, everything, held_open, live, payload, record, serve, states};
use crate::fields::Fields;
use crate::site::{Reply, Site, sha256};

const VERBS: [&str; 4] = ["receive", "swap", "rollback", "list"];

/// The effect of a granted request on a site where `b` is live and `a` was live
/// before it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Effect {
    Received,
    Nothing,
    Live,
    RolledBack,
}

const FORMS: [(&str, Effect); 14] = [
    ("receive NEW --sha256 DIGEST", Effect::Received),
    ("receive a --sha256 DIGEST", Effect::Nothing),
    ("swap a", Effect::Live),
    ("swap a --if-current b", Effect::Live),
    ("swap a --sha256 A", Effect::Live),
    ("swap a --sha256 A --if-current b", Effect::Live),
    ("rollback", Effect::RolledBack),
    ("rollback a", Effect::RolledBack),
    ("rollback --if-current b", Effect::RolledBack),
    ("rollback a --if-current b", Effect::RolledBack),
    ("rollback --sha256 A", Effect::RolledBack),
    ("rollback a --sha256 A --if-current b", Effect::RolledBack),
    ("list", Effect::Nothing),
    ("list --json", Effect::Nothing),
];

/// Returns the verbs of a set: bit n grants verb n, and no bit is the default,
/// all verbs.
fn granted(set: usize) -> Vec<&'static str> {
    let verbs = VERBS.iter().enumerate();
    let chosen = verbs.filter(|(bit, _)| set == 0 || set & 1 << bit != 0);
    chosen.map(|(_, verb)| *verb).collect()
}

#[test]
fn every_verb_is_granted_or_denied_by_every_set() {
    let sent = AtomicUsize::new(0);
    thread::scope(|scope| {
        // One site for each half of the keys, so that both run at the same time.
        for half in [0..8, 8..16] {
            let sent = &sent;
            scope.spawn(move || {
                let site = Site::with_config(
                    "[pending]\nmax = 1000\n\
                     [limits]\nreceives_per_hour = 100000\nswaps_per_minute = 100000\n",
                );
                live(&site, &["a", "b"]);
                for set in half {
                    sent.fetch_add(every_form(&site, set), Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(sent.into_inner(), 16 * FORMS.len());
}

/// Sends each form with the key of this set; returns the number of requests.
fn every_form(site: &Site, set: usize) -> usize {
    let verbs = granted(set);
    let key = format!("set{set}");
    site.add_key(&key, (set != 0).then(|| verbs.join(",")).as_deref());
    for (number, (form, effect)) in FORMS.into_iter().enumerate() {
        let release = if form.contains("NEW") {
            format!("new-{set}")
        } else {
            "a".to_owned()
        };
        let archive = payload(&release);
        let request = if form.starts_with("receive") {
            Site::receive_command(&release, &archive)
        } else {
            let digest = format!("--sha256 {}", sha256(&payload("a")));
            form.replace("--sha256 A", &digest)
        };
        let verb = form.split(' ').next().expect("a verb");
        let case = format!("{form} with {verbs:?}");
        if verbs.contains(&verb) {
            let before = everything(site);
            let reply = site.ssh_with_input(&key, &request, &archive);
            let stdout = reply.ok();
            assert!(!stdout.is_empty(), "{case}");
            check_effect(site, &case, effect, &release);
            if matches!(effect, Effect::Nothing) {
                assert!(everything(site) == before, "{case}");
            }
            if site.current().as_deref() != Some("b") {
                ask(site, "swap b").ok();
            }
        } else {
            denied(site, &key, &request, &case);
        }
        assert_eq!(site.current().as_deref(), Some("b"), "{case} ({number})");
    }
    FORMS.len()
}

fn check_effect(site: &Site, case: &str, effect: Effect, release: &str) {
    let has = |wanted: &str| states(site).contains(&wanted.to_owned());
    match effect {
        Effect::Received => assert!(has(&format!("{release} pending")), "{case}"),
        Effect::Nothing => assert!(has("b current"), "{case}"),
        Effect::Live => assert!(has("a current") && has("b previous"), "{case}"),
        Effect::RolledBack => assert!(has("a current") && has("b bad"), "{case}"),
    }
}

fn denied(site: &Site, key: &str, request: &str, case: &str) {
    let before = everything(site);
    let heard = record(site).len();
    let mut ssh = site.ssh_command(key);
    ssh.arg("--").arg(request);
    let reply = held_open(ssh, b"an unwanted payload");
    assert_eq!(reply.code, 77, "{case}: {reply:?}");
    reply.refused(77, "denied");
    assert!(everything(site) == before, "{case}: something changed");
    let lines = record(site);
    assert_eq!(lines.len(), heard + 1, "{case}: {:?}", &lines[heard..]);
    Fields::read(&lines[heard]).has(&[
        ("event", "request"),
        ("key", key),
        ("request", request),
        ("decision", "denied"),
        ("code", "denied"),
        ("exit", "77"),
    ]);
}

/// A key without the verb learns nothing about releases. An invalid request is
/// invalid for every key.
#[test]
fn the_decision_follows_parsing_and_precedes_the_state() {
    let site = Site::new();
    live(&site, &["a"]);
    site.add_key("looks", Some("list"));
    for request in ["swap a", "swap nowhere", "rollback", "rollback nowhere"] {
        let reply = site.ssh("looks", request);
        reply.refused(77, "denied");
        assert!(!reply.stderr.contains("nowhere"), "{reply:?}");
    }
    for request in ["swap a b", "swap ../a", "rollback --if-current", "receive"] {
        site.ssh("looks", request).refused(64, "bad-request");
    }
}

#[test]
fn an_invalid_grant_grants_nothing() {
    let site = Site::new();
    live(&site, &["a", "b"]);
    let before = everything(&site);
    for allow in [
        "",
        ",",
        "list,",
        ",list",
        "list,,swap",
        "list swap",
        "list, swap",
        "List",
        "LIST",
        "lis",
        "all",
        "*",
        "none",
        "receive,destroy",
        "list,files,files",
        "list,file",
        "list;swap",
        "list\n",
    ] {
        for request in ["list", "swap a"] {
            let mut command = serve(&site, "ci", request);
            command.args(["--allow", allow]);
            let reply = site.run(command, b"");
            assert_eq!(reply.code, 78, "{allow:?}: {reply:?}");
            reply.refused(78, "bad-config");
        }
    }
    site.add_key("typo", Some("list,swop"));
    let reply: Reply = site.ssh("typo", "list");
    reply.refused(78, "bad-config");
    assert!(everything(&site) == before);
}

#[test]
fn the_order_of_verbs_does_not_matter() {
    let site = Site::new();
    live(&site, &["a", "b"]);
    for allow in ["swap,list", "list,swap"] {
        for (request, code) in [("list", 0), ("swap b", 0), ("rollback", 77)] {
            let mut command = serve(&site, "ci", request);
            command.args(["--allow", allow]);
            let reply = site.run(command, b"");
            assert_eq!(reply.code, code, "{request} with {allow}: {reply:?}");
        }
    }
}
