//! A file system in an image for one test, with a site on it. Only root may mount one.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use nix::unistd::Uid;

use crate::site::Site;

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
            succeed(Command::new("umount").arg(path));
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
