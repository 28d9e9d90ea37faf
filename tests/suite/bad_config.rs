//! Mistakes in the configuration as a client sees them: exit 78 with the file's
//! name and, for its contents, the line.

use std::fs;

use crate::direct::ask;
use crate::site::{Site, set_mode, write_file};

#[test]
fn invalid_contents_are_reported_with_file_and_line() {
    let site = Site::new();
    let good = fs::read_to_string(site.config_path()).expect("the configuration");
    let root = good.lines().next().expect("the root");
    let path = site.config_path().display();
    for (line, bad) in [
        (2, "colour = \"red\""),
        (2, "Keep = 5"),
        (2, "keep = \"five\""),
        (2, "keep = -1"),
        (2, "keep = 1.5"),
        (3, "keep = 5\nkeep = 6"),
        (2, "link = \"a/b\""),
        (2, "link = \"\""),
        (2, "link = \"..\""),
        (2, "min_age = 10"),
        (2, "min_age = \"10\""),
        (2, "min_age = \"ten minutes\""),
        (2, "min_age = \"-1m\""),
        (2, "[colours]"),
        (3, "[archive]\nmax_size = \"1GiB\""),
        (3, "[archive]\nmax_file = 1000"),
        (3, "[archive]\nmax_file = \"1XiB\""),
        (3, "[archive]\nmax_file = \"99999999999999999999GiB\""),
        (3, "[archive]\nmax_entries = \"many\""),
        (3, "[archive]\nrequired_paths = \"index.html\""),
        (3, "[archive]\nrequired_paths = [\"../index.html\"]"),
        (3, "[archive]\nrequired_paths = [\"/index.html\"]"),
        (3, "[archive]\nsymlinks = \"follow\""),
        (4, "[pending]\nmax = 1\nmax_age = \"7 days\""),
        (3, "[limits]\nreserve = \"101%\""),
        (3, "[limits]\nreserve = \"3\""),
        (3, "[limits]\nidle_timeout = \"\""),
        (3, "[shared]\nlinks = \".env\""),
        (3, "[shared]\nlinks = [\"/etc/passwd\"]"),
        (3, "[shared]\nlinks = [\"a/../../b\"]"),
        (3, "[shared]\nlinks = [\"uploads/\"]"),
        (3, "[shared]\nlinks = [\"\"]"),
        (3, "[shared]\nexisting = \"keep\""),
        (3, "[shared]\npaths = []"),
        (3, "[audit]\nsocket = 1"),
        (3, "[audit]\nfacility = \"kern\""),
        (3, "[audit]\nrequired = \"yes\""),
        (3, "[sandbox]\nrequired = 1"),
        (3, "[sandbox]\nstrict = true"),
        (2, "this is not TOML"),
        (2, "keep = "),
        (2, "link = \"\u{1}\""),
    ] {
        write_file(
            site.config_path(),
            0o644,
            format!("{root}\n{bad}\n").as_bytes(),
        );
        let reply = ask(&site, "list");
        reply.refused(78, "bad-config");
        let start = format!("deploy-shell: bad-config: '{path}' line {line}: ");
        assert!(reply.stderr.starts_with(&start), "{bad}: {reply:?}");
    }
    write_file(site.config_path(), 0o644, good.as_bytes());
    ask(&site, "list").ok();
}

#[test]
fn the_root_is_required_and_absolute() {
    let site = Site::new();
    let good = fs::read_to_string(site.config_path()).expect("the configuration");
    let rest: Vec<&str> = good.lines().skip(1).collect();
    let rest = rest.join("\n");
    for root in [
        "",
        "root = \"www\"\n",
        "root = \"\"\n",
        "root = \"/\"\n",
        "root = \"/srv/../etc\"\n",
    ] {
        write_file(
            site.config_path(),
            0o644,
            format!("{root}{rest}\n").as_bytes(),
        );
        let reply = ask(&site, "list");
        reply.refused(78, "bad-config");
        assert!(reply.stderr.contains(&shown(&site)), "{root}: {reply:?}");
        assert!(reply.stderr.contains("root"), "{root}: {reply:?}");
    }
}

