//! `deploy-shell-admin status`: the state of several sites, also where one of them stalls,
//! is damaged or has a configuration that does not load.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, chown, symlink};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::account::Installation;
use crate::direct::{ask, live, payload, put};
use crate::gating::hook;
use crate::mounted::{in_namespace, stalled_fs};
use crate::operator::operator;
use crate::site::{Reply, Site, admin, sha256, write_file};

const MONITORING: &str = include_str!("../../docs/monitoring.md");
const RULES: &str = include_str!("../../packaging/prometheus/deploy-shell.rules.yml");

fn status(site: &Site, options: &[&str]) -> Reply {
    let config = site.config_path().to_str().expect("UTF-8");
    let arguments = [&["status", "--config", config], options].concat();
    operator(site, &arguments, b"")
}

#[track_caller]
fn document(reply: &Reply) -> Vec<Value> {
    let document: Value = serde_json::from_str(&reply.stdout).expect("JSON");
    document["sites"].as_array().expect("an array").clone()
}

/// Returns the reasons for attention of a row of the document.
fn reasons(row: &Value) -> Vec<&str> {
    let attention = row["attention"].as_array().expect("an array").iter();
    attention
        .map(|it| it["reason"].as_str().expect("a word"))
        .collect()
}

/// Returns the reasons for attention of the only site, and checks the exit status.
#[track_caller]
fn attention(site: &Site) -> Vec<String> {
    let reply = status(site, &["--json"]);
    let rows = document(&reply);
    assert_eq!(rows.len(), 1, "{reply:?}");
    let reasons: Vec<String> = reasons(&rows[0])
        .iter()
        .map(|it| (*it).to_owned())
        .collect();
    assert_eq!(reply.code, i32::from(!reasons.is_empty()), "{reply:?}");
    reasons
}

/// Writes the configuration of another site of the same user.
fn second_site(site: &Site, name: &str, root: &Path) -> String {
    let path = site.dir().join(format!("{name}.toml"));
    let text = format!("root = \"{}\"\n[audit]\nrequired = false\n", root.display());
    write_file(&path, 0o644, text.as_bytes());
    path.to_str().expect("UTF-8").to_owned()
}

/// Checks metrics with promtool, and returns them without the comments.
#[track_caller]
fn metrics(path: &Path) -> Vec<String> {
    let text = fs::File::open(path).expect("the metrics");
    let checked = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(text)
        .output()
        .expect("tests/run installs it");
    assert!(checked.status.success(), "{checked:?}");
    assert_eq!(String::from_utf8_lossy(&checked.stderr), "");
    let text = fs::read_to_string(path).expect("the metrics");
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples.map(str::to_owned).collect()
}

#[track_caller]
fn has(metrics: &[String], sample: &str) {
    assert!(
        metrics.iter().any(|line| line == sample),
        "{sample}: {metrics:#?}"
    );
}

#[test]
fn the_state_of_a_site_is_shown() {
    let site = Site::new();
    let a = payload("a");
    let request = format!("receive a --sha256 {} --commit 0123abc", sha256(&a));
    site.ssh_with_input("ci", &request, &a).ok();
    ask(&site, "swap a").ok();
    put(&site, "b");
    let reply = status(&site, &[]);
    let lines: Vec<&str> = reply.stdout.lines().collect();
    assert_eq!((reply.code, lines.len()), (0, 2), "{reply:?}");
    let cells: Vec<&str> = lines[1].split_whitespace().collect();
    assert_eq!((cells[..3]).to_vec(), ["blog", "ok", "a"], "{reply:?}");
    assert_eq!(cells[4..6].to_vec(), ["0123abc", "1"], "{reply:?}");

    let reply = status(&site, &["--json"]);
    let rows = document(&reply);
    let found = &rows[0]["status"];
    assert_eq!(rows[0]["site"], "blog");
    assert_eq!(found["live"]["release"], "a");
    assert_eq!(found["live"]["commit"], "0123abc");
    assert_eq!(found["live"]["confirmed"], true);
    assert_eq!(
        (&found["releases"], &found["pending"]),
        (&2.into(), &1.into())
    );
    // Both archives have a file of 13 bytes, and one with the id.
    assert_eq!(found["used_bytes"], 28);
    assert!(found["available_bytes"].as_u64() > Some(0), "{found}");
    assert!(found["last_failure"].is_null(), "{found}");
    assert!(found["last_key_use"].is_string(), "{found}");
}

#[test]
fn a_failed_release_needs_attention_until_another_is_live() {
    let site = Site::with_config(&hook("after_swap", "[ $DEPLOY_RELEASE != b ]"));
    live(&site, &["a"]);
    assert_eq!(attention(&site), [""; 0]);
    put(&site, "b");
    ask(&site, "swap b").refused(69, "gate-failed");
    assert_eq!(attention(&site), ["gate-failed"]);
    let reply = status(&site, &[]);
    assert!(
        reply.stdout.contains("\nblog: gate-failed: 'b' failed "),
        "{reply:?}"
    );
    assert!(reply.stdout.contains("\n  remedy: "), "{reply:?}");
    // The remedy of the message.
    let config = site.config_path().to_str().expect("UTF-8");
    operator(&site, &["drop", "--config", config, "b"], b"").ok();
    assert_eq!(attention(&site), [""; 0]);

    put(&site, "c");
    site.configure(&hook("after_swap", "[ $DEPLOY_RELEASE != c ]"));
    ask(&site, "swap c").refused(69, "gate-failed");
    assert_eq!(attention(&site), ["gate-failed"]);
    live(&site, &["d"]);
    assert_eq!(attention(&site), [""; 0]);
}

