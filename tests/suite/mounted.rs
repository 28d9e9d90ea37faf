//! File systems of a test's own, in an image, and a site on them. They are
//! root's to mount.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use nix::unistd::Uid;

use crate::site::Site;

/// A file system mounted beside the site, and a folder of it mounted where the
/// root was: so what fills it is not in the site.
pub struct Mounted {
    pub disk: PathBuf,
    pub image: PathBuf,
    root: PathBuf,
    /// Of mount(8).
    options: String,
}

impl Mounted {
    /// `format` makes the file system in the image, and tells the options to
    /// mount it by. `None`, with the reason printed, where this machine does not
    /// let us.
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
        fs::create_dir(&mounted.disk).expect("a folder");
        let done = mounted.mount_image();
        if !done.status.success() {
            println!("skipped: {}", String::from_utf8_lossy(&done.stderr));
            return None;
        }
        let copy = mounted.disk.join("root");
        done_well(Command::new("cp").arg("-a").arg(&mounted.root).arg(&copy));
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
        done_well(
            Command::new("mount")
                .arg("--bind")
                .arg(from)
                .arg(&self.root),
        );
    }

    /// Mounts what `image` is by now in the place of what was mounted.
    pub fn exchange(&self, image: &Path) {
        for path in [&self.root, &self.disk] {
            done_well(Command::new("umount").arg(path));
        }
        fs::rename(image, &self.image).expect("another image");
        let done = self.mount_image();
        assert!(done.status.success(), "{done:?}");
        self.bind();
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Lazily: a process of a failed test may still stand in it.
        for path in [&self.root, &self.disk] {
            let _ = Command::new("umount").arg("-lq").arg(path).status();
        }
    }
}

/// Makes a file system by `command` in an image of so many bytes.
pub fn format(command: &str, image: &Path, bytes: u64) {
    File::create(image)
        .and_then(|file| file.set_len(bytes))
        .expect("the image");
    let mut words = command.split(' ');
    let mut format = Command::new(words.next().expect("a program"));
    format.env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin");
    done_well(format.args(words).arg(image));
}

#[track_caller]
pub fn done_well(command: &mut Command) {
    let output = command.output().expect("tests/run installs it");
    assert!(output.status.success(), "{command:?}: {output:?}");
}
