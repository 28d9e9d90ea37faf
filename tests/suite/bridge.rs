//! The bridge (`deploy-shell-admin bridge`): files of old releases stay reachable, and
//! nothing that is not to be served becomes reachable.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use jiff::SignedDuration;
use nix::unistd::Uid;

use crate::archive::{Tar, tarball, zstd};
use crate::check::{check, codes, me, quiet_sshd};
use crate::direct::{ask, serve};
use crate::gating::{gate_failed, hook};
use crate::mounted::in_namespace;
use crate::operator::operator;
use crate::site::{Reply, Site, admin, set_mode};
use crate::web::{self, Nginx};

/// A bridge for `assets`.
pub const PATHS: &str = "[bridge]\npaths = [\"assets\"]\n";

/// Returns a hook after the swap that builds the bridge.
pub fn bridge_hook() -> String {
    format!(
        "[[hooks.after_swap]]\ncommand = [\"{}\", \"bridge\", \"--config\", \"{{dir}}/blog.toml\", \
         \"--warn-only\"]\n",
        admin().display()
    )
}

/// A site with a bridge and its hook, and these lines before its tables.
pub fn bridged_site(keys: &str) -> Site {
    Site::with_config(&format!("{keys}{PATHS}{}", bridge_hook()))
}

/// Returns the archive of a release with a file of its own name, and one of a name that
/// every release has.
fn payload(release: &str) -> Vec<u8> {
    tarball(&[
        ("index.html", release.as_bytes()),
        ("secret.txt", b"not below the paths"),
        (&format!("assets/app-{release}.js"), release.as_bytes()),
        ("assets/deep/logo.txt", release.as_bytes()),
    ])
}

fn receive(site: &Site, release: &str, payload: &[u8]) {
    let request = Site::receive_command(release, payload);
    site.run(serve(site, "ci", request), payload).ok();
}

/// Receives each release and makes it live, one after the other.
pub fn deploy(site: &Site, releases: &[&str]) {
    for release in releases {
        receive(site, release, &payload(release));
        ask(site, &format!("swap {release}")).ok();
    }
}

pub fn build(site: &Site) -> Reply {
    let config = site.config_path().to_str().expect("UTF-8");
    operator(site, &["bridge", "--config", config], b"")
}

/// Returns the file that a reader of the bridge finds.
pub fn read(site: &Site, path: &str) -> Option<String> {
    fs::read_to_string(site.root().join("bridge").join(path)).ok()
}

/// Returns the files in the bridge, with their contents.
pub fn content(site: &Site) -> BTreeMap<String, String> {
    fn collect(directory: &Path, below: &str, found: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(directory).expect("a directory") {
            let entry = entry.expect("an entry");
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = format!("{below}{name}");
            if entry.file_type().expect("a type").is_dir() {
                collect(&entry.path(), &format!("{path}/"), found);
            } else {
                let target = fs::read_link(entry.path()).expect("a symlink");
                assert!(target.starts_with(".."), "{target:?} is not relative");
                let text = fs::read_to_string(entry.path()).expect("a file of a release");
                found.insert(path, text);
            }
        }
    }
    let mut found = BTreeMap::new();
    collect(&site.root().join("bridge"), "", &mut found);
    found
}

/// Asserts that the bridge has exactly the files of these releases. `logo` is the one
/// whose file of the common name it has.
#[track_caller]
pub fn assert_bridged(site: &Site, releases: &[&str], logo: &str) {
    let mut expected: BTreeMap<String, String> = (releases.iter())
        .map(|release| (format!("assets/app-{release}.js"), (*release).to_owned()))
        .collect();
    expected.insert("assets/deep/logo.txt".to_owned(), logo.to_owned());
    assert_eq!(content(site), expected);
}

/// Returns the servers of a section of docs/web-servers.md, for this site.
pub fn documented_servers(site: &Site, section: &str) -> Vec<String> {
    let text = include_str!("../../docs/web-servers.md");
    let start = text
        .find(&format!("\n## {section}\n"))
        .expect("the section");
    let section = text[start..].split("\n## ").nth(1).expect("its text");
    let root = site.root().to_str().expect("UTF-8");
    let servers = section.split("\n    server {\n").skip(1);
    let servers = servers.map(|rest| {
        let (server, _) = rest.split_once("\n    }\n").expect("its end");
        server.replace("/srv/www/example.com", root)
    });
    let servers: Vec<String> = servers.collect();
    assert!(!servers.is_empty());
    servers
}

