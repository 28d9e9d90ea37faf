//! A deploy user as the README creates one: an account in /etc/passwd without a
//! password, whose login shell is deploy-shell and whose home directory is root's.
//! Only root can create one, so these tests are skipped for other users.
//!
//! Other tests of the forced command run it as the user of the tests. Here it runs
//! as another user, so the kernel enforces the permissions.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use nix::unistd::{Uid, User};

use crate::direct::{everything, payload, record};
use crate::fields::Fields;
use crate::process::{copy_program, daemon};
use crate::site::{BIN, Reply, Site, write_file};

const DROP_IN: &str = include_str!("../../sshd/50-deploy-shell.conf");

/// An entry in /etc/passwd, removed when its test ends or fails.
pub struct Account {
    pub name: String,
    pub uid: u32,
    gid: u32,
}

/// useradd and userdel lock the file, and fail while it is locked.
static PASSWD: Mutex<()> = Mutex::new(());

impl Account {
    fn create(home: &Path, shell: &Path) -> Account {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("dsh{}x{number}", std::process::id());
        let mut useradd = Command::new(daemon("useradd"));
        useradd
            .args(["--no-create-home", "--no-log-init", "--password", "*"])
            .arg("--home-dir")
            .arg(home)
            .arg("--shell")
            .arg(shell)
            .arg(&name);
        // From here on, Drop must remove it, even if useradd fails half-way.
        let mut account = Account {
            name,
            uid: u32::MAX,
            gid: u32::MAX,
        };
        assert!(run_with_retries(useradd), "useradd fails");
        let entry = User::from_name(&account.name);
        let entry = entry.expect("readable").expect("the account is there");
        assert_eq!(entry.shell, shell);
        (account.uid, account.gid) = (entry.uid.as_raw(), entry.gid.as_raw());
        account
    }

    /// Runs a shell as this user, such as an attacker who executes code as it could.
    fn shell(&self, script: &str) -> bool {
        let mut sh = Command::new("/bin/sh");
        sh.args(["-c", script]).uid(self.uid).gid(self.gid);
        sh.current_dir("/").stderr(Stdio::null());
        sh.status().expect("sh starts").success()
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let mut userdel = Command::new(daemon("userdel"));
        userdel.arg(&self.name);
        if !run_with_retries(userdel) {
            let mut userdel = Command::new(daemon("userdel"));
            let _ = userdel.args(["--force", &self.name]).status();
        }
    }
}

/// Runs a command again while it fails, because the user database may be locked, or
/// an sshd that is exiting may still use the account.
pub fn run_with_retries(mut command: Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null());
    (0..50).any(|attempt| {
        if attempt > 0 {
            thread::sleep(Duration::from_millis(100));
        }
        let _locked = PASSWD
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        command.status().expect("it starts").success()
    })
}

/// A site that belongs to an account created for it; everything else belongs to root.
/// The account is the first field, so it is dropped before the site's directory.
pub struct Installation {
    pub account: Account,
    pub site: Site,
    pub program: PathBuf,
}

impl Installation {
    /// Returns `None` for users other than root.
    pub fn create() -> Option<Installation> {
        if !Uid::effective().is_root() {
            println!("skipped: only root can create an account");
            return None;
        }
        let site = Site::new();
        let directory = |name: &str| {
            let path = site.dir().join(name);
            fs::create_dir(&path).expect("a directory");
            crate::site::set_mode(&path, 0o755);
            path
        };
        // Another user may not be able to reach the build directory.
        let program = directory("bin").join("deploy-shell");
        copy_program(BIN, &program);
        // The mode that the packages give it.
        crate::site::set_mode(&program, 0o711);
        let account = Account::create(&directory("home"), &program);
        give(site.root(), &account);
        let installation = Installation {
            account,
            site,
            program,
        };
        installation.keys(&format!("restrict,command=\"{}\"", installation.serve()));
        Some(installation)
    }

    /// Returns the forced command of the key, as `authorize` prints it.
    pub fn serve(&self) -> String {
        let config = self.site.config_path().display();
        format!(
            "{} serve --config {config} --key ci",
            self.program.display()
        )
    }

