//! Checkpoints: a long journal is replaced by one that begins with the folded state. No
//! request notices, and every record stays in the old parts.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::direct::{ask, listing, live, payload, put, serve, states};
use crate::site::{Reply, Site};

/// Enough receives for a test.
const MANY: &str = "keep = 1\nmin_age = \"0s\"\n[limits]\nreceives_per_hour = 10000\n";

fn state(site: &Site, name: &str) -> PathBuf {
    site.root().join(".deploy-shell").join(name)
}

/// Appends records until the journal is too long: of ten ids that were used for a moment,
/// `<prefix>0` to `<prefix>9`, and of swaps that did not happen.
pub fn lengthen(site: &Site, prefix: &str) {
    let path = state(site, "journal.jsonl");
    let journal = fs::read_to_string(&path).expect("a journal");
    let newest = journal.lines().next_back().expect("a line");
    let newest: Value = serde_json::from_str(newest).expect("JSON");
    // Of a record, or of the checkpoint.
    let checkpoint = &newest["checkpoint"];
    let seq = newest["seq"].as_u64().or(checkpoint["generation"].as_u64());
    let time = newest["time"].as_str().or(checkpoint["latest"].as_str());
    let (mut last, time) = (seq.expect("a number"), time.expect("a time").to_owned());
    let mut text = String::new();
    let mut ids = (0..10).map(|number| format!("{prefix}{number}"));
    while text.len() < 34_000 {
        let used = ids.next();
        let events = match used {
            Some(_) => ["received", "pruned"],
            None => ["activating", "abandoned"],
        };
        let id = used.unwrap_or("filler".to_owned());
        for event in events {
            last += 1;
            let mut record = json!({
                "seq": last, "time": time, "event": event, "release": id,
            });
            if event == "received" {
                record["sha256"] = "ab".repeat(32).into();
            }
            text += &format!("{record}\n");
        }
    }
    // Other requests may read it meanwhile.
    let mut file = fs::File::options()
        .append(true)
        .open(path)
        .expect("a journal");
    file.write_all(text.as_bytes()).expect("a longer journal");
}

fn journal_length(site: &Site) -> u64 {
    fs::metadata(state(site, "journal.jsonl"))
        .expect("a journal")
        .len()
}

/// Returns the names in `.deploy-shell/` that begin with `prefix`, sorted by the number
/// that follows.
fn numbered(site: &Site, prefix: &str) -> Vec<String> {
    let mut names: Vec<(u64, String)> = fs::read_dir(site.root().join(".deploy-shell"))
        .expect("a directory")
        .filter_map(|entry| entry.expect("an entry").file_name().into_string().ok())
        .filter_map(|name| {
            let number = name.strip_prefix(prefix)?.split('.').next()?;
            Some((number.parse().ok()?, name))
        })
        .collect();
    names.sort();
    names.into_iter().map(|(_, name)| name).collect()
}

fn parts(site: &Site) -> Vec<String> {
    numbered(site, "journal-")
}

/// Requires all records to be there, each once and in order.
fn assert_complete(site: &Site) {
    let numbers: Vec<_> = site.history().iter().map(|it| it["seq"].as_u64()).collect();
    let expected: Vec<_> = (1..=numbers.len() as u64).map(Some).collect();
    assert_eq!(numbers, expected);
}

fn put_other(site: &Site, release: &str) -> Reply {
    let payload = payload("other content");
    let request = Site::receive_command(release, &payload);
    site.run(serve(site, "ci", request), &payload)
}

#[test]
fn a_checkpoint_changes_nothing_but_the_length() {
    let site = Site::new();
    live(&site, &["a", "b", "c"]);
    put(&site, "p");
    ask(&site, "rollback").ok();
    for turn in 0..3 {
        lengthen(&site, "old");
        let before = listing(&site);
        let journal = fs::read(state(&site, "journal.jsonl")).expect("a journal");
        // Nothing to do, and so no record.
        let reply = ask(&site, "swap b");
        assert_eq!(reply.stderr, "", "{reply:?}");
        reply.ok();
        assert_eq!(listing(&site), before);
        assert!(journal_length(&site) < 10_000, "{}", journal_length(&site));
        let head = fs::read_to_string(state(&site, "journal.jsonl")).expect("a journal");
        assert!(
            head.starts_with("{\"format\":2}\n{\"checkpoint\":{"),
            "{head}"
        );
        assert_eq!(parts(&site), ["journal-1.jsonl.zst"], "turn {turn}");
        let part = fs::File::open(state(&site, "journal-1.jsonl.zst")).expect("a part");
        let part = zstd::decode_all(part).expect("zstd frames");
        assert!(part.ends_with(&journal));
        assert_complete(&site);
        for name in ["next-journal", "next-part"] {
            assert!(!state(&site, name).exists(), "{name}");
        }
    }
    let expected = ["b current", "c bad", "a previous", "p pending"];
    assert_eq!(states(&site), expected);
    // Through sshd.
    site.ssh("ci", "rollback").ok();
    assert_eq!(states(&site)[..2], ["a current", "b bad"]);
    put(&site, "q");
    assert_complete(&site);
}

