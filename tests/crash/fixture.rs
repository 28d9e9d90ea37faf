//! A small site, made once and copied for every run, and the invariants that must hold
//! afterwards. They are checked on disk, without the program.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use tempfile::TempDir;

use crate::payloads::{self, BASE, NEW};
use crate::site::{BIN, sha256, write_file};

/// The error says what is wrong with a site.
pub type Verdict = Result<(), String>;

/// A directory for all sites of a test, and a listener for their audit records.
pub struct Fixture {
    dir: TempDir,
    /// Where the sites are: the directory, or a file system that is mounted in it.
    sites: PathBuf,
}

impl Fixture {
    pub fn new() -> Fixture {
        crate::in_memory();
        Fixture::below(&tempfile::env::temp_dir())
    }

    /// Makes it in `directory`, and so on its file system.
    pub fn below(directory: &Path) -> Fixture {
        let dir = tempfile::Builder::new()
            .prefix("deploy-shell-crash-")
            .tempdir_in(directory)
            .expect("a temporary directory");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("its mode");
        let socket = UnixDatagram::bind(dir.path().join("audit")).expect("a socket");
        // The thread ends with the process; no test reads what it received.
        thread::spawn(move || {
            let mut buffer = [0; 2048];
            while socket.recv(&mut buffer).is_ok() {}
        });
        let sites = dir.path().to_owned();
        Fixture { dir, sites }
    }

    /// Makes the sites in `name` below the directory, where the test mounts file systems.
    pub fn with_sites_in(mut self, name: &str) -> Fixture {
        self.sites = self.dir.path().join(name);
        fs::create_dir(&self.sites).expect("a directory");
        self
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn sites(&self) -> &Path {
        &self.sites
    }

    /// Returns a site that is there.
    pub fn open(&self, name: &str) -> Site {
        let dir = self.sites.join(name);
        Site { dir }
    }

    /// Makes a site without releases in the directory `name`.
    pub fn make(&self, name: &str, keep: usize) -> Site {
        let site = self.site(name, keep, "");
        for (directory, mode) in [
            ("", 0o755),
            ("releases", 0o755),
            ("shared", 0o755),
            ("shared/deep", 0o755),
            ("shared/deep/er", 0o755),
            ("shared/deep/er/uploads", 0o755),
            (".deploy-shell", 0o700),
            (".deploy-shell/manifests", 0o700),
            (".deploy-shell/incoming", 0o700),
            (".deploy-shell/trash", 0o700),
        ] {
            let directory = site.root().join(directory);
            fs::create_dir(&directory).expect("a directory");
            fs::set_permissions(&directory, fs::Permissions::from_mode(mode)).expect("its mode");
        }
        for (path, content) in SHARED {
            fs::write(site.root().join(path), content).expect("a file");
        }
        site
    }

    /// Copies `template` to the directory `name`. `gate` is the part of its configuration
    /// with hooks and health.
    pub fn copy(&self, template: &Site, name: &str, keep: usize, gate: &str) -> Site {
        let site = self.site(name, keep, gate);
        copy_tree(&template.root(), &site.root()).expect("a copy");
        site
    }

    fn site(&self, name: &str, keep: usize, gate: &str) -> Site {
        let dir = self.sites.join(name);
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir(&dir).expect("a directory");
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).expect("its mode");
        let config = format!(
            "root = \"{}/root\"\nkeep = {keep}\nmin_age = \"0s\"\n\
             [pending]\nmax = 1000\nmax_per_key = 1000\n\
             [limits]\nreceives_per_hour = 1000000\nattempts_per_hour = 1000000\n\
             swaps_per_minute = 1000000\nuploads = 100\nuploads_per_key = 100\nreserve = \"0%\"\n\
             [shared]\nlinks = [\".env\", \"deep/er/uploads\"]\n\
             {gate}\n[audit]\nsocket = \"{}/audit\"\n",
            dir.display(),
            self.dir.path().display()
        );
        write_file(&dir.join("blog.toml"), 0o644, config.as_bytes());
        Site { dir }
    }
}

/// Adds the records of `text` by their numbers. A number has one record.
fn read_lines(text: &str, records: &mut BTreeMap<u64, Value>) -> Verdict {
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    for (index, line) in lines.iter().enumerate() {
        match serde_json::from_str::<Value>(line) {
            Ok(head) if line.ends_with('\n') && head["seq"].is_null() => {}
            Ok(record) if line.ends_with('\n') => {
                let seq = record["seq"].as_u64().ok_or(format!("journal: {record}"))?;
                let known = records.entry(seq).or_insert_with(|| record.clone());
                if *known != record {
                    return Err(format!("journal: {record} is also {known}"));
                }
            }
            _ if index + 1 == lines.len() => {}
            _ => return Err(format!("journal: line {} is '{line}'", index + 1)),
        }
    }
    Ok(())
}

fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (kind, to) = (entry.file_type()?, to.join(entry.file_name()));
        if kind.is_dir() {
            copy_tree(&entry.path(), &to)?;
        } else if kind.is_symlink() {
            symlink(fs::read_link(entry.path())?, to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    fs::set_permissions(to, fs::metadata(from)?.permissions())
}

/// The time of everything in [`BASE`], which no run may change.
fn base_time() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000)
}

/// The files in `shared/`, which no run may change.
const SHARED: [(&str, &str); 2] = [
    ("shared/.env", "KEY=1"),
    ("shared/deep/er/uploads/photo", "a photo"),
];

/// The result of a request without a fault.
pub struct Answer {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

pub struct Site {
    dir: PathBuf,
}

impl Site {
    pub fn root(&self) -> PathBuf {
        self.dir.join("root")
    }

    fn own(&self, name: &str) -> PathBuf {
        self.root().join(".deploy-shell").join(name)
    }

    /// Returns the program's command as sshd starts it for this request.
    pub fn command(&self, request: &str) -> Command {
        let mut command = Command::new(BIN);
        command
            .env_clear()
            .arg("serve")
            .arg("--config")
            .arg(self.dir.join("blog.toml"))
            .args(["--key", "ci"])
            .env("SSH_ORIGINAL_COMMAND", request);
        command
    }

    /// Requires signatures from now on, or no more.
    pub fn require_signatures(&self, required: bool) {
        let (config, signers) = (self.dir.join("blog.toml"), self.dir.join("signers"));
        write_file(&signers, 0o644, payloads::signers().as_bytes());
        let table = format!(
            "\n[signatures]\nallowed_signers = \"{}\"\n",
            signers.display()
        );
        let text = fs::read_to_string(&config).expect("a configuration");
        let mut text = text.replace(&table, "");
        if required {
            text += &table;
        }
        write_file(&config, 0o644, text.as_bytes());
    }

    /// Returns the payload of a request as its stdin.
    pub fn stdin(&self, request: &str) -> Stdio {
        let Some(rest) = request.strip_prefix("receive ") else {
            return Stdio::null();
        };
        let release = rest.split(' ').next().expect("a release");
        let path = self.dir.join(format!("{release}.tar.zst"));
        let payload = if request.contains(" --base ") {
            payloads::DELTA.payload.clone()
        } else {
            payloads::payload(release)
        };
        fs::write(&path, payload).expect("the payload");
        Stdio::from(File::open(path).expect("the payload"))
    }