#[test]
fn a_site_whose_symlink_leads_nowhere_needs_attention() {
    let site = Site::new();
    assert_eq!(attention(&site), [""; 0]);
    live(&site, &["a"]);
    fs::remove_file(site.root().join("current")).expect("the symlink");
    assert_eq!(attention(&site), ["nothing-live"]);
}

#[test]
fn the_other_sites_are_shown_beside_one_that_fails() {
    let site = Site::new();
    live(&site, &["a"]);
    let absent = second_site(&site, "absent", &site.dir().join("absent"));
    let wrong = site.dir().join("wrong.toml");
    write_file(&wrong, 0o644, b"rooot = \"/srv/x\"\n");
    let wrong = wrong.to_str().expect("UTF-8");
    let file = site.dir().join("deploy_shell.prom");
    let prometheus = ["--prometheus", file.to_str().expect("UTF-8")];

    let reply = status(&site, &["--config", &absent, "--json"]);
    let rows = document(&reply);
    assert_eq!((reply.code, rows.len()), (1, 2), "{reply:?}");
    assert_eq!(reasons(&rows[1]), ["not-readable"]);
    assert!(rows[1]["status"].is_null());

    let all = [&["--config", &absent, "--config", wrong], &prometheus[..]].concat();
    let reply = status(&site, &all);
    assert_eq!((reply.code, reply.stdout.as_str()), (78, ""), "{reply:?}");
    let found = metrics(&file);
    has(&found, "deploy_shell_site_up{site=\"blog\"} 1");
    has(&found, "deploy_shell_site_up{site=\"absent\"} 0");
    has(
        &found,
        "deploy_shell_site_attention{site=\"wrong\",reason=\"bad-config\"} 1",
    );
    has(
        &found,
        "deploy_shell_site_attention{site=\"blog\",reason=\"bad-config\"} 0",
    );
    has(
        &found,
        "deploy_shell_site_live_info{site=\"blog\",release=\"a\",commit=\"\"} 1",
    );
    has(&found, "deploy_shell_site_changes_total{site=\"blog\"} 3");
    assert_eq!(fs::metadata(&file).expect("a file").mode() & 0o7777, 0o644);

    let reply = status(&site, &["--config", wrong]);
    assert_eq!(reply.code, 78, "{reply:?}");
    assert!(reply.stdout.contains("\nblog   ok "), "{reply:?}");
    assert!(reply.stdout.contains("\nwrong: bad-config: "), "{reply:?}");
    // One name, and so one series, for each site.
    let own = site.config_path().to_str().expect("UTF-8");
    status(&site, &["--config", own]).refused(64, "bad-request");
}

#[test]
fn the_file_of_the_metrics_is_replaced_and_no_other() {
    let site = Site::new();
    let directory = site.dir().join("textfiles");
    fs::create_dir(&directory).expect("a directory");
    let path = |name: &str| directory.join(name).to_str().expect("UTF-8").to_owned();
    fs::write(path("target"), "kept").expect("a file");
    symlink("target", path("link.prom")).expect("a symlink");
    for bad in ["target", "link.prom"] {
        status(&site, &["--prometheus", &path(bad)]).refused(64, "bad-request");
    }
    assert_eq!(fs::read_to_string(path("target")).expect("a file"), "kept");
    fs::write(path("old.prom"), "old").expect("a file");
    let before = fs::metadata(path("old.prom")).expect("a file").ino();
    status(&site, &["--prometheus", &path("old.prom")]).ok();
    assert_ne!(
        before,
        fs::metadata(path("old.prom")).expect("a file").ino()
    );
    assert!(!metrics(Path::new(&path("old.prom"))).is_empty());
    let names = fs::read_dir(&directory).expect("a directory").count();
    assert_eq!(names, 3, "a temporary file is left");
}

/// What the account writes decides nothing but the row of its own site, and no byte of it
/// gets to the terminal.
#[test]
fn a_hostile_journal_harms_no_other_site() {
    let site = Site::new();
    live(&site, &["a"]);
    let other = second_site(&site, "other", &site.dir().join("other"));
    let copied = Command::new("cp")
        .arg("-a")
        .args([site.root(), &site.dir().join("other")])
        .status();
    assert!(copied.expect("cp runs").success());
    let journal = site.root().join(".deploy-shell/journal.jsonl");
    // A line that fits in no memory: the file has no blocks.
    let endless = fs::OpenOptions::new().append(true).open(&journal);
    endless
        .and_then(|file| file.set_len(1 << 40))
        .expect("a sparse file");
    let reply = status(&site, &["--config", &other, "--json"]);
    let rows = document(&reply);
    assert_eq!(reply.code, 1, "{reply:?}");
    assert_eq!(reasons(&rows[0]), ["not-readable"]);
    assert_eq!(reasons(&rows[1]), [""; 0]);

    fs::write(&journal, b"{\"seq\":1,\x1b[2J\xc3\xa9\n{}\n").expect("the journal");
    let reply = status(&site, &["--config", &other, "--json"]);
    assert_eq!(reasons(&document(&reply)[0]), ["not-readable"]);
    assert!(
        reply
            .stdout
            .trim_end()
            .bytes()
            .all(|byte| (b' '..=b'~').contains(&byte))
    );
}