/// Returns the status and the body of an answer of nginx.
pub fn get(port: u16, path: &str) -> (u16, String) {
    let answer = web::get(port, path).expect("an answer");
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).and_then(|word| word.parse().ok());
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (status.expect("a status"), body.to_owned())
}

#[test]
fn a_page_of_an_old_release_finds_its_files_after_two_swaps_and_a_rollback() {
    let site = bridged_site("");
    deploy(&site, &["a"]);
    set_mode(site.root(), 0o755);
    let bridge = documented_servers(&site, "Files of old releases").remove(0);
    let plain = format!("root {}/current;", site.root().display());
    let nginx = Nginx::start(&site, &[bridge, plain]);
    let (bridged, plain) = (nginx.ports[0], nginx.ports[1]);
    deploy(&site, &["b", "c"]);
    let found = |body: &str| (200, body.to_owned());
    for release in ["a", "b", "c"] {
        let path = format!("/assets/app-{release}.js");
        assert_eq!(get(bridged, &path), found(release));
        // The control: without the bridge, only the live release has its file.
        let status = if release == "c" { 200 } else { 404 };
        assert_eq!(get(plain, &path).0, status, "{path}");
    }
    ask(&site, "rollback").ok();
    assert_eq!(site.current().as_deref(), Some("b"));
    assert_eq!(get(bridged, "/index.html"), found("b"));
    assert_eq!(get(bridged, "/assets/app-a.js"), found("a"));
    assert_eq!(get(bridged, "/assets/deep/logo.txt"), found("b"));
    assert_eq!(get(plain, "/assets/app-a.js").0, 404);
    // A rollback withdraws the release that it leaves.
    assert_eq!(get(bridged, "/assets/app-c.js").0, 404);
    // Nothing else of an old release is there.
    for path in [
        "/assets/",
        "/assets/deep",
        "/bridge/",
        "/assets/../bridge/secret.txt",
    ] {
        assert!(matches!(get(bridged, path).0, 403 | 404), "{path}");
    }
    assert_bridged(&site, &["a", "b"], "b");
    ask(&site, "swap c").ok();
    assert_eq!(get(bridged, "/assets/app-c.js"), found("c"));
    assert_eq!(get(bridged, "/assets/deep/logo.txt"), found("c"));
    assert_bridged(&site, &["a", "b", "c"], "c");
}

/// Visitors of the live release must not have to wait for the next build.
#[test]
fn the_bridge_has_the_files_of_the_live_release_before_a_swap_replaces_it() {
    let site = bridged_site("");
    deploy(&site, &["a"]);
    assert_bridged(&site, &["a"], "a");
    receive(&site, "b", &payload("b"));
    site.configure(PATHS);
    ask(&site, "swap b").ok();
    assert_eq!(read(&site, "assets/app-a.js").as_deref(), Some("a"));
}

#[test]
fn a_release_that_fails_its_checks_is_not_bridged() {
    let fails = hook("after_swap", "[ $DEPLOY_RELEASE != c ]");
    let site = Site::with_config(&format!("{PATHS}{}{fails}", bridge_hook()));
    deploy(&site, &["a", "b"]);
    receive(&site, "c", &payload("c"));
    gate_failed(&ask(&site, "swap c"));
    assert_bridged(&site, &["a", "b"], "b");
}

