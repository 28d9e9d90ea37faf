//! Shared paths: every release has symlinks to the files of the application. Tested
//! through real ssh, and read as a web server reads them.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::stat::Mode;
use nix::unistd::{Uid, mkfifo};

use deploy_shell::archive::{UnpackJob, UnpackLimits};
use deploy_shell::message;
use deploy_shell::shared_paths::{Existing, Shared};

use crate::archive::{Tar, tarball, zstd};
use crate::direct::{ask, held_open, live, serve};
use crate::process::Upload;
use crate::receive::{leaves_nothing, no_debris, noise};
use crate::site::{Reply, Site, set_mode, write_file};
use crate::web::{Nginx, get};

const LINKS: &str = "[shared]\nlinks = [\".env\", \"public/uploads\", \"a/b/c/d\"]\n";

/// The shared symlinks and their targets.
const MADE: [(&str, &str); 3] = [
    (".env", "../../shared/.env"),
    ("public/uploads", "../../../shared/public/uploads"),
    ("a/b/c/d", "../../../../../shared/a/b/c/d"),
];

/// Returns a site where every shared path exists.
fn site(extra: &str) -> Site {
    let site = Site::with_config(extra);
    fill(&site);
    site
}

fn fill(site: &Site) {
    let shared = site.root().join("shared");
    write_file(&shared.join(".env"), 0o600, b"KEY=1\n");
    for directory in ["public/uploads", "a/b/c"] {
        fs::create_dir_all(shared.join(directory)).expect("a directory");
    }
    write_file(&shared.join("public/uploads/photo"), 0o644, b"a photo");
    write_file(&shared.join("a/b/c/d"), 0o644, b"deep");
}

/// Asserts that the release has every shared symlink with its target.
#[track_caller]
fn assert_shared_symlinks(site: &Site, release: &str) {
    for (path, target) in MADE {
        let link = site.root().join("releases").join(release).join(path);
        let found = fs::read_link(&link).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert_eq!(found, Path::new(target), "{path}");
    }
}

/// Returns everything below `shared/`.
fn shared_content(site: &Site) -> BTreeMap<PathBuf, String> {
    let mut found = site.snapshot();
    found.retain(|path, _| path.starts_with("shared"));
    assert!(found.len() > 1, "{found:?}");
    found
}

fn manifest(site: &Site, release: &str) -> PathBuf {
    site.root().join(".deploy-shell/manifests").join(release)
}

fn verify(site: &Site) -> Reply {
    let mut command = Command::new(crate::site::admin());
    command.env_clear().arg("verify").arg("--config");
    site.run(
        {
            command.arg(site.config_path());
            command
        },
        b"",
    )
}

fn gnu_tar(directory: &Path) -> Vec<u8> {
    let output = Command::new("tar")
        .args(["--zstd", "-c", "-C"])
        .arg(directory)
        .arg(".")
        .output()
        .expect("tar starts");
    assert!(output.status.success());
    output.stdout
}

#[test]
fn shared_symlinks_are_created_beside_the_entries_of_the_archive() {
    let site = site(&format!("verify_on_swap = true\n{LINKS}"));
    let before = shared_content(&site);
    let payload = tarball(&[
        ("index.html", b"x"),
        ("public/index.php", b"yy"),
        ("a/b/x", b""),
    ]);
    let reply = site.receive("r1", &payload).ok();
    assert!(reply.ends_with(" files=3 bytes=3\n"), "{reply}");
    assert_shared_symlinks(&site, "r1");
    let release = site.root().join("releases/r1");
    for directory in ["public", "a", "a/b", "a/b/c"] {
        let meta = fs::symlink_metadata(release.join(directory)).expect("a directory");
        assert!(meta.is_dir(), "{directory}");
        assert_eq!(meta.permissions().mode() & 0o7777, 0o755, "{directory}");
    }

    site.ssh("ci", "swap r1").ok();
    let current = site.root().join("current");
    let read = |path: &str| fs::read(current.join(path)).expect("through the link");
    assert_eq!(read(".env"), b"KEY=1\n");
    assert_eq!(read("a/b/c/d"), b"deep");
    assert_eq!(shared_content(&site), before);
    // The next release sees what the application has written.
    fs::write(current.join("public/uploads/new"), "from r1").expect("written");
    site.receive("r2", &tarball(&[("only", b"")])).ok();
    site.ssh("ci", "swap r2 --if-current r1").ok();
    assert_shared_symlinks(&site, "r2");
    assert_eq!(read("public/uploads/new"), b"from r1");
    site.ssh("ci", "rollback").ok();
    assert_eq!(read("public/uploads/new"), b"from r1");
    no_debris(&site);

    // Every symlink is relative, so the site can be moved.
    let moved = site.dir().join("moved");
    fs::rename(site.root(), &moved).expect("moved");
    let photo = fs::read(moved.join("current/public/uploads/photo"));
    assert_eq!(photo.expect("through both links"), b"a photo");
    fs::rename(&moved, site.root()).expect("moved back");
}

