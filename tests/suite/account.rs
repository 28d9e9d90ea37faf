//! A deploy user as the README makes one: a real account in /etc/passwd whose
//! login shell is this program, whose home is root's, which has no password.
//! Only root can make one, so an ordinary user's run skips these tests.
//!
//! What the tests of the forced command show as the user who runs them is
//! shown here from another user, with the kernel's own walls in between.

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

/// An entry in /etc/passwd, gone when its test ends, however it ends.
struct Account {
    name: String,
    uid: u32,
    gid: u32,
}

/// useradd and userdel lock the file, and give up where it is locked.
static PASSWD: Mutex<()> = Mutex::new(());

impl Account {
    fn make(home: &Path, shell: &Path) -> Account {
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
        // From here on there is something to remove, be it half of one.
        let mut account = Account {
            name,
            uid: u32::MAX,
            gid: u32::MAX,
        };
        assert!(patiently(useradd), "useradd fails");
        let entry = User::from_name(&account.name);
        let entry = entry.expect("readable").expect("the account is there");
        assert_eq!(entry.shell, shell);
        (account.uid, account.gid) = (entry.uid.as_raw(), entry.gid.as_raw());
        account
    }

    /// A shell as this user: what somebody could do who has got one elsewhere.
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
        if !patiently(userdel) {
            let mut userdel = Command::new(daemon("userdel"));
            let _ = userdel.args(["--force", &self.name]).status();
        }
    }
}