#[test]
fn pruning_keeps_bridged_releases_until_they_are_too_old() {
    let keys = "keep = 0\nmin_age = \"0s\"\n";
    let control = Site::with_config(keys);
    deploy(&control, &["a", "b", "c", "d"]);
    assert_eq!(control.releases(), ["c", "d"]);
    let table = "[bridge]\npaths = [\"assets\"]\nmax_age = \"2h\"\nmax_releases = 3\n";
    let site = Site::with_config(&format!("{keys}{table}{}", bridge_hook()));
    deploy(&site, &["a", "b", "c", "d"]);
    assert_eq!(site.releases(), ["a", "b", "c", "d"]);
    // Three besides the live one.
    deploy(&site, &["e"]);
    assert_eq!(site.releases(), ["b", "c", "d", "e"]);
    assert_bridged(&site, &["b", "c", "d", "e"], "e");
    site.age_journal(SignedDuration::from_hours(3));
    deploy(&site, &["f"]);
    assert_eq!(site.releases(), ["e", "f"]);
    assert_bridged(&site, &["e", "f"], "f");
}

#[test]
fn symlinks_to_releases_that_are_too_old_go_with_the_next_build() {
    let site = bridged_site("");
    deploy(&site, &["a", "b"]);
    site.age_journal(SignedDuration::from_hours(24 * 8));
    assert_bridged(&site, &["a", "b"], "b");
    build(&site).ok();
    assert_bridged(&site, &["b"], "b");
}

#[test]
fn a_file_is_withdrawn_with_its_release_or_by_the_floor() {
    let site = bridged_site("");
    deploy(&site, &["a", "b", "c", "d"]);
    let server = documented_servers(&site, "Files of old releases").remove(0);
    let nginx = Nginx::start(&site, &[server]);
    let status = |release: &str| get(nginx.ports[0], &format!("/assets/app-{release}.js")).0;
    assert_eq!(["a", "b", "c"].map(status), [200, 200, 200]);
    let config = site.config_path().to_str().expect("UTF-8");
    operator(&site, &["drop", "--config", config, "--good", "b"], b"").ok();
    // At once, before the next build.
    assert_eq!(["a", "b", "c"].map(status), [200, 404, 200]);
    build(&site).ok();
    assert_bridged(&site, &["a", "c", "d"], "d");
    site.configure(&format!("floor = \"c\"\n{PATHS}"));
    build(&site).ok();
    assert_eq!(["a", "b", "c"].map(status), [404, 404, 200]);
    assert_bridged(&site, &["c", "d"], "d");
}

/// A release is content of a client: nothing of it may lead to another file.
#[test]
fn only_regular_files_below_the_paths_are_bridged() {
    let site = bridged_site("");
    let long = "n".repeat(255);
    let deep = format!("assets/{}file", "d/".repeat(30));
    let files = [
        "assets/ü'\"\\ $(x)\t".trim_end(),
        "assets/-rf",
        "assets/...",
        deep.as_str(),
    ];
    let named = format!("assets/{long}");
    let mut tar = Tar::new()
        .file("index.html", b"x")
        .symlink("assets/link", "../index.html")
        .symlink("assets/directory", "../other")
        .directory("assets/empty")
        .file("other/file", b"other");
    for name in files.iter().copied().chain([named.as_str()]) {
        tar = if name.len() > 100 {
            tar.long_name(name).file("x", name)
        } else {
            tar.file(name, name)
        };
    }
    receive(&site, "a", &zstd(&tar.end()));
    ask(&site, "swap a").ok();
    let expected: BTreeMap<String, String> = (files.iter().copied())
        .chain([named.as_str()])
        .map(|name| (name.to_owned(), name.to_owned()))
        .collect();
    assert_eq!(content(&site), expected);
    // Not what receive accepts, but what a program of the account could make of it.
    let assets = site.root().join("releases/a/assets");
    std::os::unix::fs::symlink("/etc/passwd", assets.join("passwd")).expect("our directory");
    std::os::unix::fs::symlink("/etc", assets.join("etc")).expect("our directory");
    let fifo = assets.join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRUSR).expect("our directory");
    build(&site).ok();
    assert_eq!(content(&site), expected);
    fs::rename(&assets, site.root().join("releases/a/moved")).expect("our directory");
    std::os::unix::fs::symlink("/etc", &assets).expect("our directory");
    build(&site).ok();
    assert_eq!(content(&site), BTreeMap::new());
}