/// A key with one verb cannot make the journal grow.
#[test]
fn every_verb_that_writes_makes_the_checkpoint() {
    let site = Site::new();
    live(&site, &["a", "b", "c", "d"]);
    for (key, verb) in [("s", "swap"), ("r", "rollback"), ("u", "receive")] {
        site.add_key(key, Some(verb));
        lengthen(&site, key);
        match verb {
            "receive" => {
                let request = Site::receive_command("n", &payload("n"));
                let mut command = serve(&site, key, request);
                command.args(["--allow", verb]);
                site.run(command, &payload("n")).ok()
            }
            "swap" => site.ssh(key, "swap c").ok(),
            _ => site.ssh(key, "rollback").ok(),
        };
        assert!(journal_length(&site) < 10_000, "{verb}");
    }
    // `list` writes nothing.
    lengthen(&site, "old");
    let before = journal_length(&site);
    ask(&site, "list").ok();
    assert_eq!(journal_length(&site), before);
    assert_complete(&site);
}

/// One at a time, so that a wrong clock does not remove them all.
#[test]
fn old_parts_are_removed_after_their_time() {
    let site = Site::with_config("keep_history = \"30d\"\n");
    live(&site, &["a"]);
    let day = Duration::from_secs(24 * 3600);
    let set_age = |name: &str, days: u32| {
        let file = fs::File::options().write(true).open(state(&site, name));
        let file = file.expect("a file");
        file.set_modified(SystemTime::now() - day * days)
            .expect("a time");
    };
    let shorten = || {
        lengthen(&site, "old");
        ask(&site, "swap a").ok();
    };
    shorten();
    assert_eq!(parts(&site), ["journal-1.jsonl.zst"]);
    set_age("journal-1.jsonl.zst", 99);
    // The newest part stays, and then is new again.
    shorten();
    assert_eq!(parts(&site), ["journal-1.jsonl.zst"]);
    // The next part, as if this one were full.
    fs::rename(
        state(&site, "journal-1.jsonl.zst"),
        state(&site, "journal-2.jsonl.zst"),
    )
    .expect("renamed");
    for (name, days) in [("journal-3.jsonl.zst", 29), ("journal-4.jsonl.zst", 99)] {
        fs::write(state(&site, name), "").expect("a file");
        set_age(name, days);
    }
    let others = [
        "journal-.jsonl.zst",
        "journal-0.jsonl",
        "journal-x.jsonl.zst",
    ];
    for name in others {
        fs::write(state(&site, name), "").expect("a file");
        set_age(name, 99);
    }
    let exists = |number: u32| state(&site, &format!("journal-{number}.jsonl.zst")).exists();
    set_age("journal-2.jsonl.zst", 29);
    shorten();
    assert!(exists(2) && exists(3) && exists(4));
    set_age("journal-2.jsonl.zst", 31);
    // One at a time, the oldest first.
    shorten();
    assert!(!exists(2) && exists(3) && exists(4));
    shorten();
    assert!(exists(3) && exists(4));
    set_age("journal-3.jsonl.zst", 31);
    shorten();
    shorten();
    assert!(!exists(3) && !exists(4));
    assert!(others.iter().all(|name| state(&site, name).exists()));
    assert_eq!(states(&site), ["a current"]);
}

/// It counts only once all records of a journal have its times.
#[test]
fn a_clock_that_is_ahead_removes_no_old_part() {
    let site = Site::with_config("keep_history = \"30d\"\n");
    live(&site, &["a", "b"]);
    let old = state(&site, "journal-0.jsonl.zst");
    fs::write(&old, "").expect("a file");
    let file = fs::File::options().write(true).open(&old).expect("a file");
    let hour = Duration::from_secs(3600);
    file.set_modified(SystemTime::now() - hour * 24 * 31)
        .expect("a time");
    lengthen(&site, "old");
    // Every record is one day younger than that part. So the clock of the next request
    // is 30 days ahead.
    site.age_journal(jiff::SignedDuration::from_hours(30 * 24));
    ask(&site, "swap a").ok();
    assert!(journal_length(&site) < 10_000);
    assert!(old.exists());
    // The time has come.
    lengthen(&site, "new");
    ask(&site, "swap b").ok();
    assert!(!old.exists());
}

