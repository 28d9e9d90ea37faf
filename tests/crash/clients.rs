//! Many clients of one site, and a reader that reads without a pause.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;
use serde_json::Value;

use crate::archive::tarball;
use crate::fixture::Fixture;
use crate::payloads::receive_command;
use crate::site::{BIN, Reply, Site};

const CLIENTS: usize = 64;

fn small(release: &str) -> Vec<u8> {
    tarball(&[
        ("index.html", release.as_bytes()),
        ("marker", release.as_bytes()),
    ])
}

/// Sends a request through a real `sshd`, or starts the program as `sshd` would.
fn ask(site: &Site, request: &str, by_ssh: bool) -> Reply {
    let release = request.split(' ').nth(1).unwrap_or_default();
    let payload = if request.starts_with("receive") {
        small(release)
    } else {
        Vec::new()
    };
    if by_ssh {
        return site.ssh_with_input("ci", request, &payload);
    }
    let mut command = std::process::Command::new(BIN);
    command
        .env_clear()
        .arg("serve")
        .arg("--config")
        .arg(site.config_path())
        .args(["--key", "ci"])
        .env("SSH_ORIGINAL_COMMAND", request);
    site.run(command, &payload)
}

/// Returns the request of a client in a round: receive, swap, swap with --if-current,
/// rollback or list.
fn request(client: usize, round: usize) -> String {
    let release = format!("r{:02}", client * 7 % CLIENTS);
    match (client + round) % 5 {
        0 => Site::receive_command(
            &format!("n{client:02}-{round}"),
            &small(&format!("n{client:02}-{round}")),
        ),
        1 => format!("swap {release}"),
        2 => format!("swap {release} --if-current r{client:02}"),
        3 => "rollback".to_owned(),
        _ => "list --json".to_owned(),
    }
}

/// Returns the activations of the journal, and requires each to start from the release
/// that the one before it made live.
fn activations(journal: &[Value]) -> Vec<(String, String)> {
    let mut live = String::from("-");
    let mut found = Vec::new();
    for (index, record) in journal.iter().enumerate() {
        assert_eq!(record["seq"], index as u64 + 1, "{record}");
        let event = record["event"].as_str().expect("an event");
        assert_ne!(event, "reconciled", "{record}");
        if event == "swapped" || event == "rolled-back" {
            let release = record["release"].as_str().expect("a release").to_owned();
            let previous = record["previous"].as_str().unwrap_or("-").to_owned();
            assert_eq!(previous, live, "{record}");
            live.clone_from(&release);
            let verb = if event == "swapped" {
                "swap"
            } else {
                "rollback"
            };
            found.push((format!("{verb} {release}"), previous));
        }
    }
    found
}

