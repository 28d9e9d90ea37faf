//! What happens to the base of a delta while a client stalls in the middle of its payload.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::LazyLock;

use crate::delta_payload::{Release, delta, tree, whole};
use crate::direct::{ask, everything, live, put, serve, states};
use crate::process::{Running, eventually, serving};
use crate::site::{Reply, Site, admin, sha256};

/// Both modes of `reuse`.
const MODES: [&str; 2] = ["clone", "link"];

/// Long enough for what a test does while its client stalls, on a busy machine too.
const PATIENT: &str = "[limits]\nidle_timeout = \"1h\"\ntotal_timeout = \"2h\"\n";

/// A text that cannot be compressed to less than half of its 512 KiB.
static LONG: LazyLock<String> = LazyLock::new(|| {
    let parts = (0..8192_u32).map(|number| sha256(&number.to_be_bytes()));
    parts.collect()
});

const OLD: &Release<'_> = &[
    ("assets/", ""),
    ("assets/app.js", "one"),
    ("assets/keep.css", "keep"),
    ("index.html", "old"),
];

/// Returns the release that the deltas give: another page, and a file that is long enough to
/// stall in.
fn new() -> Vec<(&'static str, &'static str)> {
    let mut new = Vec::from(OLD);
    new[3] = ("index.html", "new");
    new.push(("long", &LONG));
    new
}

/// A request whose client has sent half of the payload, and waits.
struct Stalled {
    server: Running,
    stdin: ChildStdin,
    rest: Vec<u8>,
}

impl Stalled {
    /// Starts it, and returns when the server has read from the payload, and so holds the
    /// base.
    fn begin(site: &Site) -> Stalled {
        let (payload, tree) = (delta(OLD, &new()), tree(&new()));
        let (head, rest) = payload.split_at(payload.len() / 2);
        let command = Site::receive_command("new", &payload);
        let request = format!("{command} --tree {tree} --base old");
        let mut child = serve(site, "ci", request)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut stdin = child.stdin.take().expect("stdin is a pipe");
        // A pipe has room for 64 KiB (pipe(7)), so the write ends after the first read.
        assert!(head.len() > 64 << 10);
        stdin.write_all(head).expect("the server reads");
        Stalled {
            server: Running(child),
            stdin,
            rest: rest.to_vec(),
        }
    }

    /// Sends the rest, and returns the reply.
    fn finish(mut self) -> Reply {
        self.stdin.write_all(&self.rest).expect("the server reads");
        drop(self.stdin);
        self.server.reply()
    }

    /// Sends the rest, which must be refused, and checks that nothing of the request is left.
    #[track_caller]
    fn refused(self, site: &Site, code: i32, word: &str) -> Reply {
        let before = published(site);
        let reply = self.finish();
        reply.refused(code, word);
        assert_eq!(published(site), before, "{reply:?}");
        assert!(site.leftovers().is_empty(), "{reply:?}");
        reply
    }
}

/// Returns all but the files of requests that run.
fn published(site: &Site) -> impl PartialEq + std::fmt::Debug {
    let (mut files, journal) = everything(site);
    files.retain(|path, _| !path.starts_with(".deploy-shell/incoming"));
    (files, journal)
}

/// Makes a site with this mode of `reuse`, whose release `old` is live, and was after
/// `first`.
fn site_with_base(mode: &str) -> Site {
    let site = Site::with_config(&format!(
        "keep = 1\nmin_age = \"0s\"\n[delta]\nreuse = \"{mode}\"\n{PATIENT}"
    ));
    live(&site, &["first"]);
    site.receive("old", &whole(OLD)).ok();
    ask(&site, "swap old").ok();
    site
}

fn run_admin(site: &Site, arguments: &[&str]) -> Reply {
    let mut command = Command::new(admin());
    command.env_clear().arg(arguments[0]).arg("--config");
    command.arg(site.config_path()).args(&arguments[1..]);
    site.run(command, b"")
}

