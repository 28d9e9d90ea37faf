//! What a browser gets from a real nginx when releases of a reproducible build follow
//! each other: every file has the same time, whatever its content.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt;

use crate::site::Site;
use crate::times::{archive_of, now, sh};
use crate::web::Nginx;

/// The time of all files, as of SOURCE_DATE_EPOCH.
const EPOCH: i64 = 1_600_000_000;

/// What a browser keeps of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Kept {
    etag: String,
    last_modified: String,
    body: String,
}

/// Asks for a page, with these headers. Returns the status, and what a browser keeps.
fn ask(port: u16, path: &str, headers: &str) -> (u16, Kept) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("nginx");
    write!(stream, "GET {path} HTTP/1.0\r\n{headers}\r\n").expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let header = |name: &str| {
        let line = head.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_default().to_owned()
    };
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
    let kept = Kept {
        etag: header("ETag: "),
        last_modified: header("Last-Modified: "),
        body: body.to_owned(),
    };
    (status.unwrap_or(0), kept)
}

/// Checks what a browser sees that has `kept`, now that the page is `body`.
#[track_caller]
fn assert_revalidated(port: u16, path: &str, kept: &Kept, body: &str) {
    let by_tag = format!("If-None-Match: {}\r\n", kept.etag);
    let by_time = format!("If-Modified-Since: {}\r\n", kept.last_modified);
    for headers in [by_tag.clone(), by_time.clone(), by_tag + &by_time] {
        let (status, found) = ask(port, path, &headers);
        // A content that comes back may have another time than before.
        let still_valid = status == 304 && kept.body == body;
        assert!(
            still_valid || (status, found.body.as_str()) == (200, body),
            "{headers}{found:?}"
        );
    }
}

/// Makes a release of two files and swaps to it.
fn deploy(site: &Site, release: &str, page: &str, style: &str, epoch: i64) {
    let source = site.dir().join("source");
    fs::create_dir_all(&source).expect("a directory");
    fs::write(source.join("page.html"), page).expect("a page");
    fs::write(source.join("style.css"), style).expect("a style");
    let tar = format!("tar -C source --sort=name --mtime=@{epoch} -c .");
    site.receive(release, &archive_of(site.dir(), &tar)).ok();
    site.ssh("ci", &format!("swap {release}")).ok();
}

/// The pages of the releases, and a file whose size changes with them.
const RELEASES: [(&str, &str); 8] = [
    ("one", "a"),
    ("two", "aa"),
    ("six", "aa"),
    ("six", "aaa"),
    ("six", "a"),
    ("one", "aaaa"),
    ("two", "aaaa"),
    ("ten", "a"),
];

#[test]
fn a_validator_never_covers_other_content() {
    for epoch in [EPOCH, 0, now() - 10] {
        // Few releases are kept, so that the first ones are gone in the end.
        let site = Site::with_config("keep = 1\nmin_age = \"0s\"\n");
        deploy(&site, "r0", "zero", "0", EPOCH - 1_000_000);
        let nginx = Nginx::live(&site);
        let port = nginx.ports[0];
        let mut pages: Vec<Kept> = Vec::new();
        let mut styles: Vec<Kept> = Vec::new();
        for (number, (page, style)) in RELEASES.iter().enumerate() {
            deploy(&site, &format!("r{}", number + 1), page, style, epoch);
            for (path, body, seen) in [
                ("/page.html", page, &mut pages),
                ("/style.css", style, &mut styles),
            ] {
                for kept in seen.iter() {
                    assert_revalidated(port, path, kept, body);
                }
                let (status, kept) = ask(port, path, "");
                assert_eq!((status, kept.body.as_str()), (200, *body));
                seen.push(kept);
            }
            let file = site.root().join("current/page.html");
            let time = fs::metadata(file).expect("the page").mtime();
            assert!(time < now(), "{time} is in the future");
        }
        assert!(site.releases().len() < RELEASES.len(), "some are gone");
        // A content that stays keeps its validators.
        for pair in pages.windows(2).chain(styles.windows(2)) {
            assert_eq!(pair[0].body == pair[1].body, pair[0] == pair[1], "{pair:?}");
        }
    }
}

#[test]
fn nodes_that_receive_the_same_releases_agree_about_validators() {
    let sites = [Site::new(), Site::new()];
    let mut times = Vec::new();
    for site in &sites {
        for (number, (page, style)) in RELEASES.iter().take(4).enumerate() {
            deploy(site, &format!("r{number}"), page, style, EPOCH);
            let meta = fs::metadata(site.root().join("current/page.html")).expect("the page");
            times.push(meta.mtime());
        }
    }
    assert_eq!(times[..4], times[4..]);
    // The first release keeps the time of the archive.
    assert_eq!(times[0], EPOCH);
    assert_ne!(times[1], EPOCH);
}

