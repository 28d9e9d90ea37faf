//! `check` and the web server's account (`[check] reader`).

use nix::unistd::{Uid, User};

use crate::archive::{Tar, zstd};
use crate::check::{codes, me, quiet_sshd};
use crate::inheritance::{has_lists, set_acl};
use crate::operator::operator;
use crate::site::{Reply, Site, set_mode};
use crate::times::sh;

const READER: &str = "nobody";

fn site(reader: &str) -> Site {
    let site = Site::with_config(&format!("[check]\nreader = \"{reader}\"\n"));
    let tar = Tar::new()
        .file("index.html", b"<p>")
        .file("assets/page.css", b"a{}")
        .symlink("link", "index.html");
    site.receive("r1", &zstd(&tar.end())).ok();
    site.ssh("ci", "swap r1").ok();
    // Last: with these settings sshd takes no key from a temporary directory.
    quiet_sshd(&site, &me());
    site
}

fn check(site: &Site) -> Reply {
    let arguments = crate::check::arguments(site);
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    operator(site, &words, b"")
}

/// Returns the findings about the reader.
#[track_caller]
fn findings(site: &Site) -> Vec<String> {
    let found = codes(&check(site)).into_iter();
    found.filter(|code| code.starts_with("reader-")).collect()
}

#[test]
fn a_reader_that_cannot_read_the_live_release_is_found() {
    if !Uid::effective().is_root() {
        let reply = check(&site(READER));
        assert!(
            reply
                .stdout
                .contains("not checked: whether 'nobody' can read"),
            "{reply:?}"
        );
        assert!(
            reply.stdout.contains("run check as root or as 'nobody'"),
            "{reply:?}"
        );
        return;
    }
    assert!(User::from_name(READER).is_ok_and(|user| user.is_some()));
    let site = site(READER);
    let reply = check(&site);
    assert!(
        reply
            .stdout
            .contains("reader nobody: can read 'r1', which is live"),
        "{reply:?}"
    );
    assert!(findings(&site).is_empty());
    let release = site.root().join("releases/r1");
    for (path, closed, open, finding) in [
        (site.dir().to_owned(), 0o711, 0o755, None),
        (site.dir().to_owned(), 0o700, 0o755, Some("reader-blocked")),
        (site.root().to_owned(), 0o700, 0o755, Some("reader-blocked")),
        (release.join(".."), 0o750, 0o755, Some("reader-blocked")),
        (release.clone(), 0o700, 0o755, Some("reader-denied")),
        (release.join("assets"), 0o600, 0o755, Some("reader-denied")),
        (
            release.join("assets/page.css"),
            0o600,
            0o644,
            Some("reader-denied"),
        ),
    ] {
        set_mode(&path, closed);
        let found = findings(&site);
        set_mode(&path, open);
        assert_eq!(
            found,
            Vec::from_iter(finding.map(str::to_owned)),
            "{path:?} {closed:o}"
        );
    }
    if has_lists() {
        // A list gives what the mode does not.
        set_mode(site.root(), 0o750);
        assert_eq!(findings(&site), ["reader-blocked"]);
        set_acl(site.root(), "-m u:nobody:x");
        assert!(findings(&site).is_empty());
    }
    sh(site.root(), "rm current");
    assert!(check(&site).stdout.contains("nothing is live"));
}

#[test]
fn an_unknown_reader_is_found_and_an_odd_name_is_refused() {
    let site = site("no-such-account");
    assert_eq!(findings(&site), ["reader-unknown"]);
    for odd in ["", "a b", "a:b", "../x"] {
        site.configure(&format!("[check]\nreader = \"{odd}\"\n"));
        let reply = check(&site);
        assert_eq!(reply.code, 78, "{reply:?}");
        assert!(
            reply.stderr.contains("is not the name of an account"),
            "{reply:?}"
        );
    }
}
