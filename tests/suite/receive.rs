//! `receive`: what arrives is what stands in `releases/`, or nothing is.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};

use crate::archive::{Header, MODE, Tar, tarball, zstd};
use crate::process::{Process, Upload, eventually, serving, unpacking};
use crate::site::{BIN, Reply, Site, sha256};

/// Bytes that no compressor makes smaller, the same ones every time.
pub fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// So many small files that unpacking them takes a while.
pub fn many_files(count: usize) -> Vec<u8> {
    let files = (0..count).fold(Tar::new(), |tar, number| {
        tar.file(format!("d{}/f{number}", number % 50), number.to_string())
    });
    zstd(&files.end())
}

/// The regular files below `folder` and their bytes.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).expect("a folder") {
            let path = entry.expect("an entry").path();
            let kind = fs::symlink_metadata(&path).expect("it is there");
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file() {
                let below = path.strip_prefix(folder).expect("below").to_owned();
                found.insert(below, fs::read(&path).expect("a file"));
            }
        }
    }
    found
}

/// No half of anything stands in our own folders.
#[track_caller]
pub fn no_debris(site: &Site) {
    let found = site.leftovers();
    assert!(found.is_empty(), "{found:?}");
}

/// Refused, and the site is as it was: no release, no debris.
#[track_caller]
pub fn leaves_nothing(site: &Site, reply: &Reply, code: i32, word: &str) {
    reply.refused(code, word);
    assert_eq!(site.releases(), [""; 0]);
    no_debris(site);
    let events = site.journal();
    assert!(
        events.iter().all(|event| event["event"] != "received"),
        "{events:?}"
    );
}

#[test]
fn every_byte_arrives() {
    let site = Site::new();
    let big = noise(3 << 20);
    let long = format!("deep/{}/page.html", "long-name-".repeat(20));
    let files: [(&str, &[u8]); 8] = [
        ("index.html", b"<h1>hello</h1>\n"),
        ("empty", b""),
        ("one", b"1"),
        ("block", &big[..512]),
        ("block and one", &big[..513]),
        ("assets/app.wasm", &big),
        ("stra\u{df}e/\u{1f600}.txt", b"utf-8"),
        (&long, b"a name that needs a pax header"),
    ];
    let payload = tarball(&files);
    let reply = site.receive("20260412-142033", &payload).ok();

    let bytes: usize = files.iter().map(|(_, content)| content.len()).sum();
    let expected = format!(
        "ok receive 20260412-142033 sha256={} files=8 bytes={bytes}\n",
        sha256(&payload)
    );
    assert_eq!(reply, expected);
    let wanted: BTreeMap<PathBuf, Vec<u8>> = files
        .iter()
        .map(|(name, content)| (PathBuf::from(name), content.to_vec()))
        .collect();
    let release = site.root().join("releases/20260412-142033");
    assert!(contents(&release) == wanted, "the bytes differ");
    assert_eq!(site.releases(), ["20260412-142033"]);
    no_debris(&site);
    assert_eq!(site.current(), None, "receive publishes nothing");
    let manifest = site.root().join(".deploy-shell/manifests/20260412-142033");
    assert!(manifest.is_file());
}

#[test]
fn a_received_release_can_go_live_and_be_read_through_the_link() {
    let site = Site::new();
    site.receive("r1", &tarball(&[("index.html", b"live")]))
        .ok();
    let reply = site.ssh("ci", "swap r1").ok();
    assert_eq!(reply, "ok swap r1 previous=-\n");
    let page = fs::read(site.root().join("current/index.html")).expect("the page");
    assert_eq!(page, b"live");
}

#[test]
fn the_same_again_is_a_success_and_changes_nothing() {
    let site = Site::new();
    let payload = tarball(&[("index.html", b"once")]);
    let first = site.receive("r1", &payload).ok();
    let expected = format!("{} result=\"already received\"\n", first.trim_end());

    let before = site.snapshot();
    assert_eq!(site.receive("r1", &payload).ok(), expected);
    assert_eq!(site.snapshot(), before);

    site.ssh("ci", "swap r1").ok();
    let before = site.snapshot();
    assert_eq!(
        site.receive("r1", &payload).ok(),
        expected,
        "it is live now"
    );
    assert_eq!(site.snapshot(), before);
    let received = site.journal();
    let received = received.iter().filter(|event| event["event"] == "received");
    assert_eq!(received.count(), 1);
}

#[test]
fn another_content_under_the_same_id_is_refused() {
    let site = Site::new();
    site.receive("r1", &tarball(&[("a", b"first")])).ok();
    let before = site.snapshot();
    let other = tarball(&[("a", b"second")]);
    site.receive("r1", &other).refused(73, "release-exists");
    assert_eq!(site.snapshot(), before);
    site.ssh("ci", "swap r1").ok();
    let before = site.snapshot();
    site.receive("r1", &other).refused(73, "release-exists");
    assert_eq!(site.snapshot(), before);
}