#[test]
fn a_stalled_site_does_not_hold_up_the_others() {
    let site = Site::new();
    live(&site, &["a"]);
    let stalled = site.dir().join("stalled");
    fs::create_dir(&stalled).expect("a directory");
    let config = second_site(&site, "stalled", &stalled);
    let script = format!(
        "timeout 300 '{program}' '{stalled}' > /dev/null 2>&1 & fs=$!\n\
         until grep -q ' {stalled} ' /proc/self/mountinfo; do\n\
         kill -0 $fs 2> /dev/null || exit 77\n\
         sleep 0.05\n\
         done\n\
         '{admin}' status --config '{config}' --config '{own}' --json > '{out}'; echo $?\n\
         kill -0 $fs || echo 'the file system has ended'\n\
         kill $fs; wait $fs; true\n",
        program = stalled_fs(&site).display(),
        stalled = stalled.display(),
        admin = admin().display(),
        own = site.config_path().display(),
        out = site.dir().join("out").display(),
    );
    let Some(done) = in_namespace(&script) else {
        return;
    };
    if done.status.code() == Some(77) {
        println!("skipped: this user may not use /dev/fuse");
        return;
    }
    assert_eq!(String::from_utf8_lossy(&done.stdout), "1\n", "{done:?}");
    let text = fs::read_to_string(site.dir().join("out")).expect("the document");
    let document: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(reasons(&document["sites"][0]), ["not-readable"]);
    let problem = document["sites"][0]["attention"][0]["problem"].as_str();
    assert!(
        problem
            .expect("text")
            .contains("does not answer within 15 s"),
        "{text}"
    );
    assert_eq!(reasons(&document["sites"][1]), [""; 0], "{text}");
}

/// root reads a site as its account. So a file that only root may read is not read.
#[test]
fn root_reads_a_site_as_its_account() {
    let Some(installation) = Installation::create() else {
        return;
    };
    let site = &installation.site;
    assert_eq!(attention(site), [""; 0]);
    let journal = site.root().join(".deploy-shell/journal.jsonl");
    write_file(&journal, 0o000, b"");
    chown(&journal, Some(0), Some(0)).expect("root may do that");
    let reply = status(site, &[]);
    assert_eq!(reply.code, 1, "{reply:?}");
    assert!(
        reply.stdout.contains("cannot open the journal"),
        "{reply:?}"
    );
}

/// A rule about a metric that does not exist never fires.
#[test]
fn the_alert_rules_and_the_page_name_metrics_of_the_program() {
    let site = Site::with_config(&hook("after_swap", "[ $DEPLOY_RELEASE != b ]"));
    live(&site, &["a"]);
    put(&site, "b");
    ask(&site, "swap b").refused(69, "gate-failed");
    let file = site.dir().join("deploy_shell.prom");
    let prometheus = ["--prometheus", file.to_str().expect("UTF-8")];
    assert_eq!(status(&site, &prometheus).code, 1);
    let name = |sample: &String| sample.split(['{', ' ']).next().map(str::to_owned);
    let written: BTreeSet<String> = metrics(&file).iter().filter_map(name).collect();
    let page: BTreeSet<String> = names(MONITORING).collect();
    assert_eq!(page, written, "docs/monitoring.md has other metrics");
    assert!(names(RULES).count() >= 8);
    for name in names(RULES) {
        assert!(written.contains(&name), "no metric {name}");
    }
    // So do the reasons.
    let reasons = MONITORING.lines().filter_map(|line| {
        let (reason, _) = line.strip_prefix("| `")?.split_once("` | ")?;
        Some(format!("reason=\"{reason}\""))
    });
    let reasons: BTreeSet<String> = reasons.collect();
    let samples = metrics(&file);
    let attention = samples
        .iter()
        .filter(|sample| sample.contains("_attention{"));
    assert_eq!(attention.clone().count(), 8);
    for sample in attention {
        let has = reasons
            .iter()
            .any(|reason| sample.contains(reason.as_str()));
        assert!(has, "docs/monitoring.md does not explain {sample}");
    }
}

/// Returns the names of metrics in a text.
fn names(text: &str) -> impl Iterator<Item = String> {
    let is_part = |letter: char| letter.is_ascii_lowercase() || letter == '_';
    let words = text.split(move |letter| !is_part(letter));
    let names = words.filter(|word| word.starts_with("deploy_shell_"));
    names.map(str::to_owned)
}