#[test]
fn ids_stay_used_after_a_checkpoint() {
    let site = Site::with_config(MANY);
    live(&site, &["a", "b", "c", "d"]);
    for prefix in ["w", "x", "y", "z"] {
        lengthen(&site, prefix);
        ask(&site, "swap d").ok();
        for id in ["a", "w0", "w5", "w9"] {
            put_other(&site, id).refused(73, "release-exists");
        }
    }
    assert!(numbered(&site, "used-ids-").len() <= 3);
    // The same content may come back, and is as old as it was.
    put(&site, "a");
    let record = site.journal().pop().expect("a record");
    assert_eq!(record["event"], "received");
    assert_eq!(record["first"], 1, "{record}");
    put_other(&site, "a").refused(73, "release-exists");
}

/// A floor that was removed before the checkpoint still decides.
#[test]
fn a_floor_that_was_removed_before_the_checkpoint_still_holds() {
    let site = Site::with_config("keep = 1\nmin_age = \"0s\"\n");
    live(&site, &["a", "b", "c", "d", "e"]);
    lengthen(&site, "old");
    ask(&site, "swap e").ok();
    let text = fs::read_to_string(site.config_path()).expect("a configuration");
    fs::write(site.config_path(), format!("floor = \"b\"\n{text}")).expect("a floor");
    put(&site, "a");
    ask(&site, "swap a").refused(77, "denied");
    put(&site, "b");
    ask(&site, "swap b").ok();
    ask(&site, "swap e").ok();
    ask(&site, "rollback").ok();
}

/// `list` takes no lock. With a floor, it reads the lists of used ids too.
#[test]
fn list_answers_while_checkpoints_are_made() {
    let site = Site::with_config(&format!("floor = \"b\"\n{MANY}"));
    put(&site, "a");
    put(&site, "b");
    let remove = |release: &str| fs::remove_dir_all(site.root().join("releases").join(release));
    live(&site, &["c", "d", "e"]);
    remove("b").expect("removed");
    ask(&site, "swap e").ok();
    let expected = listing(&site)["releases"].clone();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for turn in 0..12 {
                lengthen(&site, &format!("turn{turn}-"));
                ask(&site, "swap e").ok();
            }
            done.store(true, Ordering::Relaxed);
        });
        while !done.load(Ordering::Relaxed) {
            assert_eq!(listing(&site)["releases"], expected);
        }
    });
    assert_complete(&site);
}

#[test]
fn a_damaged_list_of_used_ids_refuses_new_releases() {
    let site = Site::new();
    live(&site, &["a", "b", "c"]);
    lengthen(&site, "old");
    ask(&site, "swap c").ok();
    let list = numbered(&site, "used-ids-").pop().expect("a list");
    let path = state(&site, &list);
    let whole = fs::read(&path).expect("a list");
    for content in [None, Some(&b""[..]), Some(&whole[1..])] {
        match content {
            Some(content) => fs::write(&path, content).expect("damaged"),
            None => fs::remove_file(&path).expect("removed"),
        }
        let reply = put_other(&site, "new");
        reply.refused(78, "bad-layout");
        let words = format!("the list of used ids '{list}' is damaged");
        assert!(reply.stderr.contains(&words), "{reply:?}");
        assert!(reply.stderr.contains("from a backup"), "{reply:?}");
        // A rollback needs no list, and is not blocked.
        ask(&site, "rollback").ok();
        ask(&site, "swap c").ok();
        ask(&site, "list").ok();
        // A known release needs none either.
        put(&site, "a");
    }
    fs::write(&path, &whole).expect("restored");
    put_other(&site, "new").ok();
}

/// The request does its work, and says that the journal stays long.
#[test]
fn a_checkpoint_that_fails_is_a_warning() {
    let site = Site::new();
    live(&site, &["a", "b"]);
    for (turn, name) in ["next-part", "next-journal"].into_iter().enumerate() {
        fs::create_dir(state(&site, name)).expect("a directory");
        lengthen(&site, "old");
        let before = fs::read(state(&site, "journal.jsonl")).expect("a journal");
        let reply = ask(&site, "swap a");
        assert!(
            reply.stderr.contains("the journal stays longer"),
            "{reply:?}"
        );
        reply.ok();
        ask(&site, "swap b").ok();
        let after = fs::read(state(&site, "journal.jsonl")).expect("a journal");
        assert!(after.starts_with(&before));
        assert_eq!(numbered(&site, "used-ids-").len(), turn);
        fs::remove_dir(state(&site, name)).expect("removed");
        ask(&site, "swap b").ok();
        assert!(journal_length(&site) < 10_000);
        assert_complete(&site);
    }
}