    pub fn ask(&self, request: &str) -> Answer {
        let stdin = self.stdin(request);
        let output = self.command(request).stdin(stdin).output();
        let output = output.expect("the program starts");
        Answer {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Runs a request that must succeed.
    pub fn ok(&self, request: &str) -> Result<String, String> {
        let answer = self.ask(request);
        match answer.code {
            Some(0) => Ok(answer.stdout),
            code => Err(format!(
                "'{request}' no longer works: exit {code:?}, {}",
                answer.stderr
            )),
        }
    }

    /// Returns the release that the `current` symlink names.
    pub fn current(&self) -> Result<Option<String>, String> {
        match fs::read_link(self.root().join("current")) {
            Ok(target) => match target.to_str().and_then(|it| it.strip_prefix("releases/")) {
                Some(release) => Ok(Some(release.to_owned())),
                None => Err(format!("current points to '{}'", target.display())),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(format!("current: {error}")),
        }
    }

    pub fn releases(&self) -> BTreeSet<String> {
        names(&self.root().join("releases"))
    }

    /// Returns the records of the journal and of its old parts. Only the last line may be
    /// torn, and the numbers have no gap. A checkpoint that was killed leaves some records
    /// in both.
    pub fn journal(&self) -> Result<Vec<Value>, String> {
        let mut numbers: Vec<u64> = names(&self.root().join(".deploy-shell"))
            .iter()
            .filter_map(|name| name.strip_prefix("journal-")?.strip_suffix(".jsonl.zst"))
            .map(|number| number.parse().expect("a number"))
            .collect();
        numbers.sort_unstable();
        let mut records = BTreeMap::new();
        for number in numbers {
            let part = File::open(self.own(&format!("journal-{number}.jsonl.zst")));
            let text = part
                .and_then(::zstd::decode_all)
                .map_err(|error| error.to_string())?;
            let text = String::from_utf8(text).map_err(|error| error.to_string())?;
            read_lines(&text, &mut records)?;
        }
        let text = fs::read_to_string(self.own("journal.jsonl")).unwrap_or_default();
        read_lines(&text, &mut records)?;
        let gap = records
            .keys()
            .zip(1..)
            .find(|(seq, expected)| *seq != expected);
        match gap {
            Some((seq, _)) => Err(format!("journal: a gap before {seq}")),
            None => Ok(records.into_values().collect()),
        }
    }

    /// Makes the journal so long that the next change makes a checkpoint, with ids that
    /// were used for a moment.
    pub fn lengthen(&self) {
        let mut records = self.journal().expect("a journal");
        let newest = records.pop().expect("a record");
        let mut last = newest["seq"].as_u64().expect("a number");
        let path = self.own("journal.jsonl");
        let mut text = fs::read_to_string(&path).expect("a journal");
        let more = text.len() + 34_000;
        while text.len() < more {
            let (id, digest) = (format!("old-{last}"), "ab".repeat(32));
            for event in ["received", "pruned"] {
                last += 1;
                let mut record = serde_json::json!({
                    "seq": last, "time": newest["time"], "event": event, "release": id,
                });
                if event == "received" {
                    record["sha256"] = digest.clone().into();
                }
                text += &format!("{record}\n");
            }
        }
        fs::write(path, text).expect("a longer journal");
    }

    /// Requires a release to be exactly what its manifest says.
    pub fn check_release(&self, release: &str) -> Verdict {
        let manifest = fs::read_to_string(self.own("manifests").join(release))
            .map_err(|error| format!("manifest of '{release}': {error}"))?;
        let mut expected = BTreeMap::new();
        let mut ended = false;
        for line in manifest.lines() {
            ended = line.starts_with("# files ");
            if !line.starts_with('#') {
                let (path, rest) = line.split_once(' ').unwrap_or((line, ""));
                expected.insert(path.replace("\\040", " "), rest.to_owned());
            }
        }
        if !ended || !manifest.contains(&format!("\n# release {release}\n")) {
            return Err(format!("manifest of '{release}' is not whole:\n{manifest}"));
        }
        let mut found = BTreeMap::new();
        describe(&self.root().join("releases").join(release), ".", &mut found)
            .map_err(|error| format!("release '{release}': {error}"))?;
        for link in ["./.env", "./deep/er/uploads"] {
            if !expected.get(link).is_some_and(|it| it.contains("shared/")) {
                return Err(format!("release '{release}' has no '{link}'"));
            }
        }
        if found == expected {
            Ok(())
        } else {
            Err(format!(
                "release '{release}' is {found:?}, its manifest says {expected:?}"
            ))
        }
    }

    /// Gives everything in a release the time of the base.
    pub fn set_times(&self, release: &str) {
        for path in everything(&self.root().join("releases").join(release)) {
            let file = File::open(path).expect("a file of the release");
            file.set_modified(base_time()).expect("its time");
        }
    }

    /// Requires the base to be exactly as it was.
    pub fn check_base(&self) -> Verdict {
        self.check_release(BASE)?;
        for path in everything(&self.root().join("releases").join(BASE)) {
            let time = fs::metadata(&path).and_then(|meta| meta.modified());
            match time {
                Ok(time) if time == base_time() => {}
                time => return Err(format!("the time of '{}' is {time:?}", path.display())),
            }
        }
        Ok(())
    }

    /// Requires [`NEW`] to be what the delta gives.
    pub fn check_delta(&self) -> Verdict {
        let manifest = fs::read_to_string(self.own("manifests").join(NEW));
        let manifest = manifest.map_err(|error| format!("manifest of '{NEW}': {error}"))?;
        if !manifest.contains(&format!("\n# tree {}\n", payloads::DELTA.tree)) {
            return Err(format!("'{NEW}' has another tree: {manifest}"));
        }
        // What is unchanged keeps its time.
        let kept = self.root().join("releases").join(NEW).join("part 1");
        for path in everything(&kept) {
            let time = fs::metadata(&path).and_then(|meta| meta.modified());
            if time.as_ref().ok() != Some(&base_time()) {
                return Err(format!("the time of '{}' is {time:?}", path.display()));
            }
        }
        Ok(())
    }

    /// Requires what holds at any time, also after a process was killed.
    pub fn check_sound(&self) -> Verdict {
        self.journal()?;
        for (path, content) in SHARED {
            match fs::read(self.root().join(path)) {
                Ok(found) if found == content.as_bytes() => {}
                found => return Err(format!("{path} is {found:?}")),
            }
        }
        if let Some(live) = self.current()? {
            self.check_release(&live)?;
        }
        for release in self.releases() {
            self.check_release(&release)?;
        }
        self.check_listing()
    }

    /// Requires what holds between requests: [`Self::check_sound`], and no debris.
    pub fn check_tidy(&self) -> Verdict {
        self.check_sound()?;
        let left: Vec<String> = ["incoming", "trash"]
            .into_iter()
            .flat_map(|directory| names(&self.own(directory)))
            .collect();
        if !left.is_empty() {
            return Err(format!("left over: {left:?}"));
        }
        for link in ["next", "back"] {
            if fs::symlink_metadata(self.own(link)).is_ok() {
                return Err(format!("left over: {link}"));
            }
        }
        let manifests = names(&self.own("manifests"));
        if manifests != self.releases() {
            let releases = self.releases();
            return Err(format!("manifests {manifests:?} for releases {releases:?}"));
        }
        let text = fs::read_to_string(self.own("journal.jsonl")).unwrap_or_default();
        if !text.ends_with('\n') {
            return Err("the journal's last line is still torn".to_owned());
        }
        if text.len() > 40_000 {
            return Err("the journal is still long".to_owned());
        }
        for name in ["next-journal", "next-part"] {
            if fs::symlink_metadata(self.own(name)).is_ok() {
                return Err(format!("left over: {name}"));
            }
        }
        let journal = self.journal()?;
        let moves = ["swapped", "rolled-back", "returned", "reconciled"];
        let last = journal
            .iter()
            .rev()
            .find(|record| moves.iter().any(|event| record["event"] == *event));
        let recorded = last.and_then(|record| record["release"].as_str());
        if self.current()?.as_deref() == recorded {
            Ok(())
        } else {
            Err(format!("the journal has {recorded:?} as live"))
        }
    }

    pub fn listing(&self) -> Result<Value, String> {
        let text = self.ok("list --json")?;
        serde_json::from_str(&text).map_err(|error| error.to_string())
    }

    /// Requires `list --json` to agree with the disk.
    fn check_listing(&self) -> Verdict {
        let listing = self.listing()?;
        let rows = listing["releases"].as_array().cloned().unwrap_or_default();
        let listed: BTreeSet<String> = rows
            .iter()
            // Its removal is not recorded yet: the record could not be written.
            .filter(|row| row["state"] != "missing")
            .filter_map(|row| Some(row["release"].as_str()?.to_owned()))
            .collect();
        if listing["current"].as_str().map(str::to_owned) != self.current()? {
            return Err(format!("list disagrees with the symlink: {listing}"));
        }
        if listed == self.releases() {
            Ok(())
        } else {
            Err(format!("list disagrees with releases/: {listing}"))
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn names(directory: &Path) -> BTreeSet<String> {
    fs::read_dir(directory)
        .expect("a directory of the site")
        .map(|entry| entry.expect("an entry").file_name())
        .map(|name| name.into_string().expect("a UTF-8 name"))
        .collect()
}

/// Returns a directory, and every file and directory in it.
fn everything(directory: &Path) -> Vec<PathBuf> {
    let mut found = vec![directory.to_owned()];
    for entry in fs::read_dir(directory).expect("a directory") {
        let entry = entry.expect("an entry");
        let kind = entry.file_type().expect("its type");
        if kind.is_dir() {
            found.extend(everything(&entry.path()));
        } else if kind.is_file() {
            found.push(entry.path());
        }
    }
    found
}

/// Adds the mtree(5) words of a tree, by path.
fn describe(path: &Path, shown: &str, found: &mut BTreeMap<String, String>) -> io::Result<()> {
    let meta = fs::symlink_metadata(path)?;
    let mode = meta.permissions().mode() & 0o7777;
    let text = if meta.is_dir() {
        for entry in fs::read_dir(path)? {
            let name = entry?.file_name();
            let below = format!("{shown}/{}", name.to_string_lossy());
            describe(&path.join(name), &below, found)?;
        }
        format!("type=dir mode={mode:04o}")
    } else if meta.is_symlink() {
        let target = fs::read_link(path)?;
        format!("type=link mode=0777 link={}", target.display())
    } else {
        let content = fs::read(path)?;
        let (size, digest) = (content.len(), sha256(&content));
        format!("type=file mode={mode:04o} size={size} sha256digest={digest}")
    };
    found.insert(shown.to_owned(), text);
    Ok(())
}