/// A file and a directory of one name exclude each other: the newer release decides.
#[test]
fn the_newer_release_decides_between_a_file_and_a_directory() {
    let site = bridged_site("");
    let file = |name: &str| tarball(&[("index.html", b"x"), (name, name.as_bytes())]);
    for (release, name) in [
        ("1", "assets/one/x"),
        ("2", "assets/two"),
        ("3", "assets/one"),
        ("4", "assets/two/x"),
    ] {
        receive(&site, release, &file(name));
        ask(&site, &format!("swap {release}")).ok();
    }
    let names: Vec<String> = content(&site).into_keys().collect();
    assert_eq!(names, ["assets/one", "assets/two/x"]);
}

#[test]
fn mounts_are_neither_bridged_nor_removed() {
    let site = bridged_site("");
    deploy(&site, &["a"]);
    let outside = site.dir().join("outside");
    fs::create_dir_all(&outside).expect("a directory");
    fs::write(outside.join("kept"), "x").expect("a file");
    let data = site.root().join("releases/a/assets/data");
    fs::create_dir(&data).expect("our directory");
    let in_place = fs::read_link(site.root().join("bridge")).expect("the bridge");
    let old = site.root().join(in_place).join("assets/deep");
    let config = site.config_path().display().to_string();
    let swap = |release: &str, number| {
        crate::mounted::request_line(&site, number, &format!("swap {release}"))
    };
    receive(&site, "b", &payload("b"));
    let mut script = String::new();
    for at in [&data, &old] {
        script += &format!(
            "mount --bind '{}' '{}' || exit 1\n",
            outside.display(),
            at.display()
        );
    }
    for (number, release) in ["b", "a", "b"].iter().enumerate() {
        script += &swap(release, number);
    }
    script += &format!(
        "'{}' bridge --config '{config}' || exit 1\n",
        admin().display()
    );
    let Some(done) = in_namespace(&script) else {
        return;
    };
    assert!(done.status.success(), "{done:?}");
    let warning = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(warning.contains("cannot be removed"), "{warning}");
    assert!(outside.join("kept").exists());
    assert_bridged(&site, &["a", "b"], "b");
    // The mount is gone with its namespace.
    let reply = build(&site);
    assert_eq!(reply.stderr, "", "{reply:?}");
    assert!(!old.exists());
}

#[test]
fn something_that_is_not_ours_is_not_replaced() {
    let site = Site::with_config(PATHS);
    deploy(&site, &["a"]);
    let (bridge, builds) = (site.root().join("bridge"), site.root().join(".bridge"));
    let symlink = |target: &str, at: &PathBuf| {
        std::os::unix::fs::symlink(target, at).expect("our directory");
    };
    let makers: [(&str, &dyn Fn()); 7] = [
        ("a directory", &|| {
            fs::create_dir_all(bridge.join("x")).expect("ours")
        }),
        ("a file", &|| fs::write(&bridge, "x").expect("ours")),
        ("a symlink to a release", &|| symlink("releases/a", &bridge)),
        ("a symlink to a directory", &|| symlink("/etc", &bridge)),
        ("a symlink of another spelling", &|| {
            symlink(".bridge/01", &bridge)
        }),
        ("another .bridge", &|| symlink("releases", &builds)),
        ("a .bridge that others can write", &|| {
            fs::create_dir(&builds).expect("ours");
            set_mode(&builds, 0o777);
        }),
    ];
    for (what, make) in makers {
        make();
        let before = site.snapshot();
        build(&site).refused(78, "bad-layout");
        // Not even to remove the bridge.
        site.configure("");
        build(&site).refused(78, "bad-layout");
        site.configure(PATHS);
        assert_eq!(site.snapshot(), before, "{what}");
        for path in [&bridge, &builds] {
            let is_directory = fs::symlink_metadata(path).is_ok_and(|it| it.is_dir());
            _ = if is_directory {
                fs::remove_dir_all(path)
            } else {
                fs::remove_file(path)
            };
        }
    }
    build(&site).ok();
    assert_bridged(&site, &["a"], "a");
}

