//! The preview of any received release by a real nginx, as docs/web-servers.md has it.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::symlink;

use crate::bridge::documented_servers;
use crate::direct::{ask, live, put, states};
use crate::gating::hook;
use crate::site::Site;
use crate::web::Nginx;

/// Returns the status and the body of an answer.
fn get(port: u16, host: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("nginx");
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    )
    .expect("a request");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).and_then(|word| word.parse().ok());
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (status.expect("a status"), body.to_owned())
}

/// A site with a release in each state, and files that no preview may show.
fn site() -> Site {
    let site = Site::with_config(&hook("before_swap", "[ $DEPLOY_RELEASE != bad.1 ]"));
    live(&site, &["old", "20260412-142033"]);
    put(&site, "bad.1");
    ask(&site, "swap bad.1").refused(69, "gate-failed");
    put(&site, "pending_2");
    put(&site, "Upper");
    for (directory, name) in [
        ("shared", "secret"),
        ("releases", "secret"),
        (".deploy-shell", "secret"),
    ] {
        fs::write(site.root().join(directory).join(name), "secret").expect("our directory");
    }
    // As the one of a shared path.
    for release in SHOWN {
        let link = site.root().join("releases").join(release).join(".env");
        symlink("../../shared/secret", link).expect("our directory");
    }
    // Names that no release can have.
    for name in ["a..b", ".hidden", "-x", &"n".repeat(65)] {
        let directory = site.root().join("releases").join(name);
        fs::create_dir(&directory).expect("our directory");
        fs::write(directory.join("index.html"), "secret").expect("our directory");
    }
    site
}

/// Starts nginx with the two servers of the document, for clients of this machine, and
/// once more the first one, for others only.
fn nginx(site: &Site) -> Nginx {
    let servers = documented_servers(site, "Preview of any release");
    let [by_host, by_path] = &servers[..] else {
        panic!("{servers:?}");
    };
    let local = |server: &String| server.replace("192.0.2.0/24", "127.0.0.1");
    Nginx::start(
        site,
        &[
            local(by_host),
            local(by_path),
            by_host.clone(),
            by_path.clone(),
        ],
    )
}

const SHOWN: [&str; 4] = ["old", "20260412-142033", "bad.1", "pending_2"];

#[test]
fn every_received_release_has_a_preview() {
    let site = site();
    let states = states(&site);
    for state in [
        "20260412-142033 current",
        "old previous",
        "bad.1 bad",
        "pending_2 pending",
    ] {
        assert!(states.contains(&state.to_owned()), "{states:?}");
    }
    let nginx = nginx(&site);
    for release in SHOWN {
        let shown = (200, release.to_owned());
        let host = format!("{release}.preview.example.net");
        assert_eq!(get(nginx.ports[0], &host, "/"), shown);
        assert_eq!(get(nginx.ports[0], &host, "/assets/app.js").0, 200);
        assert_eq!(
            get(
                nginx.ports[1],
                "preview.example.net",
                &format!("/{release}/")
            ),
            shown
        );
    }
    // nginx makes host names lower-case.
    let shown = (200, "Upper".to_owned());
    assert_eq!(get(nginx.ports[0], "Upper.preview.example.net", "/").0, 404);
    assert_eq!(get(nginx.ports[1], "preview.example.net", "/Upper/"), shown);
    // Other clients get nothing.
    for port in &nginx.ports[2..] {
        assert_eq!(get(*port, "old.preview.example.net", "/old/").0, 403);
    }
    assert_eq!(
        Nginx::log(&site)
            .lines()
            .filter(|line| line.contains("[warn]"))
            .count(),
        0
    );
}

#[test]
fn a_preview_leads_to_releases_only() {
    let site = site();
    let nginx = nginx(&site);
    let long = "n".repeat(65);
    let refused = |port: u16, host: &str, path: &str| {
        let (status, body) = get(port, host, path);
        assert!(
            matches!(status, 400 | 403 | 404),
            "{host} {path}: {status} {body}"
        );
        assert!(!body.contains("secret"), "{host} {path}: {body}");
    };
    for release in SHOWN {
        let host = format!("{release}.preview.example.net");
        refused(nginx.ports[0], &host, "/.env");
        let path = format!("/{release}/.env");
        refused(nginx.ports[1], "preview.example.net", &path);
    }
    for id in [
        "",
        ".",
        "..",
        "a..b",
        ".hidden",
        "-x",
        &long,
        "%2e%2e",
        "..%2fshared",
        "old/../../shared",
        "old%2f..%2f..%2fshared",
        "../shared",
        "old\\..",
        "secret",
        "none",
        "old%00",
        "öld",
        "old.preview.example.net/..",
    ] {
        let host = format!("{id}.preview.example.net");
        for path in ["/", "/secret", "/shared/secret", "/index.html"] {
            refused(nginx.ports[0], &host, path);
        }
    }
    for path in [
        "/",
        "/secret",
        "/old",
        "/old/../secret",
        "/old/%2e%2e/secret",
        "/old%2f..%2fsecret",
        "/old/..%2f..%2fshared/secret",
        "/../shared/secret",
        "/%2e%2e/shared/secret",
        "/..%2fshared%2fsecret",
        "/a..b/",
        "/a%2e%2eb/",
        "/.hidden/",
        "/%2ehidden/",
        "/-x/",
        &format!("/{long}/"),
        "//../shared/secret",
        "/old/..;/secret",
        "/old\\..\\secret",
        "/releases/secret",
        "/.deploy-shell/secret",
        "/none/",
    ] {
        refused(nginx.ports[1], "preview.example.net", path);
    }
    // A host that is no preview, on the server that is the default one.
    for path in ["/", "/old/", "/old/index.html", "/secret"] {
        refused(nginx.ports[0], "example.net", path);
    }
    // The last `..` is within the tree of one release.
    let (status, body) = get(
        nginx.ports[1],
        "preview.example.net",
        "/old/assets/..%2findex.html",
    );
    assert_eq!((status, body.as_str()), (200, "old"));
}