    /// Writes a keys file with one key, with these options.
    pub fn keys(&self, options: &str) {
        let public = fs::read_to_string(self.site.dir().join("key-ci.pub")).expect("the key");
        let line = format!("{options} {public}");
        let path = self.site.dir().join("authorized_keys");
        write_file(&path, 0o644, line.trim_start().as_bytes());
    }

    /// Edits the configuration of sshd.
    pub fn sshd(&self, edit: impl FnOnce(String) -> String) {
        let path = self.site.dir().join("sshd_config");
        let text = fs::read_to_string(&path).expect("the configuration");
        write_file(&path, 0o644, edit(text).as_bytes());
    }

    /// Puts the drop-in before the other settings of sshd.
    pub fn drop_in(&self) {
        let keys = self.site.dir().join("authorized_keys");
        let ours = DROP_IN
            .replace(
                "Match User deploy",
                &format!("Match User {}", self.account.name),
            )
            .replace(
                "/etc/deploy-shell/authorized_keys/%u",
                keys.to_str().expect("UTF-8"),
            );
        // With Include, a Match block ends at the end of its file.
        let path = self.site.dir().join("drop-in.conf");
        write_file(&path, 0o644, ours.as_bytes());
        self.sshd(|rest| format!("Include {}\n{rest}", path.display()));
    }

    /// Returns an `ssh` command to the account, without a request.
    pub fn ssh_command(&self, options: &[&str]) -> Command {
        let default = self.site.ssh_command("ci");
        let mut words: Vec<_> = default.get_args().collect();
        words.pop().expect("the destination");
        let mut command = Command::new("ssh");
        command.env("SHELL", "/bin/sh").env_remove("SSH_AUTH_SOCK");
        command.args(words).args(options);
        command.arg(format!("{}@node", self.account.name));
        command
    }

    fn ssh(&self, options: &[&str], request: &str, input: &[u8]) -> Reply {
        let mut command = self.ssh_command(options);
        if !request.is_empty() {
            command.arg("--").arg(request);
        }
        self.site.run(command, input)
    }

    pub fn request(&self, request: &str) -> Reply {
        self.ssh(&[], request, b"")
    }

    pub fn receive(&self, release: &str) -> Reply {
        let payload = payload(release);
        self.ssh(&[], &Site::receive_command(release, &payload), &payload)
    }
}

/// Gives a directory and everything below it to the account.
fn give(path: &Path, account: &Account) {
    chown(path, Some(account.uid), Some(account.gid)).expect("given away");
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("a directory") {
            give(&entry.expect("an entry").path(), account);
        }
    }
}

/// Lists everything below `path`, with its owner.
fn owners(path: &Path, found: &mut String) {
    let meta = fs::symlink_metadata(path).expect("it is there");
    let _ = writeln!(found, "{} {}", meta.uid(), path.display());
    if meta.is_dir() {
        for entry in fs::read_dir(path).expect("a directory") {
            owners(&entry.expect("an entry").path(), found);
        }
    }
}

#[test]
fn every_verb_works_as_the_account() {
    let Some(installation) = Installation::create() else {
        return;
    };
    let site = &installation.site;
    // sshd requires that a login shell exists and is executable, not that
    // /etc/shells lists it.
    let shells = fs::read_to_string("/etc/shells").unwrap_or_default();
    assert!(!shells.contains("deploy-shell"), "{shells}");
    installation.drop_in();

    for release in ["a", "b"] {
        let reply = installation.receive(release).ok();
        assert!(
            reply.starts_with(&format!("ok receive {release} ")),
            "{reply}"
        );
        let reply = installation.request(&format!("swap {release}")).ok();
        assert!(reply.starts_with(&format!("ok swap {release} ")), "{reply}");
        assert_eq!(site.current().as_deref(), Some(release));
    }
    assert_eq!(
        installation.request("rollback").ok(),
        "ok rollback a previous=b\n"
    );
    let listed = installation.request("list").ok();
    assert!(
        listed.starts_with("RELEASE") && listed.contains("current"),
        "{listed}"
    );

    // The account did that, in the full sandbox.
    let mut found = String::new();
    owners(site.root(), &mut found);
    let own = format!("{} ", installation.account.uid);
    assert!(found.lines().all(|line| line.starts_with(&own)), "{found}");
    assert!(found.contains("releases/b/assets/app.js"), "{found}");
    for line in record(site) {
        let said = Fields::read(&line);
        said.has(&[("key", "ci")]);
        if said.get("event") == Some("result") {
            said.has(&[("sandbox", "full"), ("outcome", "ok")]);
        }
    }

    installation.keys(&format!(
        "restrict,command=\"{} --allow list\"",
        installation.serve()
    ));
    installation.request("list").ok();
    installation.request("swap b").refused(77, "denied");
    installation.receive("c").refused(77, "denied");
}