#[test]
fn a_wrong_digest_leaves_nothing() {
    let site = Site::new();
    let payload = tarball(&[("index.html", b"x")]);
    let request = Site::receive_command("r1", b"something else");
    let reply = site.ssh_with_input("ci", &request, &payload);
    leaves_nothing(&site, &reply, 65, "digest-mismatch");

    // One byte more or less than was announced is another payload.
    let request = Site::receive_command("r1", &payload);
    let longer = [payload.as_slice(), b"\0"].concat();
    for input in [&longer, &payload[..payload.len() - 1]] {
        let reply = site.ssh_with_input("ci", &request, input);
        leaves_nothing(&site, &reply, 65, "digest-mismatch");
    }
    site.receive("r1", &payload).ok();
}

#[test]
fn an_empty_stdin_leaves_nothing() {
    let site = Site::new();
    let request = Site::receive_command("r1", &tarball(&[("a", b"")]));
    let reply = site.ssh("ci", &request);
    leaves_nothing(&site, &reply, 65, "digest-mismatch");
    // Announced as it is: the digest is right, and still it is no archive.
    let reply = site.ssh("ci", &Site::receive_command("r1", b""));
    leaves_nothing(&site, &reply, 65, "bad-archive");
}

#[test]
fn paths_that_are_required_must_be_there() {
    let site = Site::with_config(
        "[archive]\nrequired_paths = [\"index.html\", \"assets/app.js\", \"media\"]\n",
    );
    let without = tarball(&[("index.html", b""), ("assets/other.js", b"")]);
    let reply = site.receive("r1", &without);
    leaves_nothing(&site, &reply, 65, "missing-path");
    assert!(reply.stderr.contains("'assets/app.js'"), "{}", reply.stderr);

    let whole = Tar::new()
        .file("index.html", b"")
        .file("assets/real.js", b"")
        .link("assets/app.js", "real.js")
        .folder("media");
    let reply = site.receive("r1", &zstd(&whole.end())).ok();
    assert!(reply.starts_with("ok receive r1 "), "{reply}");
}

#[test]
fn a_required_path_that_is_a_dangling_link_is_missing() {
    let site = Site::with_config("[archive]\nrequired_paths = [\"index.html\"]\n");
    let tar = Tar::new().file("a", b"").link("index.html", "nowhere");
    let reply = site.receive("r1", &zstd(&tar.end()));
    leaves_nothing(&site, &reply, 65, "missing-path");
}

#[test]
fn modes_come_from_us_and_not_from_umask_or_archive() {
    let mode = |text: &str, name: &str| Header::file(name, 0).put(MODE, text);
    let tar = Tar::new()
        .header(Header::folder("open").put(MODE, "0000777"))
        .header(Header::folder("closed").put(MODE, "0000000"))
        .header(mode("0000666", "open/page"))
        .header(mode("0000000", "closed/page"))
        .header(mode("0006777", "open/tool"))
        .header(mode("0000100", "closed/tool"))
        .file("implied/folder/page", b"");
    let payload = zstd(&tar.end());
    for umask in ["000", "027", "077"] {
        let site = Site::new();
        // sshd masks group and others itself, so the program is run directly.
        let mut command = Command::new("sh");
        let script = format!("umask {umask}; exec \"$0\" \"$@\"");
        command.args(["-c", &script, BIN, "serve", "--key", "ci", "--config"]);
        command.arg(site.config_path());
        command.env(
            "SSH_ORIGINAL_COMMAND",
            Site::receive_command("r1", &payload),
        );
        site.run(command, &payload).ok();

        let release = site.root().join("releases/r1");
        for (name, wanted) in [
            ("", 0o755),
            ("open", 0o755),
            ("closed", 0o755),
            ("implied", 0o755),
            ("implied/folder", 0o755),
            ("implied/folder/page", 0o644),
            ("open/page", 0o644),
            ("closed/page", 0o644),
            ("open/tool", 0o755),
            ("closed/tool", 0o755),
        ] {
            let found = fs::metadata(release.join(name)).expect("it is there");
            let found = found.permissions().mode() & 0o7777;
            assert_eq!(found, wanted, "'{name}' under umask {umask}: {found:o}");
        }
    }
}

#[test]
fn the_journal_says_what_arrived_and_from_whom() {
    let site = Site::new();
    let payload = tarball(&[("a", b"12345"), ("b/c", b"678")]);
    site.receive("r1", &payload).ok();
    let journal = site.journal();
    let event = journal
        .iter()
        .find(|event| event["event"] == "received")
        .expect("a 'received' event");
    assert_eq!(event["release"], "r1");
    assert_eq!(event["sha256"], sha256(&payload).as_str());
    assert_eq!(event["files"], 2);
    assert_eq!(event["bytes"], 8);
    assert_eq!(event["key"], "ci");
    assert_eq!(event["fingerprint"], fingerprint(&site, "ci").as_str());
    assert!(event["seq"].is_u64(), "{event}");
    let time = event["time"].as_str().expect("a time");
    time.parse::<jiff::Timestamp>().expect("RFC 3339");
    assert!(time.ends_with('Z'), "{time}");
}