/// Runs a command that may find the user database locked, or the account in
/// use by an sshd that is just ending.
fn patiently(mut command: Command) -> bool {
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

/// A site that belongs to an account of its own; all else belongs to root.
/// The account is first, so that it goes while the site's folder still stands.
struct Ground {
    account: Account,
    site: Site,
    program: PathBuf,
}

impl Ground {
    /// None where we are not root.
    fn make() -> Option<Ground> {
        if !Uid::effective().is_root() {
            println!("skipped: only root can make an account");
            return None;
        }
        let site = Site::new();
        let folder = |name: &str| {
            let path = site.dir().join(name);
            fs::create_dir(&path).expect("a folder");
            crate::site::set_mode(&path, 0o755);
            path
        };
        // The build may stand where another user cannot reach it.
        let program = folder("bin").join("deploy-shell");
        copy_program(BIN, &program);
        crate::site::set_mode(&program, 0o755);
        let account = Account::make(&folder("home"), &program);
        give(site.root(), &account);
        let ground = Ground {
            account,
            site,
            program,
        };
        ground.keys(&format!("restrict,command=\"{}\"", ground.serve()));
        Some(ground)
    }

    /// The forced command of the key, as `authorize` prints it.
    fn serve(&self) -> String {
        let config = self.site.config_path().display();
        format!(
            "{} serve --config {config} --key ci",
            self.program.display()
        )
    }

    /// The one key there is, with these options.
    fn keys(&self, options: &str) {
        let public = fs::read_to_string(self.site.dir().join("key-ci.pub")).expect("the key");
        let line = format!("{options} {public}");
        let path = self.site.dir().join("authorized_keys");
        write_file(&path, 0o644, line.trim_start().as_bytes());
    }

    /// Edits the server's configuration.
    fn sshd(&self, edit: impl FnOnce(String) -> String) {
        let path = self.site.dir().join("sshd_config");
        let text = fs::read_to_string(&path).expect("the configuration");
        write_file(&path, 0o644, edit(text).as_bytes());
    }

    /// Puts the drop-in before the server's own settings.
    fn drop_in(&self) {
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
        // By Include, which ends its Match block with its file.
        let path = self.site.dir().join("drop-in.conf");
        write_file(&path, 0o644, ours.as_bytes());
        self.sshd(|rest| format!("Include {}\n{rest}", path.display()));
    }

    /// `ssh` to the account, up to and including the destination.
    fn ssh_command(&self, options: &[&str]) -> Command {
        let harness = self.site.ssh_command("ci");
        let mut words: Vec<_> = harness.get_args().collect();
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

    fn ask(&self, request: &str) -> Reply {
        self.ssh(&[], request, b"")
    }

    fn receive(&self, release: &str) -> Reply {
        let payload = payload(release);
        self.ssh(&[], &Site::receive_command(release, &payload), &payload)
    }
}

/// The folder and all below it, to the account.
fn give(path: &Path, account: &Account) {
    chown(path, Some(account.uid), Some(account.gid)).expect("given away");
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("a folder") {
            give(&entry.expect("an entry").path(), account);
        }
    }
}

/// Everything below `path`, with its owner.
fn owners(path: &Path, found: &mut String) {
    let meta = fs::symlink_metadata(path).expect("it is there");
    let _ = writeln!(found, "{} {}", meta.uid(), path.display());
    if meta.is_dir() {
        for entry in fs::read_dir(path).expect("a folder") {
            owners(&entry.expect("an entry").path(), found);
        }
    }
}

#[test]
fn every_verb_works_as_the_account() {
    let Some(ground) = Ground::make() else { return };
    let site = &ground.site;
    // sshd asks of a login shell that it is there and can be executed, and
    // not that /etc/shells lists it.
    let shells = fs::read_to_string("/etc/shells").unwrap_or_default();
    assert!(!shells.contains("deploy-shell"), "{shells}");
    ground.drop_in();

    for release in ["a", "b"] {
        let said = ground.receive(release).ok();
        assert!(
            said.starts_with(&format!("ok receive {release} ")),
            "{said}"
        );
        let said = ground.ask(&format!("swap {release}")).ok();
        assert!(said.starts_with(&format!("ok swap {release} ")), "{said}");
        assert_eq!(site.current().as_deref(), Some(release));
    }
    assert_eq!(ground.ask("rollback").ok(), "ok rollback a previous=b\n");
    let listed = ground.ask("list").ok();
    assert!(
        listed.starts_with("RELEASE") && listed.contains("current"),
        "{listed}"
    );

    // Done by that user, and with the whole confinement on.
    let mut found = String::new();
    owners(site.root(), &mut found);
    let own = format!("{} ", ground.account.uid);
    assert!(found.lines().all(|line| line.starts_with(&own)), "{found}");
    assert!(found.contains("releases/b/assets/app.js"), "{found}");
    for line in record(site) {
        let said = Fields::read(&line);
        said.has(&[("key", "ci")]);
        if said.get("event") == Some("result") {
            said.has(&[("sandbox", "full"), ("outcome", "ok")]);
        }
    }

    ground.keys(&format!(
        "restrict,command=\"{} --allow list\"",
        ground.serve()
    ));
    ground.ask("list").ok();
    ground.ask("swap b").refused(77, "denied");
    ground.receive("c").refused(77, "denied");
}

/// What the account itself may write, should somebody run code as it.
#[test]
fn the_account_owns_its_releases_and_nothing_that_rules_it() {
    let Some(ground) = Ground::make() else { return };
    let site = &ground.site;
    ground.receive("a").ok();
    ground.ask("swap a").ok();

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
        assert!(!ground.account.shell(&script), "{script}");
    }
    assert_eq!(fs::read(site.config_path()).expect("readable"), before);
    // The same shell can do what the account owns: this is no wall against it.
    for script in [
        format!("cat {dir}/blog.toml > /dev/null"),
        format!("echo x >> {dir}/root/releases/a/index.html"),
        format!("echo x >> {dir}/root/.deploy-shell/journal.jsonl"),
    ] {
        assert!(ground.account.shell(&script), "{script}");
    }
}

