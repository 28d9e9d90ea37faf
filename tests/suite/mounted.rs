//! File systems for one test: in an image, with a site on it, which only root may mount;
//! and mounts in a namespace of their own.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use nix::unistd::Uid;

use crate::site::{BIN, Reply, Site};

/// A file system that is mounted beside the site, with one of its directories mounted
/// over the root. So a file that fills it is outside of the site.
pub struct Mounted {
    pub disk: PathBuf,
    pub image: PathBuf,
    root: PathBuf,
    /// Options for mount(8).
    options: String,
}

impl Mounted {
    /// Mounts the file system that `format` makes in the image; `format` returns the
    /// mount options. Returns none, and prints the reason, where this machine does not
    /// allow it.
    pub fn over(site: &Site, format: impl FnOnce(&Path) -> String) -> Option<Mounted> {
        if !Uid::effective().is_root() {
            println!("skipped: mounting a file system needs root");
            return None;
        }
        let image = site.dir().join("image");
        let mounted = Mounted {
            disk: site.dir().join("disk"),
            root: site.root().to_owned(),
            options: format(&image),
            image,
        };
        fs::create_dir(&mounted.disk).expect("a directory");
        let done = mounted.mount_image();
        if !done.status.success() {
            println!("skipped: {}", String::from_utf8_lossy(&done.stderr));
            return None;
        }
        let copy = mounted.disk.join("root");
        succeed(Command::new("cp").arg("-a").arg(&mounted.root).arg(&copy));
        mounted.bind();
        Some(mounted)
    }

    fn mount_image(&self) -> Output {
        let mut mount = Command::new("mount");
        mount.args(self.options.split(' '));
        mount.arg(&self.image).arg(&self.disk);
        mount.output().expect("mount runs")
    }

    fn bind(&self) {
        let from = self.disk.join("root");
        succeed(
            Command::new("mount")
                .arg("--bind")
                .arg(from)
                .arg(&self.root),
        );
    }

    /// Mounts `image` in the place of the present image.
    pub fn exchange(&self, image: &Path) {
        for path in [&self.root, &self.disk] {
            unmount(path);
        }
        fs::rename(image, &self.image).expect("the image is replaced");
        let done = self.mount_image();
        assert!(done.status.success(), "{done:?}");
        self.bind();
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Lazily: a process of a failed test may still use it.
        for path in [&self.root, &self.disk] {
            let _ = Command::new("umount").arg("-lq").arg(path).status();
        }
    }
}

/// Unmounts a file system once nobody uses it: a child of a request that was killed ends
/// soon, and not at once.
#[track_caller]
fn unmount(path: &Path) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let done = Command::new("umount").arg(path).output();
        let done = done.expect("umount runs");
        if done.status.success() {
            return;
        }
        let busy = String::from_utf8_lossy(&done.stderr).contains("busy");
        assert!(busy && Instant::now() < deadline, "{done:?}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// Makes a file system with `command` in an image of `bytes` bytes.
pub fn format(command: &str, image: &Path, bytes: u64) {
    File::create(image)
        .and_then(|file| file.set_len(bytes))
        .expect("the image");
    let mut words = command.split(' ');
    let mut format = Command::new(words.next().expect("a program"));
    format.env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin");
    succeed(format.args(words).arg(image));
}

#[track_caller]
pub fn succeed(command: &mut Command) {
    let output = command.output().expect("tests/run installs it");
    assert!(output.status.success(), "{command:?}: {output:?}");
}

/// Runs a script of sh in a mount namespace of its own, in which it may mount what it
/// wants. Returns none, and prints the reason, where this machine does not allow it.
pub fn in_namespace(script: &str) -> Option<Output> {
    let unshare = |words: &[&str]| {
        let mut command = Command::new("unshare");
        command.arg("--mount");
        if !Uid::effective().is_root() {
            command.arg("--map-root-user");
        }
        command.args(words).output()
    };
    let possible = unshare(&["mount", "--bind", "/", "/"]);
    if !possible.is_ok_and(|done| done.status.success()) {
        println!("skipped: this user may not mount anything in a namespace of its own");
        return None;
    }
    Some(unshare(&["sh", "-c", script]).expect("unshare runs"))
}

/// Returns a line of sh that sends a request. [`replies`] reads the reply of the
/// request with this number. The line has its stdin.
pub fn request_line(site: &Site, number: usize, request: &str) -> String {
    format!(
        "env -i 'SSH_ORIGINAL_COMMAND={request}' '{BIN}' serve --config '{}' --key ci \
         > '{dir}/out{number}' 2> '{dir}/err{number}'; echo $? > '{dir}/code{number}'\n",
        site.config_path().display(),
        dir = site.dir().display(),
    )
}

/// Returns the replies to the first `count` requests.
pub fn replies(site: &Site, count: usize) -> Vec<Reply> {
    let read = |name: String| fs::read_to_string(site.dir().join(name)).expect("it was written");
    let reply = |number| Reply {
        code: read(format!("code{number}"))
            .trim()
            .parse()
            .expect("a status"),
        stdout: read(format!("out{number}")),
        stderr: read(format!("err{number}")),
    };
    (0..count).map(reply).collect()
}

/// Compiles a program that mounts a file system on its argument, which then does not
/// answer. Returns its path.
pub fn stalled_fs(site: &Site) -> PathBuf {
    let (source, program) = (
        site.dir().join("stalled_fs.c"),
        site.dir().join("stalled_fs"),
    );
    fs::write(&source, include_str!("mounted/stalled_fs.c")).expect("the source");
    succeed(
        Command::new("cc")
            .args(["-O1", "-Wall", "-Werror", "-o"])
            .args([&program, &source]),
    );
    program
}