/// What `ssh-keygen -l` calls this key.
pub fn fingerprint(site: &Site, key: &str) -> String {
    let output = Command::new("ssh-keygen")
        .args(["-l", "-f"])
        .arg(site.dir().join(format!("key-{key}.pub")))
        .output()
        .expect("ssh-keygen runs");
    let text = String::from_utf8(output.stdout).expect("utf-8");
    let word = text.split_whitespace().nth(1);
    word.expect("a fingerprint").to_owned()
}

/// A receive of `payload` whose unpacker stands still.
///
/// The unpacker may be too quick to be caught: then the release is there, and
/// the next id is tried.
pub fn stopped_unpacker(site: &Site, payload: &[u8]) -> (String, Upload, Process) {
    for attempt in 0..8 {
        let release = format!("try{attempt}");
        let mut upload = Upload::start(site, &Site::receive_command(&release, payload));
        upload.send(payload);
        upload.close();
        let mut caught = None;
        eventually("the receive is unpacked or over", || {
            // What is still being loaded has the loader's files open.
            caught = unpacking(site)
                .into_iter()
                .filter(|_| has_begun(site))
                .find(|child| kill(Pid::from_raw(child.pid), Signal::SIGSTOP).is_ok());
            caught.is_some() || upload.client.is_over()
        });
        match caught {
            Some(child) => {
                // Each thread stops by itself, at its next step.
                eventually("all of it stands still", || stands_still(child.pid));
                return (release, upload, child);
            }
            None => _ = upload.finish().ok(),
        }
    }
    panic!("no unpacker was ever seen");
}

/// Whether something has been unpacked, and is not yet published.
fn has_begun(site: &Site) -> bool {
    let incoming = fs::read_dir(site.root().join(".deploy-shell/incoming"));
    incoming.expect("it is there").flatten().any(|staging| {
        fs::read_dir(staging.path().join("tree")).is_ok_and(|mut tree| tree.next().is_some())
    })
}

/// Whether every thread of a process is stopped (proc_pid_stat(5), `T`).
fn stands_still(pid: i32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("it is there");
    threads.flatten().all(|thread| {
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        stat.rsplit_once(") ")
            .is_some_and(|(_, rest)| rest.starts_with('T'))
    })
}

#[test]
fn what_unpacks_is_a_process_of_its_own() {
    let site = Site::new();
    let (release, upload, child) = stopped_unpacker(&site, &many_files(5000));
    let server = serving(&site);
    assert!(
        server.iter().any(|process| process.pid == child.parent),
        "{server:?}"
    );
    let named = |argument: &String| argument.contains("unpack");
    assert!(child.arguments.iter().any(named), "{child:?}");

    match fs::read(format!("/proc/{}/environ", child.pid)) {
        Ok(environment) => {
            assert_eq!(environment, b"");
            has_nothing_of_ours(&site, child.pid);
        }
        // Then nobody but root may look inside, and that is as it should be.
        Err(error)
            if error.kind() == ErrorKind::PermissionDenied && !Uid::effective().is_root() =>
        {
            println!("not looked into by an ordinary user: it is not dumpable");
        }
        Err(error) => panic!("its environment: {error}"),
    }
    kill(Pid::from_raw(child.pid), Signal::SIGCONT).expect("it goes on");
    upload.finish().ok();
    assert!(site.releases().contains(&release));
}

/// It stands in its staging folder, and what is open there is what it was
/// given and what it opened itself.
fn has_nothing_of_ours(site: &Site, pid: i32) {
    let proc = PathBuf::from(format!("/proc/{pid}"));
    let cwd = fs::read_link(proc.join("cwd")).expect("its folder");
    let incoming = site.root().join(".deploy-shell/incoming");
    let shown = cwd.display();
    assert!(cwd.starts_with(&incoming) && cwd != incoming, "{shown}");
    let spool = fs::read_link(proc.join("fd/0")).expect("its stdin");
    assert!(spool.starts_with(site.root()), "{}", spool.display());
    for entry in fs::read_dir(proc.join("fd")).expect("its descriptors") {
        let path = entry.expect("an entry").path();
        let number = path.file_name().expect("a number").to_owned();
        let target = fs::read_link(&path).expect("what it is");
        let given = ["0", "1", "2"].iter().any(|given| number == *given);
        let shown = target.display();
        assert!(
            given || target == spool || target.starts_with(&cwd),
            "{number:?} is {shown}"
        );
    }
}

#[test]
fn an_unpacker_that_dies_leaves_nothing() {
    let site = Site::new();
    let payload = many_files(5000);
    let (release, upload, child) = stopped_unpacker(&site, &payload);
    kill(Pid::from_raw(child.pid), Signal::SIGKILL).expect("it is there");
    let reply = upload.finish();
    reply.refused(70, "unpacker-died");
    assert!(!site.releases().contains(&release));
    no_debris(&site);
    site.receive(&release, &payload).ok();
}
