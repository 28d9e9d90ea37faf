//! The base of a delta: which releases may be one, and that nothing removes it while a
//! receive builds on it.

use std::fs::{self, File};

use crate::direct::{ask, everything, held_open, live, payload, put, serve, states};
use crate::gating::hook;
use crate::list_files::make_old;
use crate::signing::key;
use crate::site::{Site, admin, sha256, write_file};

/// Sends a delta with this base and an open stdin, and checks that it is refused before a
/// byte is read, and that nothing changes.
#[track_caller]
fn refused(site: &Site, base: &str, code: i32, word: &str, reason: &str) {
    let before = everything(site);
    let payload = payload("new");
    let tree = sha256(b"a list");
    let command = Site::receive_command("new", &payload);
    let request = format!("{command} --tree {tree} --base {base}");
    let reply = held_open(serve(site, "ci", request), &payload);
    assert_eq!(reply.code, code, "{base}: {reply:?}");
    reply.refused(code, word);
    assert!(reply.stderr.contains(reason), "{base}: {reply:?}");
    let remedy = "send the whole release, without --base";
    assert!(reply.stderr.contains(remedy), "{base}: {reply:?}");
    assert!(everything(site) == before, "{base}: something changed");
}

/// Holds the manifest of a release, as a receive does.
struct Hold(File);

impl Drop for Hold {
    fn drop(&mut self) {
        // To close the file is not enough: a child that another test starts now has a copy
        // of the descriptor until it executes its program.
        self.0.unlock().expect("it is locked");
    }
}

fn hold(site: &Site, release: &str) -> Hold {
    let manifests = site.root().join(".deploy-shell/manifests");
    let manifest = File::open(manifests.join(release)).expect("a manifest");
    manifest.lock_shared().expect("it is not being removed");
    Hold(manifest)
}

#[test]
fn a_base_is_a_release_that_could_be_live() {
    let fails = hook("before_swap", "[ $DEPLOY_RELEASE != bad ]");
    let site = Site::with_config(&fails);
    put(&site, "old");
    live(&site, &["good", "left", "live"]);
    put(&site, "bad");
    put(&site, "pending");
    ask(&site, "swap bad").refused(69, "gate-failed");
    ask(&site, "swap left").ok();
    ask(&site, "rollback").ok();
    assert_eq!(site.current().as_deref(), Some("live"));
    let (unknown, denied) = ((66, "no-such-release"), (77, "denied"));
    for (base, (code, word), reason) in [
        ("nowhere", unknown, "there is no release 'nowhere'"),
        (
            "pending",
            denied,
            "'pending' may not be a base: it was never live",
        ),
        ("bad", denied, "'bad' may not be a base: it is bad"),
        ("left", denied, "'left' may not be a base: it is bad"),
    ] {
        refused(&site, base, code, word, reason);
    }
    fs::create_dir(site.root().join("releases/foreign")).expect("a directory");
    refused(&site, "foreign", 66, "no-such-release", "'foreign'");
    let text = fs::read_to_string(site.config_path()).expect("a configuration");
    let floored = format!("floor = \"left\"\n{text}");
    write_file(site.config_path(), 0o644, floored.as_bytes());
    refused(&site, "good", 77, "denied", "this site's floor");
}

#[test]
fn a_base_has_a_tree_digest_and_the_recorded_manifest() {
    let site = Site::new();
    live(&site, &["a", "b"]);
    let path = site.root().join(".deploy-shell/manifests/a");
    let text = fs::read_to_string(&path).expect("a manifest");
    make_old(&site, "a");
    refused(&site, "a", 66, "no-such-release", "has no tree digest");
    let other = text.replace(&sha256(&payload("a")), &sha256(b"another payload"));
    assert_ne!(other, text);
    write_file(&path, 0o600, other.as_bytes());
    refused(
        &site,
        "a",
        74,
        "base-damaged",
        "does not match what was received",
    );
}

