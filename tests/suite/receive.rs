//! `receive`: a release in `releases/` has every byte of the payload, or it does not
//! exist.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};

use crate::archive::{Header, MODE, Tar, tarball, zstd};
use crate::drop::drop_releases;
use crate::mode::Mode;
use crate::process::{Process, Upload, eventually, serving, unpacking};
use crate::site::{BIN, Reply, Site, sha256};

/// Returns incompressible bytes, which are the same at every call.
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

/// Returns an archive of `count` small files, which takes a while to unpack.
pub fn many_files(count: usize) -> Vec<u8> {
    let files = (0..count).fold(Tar::new(), |tar, number| {
        tar.file(format!("d{}/f{number}", number % 50), number.to_string())
    });
    zstd(&files.end())
}

/// Returns the regular files below `directory` and their bytes.
fn contents(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(next) = directories.pop() {
        for entry in fs::read_dir(&next).expect("a directory") {
            let path = entry.expect("an entry").path();
            let kind = fs::symlink_metadata(&path).expect("it exists");
            if kind.is_dir() {
                directories.push(path);
            } else if kind.is_file() {
                let below = path.strip_prefix(directory).expect("below").to_owned();
                found.insert(below, fs::read(&path).expect("a file"));
            }
        }
    }
    found
}

/// Asserts that our own directories have no leftovers.
#[track_caller]
pub fn no_debris(site: &Site) {
    let found = site.leftovers();
    assert!(found.is_empty(), "{found:?}");
}

/// Asserts that the request failed and that the site has no release and no leftovers.
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
    for mode in Mode::BOTH {
        let site = mode.site("");
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
        let reply = mode.receive(&site, "20260412-142033", &payload).ok();

        let bytes: usize = files.iter().map(|(_, content)| content.len()).sum();
        let manifests = site.root().join(".deploy-shell/manifests");
        let manifest = fs::read_to_string(manifests.join("20260412-142033")).expect("a manifest");
        let tree = manifest
            .lines()
            .find_map(|line| line.strip_prefix("# tree "));
        let expected = format!(
            "ok receive 20260412-142033 sha256={} tree={} files=8 bytes={bytes}\n",
            sha256(&payload),
            tree.expect("a digest"),
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
        assert_eq!(site.current(), None, "receive makes nothing live");
        let manifest = site.root().join(".deploy-shell/manifests/20260412-142033");
        assert!(manifest.is_file());
    }
}

#[test]
fn a_received_release_can_go_live_and_be_read_through_the_symlink() {
    let site = Site::new();
    site.receive("r1", &tarball(&[("index.html", b"live")]))
        .ok();
    let reply = site.ssh("ci", "swap r1").ok();
    assert_eq!(reply, "ok swap r1 previous=-\n");
    let page = fs::read(site.root().join("current/index.html")).expect("the page");
    assert_eq!(page, b"live");
}