/// What an attacker can write who executes code as the account.
#[test]
fn the_account_can_write_its_releases_and_nothing_that_limits_it() {
    let Some(installation) = Installation::create() else {
        return;
    };
    let site = &installation.site;
    installation.receive("a").ok();
    installation.request("swap a").ok();

    let dir = site.dir().display();
    let before = fs::read(site.config_path()).expect("the configuration");
    for script in [
        format!("echo 'keep = 0' >> {dir}/blog.toml"),
        format!(": > {dir}/blog.toml"),
        format!("rm -f {dir}/blog.toml"),
        format!("mv {dir}/blog.toml {dir}/old.toml"),
        format!("echo x > {dir}/other.toml"),
        format!("chmod 0666 {dir}/blog.toml"),
        format!("ln {dir}/blog.toml {dir}/root/blog.toml"),
        format!("echo x >> {dir}/authorized_keys"),
        format!("echo x >> {dir}/sshd_config"),
        format!("echo x >> {dir}/bin/deploy-shell"),
        format!("mkdir {dir}/home/.ssh"),
        format!("echo x > {dir}/home/.profile"),
        format!("cat {dir}/host_key"),
        format!("cat {dir}/key-ci"),
    ] {
        assert!(!installation.account.shell(&script), "{script}");
    }
    assert_eq!(fs::read(site.config_path()).expect("readable"), before);
    // The same shell can write what the account owns.
    for script in [
        format!("cat {dir}/blog.toml > /dev/null"),
        format!("echo x >> {dir}/root/releases/a/index.html"),
        format!("echo x >> {dir}/root/.deploy-shell/journal.jsonl"),
    ] {
        assert!(installation.account.shell(&script), "{script}");
    }
}

/// Requests that a client may send with a key that has no `command=`.
fn requests(installation: &Installation) -> Vec<String> {
    let serve = installation.serve();
    let program = installation.program.display();
    let config = installation.site.config_path().display();
    [
        "id",
        "/bin/sh",
        "sh -c id",
        "list",
        "swap a",
        "rollback",
        "scp -t /tmp",
        "scp -f /etc/passwd",
        "rsync --server --sender -logDtpr . /etc",
        "git-upload-pack '/srv/repository'",
        "/usr/lib/openssh/sftp-server",
        "internal-sftp",
        "SSH_ORIGINAL_COMMAND=list",
    ]
    .map(str::to_owned)
    .into_iter()
    .chain([
        serve.clone(),
        format!("{serve} --allow list"),
        format!("SSH_ORIGINAL_COMMAND=list {serve}"),
        format!("env SSH_ORIGINAL_COMMAND=list {serve}"),
        format!("exec {serve}"),
        format!("{serve}; id"),
        format!("{serve} list"),
        format!("{program} -c '{serve}'"),
        format!("{program} check --config {config}"),
        format!("{program} init --config /tmp/never.toml --root /tmp/never"),
        format!("{program} unpack"),
        format!("{program} --help"),
    ])
    .collect()
}