#[test]
fn the_manifest_lists_the_symlinks_and_other_readers_agree() {
    let site = site(LINKS);
    site.receive("r1", &tarball(&[("index.html", b"x"), ("a/b/x", b"")]))
        .ok();
    assert_eq!(verify(&site).ok(), "r1 ok\n");
    let text = fs::read_to_string(manifest(&site, "r1")).expect("a manifest");
    for (path, target) in MADE {
        let line = format!("./{path} type=link mode=0777 link={target}");
        assert!(text.lines().any(|it| it == line), "{line}\n{text}");
    }
    assert!(!text.contains("photo"), "{text}");
    let mtree = Command::new("mtree")
        .arg("-f")
        .arg(manifest(&site, "r1"))
        .arg("-p")
        .arg(site.root().join("releases/r1"))
        .output()
        .expect("mtree starts");
    assert!(
        mtree.status.success() && mtree.stdout.is_empty(),
        "{mtree:?}"
    );
    let bsdtar = Command::new("bsdtar")
        .arg("-tvf")
        .arg(manifest(&site, "r1"))
        .output()
        .expect("bsdtar starts");
    let listed = String::from_utf8(bsdtar.stdout).expect("utf-8");
    for (path, target) in MADE {
        let end = format!(" ./{path} -> {target}");
        assert!(
            listed.lines().any(|it| it.ends_with(&end)),
            "{end}\n{listed}"
        );
    }
}

#[test]
fn a_changed_shared_symlink_is_found() {
    type Change = fn(&Path);
    let changes: [(&str, Change); 4] = [
        ("missing ./.env", |tree| {
            fs::remove_file(tree.join(".env")).unwrap();
        }),
        ("link ./.env: to '/etc/passwd'", |tree| {
            fs::remove_file(tree.join(".env")).unwrap();
            symlink("/etc/passwd", tree.join(".env")).unwrap();
        }),
        (
            "link ./public/uploads: to '../../../shared/public'",
            |tree| {
                fs::remove_file(tree.join("public/uploads")).unwrap();
                symlink("../../../shared/public", tree.join("public/uploads")).unwrap();
            },
        ),
        ("type ./public/uploads: it is a directory", |tree| {
            fs::remove_file(tree.join("public/uploads")).unwrap();
            fs::create_dir(tree.join("public/uploads")).unwrap();
        }),
    ];
    for (reported, change) in changes {
        let site = site(&format!("verify_on_swap = true\n{LINKS}"));
        site.receive("r1", &tarball(&[("index.html", b"x")])).ok();
        change(&site.root().join("releases/r1"));
        let reply = verify(&site);
        assert_eq!(reply.code, 1, "{reported}");
        assert!(reply.stdout.contains(reported), "{reported}: {reply:?}");
        let reply = site.ssh("ci", "swap r1");
        assert_eq!(reply.code, 65, "{reported}: {reply:?}");
        assert_eq!(site.current(), None);
    }
}

#[test]
fn an_entry_at_a_shared_path_is_refused_or_replaced() {
    let build = tempfile::tempdir().expect("a temporary directory");
    let path = build.path();
    fs::create_dir_all(path.join("public/uploads/2019")).expect("directories");
    fs::write(path.join("public/index.php"), "<?php").expect("a file");
    fs::write(path.join("index.html"), "x").expect("a file");
    set_mode(path, 0o755);

    // An empty directory in the source tree is an entry as well.
    fs::remove_dir(path.join("public/uploads/2019")).expect("it is empty");
    let site = site(LINKS);
    let reply = site.receive("r1", &gnu_tar(path));
    leaves_nothing(&site, &reply, 65, "bad-archive");
    for why in [
        "'./public/uploads/': at a shared path\n",
        "leave it out (--exclude), or set existing = \"replace\" in [shared]",
    ] {
        assert!(reply.stderr.contains(why), "{reply:?}");
    }

    let site = self::site(&format!("{LINKS}existing = \"replace\"\n"));
    let before = shared_content(&site);
    site.receive("r1", &gnu_tar(path)).ok();
    assert_shared_symlinks(&site, "r1");

    fs::create_dir(path.join("public/uploads/2019")).expect("a directory");
    fs::write(path.join("public/uploads/2019/cat"), noise(3 << 20)).expect("a file");
    fs::write(path.join("public/uploads/zz"), "z").expect("a file");
    fs::write(path.join(".env"), "KEY=of the developer").expect("a file");
    symlink("zz", path.join("public/uploads/latest")).expect("a symlink");
    let reply = site.receive("r2", &gnu_tar(path)).ok();
    assert!(reply.ends_with(" files=2 bytes=6\n"), "{reply}");
    assert_shared_symlinks(&site, "r2");
    let text = fs::read_to_string(manifest(&site, "r2")).expect("a manifest");
    assert!(!text.contains("2019") && !text.contains("/zz"), "{text}");
    assert_eq!(verify(&site).ok(), "r1 ok\nr2 ok\n");
    assert_eq!(shared_content(&site), before);
    no_debris(&site);
}