/// Everything a client may send with a key that has no `command=`.
fn requests(ground: &Ground) -> Vec<String> {
    let serve = ground.serve();
    let program = ground.program.display();
    let config = ground.site.config_path().display();
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
    let Some(ground) = Ground::make() else { return };
    let site = &ground.site;
    ground.receive("a").ok();
    ground.keys("");
    // A server that allows whatever it can: what is refused here the login
    // shell alone refuses.
    ground.sshd(|text| {
        let (subsystem, server) = ("internal-sftp", "/usr/lib/openssh/sftp-server");
        assert!(text.contains(subsystem));
        text.replace(subsystem, server)
    });
    let before = everything(site);
    let heard = record(site).len();
    let requests = requests(&ground);

    for request in &requests {
        let reply = ground.ask(request);
        assert_eq!(reply.code, 64, "{request}: {reply:?}");
        reply.refused(64, "bad-request");
    }
    // The variable by which a request comes, sent by the client.
    let variable = ["-o", "SetEnv=SSH_ORIGINAL_COMMAND=list"];
    let reply = ground.ssh(&variable, &ground.serve(), b"");
    reply.refused(64, "bad-request");
    // No command, so a login. What is typed is read by nobody.
    ground
        .ssh(&[], "", b"id\nlist\n")
        .refused(64, "bad-request");
    // sftp by its own server, which sshd starts through the login shell.
    let reply = ground.ssh(&["-s"], "sftp", b"\0\0\0\x05\x01\0\0\0\x03");
    assert_eq!((reply.code, &*reply.stdout), (64, ""), "{reply:?}");

    assert!(everything(site) == before, "something changed");
    // No configuration was opened on the client's word, so none says where the
    // record of this site goes; the refusals went to /dev/log.
    assert_eq!(record(site).len(), heard);
}

/// sshd forwards without asking the login shell; that is the drop-in's part.
#[test]
fn with_the_drop_in_a_bare_key_gets_no_forwarding_either() {
    let Some(ground) = Ground::make() else { return };
    let site = &ground.site;
    let lines = [
        ("-W127.0.0.1:22", "administratively prohibited"),
        ("-R0:127.0.0.1:22", "remote port forwarding failed"),
        ("-R/tmp/never:127.0.0.1:22", "remote port forwarding failed"),
    ];
    let refused = |what: &str| {
        for (forward, said) in lines {
            let options = ["-v", "-o", "ExitOnForwardFailure=yes", forward];
            let reply = ground.ssh(&options, "", b"");
            assert_eq!(reply.code, 255, "{what}: {forward}: {reply:?}");
            assert_eq!(reply.stdout, "", "{what}: {forward}: {reply:?}");
            assert!(reply.stderr.contains(said), "{what}: {forward}: {reply:?}");
        }
    };
    ground.keys("restrict");
    refused("restrict alone");
    ground.drop_in();
    ground.keys("");
    refused("the drop-in alone");

    let reply = ground.ssh(&["-tt"], "", b"");
    assert_eq!(reply.code, 255, "{reply:?}");
    assert!(
        reply.stderr.contains("PTY allocation request failed"),
        "{reply:?}"
    );
    let variable = ["-o", "SetEnv=SSH_ORIGINAL_COMMAND=list"];
    let reply = ground.ssh(&variable, &ground.serve(), b"");
    reply.refused(64, "bad-request");
    assert!(site.releases().is_empty());
}

/// A forced command that is not ours does not run: the login shell is asked to
/// run it.
#[test]
fn a_foreign_forced_command_does_not_run() {
    let Some(ground) = Ground::make() else { return };
    let program = ground.program.display().to_string();
    for command in [
        "id".to_owned(),
        "/bin/sh".to_owned(),
        "rsync --server . /".to_owned(),
        "/usr/lib/openssh/sftp-server".to_owned(),
        format!("/bin/sh -c '{}'", ground.serve()),
        format!(
            "{program} check --config {}",
            ground.site.config_path().display()
        ),
        format!("{program} list"),
        program,
    ] {
        ground.keys(&format!("restrict,command=\"{command}\""));
        let reply = ground.ask("list");
        assert_eq!(reply.code, 64, "{command}: {reply:?}");
        reply.refused(64, "bad-request");
    }
}