/// A rollback is worth more than files of old releases.
#[test]
fn a_build_that_fails_ends_a_swap_only_without_warn_only() {
    let site = bridged_site("");
    deploy(&site, &["a"]);
    let bridge = site.root().join("bridge");
    fs::remove_file(&bridge).expect("the symlink");
    fs::create_dir(&bridge).expect("our directory");
    receive(&site, "b", &payload("b"));
    let reply = ask(&site, "swap b");
    assert!(
        reply.stderr.contains("warning: the bridge was not built: "),
        "{reply:?}"
    );
    reply.ok();
    let strict = bridge_hook().replace(", \"--warn-only\"", "");
    site.configure(&format!("{PATHS}{strict}"));
    receive(&site, "c", &payload("c"));
    gate_failed(&ask(&site, "swap c"));
    assert_eq!(site.current().as_deref(), Some("b"));
}

#[test]
fn without_paths_an_existing_bridge_is_removed() {
    let site = bridged_site("");
    deploy(&site, &["a", "b"]);
    site.configure("");
    let printed = build(&site).ok();
    assert!(printed.starts_with("the bridge was removed"), "{printed}");
    for name in ["bridge", ".bridge"] {
        let path = site.root().join(name);
        assert!(fs::symlink_metadata(&path).is_err(), "{name}");
    }
    let printed = build(&site).ok();
    assert!(printed.starts_with("there is no bridge"), "{printed}");
}

#[test]
fn a_bridge_has_at_most_max_entries_and_the_newest_files() {
    let site = Site::with_config(PATHS);
    deploy(&site, &["a", "b", "c"]);
    // The directories assets and deep, and the three files of the newest two releases.
    site.configure(&format!("[archive]\nmax_entries = 5\n{PATHS}"));
    let reply = build(&site);
    assert!(
        reply.stderr.contains("at most 5 files and directories"),
        "{reply:?}"
    );
    reply.ok();
    assert_bridged(&site, &["b", "c"], "c");
}

#[test]
fn a_build_that_would_use_the_reserve_is_not_begun() {
    let site = Site::with_config(PATHS);
    deploy(&site, &["a", "b"]);
    build(&site).ok();
    let before = content(&site);
    deploy(&site, &["c"]);
    // No file system here has so much free space.
    site.configure(&format!("{PATHS}[limits]\nreserve = \"99%\"\n"));
    build(&site).refused(74, "disk-full");
    assert_eq!(content(&site), before);
    site.configure(PATHS);
    build(&site).ok();
    assert_bridged(&site, &["a", "b", "c"], "c");
}

/// An xfs refuses a symlink with so long a target.
#[test]
fn a_file_with_a_long_path_is_left_out() {
    let site = Site::with_config(PATHS);
    let long = [
        "assets",
        &"d".repeat(250),
        &"e".repeat(250),
        &"f".repeat(250),
        &"g".repeat(250),
    ];
    let tar = tarball(&[
        ("index.html", b"a"),
        ("assets/app-a.js", b"a"),
        (&long.join("/"), b""),
    ]);
    receive(&site, "a", &tar);
    ask(&site, "swap a").ok();
    let reply = build(&site);
    let warning = "no symlink of more than 1023 bytes";
    assert!(reply.stderr.contains(warning), "{reply:?}");
    reply.ok();
    assert_eq!(
        content(&site).into_keys().collect::<Vec<_>>(),
        ["assets/app-a.js"]
    );
}

/// Two builders and swaps do not disturb each other, nor a reader.
#[test]
fn a_reader_always_finds_the_files_while_bridges_are_built() {
    let site = bridged_site("");
    deploy(&site, &["a", "b", "c"]);
    thread::scope(|scope| {
        let builder = || {
            for _ in 0..5 {
                build(&site).ok();
            }
        };
        let swaps = scope.spawn(|| {
            for release in ["b", "c", "b", "c"] {
                ask(&site, &format!("swap {release}")).ok();
            }
        });
        let builders = [scope.spawn(builder), scope.spawn(builder)];
        while !swaps.is_finished() || builders.iter().any(|it| !it.is_finished()) {
            assert_eq!(read(&site, "assets/app-a.js").as_deref(), Some("a"));
            // The others need the processor as well.
            thread::yield_now();
        }
    });
    assert_bridged(&site, &["a", "b", "c"], "c");
    // The build in place, and the one before it.
    let builds = fs::read_dir(site.root().join(".bridge")).expect("a directory");
    assert_eq!(builds.count(), 2);
}