/// The replaced entry comes first, when the directories above it do not exist yet; or
/// last; or it is the only entry.
#[test]
fn the_order_of_replaced_entries_does_not_matter() {
    let site = site(&format!("{LINKS}existing = \"replace\"\n"));
    let big = noise(700_000);
    for (release, tar) in [
        (
            "first",
            Tar::new()
                .file("a/b/c/d/x", &big)
                .file("a/b/y", "y")
                .directory("a/b/c/")
                .directory("a/"),
        ),
        ("last", Tar::new().file("a/b/y", "y").file("a/b/c/d", &big)),
        (
            "directory",
            Tar::new().directory("a/b/c/d/").file("a/b/y", "y"),
        ),
        (
            "link",
            Tar::new().symlink("a/b/c/d", "../y").file("a/b/y", "y"),
        ),
    ] {
        site.receive(release, &zstd(&tar.end())).ok();
        assert_shared_symlinks(&site, release);
        let y = site.root().join("releases").join(release).join("a/b/y");
        assert_eq!(fs::read(y).expect("a file"), b"y", "{release}");
    }
    let reply = site.receive("alone", &tarball(&[(".env", b"x")])).ok();
    assert!(reply.ends_with(" files=0 bytes=0\n"), "{reply}");
    assert_shared_symlinks(&site, "alone");
    assert!(verify(&site).ok().lines().all(|line| line.ends_with(" ok")));
}

#[test]
fn a_site_that_denies_symlinks_has_its_shared_symlinks() {
    let site = site(&format!("[archive]\nsymlinks = \"deny\"\n{LINKS}"));
    site.receive("r1", &tarball(&[("index.html", b"x")])).ok();
    assert_shared_symlinks(&site, "r1");
    let tar = Tar::new().file("a", "").symlink("l", "a");
    site.receive("r2", &zstd(&tar.end()))
        .refused(65, "bad-archive");
}

/// A change of `shared/` after which a release is refused before a byte is read.
type Breach = fn(&Path);

const BREACHES: [(&str, &str, Breach); 9] = [
    ("no file", "shared/.env' does not exist", |shared| {
        fs::remove_file(shared.join(".env")).unwrap();
    }),
    ("no directory", "shared/a/b/c/d' does not exist", |shared| {
        fs::remove_dir_all(shared.join("a")).unwrap();
    }),
    ("nothing at all", "shared' does not exist", |shared| {
        fs::remove_dir_all(shared).unwrap();
    }),
    ("a symlink out", "shared/.env' leads out", |shared| {
        fs::remove_file(shared.join(".env")).unwrap();
        symlink("../current/.env", shared.join(".env")).unwrap();
    }),
    (
        "a symlink to the system",
        "shared/.env' leads out",
        |shared| {
            fs::remove_file(shared.join(".env")).unwrap();
            symlink("/etc/passwd", shared.join(".env")).unwrap();
        },
    ),
    (
        "a symlink out halfway",
        "shared/public/uploads' leads out",
        |shared| {
            fs::rename(shared.join("public"), shared.parent().unwrap().join("p")).unwrap();
            symlink("../p", shared.join("public")).unwrap();
        },
    ),
    ("a loop", "shared/.env' is a symlink loop", |shared| {
        fs::remove_file(shared.join(".env")).unwrap();
        symlink(".env", shared.join(".env")).unwrap();
    }),
    ("a fifo", "shared/.env' is neither a file nor", |shared| {
        fs::remove_file(shared.join(".env")).unwrap();
        mkfifo(&shared.join(".env"), Mode::from_bits_truncate(0o644)).unwrap();
    }),
    (
        "a symlink in place of the directory",
        "shared' is not a directory itself",
        |shared| {
            let away = shared.parent().unwrap().join("away");
            fs::rename(shared, &away).unwrap();
            symlink("away", shared).unwrap();
        },
    ),
];