#[test]
fn a_second_receive_of_the_same_payload_succeeds_and_changes_nothing() {
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
fn other_content_under_the_same_id_is_refused() {
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
    for mode in Mode::BOTH {
        let site = mode.site("");
        let payload = tarball(&[("index.html", b"x")]);
        let request = mode.command("r1", b"something else");
        let reply = site.ssh_with_input("ci", &request, &payload);
        leaves_nothing(&site, &reply, 65, "digest-mismatch");

        // A payload with one byte more or less has another digest.
        let request = mode.command("r1", &payload);
        let longer = [payload.as_slice(), b"\0"].concat();
        for input in [&longer, &payload[..payload.len() - 1]] {
            let reply = site.ssh_with_input("ci", &request, input);
            leaves_nothing(&site, &reply, 65, "digest-mismatch");
        }
        mode.receive(&site, "r1", &payload).ok();
    }
}

#[test]
fn an_empty_stdin_leaves_nothing() {
    for mode in Mode::BOTH {
        let site = mode.site("");
        let request = mode.command("r1", &tarball(&[("a", b"")]));
        let reply = site.ssh("ci", &request);
        leaves_nothing(&site, &reply, 65, "digest-mismatch");
        // The digest of the empty payload is right, but it is not an archive.
        let reply = site.ssh("ci", &mode.command("r1", b""));
        leaves_nothing(&site, &reply, 65, "bad-archive");
    }
}

#[test]
fn required_paths_must_exist() {
    for mode in Mode::BOTH {
        let site = mode
            .site("[archive]\nrequired_paths = [\"index.html\", \"assets/app.js\", \"media\"]\n");
        let without = tarball(&[("index.html", b""), ("assets/other.js", b"")]);
        let reply = mode.receive(&site, "r1", &without);
        leaves_nothing(&site, &reply, 65, "missing-path");
        assert!(reply.stderr.contains("'assets/app.js'"), "{}", reply.stderr);

        let whole = Tar::new()
            .file("index.html", b"")
            .file("assets/real.js", b"")
            .symlink("assets/app.js", "real.js")
            .directory("media");
        let reply = mode.receive(&site, "r1", &zstd(&whole.end())).ok();
        assert!(reply.starts_with("ok receive r1 "), "{reply}");
    }
}

#[test]
fn a_required_path_that_is_a_dangling_symlink_is_missing() {
    let site = Site::with_config("[archive]\nrequired_paths = [\"index.html\"]\n");
    let tar = Tar::new().file("a", b"").symlink("index.html", "nowhere");
    let reply = site.receive("r1", &zstd(&tar.end()));
    leaves_nothing(&site, &reply, 65, "missing-path");
}

#[test]
fn modes_do_not_depend_on_the_umask_or_the_archive() {
    let mode = |text: &str, name: &str| Header::file(name, 0).put(MODE, text);
    let tar = Tar::new()
        .header(Header::directory("open").put(MODE, "0000777"))
        .header(Header::directory("closed").put(MODE, "0000000"))
        .header(mode("0000666", "open/page"))
        .header(mode("0000000", "closed/page"))
        .header(mode("0006777", "open/tool"))
        .header(mode("0000100", "closed/tool"))
        .file("implied/directory/page", b"");
    let payload = zstd(&tar.end());
    for umask in ["000", "027", "077"] {
        let site = Site::new();
        // sshd sets a umask itself, so this runs the program directly.
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
            ("implied/directory", 0o755),
            ("implied/directory/page", 0o644),
            ("open/page", 0o644),
            ("closed/page", 0o644),
            ("open/tool", 0o755),
            ("closed/tool", 0o755),
        ] {
            let found = fs::metadata(release.join(name)).expect("it exists");
            let found = found.permissions().mode() & 0o7777;
            assert_eq!(found, wanted, "'{name}' under umask {umask}: {found:o}");
        }
    }
}