/// Every file of the site stays the account's, also those that the builder makes.
#[test]
fn root_builds_as_the_account() {
    use std::os::unix::fs::MetadataExt;
    const NOBODY: u32 = 65534;
    if !Uid::effective().is_root() {
        println!("skipped: only root becomes another account");
        return;
    }
    let site = Site::with_config(PATHS);
    deploy(&site, &["a", "b"]);
    site.give_to(&NOBODY.to_string());
    build(&site).ok();
    assert_bridged(&site, &["a", "b"], "b");
    for path in [
        "bridge",
        ".bridge",
        ".bridge/0",
        ".bridge/0/assets/app-a.js",
    ] {
        let found = fs::symlink_metadata(site.root().join(path)).expect("it exists");
        assert_eq!(found.uid(), NOBODY, "{path}");
    }
}

#[test]
fn check_finds_a_bridge_that_nothing_builds_or_that_is_stale() {
    let site = bridged_site("");
    deploy(&site, &["a", "b"]);
    quiet_sshd(&site, &me());
    let found = || {
        let codes = codes(&check(&site)).into_iter();
        codes
            .filter(|code| code.starts_with("bridge-"))
            .collect::<Vec<_>>()
    };
    assert_eq!(found(), [] as [&str; 0]);
    site.configure(PATHS);
    assert_eq!(found(), ["bridge-not-built"]);
    let wrapped = bridge_hook().replace("[\"", "[\"/usr/bin/env\", \"");
    site.configure(&format!("{PATHS}{wrapped}"));
    assert_eq!(found(), [] as [&str; 0]);
    let config = site.config_path().to_str().expect("UTF-8");
    operator(&site, &["drop", "--config", config, "--good", "a"], b"").ok();
    assert_eq!(found(), ["bridge-stale"]);
    build(&site).ok();
    assert_eq!(found(), [] as [&str; 0]);
    site.configure("");
    assert_eq!(found(), ["bridge-stale"]);
    build(&site).ok();
    assert_eq!(found(), [] as [&str; 0]);
    site.configure(&format!("{PATHS}{}", bridge_hook()));
    assert_eq!(found(), ["bridge-stale"]);
    fs::create_dir(site.root().join("bridge")).expect("our directory");
    assert_eq!(found(), ["bridge-foreign"]);
}

/// A reader of the bridge would get what is mounted there.
#[test]
fn a_file_that_is_a_mount_point_is_left_out_with_a_warning() {
    let site = bridged_site("");
    deploy(&site, &["a", "b"]);
    let outside = site.dir().join("outside");
    fs::write(&outside, "not of a release").expect("a file");
    let file = "releases/a/assets/app-a.js";
    let script = format!(
        "mount --bind '{}' '{}' || exit 1\n'{}' bridge --config '{}' || exit 1\n",
        outside.display(),
        site.root().join(file).display(),
        admin().display(),
        site.config_path().display(),
    );
    let Some(done) = in_namespace(&script) else {
        return;
    };
    assert!(done.status.success(), "{done:?}");
    let warning = String::from_utf8_lossy(&done.stderr).into_owned();
    let named = format!("leaves out '{file}': a file system is mounted there");
    assert!(warning.contains(&named), "{warning}");
    assert_bridged(&site, &["b"], "b");
    // The mount is gone with its namespace.
    assert_eq!(build(&site).stderr, "");
    assert_bridged(&site, &["a", "b"], "b");
}

/// Every account may open what a web server reads, and could hold a lock on it.
#[test]
fn a_lock_on_what_others_may_open_does_not_stop_the_bridge() {
    let site = bridged_site("");
    for release in ["r1", "r2"] {
        crate::direct::put(&site, release);
        ask(&site, &format!("swap {release}")).ok();
    }
    let open = |path: PathBuf| fs::File::open(path).expect("a directory");
    let held = [".bridge", "bridge", "releases"].map(|name| open(site.root().join(name)));
    for directory in &held {
        directory.lock().expect("the lock");
    }
    let mut command = Command::new(admin());
    command.args(["bridge", "--config"]).arg(site.config_path());
    site.run(command, b"").ok();
}