#[test]
fn every_ok_of_sixty_four_clients_is_on_record() {
    crate::in_memory();
    let site = Site::with_config(
        "keep = 1000\n[pending]\nmax = 1000\n[limits]\nreceives_per_hour = 10000\n",
    );
    for client in 0..CLIENTS {
        let release = format!("r{client:02}");
        let request = Site::receive_command(&release, &small(&release));
        ask(&site, &request, false).ok();
    }
    let rounds = if crate::long() { 10 } else { 2 };
    let barrier = Barrier::new(CLIENTS);
    let replies: Vec<(String, Reply)> = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let (site, barrier) = (&site, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    let ask = |round| {
                        let request = request(client, round);
                        // The long form sends all of them through sshd.
                        let by_ssh = crate::long() || (client + round) % 4 == 0;
                        let reply = ask(site, &request, by_ssh);
                        (request, reply)
                    };
                    (0..rounds).map(ask).collect::<Vec<_>>()
                })
            })
            .collect();
        let replies = clients.into_iter().map(|client| client.join());
        replies
            .flat_map(|replies| replies.expect("no client panics"))
            .collect()
    });

    let mut ends: BTreeMap<String, usize> = BTreeMap::new();
    let mut recorded: BTreeMap<(String, String), usize> = BTreeMap::new();
    // So many records make a checkpoint.
    let activations = activations(&site.history());
    for step in &activations {
        *recorded.entry(step.clone()).or_default() += 1;
    }
    let mut promised = 0;
    for (request, reply) in &replies {
        let verb = request.split(' ').next().unwrap_or_default();
        *ends.entry(format!("{verb} {}", reply.code)).or_default() += 1;
        let words: Vec<&str> = reply.stdout.split_whitespace().collect();
        match (verb, reply.code) {
            ("list", 0) => {
                let listing: Value = serde_json::from_str(&reply.stdout).expect("JSON");
                assert!(listing["releases"].as_array().expect("rows").len() >= CLIENTS);
            }
            ("receive", 0) => {
                let marker = site.root().join("releases").join(words[2]).join("marker");
                assert_eq!(
                    fs::read_to_string(marker).expect("the release exists"),
                    words[2]
                );
            }
            (_, 0) if words[3] == "result=unchanged" => {}
            (_, 0) => {
                // One reply for each record.
                let previous = words[3].strip_prefix("previous=").expect("previous");
                let step = (format!("{verb} {}", words[2]), previous.to_owned());
                let left = recorded
                    .get_mut(&step)
                    .unwrap_or_else(|| panic!("{step:?} is not recorded"));
                assert!(*left > 0, "{step:?} was answered twice");
                *left -= 1;
                promised += 1;
            }
            // Another client was faster, or the lock was not free in time.
            ("swap" | "rollback", 75) => {}
            // Nothing was live before, or no good release is left.
            ("rollback", 66) => {}
            _ => panic!("{request}: {reply:?}"),
        }
    }
    println!("{} requests of {CLIENTS} clients: {ends:?}", replies.len());
    assert_eq!(activations.len(), promised, "{recorded:?}");
    let last = activations
        .last()
        .map(|(step, _)| step.split(' ').next_back());
    assert_eq!(site.current().as_deref(), last.flatten());
    assert!(site.leftovers().is_empty(), "{:?}", site.leftovers());
}

/// Reads files of the live release by one directory handle, which must all be of one
/// release, and by the path, which must always exist.
fn read_live(root: &std::path::Path) -> Result<(), String> {
    let link = root.join("current");
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let directory =
        open(&link, flags, Mode::empty()).map_err(|error| format!("current: {error}"))?;
    let read = |name: &str| {
        let mut text = String::new();
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let file = openat(&directory, name, flags, Mode::empty());
        let file = file.map_err(|error| format!("{name}: {error}"))?;
        File::from(file)
            .read_to_string(&mut text)
            .map_err(|error| format!("{name}: {error}"))?;
        Ok::<_, String>(text)
    };
    let (first, second) = (read("index.html")?, read("empty")?);
    if !["a", "b"].contains(&first.as_str()) || !second.is_empty() {
        return Err(format!("index.html is '{first}', empty is '{second}'"));
    }
    let (whole, part) = (read("part 0/0")?, read("part 1/5")?);
    if [&whole, &part] != [&first; 2] {
        return Err(format!("'{whole}' and '{part}' in '{first}'"));
    }
    fs::read(link.join("index.html"))
        .map(drop)
        .map_err(|error| format!("current/index.html: {error}"))
}

#[test]
fn a_reader_always_finds_one_whole_release() {
    let swaps = if crate::long() { 100_000 } else { 2_000 };
    let fixture = Fixture::new();
    let site = fixture.make("reader", 5);
    for release in ["a", "b"] {
        site.ok(&receive_command(release)).expect("received");
        site.ok(&format!("swap {release}")).expect("swapped");
    }
    let root = site.root();
    let (done, reads) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                read_live(&root)?;
                reads.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<_, String>(())
        });
        let mut swapped = Ok(String::new());
        for turn in 0..swaps {
            let release = ["a", "b"][turn % 2];
            swapped = site.ok(&format!("swap {release}"));
            if swapped.is_err() || reader.is_finished() {
                break;
            }
        }
        done.store(true, Ordering::Relaxed);
        assert_eq!(swapped.map(drop), Ok(()));
        assert_eq!(reader.join().expect("the reader does not panic"), Ok(()));
    });
    println!("{swaps} swaps, {} reads", reads.into_inner());
    site.check_tidy().expect("an undamaged site");
}