#[test]
fn a_base_is_signed_as_the_site_requires_today() {
    let (alice, bob) = (key("ed25519/alice"), key("ed25519/bob"));
    let site = Site::new();
    live(&site, &["a", "b"]);
    let text = fs::read_to_string(site.config_path()).expect("a configuration");
    let signers = site.dir().join("signers");
    let table = format!(
        "[signatures]\nallowed_signers = \"{}\"\n",
        signers.display()
    );
    let allow = |keys: &[&str]| {
        let lines: Vec<String> = keys.iter().map(|key| format!("blog {key}\n")).collect();
        write_file(&signers, 0o644, lines.concat().as_bytes());
    };
    write_file(
        site.config_path(),
        0o644,
        format!("{text}\n{table}").as_bytes(),
    );
    let request = |signature: &str| {
        let command = Site::receive_command("new", &payload("new"));
        let tree = sha256(b"a list");
        format!("{command} --tree {tree} --base a --signature {signature}")
    };
    let tree = sha256(b"a list");
    let statement = crate::signing::tree_statement("blog", "new", &tree);
    let signature = crate::signing::one_line(&bob.sign("deploy-shell", &statement));
    // The request is signed, and the base is not.
    allow(&[&alice.public, &bob.public]);
    let before = everything(&site);
    let unsigned = "'a' may not be a base: 0 of 1 signers have signed it";
    let check = |reason: &str| {
        let reply = held_open(serve(&site, "ci", request(&signature)), &payload("new"));
        reply.refused(77, "denied");
        assert!(reply.stderr.contains(reason), "{reply:?}");
    };
    check(unsigned);
    assert!(everything(&site) == before);
    // The base is signed by a signer of another day.
    let kept = alice.signature("blog", "a", &payload("a"));
    let path = site.root().join(".deploy-shell/manifests/a");
    let text = fs::read_to_string(&path).expect("a manifest");
    let received = text.find("# received ").expect("a time");
    let (head, rest) = text.split_at(received);
    let signed = format!("{head}# signature {kept}\n{rest}");
    write_file(&path, 0o600, signed.as_bytes());
    allow(&[&bob.public]);
    check("not an allowed signer");
}

#[test]
fn the_base_of_a_running_receive_is_not_pruned() {
    let site = Site::with_config("keep = 1\nmin_age = \"0s\"\n");
    live(&site, &["a", "b", "c"]);
    let holder = hold(&site, "a");
    let second = hold(&site, "a");
    put(&site, "d");
    let line = ask(&site, "swap d").ok();
    assert!(!line.contains("pruned="), "{line}");
    drop(second);
    live(&site, &["e"]);
    assert_eq!(
        states(&site),
        ["e current", "d previous", "c good", "a good"]
    );
    assert!(site.leftovers().is_empty());
    drop(holder);
    put(&site, "f");
    let line = ask(&site, "swap f").ok();
    assert!(line.ends_with(" pruned=c,a\n"), "{line}");
    assert_eq!(states(&site), ["f current", "e previous", "d good"]);
}

#[test]
fn the_base_of_a_running_receive_is_not_dropped() {
    let site = Site::new();
    live(&site, &["a", "b", "c"]);
    put(&site, "p");
    let drop_all = || {
        let mut command = std::process::Command::new(admin());
        command.env_clear().arg("drop").arg("--config");
        command.arg(site.config_path()).args(["--good", "p", "a"]);
        site.run(command, b"")
    };
    let holder = hold(&site, "a");
    let before = everything(&site);
    let reply = drop_all();
    reply.refused(75, "busy");
    assert!(
        reply
            .stderr
            .contains("'a' is the base of a running receive"),
        "{reply:?}"
    );
    assert!(
        everything(&site) == before,
        "all of them are dropped, or none"
    );
    drop(holder);
    drop_all().ok();
    assert_eq!(states(&site), ["c current", "b previous"]);
}

/// Pruning has the lock of the release before the release is gone.
#[test]
fn a_release_that_is_being_removed_is_no_base() {
    let site = Site::new();
    live(&site, &["a", "b"]);
    let manifests = site.root().join(".deploy-shell/manifests");
    let manifest = File::open(manifests.join("a")).expect("a manifest");
    manifest.lock().expect("nobody holds it");
    refused(&site, "a", 66, "no-such-release", "'a' is being removed");
}
