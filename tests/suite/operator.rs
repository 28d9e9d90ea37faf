//! `deploy-shell-admin init` creates a site.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::site::{BIN, Reply, Site, admin, write_file};

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

#[test]
fn init_creates_a_site_that_works() {
    // The result does not depend on the umask.
    for umask in ["000", "022", "077"] {
        let site = Site::new();
        let (config, root) = (site.dir().join("shop.toml"), site.dir().join("www/shop"));
        let mut command = Command::new("sh");
        command
            .args([
                "-c",
                "umask \"$0\"; exec \"$@\"",
                umask,
                text(admin()),
                "init",
            ])
            .args(["--config", text(&config), "--root", text(&root)]);
        let printed = site.run(command, b"").ok();
        let config_shown = config.display();
        for step in [
            format!("deploy-shell-admin authorize --config {config_shown} --key ci FILE.pub\n"),
            format!("deploy-shell-admin check --config {config_shown}\n"),
        ] {
            assert!(printed.contains(&step), "{step}: {printed}");
        }

        // The deploy account must read it, and the web server the rest.
        assert_eq!(mode(&config), 0o644, "umask {umask}");
        assert_eq!(mode(&root), 0o755, "umask {umask}");
        for (directory, expected) in [
            ("releases", 0o755),
            ("shared", 0o755),
            (".deploy-shell", 0o700),
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
    operator(
        &site,
        &["init", "--config", text(&config), "--root", text(&root)],
        b"",
    )
    .ok();
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
    let before = site.snapshot();
    let config = site.dir().join("again.toml");
    let args = [
        "init",
        "--config",
        text(&config),
        "--root",
        text(site.root()),
    ];
    operator(&site, &args, b"").ok();
    assert_eq!(site.snapshot(), before);
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