#[test]
fn a_key_without_a_command_gets_nothing() {
    let Some(installation) = Installation::create() else {
        return;
    };
    let site = &installation.site;
    installation.receive("a").ok();
    installation.keys("");
    // sshd allows everything here, so only the login shell refuses.
    installation.sshd(|text| {
        let (subsystem, server) = ("internal-sftp", "/usr/lib/openssh/sftp-server");
        assert!(text.contains(subsystem));
        text.replace(subsystem, server)
    });
    let before = everything(site);
    let recorded = record(site).len();
    let requests = requests(&installation);

    for request in &requests {
        let reply = installation.request(request);
        assert_eq!(reply.code, 64, "{request}: {reply:?}");
        if request.starts_with("scp ") {
            // Its client reads the answer of its own protocol.
            assert!(reply.stdout.starts_with('\u{1}'), "{request}: {reply:?}");
        } else {
            reply.refused(64, "bad-request");
        }
    }
    // The client itself sends the variable that carries a request.
    let variable = ["-o", "SetEnv=SSH_ORIGINAL_COMMAND=list"];
    let reply = installation.ssh(&variable, &installation.serve(), b"");
    reply.refused(64, "bad-request");
    // Without a command, sshd starts a login. Nothing reads the input.
    installation
        .ssh(&[], "", b"id\nlist\n")
        .refused(64, "bad-request");
    // sshd starts the sftp server through the login shell.
    let reply = installation.ssh(&["-s"], "sftp", b"\0\0\0\x05\x01\0\0\0\x03");
    assert_eq!((reply.code, &*reply.stdout), (64, ""), "{reply:?}");

    assert!(everything(site) == before, "something changed");
    // deploy-shell opened no configuration that the client named, so it does not
    // know this site's audit socket; the refusals went to /dev/log.
    assert_eq!(record(site).len(), recorded);
}

/// sshd forwards without the login shell; the drop-in must deny that.
#[test]
fn with_the_drop_in_a_key_without_options_gets_no_forwarding() {
    let Some(installation) = Installation::create() else {
        return;
    };
    let site = &installation.site;
    let lines = [
        ("-W127.0.0.1:22", "administratively prohibited"),
        ("-R0:127.0.0.1:22", "remote port forwarding failed"),
        ("-R/tmp/never:127.0.0.1:22", "remote port forwarding failed"),
    ];
    let refused = |what: &str| {
        for (forward, message) in lines {
            let options = ["-v", "-o", "ExitOnForwardFailure=yes", forward];
            let reply = installation.ssh(&options, "", b"");
            assert_eq!(reply.code, 255, "{what}: {forward}: {reply:?}");
            assert_eq!(reply.stdout, "", "{what}: {forward}: {reply:?}");
            assert!(
                reply.stderr.contains(message),
                "{what}: {forward}: {reply:?}"
            );
        }
    };
    installation.keys("restrict");
    refused("restrict alone");
    installation.drop_in();
    installation.keys("");
    refused("the drop-in alone");

    let reply = installation.ssh(&["-tt"], "", b"");
    assert_eq!(reply.code, 255, "{reply:?}");
    assert!(
        reply.stderr.contains("PTY allocation request failed"),
        "{reply:?}"
    );
    let variable = ["-o", "SetEnv=SSH_ORIGINAL_COMMAND=list"];
    let reply = installation.ssh(&variable, &installation.serve(), b"");
    reply.refused(64, "bad-request");
    assert!(site.releases().is_empty());
}

/// A forced command that is no `serve` does not run: the login shell refuses it.
#[test]
fn a_foreign_forced_command_does_not_run() {
    let Some(installation) = Installation::create() else {
        return;
    };
    let program = installation.program.display().to_string();
    for command in [
        "id".to_owned(),
        "/bin/sh".to_owned(),
        "rsync --server . /".to_owned(),
        "/usr/lib/openssh/sftp-server".to_owned(),
        format!("/bin/sh -c '{}'", installation.serve()),
        format!(
            "{program} check --config {}",
            installation.site.config_path().display()
        ),
        format!("{program} list"),
        program,
    ] {
        installation.keys(&format!("restrict,command=\"{command}\""));
        let reply = installation.request("list");
        assert_eq!(reply.code, 64, "{command}: {reply:?}");
        reply.refused(64, "bad-request");
    }
}