#[test]
fn conflicting_shared_paths_are_refused() {
    let site = Site::new();
    let good = fs::read_to_string(site.config_path()).expect("the configuration");
    for (links, why) in [
        ("\".env\", \".env\"", "[shared] has '.env' twice"),
        (
            "\"public/uploads\", \"public\"",
            "[shared] has 'public/uploads' below 'public'",
        ),
    ] {
        let text = format!("{good}[shared]\nlinks = [{links}]\n");
        write_file(site.config_path(), 0o644, text.as_bytes());
        let reply = site.ssh("ci", "list");
        reply.refused(78, "bad-config");
        assert!(reply.stderr.contains(why), "{reply:?}");
        assert!(reply.stderr.contains(&shown(&site)), "{reply:?}");
    }
}

#[test]
fn a_file_that_others_can_write_is_refused() {
    let site = Site::new();
    for bad in [0o664, 0o646, 0o666, 0o620, 0o777] {
        set_mode(site.config_path(), bad);
        let reply = ask(&site, "list");
        reply.refused(78, "bad-config");
        assert!(reply.stderr.contains(&shown(&site)), "{bad:o}: {reply:?}");
        assert_eq!(reply.stderr.lines().count(), 2, "a remedy: {reply:?}");
    }
    for good in [0o644, 0o640, 0o600, 0o444] {
        set_mode(site.config_path(), good);
        ask(&site, "list").ok();
    }
    // The file's mode does not help if others can write to its directory.
    set_mode(site.dir(), 0o777);
    ask(&site, "list").refused(78, "bad-config");
    set_mode(site.dir(), 0o755);
    ask(&site, "list").ok();
}

#[test]
fn a_missing_or_special_file_is_refused() {
    let site = Site::new();
    let path = site.config_path();
    let check = |what: &str| {
        let reply = ask(&site, "list");
        reply.refused(78, "bad-config");
        assert!(reply.stderr.contains(&shown(&site)), "{what}: {reply:?}");
    };
    write_file(path, 0o644, b"\xff\xfe\0");
    check("not text");
    write_file(path, 0o644, &vec![b'#'; 1 << 20]);
    check("far too long");
    fs::remove_file(path).expect("it was there");
    check("missing");
    fs::create_dir(path).expect("a directory");
    check("a directory");
    fs::remove_dir(path).expect("it was there");
    nix::unistd::mkfifo(path, nix::sys::stat::Mode::from_bits_truncate(0o644)).expect("a fifo");
    check("a fifo, which must not block");
}

#[test]
fn a_client_sees_the_mistake_through_ssh() {
    let site = Site::new();
    let path = site.config_path();
    let good = fs::read_to_string(path).expect("the configuration");
    let check = |what: &str| {
        let reply = site.ssh("ci", "list");
        reply.refused(78, "bad-config");
        assert!(reply.stderr.contains(&shown(&site)), "{what}: {reply:?}");
        assert!(reply.stderr.contains(what), "{what}: {reply:?}");
    };
    for (what, bad) in [
        ("line 2: ", "colour = 1"),
        ("line 2: ", "keep = true"),
        ("line 3: ", "[archive]\nmax_file = \"big\""),
        ("line 3: ", "[limits]\nidle_timeout = \"soon\""),
    ] {
        let root = good.lines().next().expect("the root");
        write_file(path, 0o644, format!("{root}\n{bad}\n").as_bytes());
        check(what);
    }
    write_file(path, 0o664, good.as_bytes());
    check("chmod go-w");
    fs::remove_file(path).expect("it was there");
    check("");
}

fn shown(site: &Site) -> String {
    format!("'{}'", site.config_path().display())
}
