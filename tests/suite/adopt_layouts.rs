//! Sites as other tools leave them, for the tests of `adopt`.
//!
//! The files are those of real deployments with Deployer 7.5.12 and Capistrano 3.17.2, byte
//! for byte but for paths, times and names.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::site::{Reply, Site, admin, set_mode, write_file};

/// The configuration of the shared paths of [`deployer`] and [`capistrano`].
pub const SHARED: &str = "[shared]\nlinks = [\".env\", \"storage/logs\"]\n";

/// Returns the command `adopt`, with `--yes` if it is to change something.
pub fn command(site: &Site, yes: bool) -> Command {
    let mut command = Command::new(admin());
    command.env_clear().arg("adopt").arg("--config");
    command.arg(site.config_path());
    if yes {
        command.arg("--yes");
    }
    command
}

pub fn adopt(site: &Site, yes: bool) -> Reply {
    site.run(command(site, yes), b"")
}

/// Writes a file below the root, and the directories above it.
pub fn put_file(site: &Site, path: &str, content: &str) {
    let path = site.root().join(path);
    make_directories(path.parent().expect("a parent"));
    write_file(&path, 0o644, content.as_bytes());
}

fn make_directories(path: &Path) {
    if !path.is_dir() {
        make_directories(path.parent().expect("a parent"));
        fs::create_dir(path).expect("a directory");
        set_mode(path, 0o755);
    }
}

/// Replaces `current` by a symlink to this target.
pub fn point_current(site: &Site, target: &str) {
    let current = site.root().join("current");
    let _ = fs::remove_file(&current);
    symlink(target, &current).expect("a symlink");
}

/// Makes a release whose page is its id, with symlinks to the shared paths. `absolute` is
/// the way of Capistrano.
fn release(site: &Site, id: &str, absolute: bool) {
    put_file(site, &format!("releases/{id}/index.html"), id);
    put_file(site, &format!("releases/{id}/REVISION"), "e00f21424c92\n");
    put_file(site, &format!("releases/{id}/storage/.gitkeep"), "");
    let tree = site.root().join("releases").join(id);
    let shared = site.root().join("shared");
    for (path, up) in [(".env", "../.."), ("storage/logs", "../../..")] {
        let target = if absolute {
            shared.join(path)
        } else {
            PathBuf::from(up).join("shared").join(path)
        };
        symlink(target, tree.join(path)).expect("a symlink");
    }
}

fn write_shared(site: &Site) {
    put_file(site, "shared/.env", "SECRET=1\n");
    make_directories(&site.root().join("shared/storage/logs"));
}

/// The times of the deployments, by their order.
pub fn hour(number: usize) -> String {
    format!("2021-11-06T{number:02}:51:45Z")
}

/// Makes a site of Deployer 7 with these releases; the last one is live.
pub fn deployer(site: &Site, releases: &[&str]) {
    write_shared(site);
    let mut log = String::new();
    for (number, id) in releases.iter().enumerate() {
        release(site, id, false);
        let time = hour(number).replace('Z', "+0000");
        log += &format!(
            "{{\"created_at\":\"{time}\",\"release_name\":\"{id}\",\"user\":\"Jane\",\
             \"target\":\"HEAD\"}}\n"
        );
    }
    put_file(site, ".dep/releases_log", &log);
    let last = releases.last().expect("a release");
    put_file(site, ".dep/latest_release", &format!("{last}\n"));
    put_file(site, ".dep/repo/HEAD", "ref: refs/heads/main\n");
    point_current(site, &format!("releases/{last}"));
}

/// Makes a site of Capistrano 3 with these releases; the last one is live.
pub fn capistrano(site: &Site, releases: &[&str]) {
    write_shared(site);
    let mut log = String::new();
    for id in releases {
        release(site, id, true);
        // git-archive writes such modes, and root's tar keeps them.
        let tree = site.root().join("releases").join(id);
        if is_own_group_private() {
            set_mode(&tree.join("storage"), 0o775);
            set_mode(&tree.join("index.html"), 0o664);
        }
        log += &format!("Branch main (at e00f21424c92) deployed as release {id} by jane\n");
    }
    put_file(site, "revisions.log", &log);
    put_file(site, "repo/HEAD", "ref: refs/heads/main\n");
    let last = releases.last().expect("a release");
    let target = site.root().join("releases").join(last);
    point_current(site, target.to_str().expect("UTF-8"));
}

/// Returns whether nobody else is in the group of this process.
fn is_own_group_private() -> bool {
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid());
    let group = nix::unistd::Group::from_gid(nix::unistd::getegid());
    match (user, group) {
        (Ok(Some(user)), Ok(Some(group))) => user.name == group.name && group.mem.is_empty(),
        _ => false,
    }
}

/// Makes a site of a script that names releases by their time; the last one is live.
pub fn script(site: &Site, releases: &[&str]) {
    for id in releases {
        put_file(site, &format!("releases/{id}/index.html"), id);
    }
    let last = releases.last().expect("a release");
    point_current(site, &format!("./releases/{last}/"));
}

/// Makes a site whose `current` is the directory that is served.
pub fn plain_directory(site: &Site) {
    put_file(site, "current/index.html", "plain");
    put_file(site, "current/assets/app.js", "let one = 1;\n");
}

/// Removes everything that another tool or an adoption made.
pub fn clear(site: &Site) {
    let root = site.root();
    let current = root.join("current");
    if current.is_symlink() {
        fs::remove_file(&current).expect("it is a symlink");
    }
    for name in ["releases", "shared", "current", ".dep", "repo"] {
        let _ = fs::remove_dir_all(root.join(name));
    }
    let state = root.join(".deploy-shell");
    let _ = fs::remove_dir_all(state.join("manifests"));
    for name in ["journal.jsonl", "lock", "next", "back"] {
        let _ = fs::remove_file(state.join(name));
    }
    let _ = fs::remove_file(root.join("revisions.log"));
    for (name, mode) in [
        ("releases", 0o755),
        ("shared", 0o755),
        (".deploy-shell/manifests", 0o700),
    ] {
        fs::create_dir(root.join(name)).expect("a directory");
        set_mode(&root.join(name), mode);
    }
}