/// Checks the release that the delta gave.
#[track_caller]
fn is_whole(site: &Site) {
    run_admin(site, &["verify"]).ok();
    let release = site.root().join("releases/new");
    for (name, text) in new().iter().filter(|(name, _)| !name.ends_with('/')) {
        let found = fs::read_to_string(release.join(name)).expect("a file");
        assert!(found == *text, "{name} has other content");
    }
}

#[test]
fn the_base_of_a_stalled_client_is_not_pruned() {
    for mode in MODES {
        let site = site_with_base(mode);
        let stalled = Stalled::begin(&site);
        for release in ["b", "c", "d"] {
            put(&site, release);
            let line = ask(&site, &format!("swap {release}")).ok();
            let pruned = line.split_once(" pruned=").map_or("", |(_, pruned)| pruned);
            assert!(!pruned.contains("old"), "{line}");
        }
        assert!(states(&site).contains(&"old good".to_owned()));
        stalled.finish().ok();
        is_whole(&site);
        // The hold has ended with the request.
        let line = ask(&site, "swap new").ok();
        assert!(line.ends_with(" pruned=b,old\n"), "{line}");
        is_whole(&site);
        assert!(site.leftovers().is_empty());
    }
}

#[test]
fn the_base_of_a_stalled_client_is_not_dropped() {
    for mode in MODES {
        let site = site_with_base(mode);
        live(&site, &["b"]);
        let stalled = Stalled::begin(&site);
        let drop = || run_admin(&site, &["drop", "--good", "old"]);
        let reply = drop();
        reply.refused(75, "busy");
        let problem = "'old' is the base of a running receive, and nothing was removed";
        assert!(reply.stderr.contains(problem), "{reply:?}");
        stalled.finish().ok();
        drop().ok();
        assert_eq!(site.releases(), ["b", "first", "new"]);
        is_whole(&site);
    }
}

#[test]
fn a_base_that_becomes_bad_during_the_request_gives_no_release() {
    for mode in MODES {
        let site = site_with_base(mode);
        let stalled = Stalled::begin(&site);
        ask(&site, "rollback").ok();
        assert_eq!(site.current().as_deref(), Some("first"));
        let reply = stalled.refused(&site, 77, "denied");
        let problem = "'old' may not be a base: it is bad";
        assert!(reply.stderr.contains(problem), "{reply:?}");
        run_admin(&site, &["drop", "old"]).ok();
        site.receive("new", &whole(&new())).ok();
        is_whole(&site);
    }
}

/// The account changes the base on disk. A symlink never takes the place of a part of it,
/// whatever it leads to.
#[test]
fn damage_during_the_request_is_found() {
    type Damage = fn(&Path);
    let damages: [(&str, Damage, &str); 9] = [
        (
            "content of the same length",
            |base| fs::write(base.join("assets/keep.css"), "kepp").expect("a file"),
            "./assets/keep.css",
        ),
        (
            "longer content",
            |base| fs::write(base.join("assets/keep.css"), "longer").expect("a file"),
            "./assets/keep.css",
        ),
        (
            "no file",
            |base| fs::remove_file(base.join("assets/keep.css")).expect("a file"),
            "./assets/keep.css",
        ),
        (
            "a symlink to the same content",
            |base| {
                fs::rename(base.join("assets/keep.css"), base.join("kept")).expect("a file");
                symlink("../kept", base.join("assets/keep.css")).expect("a symlink");
            },
            "./assets/keep.css",
        ),
        (
            "a directory for a file",
            |base| {
                fs::remove_file(base.join("assets/keep.css")).expect("a file");
                fs::create_dir(base.join("assets/keep.css")).expect("a directory");
            },
            "./assets/keep.css",
        ),
        (
            "a symlink to the same directory",
            |base| {
                let outside = base.join("../../shared/assets");
                fs::rename(base.join("assets"), outside).expect("a directory");
                symlink("../../shared/assets", base.join("assets")).expect("a symlink");
            },
            "./assets",
        ),
        (
            "a file for a directory",
            |base| {
                fs::remove_dir_all(base.join("assets")).expect("a directory");
                fs::write(base.join("assets"), "keep").expect("a file");
            },
            "./assets",
        ),
        (
            "no directory",
            |base| fs::remove_dir_all(base.join("assets")).expect("a directory"),
            "./assets",
        ),
        (
            "no release",
            |base| fs::rename(base, base.join("../../shared/old")).expect("a release"),
            "./",
        ),
    ];
    for mode in MODES {
        for (what, damage, path) in damages {
            let site = site_with_base(mode);
            let stalled = Stalled::begin(&site);
            damage(&site.root().join("releases/old"));
            let reply = stalled.refused(&site, 74, "base-damaged");
            let named = format!("the base 'old' is damaged: '{path}' ");
            assert!(reply.stderr.contains(&named), "{mode}, {what}: {reply:?}");
        }
    }
}

