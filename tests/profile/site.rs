//! A site without a gate: `receive` calls the unpacker in this process. It has the
//! functions of the suite's `Site` that the tables need.

#[path = "../suite/site/files.rs"]
#[expect(dead_code, reason = "shared with the suite")]
mod files;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};

use deploy_shell::archive::{self, Progress, UnpackError, UnpackLimits, UnpackReport, Writers};
use deploy_shell::config::{Config, Symlinks, Times};
use deploy_shell::dir::Dir;
use deploy_shell::shared_paths::Shared;
use nix::sys::stat::{Mode, umask};
use tempfile::TempDir;

use files::{children, describe};
pub use files::{set_mode, sha256, write_file};

pub struct Site {
    dir: TempDir,
    root: PathBuf,
    limits: UnpackLimits,
    shared: Shared,
}

#[derive(Debug)]
pub struct Reply {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Site {
    pub fn with_config(config: &str) -> Site {
        umask(Mode::from_bits_truncate(0o022));
        // In memory, because nothing here is about the disk.
        let memory = Path::new("/dev/shm");
        let dir = if memory.is_dir() {
            tempfile::tempdir_in(memory)
        } else {
            tempfile::tempdir()
        };
        let dir = dir.expect("a temporary directory");
        let root = dir.path().join("root");
        for name in ["releases", "incoming", "shared"] {
            fs::create_dir_all(root.join(name)).expect("a directory");
        }
        let config = format!("root = \"/srv/site\"\n{config}");
        let config = Config::parse(Path::new("/etc/deploy-shell/site.toml"), &config);
        let config = config.expect("a configuration");
        let archive = &config.archive;
        let limits = UnpackLimits {
            max_unpacked: archive.max_unpacked,
            max_file: archive.max_file,
            max_entries: archive.max_entries,
            block: 4096,
            room_bytes: 4 << 30,
            room_inodes: 1 << 20,
            symlinks: archive.symlinks == Symlinks::Inside,
            keep_times: archive.times == Times::Archive,
        };
        Site {
            dir,
            root,
            limits,
            shared: config.shared,
        }
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// There is no symlink `current` in this process.
    pub fn ssh(&self, _key: &str, request: &str) -> Reply {
        assert_eq!(request, "swap live");
        Reply::of(Ok(UnpackReport { known: Vec::new() }))
    }

    pub fn receive(&self, release: &str, payload: &[u8]) -> Reply {
        let staging = self.root.join("incoming").join(release);
        fs::create_dir(&staging).expect("a staging directory");
        let mut file = tempfile::tempfile_in(self.dir.path()).expect("a file");
        file.write_all(payload).expect("the payload is written");
        file.rewind().expect("a regular file");
        let result = self.unpack(file, &staging);
        if result.is_ok() {
            let place = self.root.join("releases").join(release);
            fs::rename(&staging, place).expect("a release");
        } else {
            remove(&staging);
        }
        Reply::of(result)
    }

    fn unpack(&self, payload: File, staging: &Path) -> Result<UnpackReport, UnpackError> {
        let staging = Dir::open_root(staging).expect("a directory");
        let writers = Writers::start(2).expect("two threads");
        let progress = Progress::new(Box::new(std::io::sink()));
        archive::unpack_into(
            payload,
            staging,
            self.limits,
            &self.shared,
            writers,
            progress,
        )
    }

    pub fn releases(&self) -> Vec<String> {
        let releases = children(&self.root.join("releases"));
        let names = releases
            .iter()
            .filter_map(|path| path.file_name()?.to_str());
        names.map(str::to_owned).collect()
    }

    pub fn leftovers(&self) -> Vec<PathBuf> {
        children(&self.root.join("incoming"))
    }

    pub fn snapshot(&self) -> BTreeMap<PathBuf, String> {
        let mut found = BTreeMap::new();
        describe(&self.root, &self.root, &mut found);
        found
    }
}

/// Removes a staging directory. The threads of a refused archive can still write; in the
/// program the process has ended.
fn remove(staging: &Path) {
    for _ in 0..10_000 {
        if fs::remove_dir_all(staging).is_ok() {
            return;
        }
        std::thread::yield_now();
    }
    panic!("the staging directory cannot be removed");
}

impl Reply {
    fn of(result: Result<UnpackReport, UnpackError>) -> Reply {
        let error = result.err().map(UnpackError::into_error);
        Reply {
            code: error.as_ref().map_or(0, |error| error.code.exit().into()),
            stdout: String::new(),
            stderr: error.map_or(String::new(), |error| {
                let (word, problem) = (error.code.name(), &error.problem);
                let remedy = error.remedy.as_deref().unwrap_or_default();
                format!("deploy-shell: {word}: {problem}\n{remedy}\n")
            }),
        }
    }

    #[track_caller]
    pub fn ok(self) {
        assert_eq!(self.code, 0, "{self:?}");
    }

    #[track_caller]
    pub fn refused(&self, code: i32, word: &str) {
        assert_eq!(self.code, code, "{self:?}");
        let start = format!("deploy-shell: {word}: ");
        assert!(self.stderr.starts_with(&start), "{self:?}");
    }
}