#[test]
fn a_missing_or_escaping_shared_path_is_refused_before_a_byte_is_read() {
    let payload = tarball(&[("index.html", b"x")]);
    for (what, problem, breach) in BREACHES {
        let site = site(LINKS);
        breach(&site.root().join("shared"));
        let before = site.snapshot();
        // The payload never ends: a server that waits for its end hangs.
        let request = Site::receive_command("r1", &payload);
        let reply = held_open(serve(&site, "ci", &request), &payload);
        leaves_nothing(&site, &reply, 78, "bad-layout");
        assert!(reply.stderr.contains(problem), "{what}: {reply:?}");
        assert_eq!(reply.stderr.lines().count(), 2, "a remedy: {reply:?}");
        assert_eq!(site.snapshot(), before, "{what}");
        site.ssh("ci", "list").ok();
        // Do what the remedy says.
        let shared = site.root().join("shared");
        let _ = fs::remove_file(&shared);
        let _ = fs::remove_dir_all(&shared);
        fs::create_dir(&shared).expect("a directory");
        fill(&site);
        site.receive("r1", &payload).ok();
        assert_shared_symlinks(&site, "r1");
    }
}

#[test]
fn a_directory_without_search_permission_is_reported() {
    if Uid::effective().is_root() {
        return; // Root may search everything.
    }
    let site = site(LINKS);
    let directory = site.root().join("shared/public");
    set_mode(&directory, 0o600);
    let reply = site.receive("r1", &tarball(&[("index.html", b"x")]));
    set_mode(&directory, 0o755);
    leaves_nothing(&site, &reply, 78, "bad-layout");
    let why = "shared/public/uploads' cannot be accessed: permission denied";
    assert!(reply.stderr.contains(why), "{reply:?}");
    // Search permission is enough: nothing is listed, and nothing is opened.
    for directory in ["shared", "shared/public"] {
        set_mode(&site.root().join(directory), 0o311);
    }
    set_mode(&site.root().join("shared/.env"), 0o000);
    site.receive("r1", &tarball(&[("index.html", b"x")])).ok();
    for directory in ["shared", "shared/public"] {
        set_mode(&site.root().join(directory), 0o755);
    }
    assert_shared_symlinks(&site, "r1");
}

#[test]
fn the_remedy_names_the_path_to_create() {
    let site = Site::with_config(LINKS);
    let reply = site.receive("r1", &tarball(&[("index.html", b"x")]));
    leaves_nothing(&site, &reply, 78, "bad-layout");
    let path = site.root().join("shared/.env");
    let remedy = format!("create '{}'", path.display());
    assert!(reply.stderr.contains(&remedy), "{reply:?}");
}

#[test]
fn a_symlink_inside_shared_is_followed() {
    let site = site(LINKS);
    let shared = site.root().join("shared");
    fs::rename(shared.join(".env"), shared.join("env.production")).expect("renamed");
    symlink("env.production", shared.join(".env")).expect("a symlink");
    site.receive("r1", &tarball(&[("index.html", b"x")])).ok();
    site.ssh("ci", "swap r1").ok();
    let read = fs::read(site.root().join("current/.env"));
    assert_eq!(read.expect("through both"), b"KEY=1\n");
}

#[test]
fn a_shared_path_removed_during_a_receive_is_reported() {
    let site = site(LINKS);
    let payload = tarball(&[("noise", &noise(8 << 20))]);
    let mut upload = Upload::taken_up(&site, &Site::receive_command("r1", &payload));
    // This is more than fits into the buffers, so the server has begun to read.
    upload.send(&payload[..7 << 20]);
    fs::remove_file(site.root().join("shared/.env")).expect("removed");
    upload.send(&payload[7 << 20..]);
    let reply = upload.finish();
    leaves_nothing(&site, &reply, 78, "bad-layout");
    fill(&site);
    site.receive("r1", &payload).ok();
}

