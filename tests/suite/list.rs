//! `list`: the table for people and the JSON object for programs, which agree.

use std::fs;
use std::process::Stdio;

use jiff::Timestamp;
use serde_json::Value;

use crate::direct::{ask, everything, listing, live, payload, put, serve, states};
use crate::process::Running;
use crate::site::{Site, sha256};

const COLUMNS: [&str; 7] = [
    "RELEASE",
    "STATE",
    "RECEIVED",
    "LAST-LIVE",
    "FILES",
    "BYTES",
    "SHA256",
];

/// The first four were live; a rollback left c; d, e and f are pending.
fn varied() -> Site {
    let site = Site::new();
    live(&site, &["a", "b", "a-name-of-some-length", "c"]);
    // Not in alphabetical order.
    put(&site, "e");
    put(&site, "f");
    put(&site, "d");
    ask(&site, "rollback").ok();
    site
}

const VARIED: [&str; 7] = [
    "a-name-of-some-length current",
    "c bad",
    "b previous",
    "a good",
    "d pending",
    "f pending",
    "e pending",
];

#[test]
fn list_has_the_newest_activation_first_and_pending_ones_last() {
    let site = varied();
    assert_eq!(states(&site), VARIED);
    let table = site.ssh("ci", "list").ok();
    let rows: Vec<String> = table
        .lines()
        .skip(1)
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().take(2).collect();
            words.join(" ")
        })
        .collect();
    assert_eq!(rows, VARIED);
}

#[test]
fn the_object_has_its_documented_shape() {
    let site = varied();
    let text = site.ssh("ci", "list --json").ok();
    assert_eq!(text.find('\n'), Some(text.len() - 1), "one line: {text}");
    let object: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(
        keys(&object),
        ["current", "generation", "previous", "releases", "site"]
    );
    assert_eq!(object["site"], "blog");
    assert!(object["generation"].is_u64(), "{object}");
    assert_eq!(object["current"], "a-name-of-some-length");
    assert_eq!(object["previous"], "b");
    let rows = object["releases"].as_array().expect("an array");
    assert_eq!(rows.len(), VARIED.len());
    for row in rows {
        assert_eq!(
            keys(row),
            [
                "bytes",
                "commit",
                "files",
                "last_live",
                "proved",
                "received",
                "release",
                "sha256",
                "state",
                "tree"
            ]
        );
        let release = row["release"].as_str().expect("a release");
        assert_eq!(row["sha256"], sha256(&payload(release)).as_str());
        assert!(row["commit"].is_null(), "{row}");
        assert_eq!(row["files"], 2);
        assert_eq!(row["bytes"], release.len() + "let one = 1;\n".len());
        time(&row["received"]);
        if row["state"] == "pending" {
            assert!(row["last_live"].is_null(), "{row}");
            assert!(row["proved"].is_null(), "{row}");
        } else {
            // This site has no post-swap checks.
            assert_eq!(row["proved"], true);
            assert!(time(&row["last_live"]) >= time(&row["received"]), "{row}");
        }
    }
}

/// Scripts split the line without a JSON parser; packaging/ci does.
#[test]
fn the_fields_are_in_their_documented_order() {
    let site = varied();
    let text = site.ssh("ci", "list --json").ok();
    let (head, rows) = text.split_once("\"releases\":[").expect("releases");
    assert_eq!(names(head), ["site", "generation", "current", "previous"]);
    let fields = [
        "release",
        "state",
        "proved",
        "received",
        "last_live",
        "files",
        "bytes",
        "sha256",
        "tree",
        "commit",
    ];
    let rows: Vec<&str> = rows.split("},{").collect();
    assert_eq!(rows.len(), VARIED.len());
    for row in rows {
        assert_eq!(names(row), fields);
    }
    assert_eq!(text.find(' '), None, "{text}");

    let page = include_str!("../../docs/requests.md");
    let row = page
        .lines()
        .find(|line| line.starts_with("| `releases[]` |"));
    let places: Vec<usize> = fields
        .iter()
        .map(|field| row.and_then(|row| row.find(&format!("`{field}`"))))
        .map(|place| place.expect("it is documented"))
        .collect();
    assert!(places.is_sorted(), "docs/requests.md has another order");
}

/// Returns the keys of an object in the order of its text.
fn names(text: &str) -> Vec<&str> {
    let quoted: Vec<&str> = text.split('"').collect();
    let pairs = quoted.windows(2).filter(|pair| pair[1].starts_with(':'));
    pairs.map(|pair| pair[0]).collect()
}

