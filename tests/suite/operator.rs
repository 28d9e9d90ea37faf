//! `deploy-shell-admin init` creates a site.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use nix::unistd::{Uid, User};

use crate::process::eventually;
use crate::site::{BIN, Reply, Site, admin, set_mode, write_file};
use crate::strace;

/// Runs `deploy-shell-admin` with these arguments and an empty environment.
pub fn operator(site: &Site, args: &[&str], input: &[u8]) -> Reply {
    let mut command = Command::new(admin());
    command.env_clear().args(args).current_dir(site.dir());
    site.run(command, input)
}

fn mode(path: &Path) -> u32 {
    let meta = fs::symlink_metadata(path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    meta.permissions().mode() & 0o7777
}

pub fn text(path: &Path) -> &str {
    path.to_str().expect("a UTF-8 path")
}

#[track_caller]
pub fn failed(reply: &Reply) {
    // 64 is the exit status for wrong arguments.
    assert!(matches!(reply.code, 64..=78), "{reply:?}");
    assert_eq!(reply.stdout, "", "{reply:?}");
    assert_ne!(reply.stderr, "", "{reply:?}");
}

/// Returns an `init` for a site of the user of the tests.
///
/// `init` creates no site of root's. As root, the site first belongs to `nobody`; see
/// [`take_back`].
pub fn init(config: &Path, root: &Path) -> Command {
    let mut command = Command::new(admin());
    command.args(["init", "--config"]).arg(config);
    command.arg("--root").arg(root);
    if Uid::effective().is_root() {
        command.args(["--owner", "nobody"]);
    }
    command
}

/// Gives what `init` made to the user of the tests.
pub fn take_back(root: &Path) {
    let own = Some(Uid::effective().as_raw());
    lchown(root, own, None).unwrap_or_else(|error| panic!("{root:?}: {error}"));
    if root.is_dir() && !root.is_symlink() {
        for entry in fs::read_dir(root).expect("a directory") {
            take_back(&entry.expect("an entry").path());
        }
    }
}

fn owner(path: &Path) -> u32 {
    let meta = fs::symlink_metadata(path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    meta.uid()
}

fn is_root() -> bool {
    let is_root = Uid::effective().is_root();
    if !is_root {
        println!("skipped: only root can give files to another user");
    }
    is_root
}

#[test]
fn init_creates_a_site_that_works() {
    // The result does not depend on the umask.
    for umask in ["000", "022", "077"] {
        let site = Site::new();
        let (config, root) = (site.dir().join("shop.toml"), site.dir().join("www/shop"));
        let init = init(&config, &root);
        let mut command = Command::new("sh");
        command
            .args(["-c", "umask \"$0\"; exec \"$@\"", umask])
            .arg(init.get_program())
            .args(init.get_args());
        site.run(command, b"").ok();
        if Uid::effective().is_root() {
            let nobody = User::from_name("nobody").expect("readable");
            let nobody = nobody.expect("an account").uid.as_raw();
            // root locks the file for a backup, and would make one of its own.
            let lock = ".deploy-shell/lock";
            for below in ["", "releases", "shared", ".deploy-shell/trash", lock] {
                assert_eq!(owner(&root.join(below)), nobody, "{below}");
            }
        }
        take_back(&root);

        // The deploy account must read it, and the web server the rest.
        assert_eq!(mode(&config), 0o644, "umask {umask}");
        assert_eq!(mode(&root), 0o755, "umask {umask}");
        for (directory, expected) in [
            ("releases", 0o755),
            ("shared", 0o755),
            (".deploy-shell", 0o700),
            (".deploy-shell/lock", 0o600),
        ] {
            assert_eq!(
                mode(&root.join(directory)),
                expected,
                "umask {umask}: {directory}"
            );
        }
        let mut serve = Command::new(BIN);
        serve
            .env_clear()
            .args(["serve", "--config", text(&config), "--key", "ci"])
            .env("SSH_ORIGINAL_COMMAND", "list --json");
        let listed = site.run(serve, b"").ok();
        let listed: serde_json::Value = serde_json::from_str(&listed).expect("JSON");
        assert_eq!(listed["site"], "shop");
        assert_eq!(listed["releases"].as_array().map(Vec::len), Some(0));
    }
}

#[test]
fn init_explains_every_key() {
    let site = Site::new();
    let config = site.dir().join("shop.toml");
    let root = site.dir().join("www");
    site.run(init(&config, &root), b"").ok();
    take_back(&root);
    let written = fs::read_to_string(&config).expect("the configuration");
    assert!(
        written.contains(&format!("root = \"{}\"", root.display())),
        "{written}"
    );
    for key in [
        "link",
        "keep",
        "min_age",
        "keep_history",
        "[archive]",
        "max_compressed",
        "max_unpacked",
        "max_file",
        "max_entries",
        "required_paths",
        "symlinks",
        "[pending]",
        "max",
        "max_age",
        "[limits]",
        "receives_per_hour",
        "idle_timeout",
        "total_timeout",
        "reserve",
        "[audit]",
        "socket",
        "facility",
        "required",
        "[sandbox]",
    ] {
        let named = written.lines().any(|line| {
            let line = line.trim_start_matches(['#', ' ']);
            line == key
                || line
                    .strip_prefix(key)
                    .is_some_and(|rest| rest.starts_with(" ="))
        });
        assert!(named, "no '{key}' in:\n{written}");
    }
    let comments = written.lines().filter(|line| line.starts_with('#')).count();
    assert!(comments >= 10, "{written}");

    // The comments show the defaults: without the comment signs they load.
    let settings: Vec<&str> = written
        .lines()
        .map(|line| line.trim_start_matches(['#', ' ']))
        .filter(|line| line.starts_with('[') || line.contains(" = "))
        // It excludes `smoke_url`, which has a line as well.
        .filter(|line| !line.starts_with("smoke_command"))
        .collect();
    fs::write(&config, settings.join("\n")).expect("writable");
    let mut serve = Command::new(BIN);
    serve
        .env_clear()
        .args(["serve", "--config", text(&config)])
        .env("SSH_ORIGINAL_COMMAND", "list");
    site.run(serve, b"").ok();
}

#[test]
fn init_overwrites_nothing() {
    let site = Site::new();
    let before = fs::read(site.config_path()).expect("the configuration");
    let root = site.dir().join("other");
    let args = [
        "init",
        "--config",
        text(site.config_path()),
        "--root",
        text(&root),
    ];
    let reply = operator(&site, &args, b"");
    failed(&reply);
    assert!(reply.stderr.contains(text(site.config_path())), "{reply:?}");
    assert_eq!(fs::read(site.config_path()).expect("still there"), before);

    // init does not follow a symlink at the path of the configuration.
    let symlink = site.dir().join("symlink.toml");
    let target = site.dir().join("target");
    std::os::unix::fs::symlink(&target, &symlink).expect("a symlink");
    failed(&operator(
        &site,
        &["init", "--config", text(&symlink), "--root", text(&root)],
        b"",
    ));
    assert!(!target.exists());
}

#[test]
fn init_changes_nothing_in_an_existing_root() {
    let site = Site::new();
    write_file(&site.root().join("shared/.env"), 0o600, b"SECRET=1");
    write_file(&site.root().join("notes"), 0o600, b"mine");
    write_file(&site.root().join(".deploy-shell/lock"), 0o600, b"");
    if Uid::effective().is_root() {
        let nobody = User::from_name("nobody").expect("readable");
        let nobody = nobody.expect("an account").uid.as_raw();
        for path in ["", "releases", ".deploy-shell", ".deploy-shell/lock"] {
            lchown(site.root().join(path), Some(nobody), None).expect("root may do that");
        }
    }
    let before = site.snapshot();
    let config = site.dir().join("again.toml");
    site.run(init(&config, site.root()), b"").ok();
    assert_eq!(site.snapshot(), before);
    assert_eq!(owner(&site.root().join("notes")), Uid::effective().as_raw());
}

#[test]
fn init_refuses_unusable_roots_and_site_names() {
    let site = Site::new();
    let config = site.dir().join("shop.toml");
    let below_a_file = site.config_path().join("www");
    for root in [text(&below_a_file), "/", "", "www/../../up"] {
        failed(&operator(
            &site,
            &["init", "--config", text(&config), "--root", root],
            b"",
        ));
        assert!(!config.exists(), "{root}");
    }
    for name in ["shop", "bad name.toml", "..toml", ".toml"] {
        let config = site.dir().join(name);
        let root = site.dir().join("www");
        failed(&operator(
            &site,
            &["init", "--config", text(&config), "--root", text(&root)],
            b"",
        ));
        assert!(!config.exists() && !root.exists(), "{name}");
    }
}

/// A key that logs in as root, or a request that runs as root, is not what anybody wants.
#[test]
fn init_refuses_a_site_of_root() {
    let site = Site::new();
    let config = site.dir().join("shop.toml");
    let root = site.dir().join("www");
    let named = |owner: &'static str| {
        let mut args = vec!["init", "--config", text(&config), "--root", text(&root)];
        args.extend(["--owner", owner]);
        operator(&site, &args, b"")
    };
    let mut replies = vec![named("root"), named("0")];
    if is_root() {
        let args = ["init", "--config", text(&config), "--root", text(&root)];
        replies.push(operator(&site, &args, b""));
    }
    for reply in replies {
        failed(&reply);
        assert!(reply.stderr.contains("--owner deploy"), "{reply:?}");
        assert!(!config.exists() && !root.exists());
    }
    let reply = named("no-such-account");
    failed(&reply);
    assert!(
        reply
            .stderr
            .contains("there is no account 'no-such-account'")
    );
    assert!(!config.exists() && !root.exists());
}

/// `--root /etc` must not give /etc to the account.
#[test]
fn init_gives_away_only_a_directory_of_this_site() {
    if !is_root() {
        return;
    }
    let site = Site::new();
    let config = site.dir().join("shop.toml");
    let root = site.dir().join("www");
    fs::create_dir(&root).expect("a directory");
    write_file(&root.join("passwd"), 0o600, b"not of a site");
    let reply = site.run(init(&config, &root), b"");
    failed(&reply);
    assert!(
        reply
            .stderr
            .contains("belongs to root, and has 'passwd' in it"),
        "{reply:?}"
    );
    assert!(!config.exists() && !root.join("releases").exists());
    assert_eq!(owner(&root), 0);
    fs::remove_file(root.join("passwd")).expect("removed");
    // A new file system of ext4 has one.
    fs::create_dir(root.join("lost+found")).expect("a directory");
    // Root's own directory becomes the account's; a symlink in it leads nowhere.
    let outside = site.dir().join("outside");
    fs::create_dir(&outside).expect("a directory");
    symlink(&outside, root.join("releases")).expect("a symlink");
    let reply = site.run(init(&config, &root), b"");
    failed(&reply);
    assert!(reply.stderr.contains("is a symlink or a file"), "{reply:?}");
    assert_eq!(owner(&outside), 0);
    fs::remove_file(root.join("releases")).expect("removed");
    fs::create_dir_all(root.join("releases/r1/assets")).expect("directories");
    let printed = site.run(init(&config, &root), b"").ok();
    assert_ne!(owner(&root), 0);
    assert_ne!(owner(&root.join("releases")), 0);
    assert_eq!(owner(&root.join("releases/r1")), 0, "not what is in it");
    for line in [
        format!("gave {} to nobody\n", root.display()),
        format!("gave {}/releases to nobody\n", root.display()),
        format!("created {}/{{shared,.deploy-shell}}\n", root.display()),
    ] {
        assert!(printed.contains(&line), "{line}: {printed}");
    }
}

#[test]
fn init_takes_nothing_from_another_account() {
    if !is_root() {
        return;
    }
    let site = Site::new();
    let config = site.dir().join("shop.toml");
    let root = site.dir().join("www");
    fs::create_dir_all(root.join("releases")).expect("directories");
    lchown(root.join("releases"), Some(4711), None).expect("root may do that");
    let reply = site.run(init(&config, &root), b"");
    failed(&reply);
    assert!(
        reply.stderr.contains("belongs to '4711', not to 'nobody'"),
        "{reply:?}"
    );
    assert_eq!(owner(&root.join("releases")), 4711);
    // Its owner could exchange what `init` makes there.
    fs::remove_dir(root.join("releases")).expect("removed");
    lchown(&root, Some(4711), None).expect("root may do that");
    let reply = site.run(init(&config, &root), b"");
    failed(&reply);
    let problem = format!("'{}' belongs to '4711', not to 'nobody'", root.display());
    assert!(reply.stderr.contains(&problem), "{reply:?}");
    // The group of root's directory can have moved another directory of root's there.
    lchown(&root, Some(0), None).expect("root may do that");
    set_mode(&root, 0o2775);
    fs::create_dir_all(root.join("releases/private")).expect("directories");
    let reply = site.run(init(&config, &root), b"");
    failed(&reply);
    assert!(
        reply
            .stderr
            .contains("belongs to root, in a directory that others"),
        "{reply:?}"
    );
    assert_eq!(owner(&root.join("releases")), 0);
    fs::remove_dir_all(root.join("releases")).expect("removed");
    // A refusal changes no mode: the directory may be /tmp.
    assert_eq!(mode(&root), 0o2775);
    set_mode(&root, 0o1777);
    fs::create_dir(root.join("private")).expect("a directory");
    failed(&site.run(init(&config, &root), b""));
    assert_eq!(mode(&root), 0o1777);
    fs::remove_dir(root.join("private")).expect("removed");
    set_mode(&root, 0o2775);
    site.run(init(&config, &root), b"").ok();
    assert_eq!(mode(&root), 0o2775);
    assert_ne!(owner(&root.join("releases")), 0);
}

/// The remedy of `'...' does not exist` is this command.
#[test]
fn init_makes_what_is_missing_in_an_existing_site() {
    let site = Site::new();
    crate::direct::live(&site, &["a"]);
    if Uid::effective().is_root() {
        println!("skipped: the site of this test is root's; `remedies` has one that is not");
        return;
    }
    let state = site.root().join(".deploy-shell");
    let config = fs::read(site.config_path()).expect("the configuration");
    for gone in [state.join("trash"), state.join("incoming"), state.clone()] {
        fs::remove_dir_all(&gone).expect("removed");
        let reply = crate::direct::ask(&site, "list");
        reply.refused(78, "bad-layout");
        let remedy = reply.stderr.lines().nth(1).expect("a remedy");
        let command = remedy.strip_prefix("make it: deploy-shell-admin ");
        let script = format!("'{}' {}", admin().display(), command.expect("a command"));
        let mut sh = Command::new("sh");
        sh.args(["-ec", &script]);
        let printed = site.run(sh, b"").ok();
        let below = gone.strip_prefix(site.root()).expect("below the root");
        let created = format!("created {}/{}\n", site.root().display(), below.display());
        assert!(printed.contains(&created), "{created}: {printed}");
        crate::direct::ask(&site, "list").ok();
    }
    assert_eq!(site.current().as_deref(), Some("a"));
    assert_eq!(fs::read(site.config_path()).expect("there"), config);
    // Another root is not this site.
    let other = site.dir().join("other");
    let reply = site.run(init(site.config_path(), &other), b"");
    failed(&reply);
    assert!(
        reply.stderr.contains("exists, and is of the root '"),
        "{reply:?}"
    );
    assert!(!other.exists());
}

/// The first deploy, by the commands that `init` prints.
#[test]
fn init_prints_every_command_up_to_the_first_deploy() {
    let site = Site::new();
    let (config, root) = (site.dir().join("shop.toml"), site.dir().join("www"));
    let printed = site.run(init(&config, &root), b"").ok();
    let option = format!("--config '{}'", config.display());
    let account = if Uid::effective().is_root() {
        "nobody".to_owned()
    } else {
        User::from_uid(Uid::effective())
            .expect("readable")
            .expect("an account")
            .name
    };
    let keys = format!("/etc/deploy-shell/authorized_keys/{account}");
    let mut rest = printed.as_str();
    // In this order.
    for step in [
        format!("    deploy-shell-admin authorize {option} --key ci ci.pub >> {keys}\n"),
        format!("    chmod 0644 {keys}\n"),
        format!("    deploy-shell-admin check {option}\n"),
        "    tar -C dist -c . | zstd -T0 > site.tar.zst\n".to_owned(),
        "    sum=$(sha256sum < site.tar.zst | cut -c1-64)\n".to_owned(),
        format!("    ssh -T -i ci {account}@"),
        " --sha256 \"$sum\" < site.tar.zst\n".to_owned(),
        format!("    ssh -T -i ci {account}@"),
        " --sha256 \"$sum\"\n".to_owned(),
    ] {
        let (_, after) = rest
            .split_once(&step)
            .unwrap_or_else(|| panic!("{step}: {printed}"));
        rest = after;
    }
}

/// The account of the root directory can exchange what is in it at any moment.
#[test]
fn init_gives_away_no_directory_that_takes_the_place_of_its_own() {
    if !is_root() {
        return;
    }
    for is_empty in [false, true] {
        let site = Site::new();
        let config = site.dir().join("shop.toml");
        let root = site.dir().join("www");
        fs::create_dir_all(root.join("private")).expect("directories");
        if !is_empty {
            fs::write(root.join("private/key"), "secret").expect("a file");
        }
        let nobody = User::from_name("nobody").expect("passwd").expect("nobody");
        lchown(&root, Some(nobody.uid.as_raw()), None).expect("root may do that");
        // Long enough for this test to exchange the directory before it is opened.
        let delay = "inject=mkdirat:delay_exit=1000000";
        let options = ["-qq", "-f", "-o", "/dev/null", "-e", delay];
        let mut init = strace::under(&options, &init(&config, &root));
        let running = init.stderr(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let releases = root.join("releases");
        eventually("init makes the first directory", || releases.is_dir());
        fs::rename(&releases, root.join("moved")).expect("a move");
        fs::rename(root.join("private"), &releases).expect("a move");
        let done = running.expect("strace starts").wait_with_output();
        let done = done.expect("it ends");
        let shown = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(78), "{is_empty}: {shown}");
        let problem = "belongs to root, in a directory that others can write";
        assert!(shown.contains(problem), "{is_empty}: {shown}");
        assert_eq!(owner(&releases), 0, "{is_empty}");
    }
}

#[test]
fn output_that_cannot_be_written_is_an_error() {
    let full = fs::File::options().write(true).open("/dev/full");
    let mut help = Command::new(admin());
    help.arg("--help").stdout(full.expect("a device"));
    let done = help.output().expect("it runs");
    assert_eq!(done.status.code(), Some(74), "{done:?}");
    let shown = String::from_utf8_lossy(&done.stderr);
    assert!(shown.contains("cannot write the output"), "{shown}");
}