/// The shared paths in the unpacker's job come from the configuration. The
/// unpacker checks them again.
#[test]
fn the_unpacker_refuses_a_bad_shared_path() {
    let site = Site::new();
    let job = UnpackJob {
        limits: UnpackLimits::default(),
        shared: Shared {
            links: vec!["x".to_owned().try_into().expect("a shared path")],
            existing: Existing::Refuse,
        },
        delta: false,
        sandbox_required: true,
    };
    let job = message::encode(&job).expect("a message");
    let unpack = |path: &str| {
        let changed = job.replace("[\"x\"]", &format!("[\"{path}\"]"));
        assert_ne!(changed, job);
        let mut command = Command::new(crate::site::BIN);
        command.env_clear().arg("unpack");
        command.current_dir(site.dir());
        // The unpacker reads its job from the socket that is its stderr.
        let (mut ours, theirs) = UnixStream::pair().expect("two sockets");
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let mut child = command
            .stderr(OwnedFd::from(theirs))
            .spawn()
            .expect("it starts");
        drop(command);
        writeln!(ours, "{changed}").expect("it reads its job");
        let mut stderr = String::new();
        ours.read_to_string(&mut stderr).expect("its answer");
        let code = child.wait().expect("it ends").code().unwrap_or(-1);
        let stdout = String::new();
        Reply {
            code,
            stdout,
            stderr,
        }
    };
    // Empty stdin is not an archive. The unpacker finds that only after it has
    // accepted the job.
    assert!(unpack("-a/b").stderr.contains("not a zstd frame"));
    for bad in ["", "/a", "../a", "a/../b", "a/", "a//b"] {
        let reply = unpack(bad);
        reply.refused(64, "bad-request");
        assert!(
            reply.stderr.contains("not a plain relative path"),
            "{reply:?}"
        );
    }
}

#[test]
fn a_retry_does_not_check_shared_paths() {
    let site = site(LINKS);
    let payload = tarball(&[("index.html", b"x")]);
    site.receive("r1", &payload).ok();
    fs::remove_file(site.root().join("shared/.env")).expect("removed");
    let reply = site.receive("r1", &payload).ok();
    assert!(reply.contains("already received"), "{reply}");
    site.receive("r2", &payload).refused(78, "bad-layout");
}

#[test]
fn required_paths_are_checked_through_shared_symlinks() {
    let required = "[archive]\nrequired_paths = [\".env\", \"public/uploads/photo\", \"public\"]\n";
    let site = site(&format!("{required}{LINKS}"));
    let payload = tarball(&[("index.html", b"x")]);
    site.receive("r1", &payload).ok();
    let photo = site.root().join("shared/public/uploads/photo");
    fs::remove_file(&photo).expect("removed");
    let reply = site.receive("r2", &payload);
    reply.refused(65, "missing-path");
    let path = "shared/public/uploads/photo' does not exist";
    assert!(reply.stderr.contains(path), "{reply:?}");
    // A path outside of shared/ is not the required one.
    symlink("/etc/passwd", &photo).expect("a symlink");
    site.receive("r2", &payload).refused(78, "bad-layout");
    assert_eq!(site.releases(), ["r1"]);
    no_debris(&site);
}

#[test]
fn pruning_a_release_keeps_shared_files() {
    let site = site(&format!("keep = 1\nmin_age = \"0s\"\n{LINKS}"));
    let before = shared_content(&site);
    live(&site, &["a1", "a2", "a3", "a4", "a5"]);
    assert_eq!(site.releases(), ["a3", "a4", "a5"]);
    ask(&site, "rollback").ok();
    live(&site, &["a6", "a7", "a8"]);
    assert!(!site.releases().contains(&"a3".to_owned()));
    assert_eq!(shared_content(&site), before);
    no_debris(&site);
}

/// A migration finds its settings before the release is live.
#[test]
fn a_hook_finds_shared_files_in_its_working_directory() {
    let hook = "[[hooks.before_swap]]\ncommand = [\"/bin/cat\", \".env\", \"a/b/c/d\"]\n";
    let site = site(&format!("{LINKS}{hook}"));
    site.receive("r1", &tarball(&[("index.html", b"x")])).ok();
    let reply = site.ssh("ci", "swap r1");
    assert_eq!(reply.code, 0, "{reply:?}");
    assert!(reply.stderr.contains("KEY=1"), "{reply:?}");
    assert!(reply.stderr.contains("deep"), "{reply:?}");
}

#[test]
fn a_web_server_serves_shared_files() {
    let site = site(LINKS);
    live(&site, &["one"]);
    let nginx = Nginx::live(&site);
    let body = |path: &str| {
        let answer = get(nginx.ports[0], path).expect("an answer");
        let answer = String::from_utf8(answer).expect("utf-8");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        answer.rsplit("\r\n\r\n").next().expect("a body").to_owned()
    };
    assert_eq!(body("/public/uploads/photo"), "a photo");
    let uploads = site.root().join("current/public/uploads");
    fs::write(uploads.join("new"), "uploaded to one").expect("an upload");
    live(&site, &["two"]);
    assert_eq!(body("/index.html"), "two");
    assert_eq!(body("/public/uploads/new"), "uploaded to one");
}