#[test]
fn the_journal_records_the_payload_and_the_sender() {
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

/// Returns the fingerprint of this key by `ssh-keygen -l`.
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

/// Starts a receive of `payload`, and stops its unpacker by SIGSTOP.
///
/// The unpacker may end before it is stopped. Then the release exists, and this tries
/// the next id.
pub fn stopped_unpacker(mode: Mode, site: &Site, payload: &[u8]) -> (String, Upload, Process) {
    for attempt in 0..8 {
        let release = format!("try{attempt}");
        let mut upload = Upload::start(site, &mode.command(&release, payload));
        upload.send(payload);
        upload.close();
        let mut caught = None;
        eventually("the unpacker is stopped or the receive ends", || {
            // Before its main function, the process has the loader's files open.
            caught = unpacking(site)
                .into_iter()
                .filter(|_| has_begun(site))
                .find(|child| kill(Pid::from_raw(child.pid), Signal::SIGSTOP).is_ok());
            caught.is_some() || upload.client.is_over()
        });
        match caught {
            Some(child) => {
                // Each thread stops at its next return from the kernel.
                eventually("every thread is stopped", || is_stopped(child.pid));
                return (release, upload, child);
            }
            None => {
                upload.finish().ok();
                // The disk of the site may be small.
                drop_releases(site, &[&release]).ok();
            }
        }
    }
    panic!("every unpacker ended before it was stopped");
}

/// Returns whether a staging directory has an unpacked file.
fn has_begun(site: &Site) -> bool {
    staged_trees(site).any(|tree| fs::read_dir(tree).is_ok_and(|mut names| names.next().is_some()))
}

/// Iterates over the paths at which the receives in progress unpack.
pub fn staged_trees(site: &Site) -> impl Iterator<Item = PathBuf> {
    let incoming = fs::read_dir(site.root().join(".deploy-shell/incoming"));
    let stagings = incoming.expect("it exists").flatten();
    stagings.map(|staging| staging.path().join("tree"))
}

/// Returns whether every thread of a process is stopped (proc_pid_stat(5), `T`).
fn is_stopped(pid: i32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("it exists");
    threads.flatten().all(|thread| {
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        stat.rsplit_once(") ")
            .is_some_and(|(_, rest)| rest.starts_with('T'))
    })
}

#[test]
fn the_unpacker_is_a_separate_process() {
    for mode in Mode::BOTH {
        let site = mode.site("");
        let (release, upload, child) = stopped_unpacker(mode, &site, &many_files(5000));
        let server = serving(&site);
        assert!(
            server.iter().any(|process| process.pid == child.parent),
            "{server:?}"
        );
        // Every local user can read this: it has nothing of the job.
        assert_eq!(child.arguments, ["/proc/self/exe", "unpack"]);

        match fs::read(format!("/proc/{}/environ", child.pid)) {
            Ok(environment) => {
                assert_eq!(environment, b"");
                assert_no_inherited_descriptors(&site, mode, child.pid);
            }
            // The process is not dumpable: only root may read this, as intended.
            Err(error)
                if error.kind() == ErrorKind::PermissionDenied && !Uid::effective().is_root() =>
            {
                println!("skipped: an ordinary user cannot inspect a process that is not dumpable");
            }
            Err(error) => panic!("its environment: {error}"),
        }
        kill(Pid::from_raw(child.pid), Signal::SIGCONT).expect("it continues");
        upload.finish().ok();
        assert!(site.releases().contains(&release));
    }
}

/// Asserts that the unpacker's working directory is its staging directory, and that it
/// has only the descriptors that it was given or opened itself.
fn assert_no_inherited_descriptors(site: &Site, mode: Mode, pid: i32) {
    let proc = PathBuf::from(format!("/proc/{pid}"));
    let cwd = fs::read_link(proc.join("cwd")).expect("its directory");
    let incoming = site.root().join(".deploy-shell/incoming");
    let shown = cwd.display();
    assert!(cwd.starts_with(&incoming) && cwd != incoming, "{shown}");
    let stdin = fs::read_link(proc.join("fd/0")).expect("its stdin");
    for (number, kind) in [("1", "pipe:["), ("2", "socket:[")] {
        let target = fs::read_link(proc.join("fd").join(number)).expect("a descriptor");
        assert!(
            target.to_string_lossy().starts_with(kind),
            "{}",
            target.display()
        );
    }
    match mode {
        Mode::Arriving => assert!(stdin.to_string_lossy().starts_with("pipe:[")),
        Mode::Spooled => assert!(stdin.starts_with(site.root()), "{}", stdin.display()),
    }
    for entry in fs::read_dir(proc.join("fd")).expect("its descriptors") {
        let path = entry.expect("an entry").path();
        let number = path.file_name().expect("a number").to_owned();
        let target = fs::read_link(&path).expect("what it is");
        let given = ["0", "1", "2"].iter().any(|given| number == *given);
        let shown = target.display();
        assert!(
            given || target == stdin || target.starts_with(&cwd),
            "descriptor {number:?} is {shown}"
        );
    }
}

#[test]
fn an_unpacker_that_is_killed_leaves_nothing() {
    for mode in Mode::BOTH {
        let site = mode.site("");
        let payload = many_files(5000);
        let (release, upload, child) = stopped_unpacker(mode, &site, &payload);
        kill(Pid::from_raw(child.pid), Signal::SIGKILL).expect("it exists");
        let reply = upload.finish();
        reply.refused(70, "unpacker-died");
        assert!(!site.releases().contains(&release));
        no_debris(&site);
        mode.receive(&site, &release, &payload).ok();
    }
}

/// CVE-2025-45582 (GNU tar): an archive brings a symlink, and the next one writes through
/// it.
#[test]
fn a_symlink_of_one_release_leads_no_file_of_another() {
    let site = Site::new();
    let first = Tar::new().file("sub/f", "first").symlink("x", "sub").end();
    let second = Tar::new().file("x/f", "second").end();
    site.receive("a", &zstd(&first)).ok();
    site.receive("b", &zstd(&second)).ok();
    let read = |path: &str| fs::read_to_string(site.root().join("releases").join(path));
    assert_eq!(read("a/x/f").expect("a file"), "first");
    assert_eq!(read("b/x/f").expect("a file"), "second");
    // The same, under the same id.
    site.receive("a", &zstd(&second))
        .refused(73, "release-exists");
    assert_eq!(read("a/sub/f").expect("a file"), "first");
}