/// A release whose content is damaged or missing does not stop the next receive.
#[test]
fn an_incomplete_old_release_does_no_harm() {
    let site = Site::new();
    deploy(&site, "r1", "one", "a", EPOCH);
    deploy(&site, "r2", "two", "a", EPOCH);
    sh(
        site.root(),
        "rm releases/r1/page.html; rm -r releases/r2; mkdir releases/r2",
    );
    let manifest = site.root().join(".deploy-shell/manifests/r1");
    let text = fs::read_to_string(&manifest).expect("a manifest");
    let cut = text.find("./style").expect("a line");
    fs::write(&manifest, &text[..cut + 20]).expect("it is ours");
    deploy(&site, "r3", "six", "b", EPOCH);
}

/// Returns the time of a file of a release.
fn time_of(site: &Site, release: &str, file: &str) -> i64 {
    let file = site.root().join("releases").join(release).join(file);
    fs::metadata(file).expect("a file").mtime()
}

/// Makes a release of a page and a file that never changes, and sends it with this key.
fn receive_as(site: &Site, key: &str, release: &str, page: &str) {
    let source = site.dir().join("source");
    fs::create_dir_all(&source).expect("a directory");
    fs::write(source.join("page.html"), page).expect("a page");
    fs::write(source.join("same.html"), "same").expect("a page");
    let tar = format!("tar -C source --sort=name --mtime=@{EPOCH} -c .");
    let payload = archive_of(site.dir(), &tar);
    let request = Site::receive_command(release, &payload);
    site.ssh_with_input(key, &request, &payload).ok();
}

/// It could move the times of any file of the other keys, and is never served.
#[test]
fn a_pending_release_of_another_key_moves_no_time() {
    let site = Site::new();
    site.add_key("other", Some("receive"));
    for (key, release, page, keeps) in [
        ("other", "o1", "one", true),
        ("ci", "r1", "two", true),
        // Of the same key.
        ("ci", "r2", "six", false),
        ("other", "o2", "ten", false),
    ] {
        receive_as(&site, key, release, page);
        let time = time_of(&site, release, "page.html");
        assert_eq!(time == EPOCH, keeps, "{release}");
    }
    // Nor does it with the swap, as long as it is not live.
    site.ssh("ci", "swap r1").ok();
    assert_eq!(time_of(&site, "r1", "page.html"), EPOCH);
}

/// Two keys send releases before either is live. The second swap moves the times.
#[test]
fn releases_of_two_keys_have_two_validators_once_they_are_live() {
    for order in [["o1", "r1", "o2"], ["r1", "o2", "o1"], ["o2", "r1", "o1"]] {
        let site = Site::new();
        site.add_key("other", None);
        let pages = [("o1", "one"), ("r1", "two"), ("o2", "six")];
        for (key, (release, page)) in ["other", "ci", "other"].iter().zip(pages) {
            receive_as(&site, key, release, page);
        }
        let times = pages.map(|(release, _)| time_of(&site, release, "page.html"));
        assert_eq!((times[0], times[1]), (EPOCH, EPOCH));
        site.ssh("ci", &format!("swap {}", order[0])).ok();
        let nginx = Nginx::live(&site);
        let port = nginx.ports[0];
        let mut seen: Vec<Kept> = Vec::new();
        for release in order {
            site.ssh("ci", &format!("swap {release}")).ok();
            let (_, page) = pages.iter().find(|(id, _)| *id == release).expect("one");
            for kept in &seen {
                assert_revalidated(port, "/page.html", kept, page);
            }
            let (status, kept) = ask(port, "/page.html", "");
            assert_eq!((status, kept.body.as_str()), (200, *page));
            seen.push(kept);
            assert_eq!(time_of(&site, release, "same.html"), EPOCH);
        }
        // What was live keeps its times.
        let before: Vec<i64> = order.map(|it| time_of(&site, it, "page.html")).into();
        for verb in ["swap", "rollback"] {
            site.ssh("ci", &format!("{verb} {}", order[0])).ok();
            site.ssh("ci", &format!("swap {}", order[2])).ok();
        }
        let after: Vec<i64> = order.map(|it| time_of(&site, it, "page.html")).into();
        assert_eq!(before, after);
    }
}

/// A swap does not fail for the time of a file.
#[test]
fn a_damaged_release_is_swapped_although_its_times_cannot_be_moved() {
    let site = Site::new();
    site.add_key("other", None);
    receive_as(&site, "other", "o1", "one");
    receive_as(&site, "ci", "r1", "two");
    site.ssh("other", "swap o1").ok();
    sh(site.root(), "rm releases/r1/page.html");
    let reply = site.ssh("ci", "swap r1");
    assert!(reply.stderr.contains("page.html"), "{}", reply.stderr);
    reply.ok();
}
