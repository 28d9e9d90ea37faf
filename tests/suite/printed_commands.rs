//! Remedies of a site whose path and files have names that a shell interprets. Their
//! commands do what is meant and nothing else when root pastes them.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::Uid;

use crate::adopt_layouts::script;
use crate::check::{deployer, give};
use crate::direct::live;
use crate::process::copy_program;
use crate::site::{BIN, Reply, Site, admin, set_mode, with_admin, write_file};

/// Names that end quotes, substitute commands and control a terminal. A shell that reads
/// one as anything but one word makes the file OWNED.
const NAMES: [&str; 3] = [
    "it's $(touch OWNED)'; touch OWNED #",
    "`touch OWNED`\n\u{1b}[31m'\u{fc}' && touch OWNED\n.",
    "{a,b} \"!!\" \\' ~ %s 100%",
];

/// A site that is moved below a directory with such a name.
struct Moved {
    site: Site,
    base: PathBuf,
}

impl Moved {
    fn new(site: Site, name: &str) -> Moved {
        let base = site.dir().join(name);
        fs::create_dir(&base).expect("a directory");
        set_mode(&base, 0o755);
        fs::rename(site.root(), base.join("root")).expect("moved");
        let text = fs::read_to_string(site.config_path()).expect("the configuration");
        let (_, rest) = text.split_once('\n').expect("several lines");
        // A string of JSON without '/' between is one of TOML.
        let root = serde_json::to_string(&base.join("root")).expect("UTF-8");
        let text = format!("root = {root}\n{rest}");
        write_file(&base.join("blog.toml"), 0o644, text.as_bytes());
        fs::create_dir(site.dir().join("cwd")).expect("a directory");
        Moved { site, base }
    }

    /// As [`Moved::new`], with an account of its own if this is root.
    fn of_an_account(site: Site, name: &str) -> Moved {
        give(site.root(), &deployer());
        set_mode(&site.dir().join("audit.socket"), 0o777);
        // Other users cannot reach a checkout in root's home.
        copy_program(BIN, &site.dir().join("deploy-shell"));
        Moved::new(site, name)
    }

    fn root(&self) -> PathBuf {
        self.base.join("root")
    }

    fn config(&self) -> PathBuf {
        self.base.join("blog.toml")
    }

    fn list(&self) -> Reply {
        let mut command = Command::new(self.site.dir().join("deploy-shell"));
        let account = deployer();
        if Uid::effective().is_root() {
            command.uid(account.uid.as_raw()).gid(account.gid.as_raw());
        }
        command.env_clear().args(["serve", "--key", "ci"]);
        command.arg("--config").arg(self.config());
        command.env("SSH_ORIGINAL_COMMAND", "list");
        self.site.run(command, b"")
    }

    fn operator(&self, words: &[&str]) -> Reply {
        let mut command = Command::new(admin());
        command.env_clear().args(words);
        command.arg("--config").arg(self.config());
        self.site.run(command, b"")
    }

    /// Runs the command at the end of a remedy, in a directory of its own.
    #[track_caller]
    fn follow(&self, remedy: &str) {
        let is_printable = |byte: u8| (b' '..=b'~').contains(&byte);
        assert!(remedy.bytes().all(is_printable), "{remedy}");
        let command = with_admin(remedy.rsplit(": ").next().expect("a command"));
        let done = Command::new("sh")
            .args(["-ec", &command])
            .current_dir(self.site.dir().join("cwd"))
            .output()
            .expect("sh starts");
        assert!(done.status.success(), "{command}: {done:?}");
        self.is_not_owned(remedy);
    }

