//! What the operator types to make a site: `init`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::site::{BIN, Reply, Site, admin, write_file};

/// The program with these arguments and an empty environment.
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
    // An operator may also be told how to call the program (clap, exit 64).
    assert!(matches!(reply.code, 64..=78), "{reply:?}");
    assert_eq!(reply.stdout, "", "{reply:?}");
    assert_ne!(reply.stderr, "", "{reply:?}");
}

#[test]
fn init_writes_a_site_that_works() {
    // Whatever the umask, the result is the same.
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
        site.run(command, b"").ok();

        // The deploy account must read it, and the web server the rest.
        assert_eq!(mode(&config), 0o644, "umask {umask}");
        assert_eq!(mode(&root), 0o755, "umask {umask}");
        for (folder, expected) in [
            ("releases", 0o755),
            ("shared", 0o755),
            (".deploy-shell", 0o700),
        ] {
            assert_eq!(
                mode(&root.join(folder)),
                expected,
                "umask {umask}: {folder}"
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

    // What is written as a comment are the defaults: taken in, they load.
    let settings: Vec<&str> = written
        .lines()
        .map(|line| line.trim_start_matches(['#', ' ']))
        .filter(|line| line.starts_with('[') || line.contains(" = "))
        .collect();
    fs::write(&config, settings.join("\n")).expect("it is written");
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

    // Nor does a link in the file's place lead it elsewhere.
    let link = site.dir().join("link.toml");
    let target = site.dir().join("target");
    std::os::unix::fs::symlink(&target, &link).expect("a link");
    failed(&operator(
        &site,
        &["init", "--config", text(&link), "--root", text(&root)],
        b"",
    ));
    assert!(!target.exists());
}

#[test]
fn init_leaves_an_existing_root_as_it_is() {
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
fn init_needs_a_root_that_can_be() {
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