fn keys(object: &Value) -> Vec<&str> {
    let object = object.as_object().expect("an object");
    let mut keys: Vec<&str> = object.keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

#[track_caller]
fn time(value: &Value) -> Timestamp {
    let text = value.as_str().expect("a time");
    assert!(text.ends_with('Z'), "not UTC: {text}");
    text.parse()
        .unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn the_table_has_a_header_and_aligned_columns() {
    let site = varied();
    let table = site.ssh("ci", "list").ok();
    assert!(table.ends_with('\n') && !table.contains('\t'), "{table}");
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 1 + VARIED.len(), "{table}");
    let mut places: Vec<Vec<(usize, usize)>> = Vec::new();
    for line in &lines {
        let words = words(line);
        assert_eq!(words.len(), COLUMNS.len(), "{line}");
        places.push(words);
    }
    let header: Vec<&str> = lines[0].split_whitespace().collect();
    assert_eq!(header, COLUMNS);
    for (column, name) in COLUMNS.iter().enumerate() {
        // Words align left; numbers may align right.
        let all_at = |edge: fn(&(usize, usize)) -> usize| {
            let first = edge(&places[0][column]);
            places.iter().all(|words| edge(&words[column]) == first)
        };
        let aligned = all_at(|word| word.0) || all_at(|word| word.1);
        assert!(aligned, "{name}:\n{table}");
    }
}

/// Returns the start and the end of each word.
fn words(line: &str) -> Vec<(usize, usize)> {
    let base = line.as_ptr() as usize;
    line.split_whitespace()
        .map(|word| {
            let start = word.as_ptr() as usize - base;
            (start, start + word.len())
        })
        .collect()
}

#[test]
fn table_and_object_agree() {
    let site = varied();
    let object = listing(&site);
    let table = ask(&site, "list").ok();
    let rows = object["releases"].as_array().expect("an array");
    assert_eq!(table.lines().count(), 1 + rows.len());
    for (line, row) in table.lines().skip(1).zip(rows) {
        let cells: Vec<&str> = line.split_whitespace().collect();
        let [release, state, received, last_live, files, bytes, digest] = cells[..] else {
            panic!("{line}");
        };
        assert_eq!(row["release"], release);
        assert_eq!(row["state"], state);
        assert_eq!(row["files"].to_string(), files);
        assert_eq!(row["bytes"].to_string(), bytes);
        let whole = row["sha256"].as_str().expect("a digest");
        assert!(whole.starts_with(digest), "{line}");
        assert!((8..64).contains(&digest.len()), "{line}");
        same_second(received, &row["received"]);
        if row["last_live"].is_null() {
            assert_eq!(last_live, "-");
        } else {
            same_second(last_live, &row["last_live"]);
        }
    }
}

#[track_caller]
fn same_second(cell: &str, value: &Value) {
    let shown: Timestamp = cell.parse().expect("RFC 3339");
    assert_eq!(shown.as_second(), time(value).as_second());
}

#[test]
fn a_new_site_has_an_empty_list() {
    let site = Site::new();
    let table = site.ssh("ci", "list").ok();
    let header: Vec<&str> = table.split_whitespace().collect();
    assert_eq!(header, COLUMNS);
    assert_eq!(table.lines().count(), 1);
    let object = listing(&site);
    assert!(object["current"].is_null() && object["previous"].is_null());
    assert_eq!(object["releases"], Value::Array(Vec::new()));
}

/// Returns the row of a release in `list --json`.
#[track_caller]
fn row(site: &Site, release: &str) -> Value {
    let object = listing(site);
    let rows = object["releases"].as_array().expect("an array");
    let row = rows.iter().find(|row| row["release"] == release);
    row.unwrap_or_else(|| panic!("no '{release}': {object}"))
        .clone()
}

#[test]
fn list_shows_what_is_missing_and_what_was_not_received() {
    let site = varied();
    let releases = site.root().join("releases");
    fs::create_dir(releases.join("foreign")).expect("a directory");
    fs::create_dir(releases.join("not ours\u{1b}[2J")).expect("a directory");
    fs::write(releases.join("notes"), "notes").expect("a file");
    fs::remove_dir_all(releases.join("a")).expect("removed");
    fs::remove_dir_all(releases.join("d")).expect("removed");
    fs::remove_file(site.root().join(".deploy-shell/manifests/e")).expect("removed");
    let now = [
        "a-name-of-some-length current",
        "c bad",
        "b previous",
        "a missing",
        "d missing",
        "f pending",
        "e missing",
        "foreign not-received",
    ];
    assert_eq!(states(&site), now);
    let foreign = row(&site, "foreign");
    for field in [
        "proved",
        "received",
        "last_live",
        "files",
        "bytes",
        "sha256",
        "tree",
    ] {
        assert!(foreign[field].is_null(), "{field}: {foreign}");
    }
    // What the journal has is not lost.
    assert_eq!(row(&site, "a")["sha256"], sha256(&payload("a")).as_str());
    let table = ask(&site, "list").ok();
    assert_eq!(table.lines().count(), 1 + now.len(), "{table}");
    let cells = |release: &str| -> Vec<String> {
        let line = table.lines().find(|line| line.starts_with(release));
        let line = line.expect("a row").split_whitespace();
        line.map(str::to_owned).collect()
    };
    assert_eq!(
        cells("foreign"),
        ["foreign", "not-received", "-", "-", "-", "-", "-"]
    );
    assert_eq!(cells("d ")[1], "missing");
    let plain = |byte: u8| byte == b'\n' || (b' '..=b'~').contains(&byte);
    assert!(table.bytes().all(plain), "{table:?}");
}

/// The next change records what is gone, and `list` no longer shows it.
#[test]
fn a_missing_release_stays_in_the_list_until_its_removal_is_recorded() {
    let site = varied();
    fs::remove_dir_all(site.root().join("releases/a")).expect("removed");
    assert!(states(&site).contains(&"a missing".to_owned()));
    ask(&site, "swap b").ok();
    assert!(!states(&site).iter().any(|state| state.starts_with("a ")));
}

/// Visitors get an error from the web server, so nothing is live.
#[test]
fn a_live_release_whose_directory_is_gone_is_missing() {
    let site = varied();
    let live = "a-name-of-some-length";
    fs::remove_dir_all(site.root().join("releases").join(live)).expect("removed");
    let object = listing(&site);
    assert!(object["current"].is_null(), "{object}");
    assert_eq!(row(&site, live)["state"], "missing");
    let reply = ask(&site, "list");
    let words = "names 'a-name-of-some-length', which does not exist";
    assert!(reply.stderr.contains(words), "{reply:?}");
    reply.ok();
    assert_eq!(
        ask(&site, "rollback").ok(),
        format!("ok rollback b previous={live}\n")
    );
    assert_eq!(listing(&site)["current"], "b");
}

/// No request received the release that a dangling symlink names, so no row has it.
#[test]
fn a_dangling_symlink_invents_no_release() {
    let site = varied();
    let link = site.root().join("current");
    fs::remove_file(&link).expect("removed");
    std::os::unix::fs::symlink("releases/nowhere", &link).expect("a symlink");
    let object = listing(&site);
    assert!(object["current"].is_null(), "{object}");
    let states = states(&site);
    assert_eq!(states.len(), VARIED.len(), "{states:?}");
    assert!(
        !states.iter().any(|state| state.starts_with("nowhere")),
        "{states:?}"
    );
    assert!(
        !states.iter().any(|state| state.ends_with(" current")),
        "{states:?}"
    );
    let reply = ask(&site, "list");
    assert!(
        reply.stderr.contains("warning: nothing is live: "),
        "{reply:?}"
    );
}

/// The release of another tool is live, and no request received it. An answer that
/// changed with each call would have an invented time.
#[test]
fn the_list_has_no_time_that_is_not_recorded() {
    let site = varied();
    let releases = site.root().join("releases");
    let link = site.root().join("current");
    fs::create_dir(releases.join("20190101")).expect("a directory");
    fs::remove_file(&link).expect("removed");
    std::os::unix::fs::symlink("releases/20190101", &link).expect("a symlink");
    let foreign = row(&site, "20190101");
    assert_eq!(foreign["state"], "current");
    assert!(foreign["received"].is_null(), "{foreign}");
    assert!(foreign["last_live"].is_null(), "{foreign}");
    // Nor is it known when the release before it was replaced.
    assert!(row(&site, "a-name-of-some-length")["last_live"].is_null());
    assert_eq!(listing(&site)["current"], "20190101");

    // The next change records when it found the symlink; nothing says when a request
    // received the release.
    ask(&site, "swap b").ok();
    let foreign = row(&site, "20190101");
    assert_eq!(foreign["state"], "not-received");
    assert!(foreign["received"].is_null(), "{foreign}");
    time(&foreign["last_live"]);
}

#[test]
fn list_changes_nothing() {
    let site = varied();
    let before = everything(&site);
    for request in ["list", "list --json"] {
        let first = ask(&site, request).ok();
        assert_eq!(ask(&site, request).ok(), first);
    }
    assert!(everything(&site) == before);
}

/// A reader that closes the pipe early, as `| head -1` does, is no failure.
#[test]
fn list_survives_a_closed_pipe() {
    let site = varied();
    let before = everything(&site);
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let output = crate::direct::serve(&site, "ci", "list")
        .stdin(std::process::Stdio::null())
        .stdout(writer)
        .output()
        .expect("it starts");
    // Neither a signal nor a panic.
    assert!(matches!(output.status.code(), Some(0 | 74)), "{output:?}");
    assert!(everything(&site) == before);
}

/// The process would stay, one for each such request.
#[test]
fn a_list_that_nobody_reads_ends() {
    let site = Site::new();
    for number in 0..1000 {
        let name = format!("r{number:059}");
        fs::create_dir(site.root().join("releases").join(name)).expect("a directory");
    }
    for request in ["list", "list --json"] {
        // Kept open, and longer than a pipe.
        let (unread, stdout) = std::io::pipe().expect("a pipe");
        let mut command = serve(&site, "ci", request);
        command.stdin(Stdio::null()).stdout(stdout);
        let child = command.stderr(Stdio::piped()).spawn().expect("a child");
        drop(command);
        let reply = Running(child).reply();
        drop(unread);
        reply.refused(74, "timeout");
    }
}