    #[track_caller]
    fn is_not_owned(&self, remedy: &str) {
        let made: Vec<_> = fs::read_dir(self.site.dir().join("cwd"))
            .expect("a directory")
            .collect();
        assert!(made.is_empty(), "{remedy}: {made:?}");
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it exists").mode() & 0o777
}

/// A fault, and the beginning of the command that repairs it.
type Fault = (&'static str, &'static dyn Fn(&Moved));

const FAULTS: [Fault; 8] = [
    ("chmod go-w ", &|it| set_mode(&it.config(), 0o666)),
    ("deploy-shell-admin repair ", &|it| {
        set_mode(&it.root().join(".deploy-shell"), 0o755);
    }),
    ("deploy-shell-admin repair ", &|it| {
        set_mode(&it.root().join("releases"), 0o777);
    }),
    ("deploy-shell-admin init ", &|it| {
        fs::remove_dir(it.root().join(".deploy-shell/trash")).expect("removed");
    }),
    ("mv -nT ", &|it| {
        let journal = it.root().join(".deploy-shell/journal.jsonl");
        fs::write(journal, "{\"no\n{\"no\n").expect("written");
    }),
    ("mv -nT ", &|it| {
        fs::remove_file(it.root().join("current")).expect("removed");
        fs::write(it.root().join("current"), "").expect("written");
    }),
    ("sh -c 'ln -sT releases/b ", &|it| {
        fs::remove_file(it.root().join("current")).expect("removed");
        let target = it.root().join("releases/b");
        symlink(target, it.root().join("current")).expect("a symlink");
    }),
    ("readlink -f ", &|it| {
        fs::rename(it.root(), it.base.join("real")).expect("moved");
        symlink("real", it.root()).expect("a symlink");
    }),
];

#[test]
fn the_commands_of_the_gate_do_what_is_meant_for_every_path() {
    for name in NAMES {
        for (start, make) in FAULTS {
            let site = Site::new();
            live(&site, &["a", "b"]);
            let site = Moved::of_an_account(site, name);
            site.list().ok();
            make(&site);
            let reply = site.list();
            assert_eq!(reply.code, 78, "{reply:?}");
            let remedy = reply.stderr.lines().nth(1);
            let remedy = remedy.unwrap_or_else(|| panic!("no remedy: {reply:?}"));
            // The other way that it names is `adopt`.
            let remedy = remedy.split("; or: ").next().unwrap_or(remedy);
            let command = remedy.rsplit(": ").next().expect("a command");
            // What the account runs.
            let command = command.split_once(" -- ").map_or(command, |(_, it)| it);
            assert!(command.starts_with(start), "{start}: {remedy}");
            site.follow(remedy);
            if start != "readlink -f " {
                site.list().ok();
            }
        }
    }
}

/// What `check` prints first for each code, with the command that ends it.
#[test]
fn the_commands_of_check_do_what_is_meant_for_every_path() {
    let faults: [Fault; 3] = [
        ("current-is-no-symlink", FAULTS[5].1),
        ("current-leads-elsewhere", FAULTS[6].1),
        ("journal-damaged", FAULTS[4].1),
    ];
    for name in NAMES {
        for (code, make) in faults {
            let site = Site::new();
            live(&site, &["a", "b"]);
            let site = Moved::of_an_account(site, name);
            make(&site);
            let reply = site.operator(&["check"]);
            let start = format!("finding: {code}: ");
            let mut lines = reply.stdout.lines();
            lines
                .find(|line| line.starts_with(&start))
                .unwrap_or_else(|| panic!("{code}: {reply:?}"));
            let remedy = lines.next().and_then(|it| it.strip_prefix("  remedy: "));
            site.follow(remedy.expect("a remedy"));
            let reply = site.operator(&["check"]);
            assert!(!reply.stdout.contains(&start), "{reply:?}");
        }
    }
}

/// An application that was taken over chooses the names in its release.
#[test]
fn the_commands_of_adopt_do_what_is_meant_for_every_file() {
    for name in NAMES {
        for count in [1, 2] {
            let site = Site::new();
            script(&site, &["20211106-005145"]);
            let site = Moved::new(site, name);
            let release = site.root().join("releases/20211106-005145");
            let files: Vec<PathBuf> = (0..count)
                .map(|number| release.join(format!("{name}{number}").replace(['\n', '\u{1b}'], "")))
                .collect();
            for file in &files {
                write_file(file, 0o666, b"x");
            }
            let remedies = || {
                let reply = site.operator(&["adopt"]);
                let lines = reply.stdout.lines();
                let remedies = lines.filter_map(|line| line.strip_prefix("  "));
                let remedies = remedies.filter(|line| line.contains(": "));
                remedies.map(str::to_owned).collect::<Vec<String>>()
            };
            let found = remedies();
            assert_eq!(found.len(), 1, "{found:?}");
            site.follow(&found[0]);
            assert!(files.iter().all(|file| mode(file) == 0o644));
            assert_eq!(remedies(), [] as [String; 0]);

            for (number, file) in files.iter().enumerate() {
                let other = site.base.join(format!("other{number}"));
                fs::hard_link(file, other).expect("a hard link");
            }
            // A copy to this name must not write to the file of another user.
            let victim = site.base.join("victim");
            fs::write(&victim, "victim").expect("written");
            let trap = format!("{}.new", files[0].to_str().expect("UTF-8"));
            symlink(&victim, &trap).expect("a symlink");
            let is_of_names = |line: &String| line.contains("find ");
            let found: Vec<String> = remedies().into_iter().filter(is_of_names).collect();
            assert_eq!(found.len(), 1, "{found:?}");
            site.follow(&found[0]);
            assert_eq!(fs::read_to_string(&victim).expect("it exists"), "victim");
            assert!(!Path::new(&trap).is_symlink());
            for file in &files {
                assert_eq!(fs::metadata(file).expect("it exists").nlink(), 1);
            }
            let reply = site.operator(&["adopt", "--yes"]);
            let next = reply.ok();
            let check = next.lines().find_map(|line| line.strip_prefix("next: "));
            site.follow(check.expect("the next command"));
        }
    }
}