/// The manifest of the base, too.
#[test]
fn damage_of_the_list_during_the_request_is_found() {
    type Damage = fn(&Path);
    fn edit(path: &Path, from: &str, to: &str) {
        let text = fs::read_to_string(path).expect("a manifest");
        let edited = text.replacen(from, to, 1);
        assert_ne!(edited, text);
        fs::write(path, edited).expect("a manifest");
    }
    let damages: [(&str, Damage, &str); 4] = [
        (
            "no manifest",
            |path| fs::remove_file(path).expect("a manifest"),
            "no such file",
        ),
        (
            "a symlink",
            |path| {
                let other = path.with_file_name("first");
                fs::remove_file(path).expect("a manifest");
                symlink(other, path).expect("a symlink");
            },
            "symbolic links",
        ),
        (
            "a line that is no entry",
            |path| edit(path, " mode=0644 ", " mode=06440 "),
            "mode",
        ),
        (
            "another digest",
            |path| edit(path, &sha256(b"keep"), &sha256(b"kepp")),
            "its entries do not have the digest of its head",
        ),
    ];
    for (what, damage, why) in damages {
        let site = site_with_base("clone");
        let stalled = Stalled::begin(&site);
        damage(&site.root().join(".deploy-shell/manifests/old"));
        let reply = stalled.refused(&site, 74, "base-damaged");
        let named = "the manifest of the base 'old' is damaged: ";
        assert!(reply.stderr.contains(named), "{what}: {reply:?}");
        assert!(reply.stderr.contains(why), "{what}: {reply:?}");
    }
}

/// What the changes replace is not taken from the base, so its state does not matter.
#[test]
fn damage_of_what_the_delta_replaces_does_no_harm() {
    for mode in MODES {
        let site = site_with_base(mode);
        let stalled = Stalled::begin(&site);
        let page = site.root().join("releases/old/index.html");
        fs::remove_file(&page).expect("a file");
        symlink("/etc/passwd", &page).expect("a symlink");
        stalled.finish().ok();
        let text = fs::read_to_string(site.root().join("releases/new/index.html"));
        assert_eq!(text.expect("a file"), "new");
        assert_eq!(
            fs::read_link(&page).expect("a symlink"),
            Path::new("/etc/passwd")
        );
    }
}

#[test]
fn a_monitor_that_is_killed_holds_no_base() {
    for mode in MODES {
        let site = site_with_base(mode);
        live(&site, &["b"]);
        let mut stalled = Stalled::begin(&site);
        stalled.server.0.kill().expect("it runs");
        stalled.server.0.wait().expect("it ends");
        // Its children end with it.
        eventually("no process is left", || serving(&site).is_empty());
        put(&site, "c");
        let line = ask(&site, "swap c").ok();
        assert!(line.contains("pruned="), "{line}");
        assert!(site.leftovers().is_empty(), "{:?}", site.leftovers());
        live(&site, &["d"]);
        assert!(!site.releases().contains(&"old".to_owned()), "{mode}");
        drop(stalled.stdin);
    }
}
