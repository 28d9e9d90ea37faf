//! `deploy-shell` as the login shell, and the answers to other clients than `ssh`
//! and to sessions without a request.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use crate::site::{BIN, Reply, Site, write_file};

/// Runs the login shell as sshd starts it for a forced command.
fn login_shell(site: &Site, args: &[&str], request: Option<&str>) -> Reply {
    let mut command = Command::new(BIN);
    command.env_clear().arg0("deploy-shell").args(args);
    if let Some(request) = request {
        command.env("SSH_ORIGINAL_COMMAND", request);
    }
    site.run(command, b"")
}

fn serve(site: &Site) -> String {
    format!(
        "{BIN} serve --config {} --key ci",
        site.config_path().display()
    )
}

#[test]
fn the_forced_command_is_served() {
    let site = Site::new();
    let line = serve(&site);
    let listed = login_shell(&site, &["-c", &line], Some("list")).ok();
    assert!(listed.starts_with("RELEASE"), "{listed}");
    // Its grants and its label apply as without a login shell.
    let line = format!("{line} --allow list");
    let reply = login_shell(&site, &["-c", &line], Some("rollback"));
    reply.refused(77, "denied");
    let audited = site.audit_lines();
    assert!(
        audited.iter().all(|line| line.contains("key=\"ci\"")),
        "{audited:?}"
    );
}

#[test]
fn anything_but_a_serve_command_line_is_refused() {
    let site = Site::new();
    let before = site.snapshot();
    let good = serve(&site);
    let config = site.config_path().display();
    for line in [
        String::new(),
        " ".into(),
        "ls".into(),
        "/bin/sh".into(),
        "list".into(),
        BIN.into(),
        format!("{BIN} --help"),
        format!("{BIN} --version"),
        format!("{BIN} -c '{good}'"),
        format!("{BIN} init --config /tmp/never.toml --root /tmp/never"),
        format!("{BIN} authorize --config {config} --key x"),
        format!("/bin/sh serve --config {config} --key ci"),
        format!("env {good}"),
        format!("exec {good}"),
        format!("X=1 {good}"),
        format!("{good} '"),
        "scp".into(),
        "rsync --server . /".into(),
        "git-upload-pack '/srv/x'".into(),
        "internal-sftp".into(),
        "x".repeat(100_000),
    ] {
        let reply = login_shell(&site, &["-c", &line], Some("list"));
        let shown: String = line.chars().take(200).collect();
        assert_eq!(reply.code, 64, "{shown:?}: {reply:?}");
        reply.refused(64, "bad-request");
    }
    assert_eq!(site.snapshot(), before);
}

#[test]
fn the_operators_commands_name_the_operators_program() {
    let site = Site::new();
    let before = site.snapshot();
    for command in ["init", "authorize", "check", "verify"] {
        for arguments in [&[command][..], &[command, "--site", "blog"]] {
            let reply = login_shell(&site, arguments, None);
            assert_eq!((reply.code, &*reply.stdout), (64, ""), "{reply:?}");
            let expected = format!(
                "deploy-shell: bad-request: '{command}' is a command of deploy-shell-admin\n"
            );
            assert_eq!(reply.stderr, expected);
        }
        // A client gets no such hint.
        let line = format!("{BIN} {command} --site blog");
        let reply = login_shell(&site, &["-c", &line], Some("list"));
        reply.refused(64, "bad-request");
        assert!(!reply.stderr.contains("admin"), "{reply:?}");
    }
    assert_eq!(site.snapshot(), before);
}

#[test]
fn help_is_for_the_operator_only() {
    let site = Site::new();
    for word in ["--help", "-h", "help"] {
        let text = login_shell(&site, &[word], None).ok();
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.contains("deploy-shell(1)"), "{text}");
        assert!(text.contains("deploy-shell-admin"), "{text}");
        let line = format!("{BIN} {word}");
        let reply = login_shell(&site, &["-c", &line], Some("list"));
        reply.refused(64, "bad-request");
    }
}

/// The forced command itself is wrong, which may also count as the operator's
/// mistake (78). Nothing is served, printed or executed.
#[test]
fn an_invalid_serve_command_line_is_refused() {
    let site = Site::new();
    let before = site.snapshot();
    let good = serve(&site);
    let config = site.config_path().display();
    for line in [
        format!("{BIN} serve"),
        format!("{good}; id"),
        format!("{good} list"),
        format!("{good} --key boss"),
        format!("{good} --allow"),
        format!("{good} --allow everything"),
        format!("{good} --site other"),
        format!("{good} --unknown"),
        format!("{BIN} serve --conf {config} --key ci"),
        format!("{BIN} serve --config {config} --key 'a b'"),
        format!("{good} && id"),
        format!("{good} | id"),
        format!("{good} > /tmp/never"),
        format!("{good}\nid"),
        format!("{good} $(id)"),
        format!("{good} `id`"),
        format!("{BIN} serve --help"),
    ] {
        let reply = login_shell(&site, &["-c", &line], Some("list"));
        assert!(matches!(reply.code, 64 | 78), "{line:?}: {reply:?}");
        let word = if reply.code == 64 {
            "bad-request"
        } else {
            "bad-config"
        };
        reply.refused(reply.code, word);
    }
    assert_eq!(site.snapshot(), before);
}

/// With a key without `command=` the client writes the line itself. sshd then sets
/// no `SSH_ORIGINAL_COMMAND`, and every line is refused.
#[test]
fn without_a_forced_command_every_request_is_refused() {
    let site = Site::new();
    let line = serve(&site);
    login_shell(&site, &["-c", &line], None).refused(64, "bad-request");
    for args in [
        &["-c"][..],
        &["-c", &line, "more"],
        &["-lc", &line],
        &["-i"],
        &["-"],
        &["-s"],
    ] {
        let reply = login_shell(&site, args, Some("list"));
        assert_eq!(
            (reply.code, &*reply.stdout),
            (64, ""),
            "{args:?}: {reply:?}"
        );
    }
    // An interactive login: the shell's name with a dash, and no arguments.
    let mut command = Command::new(BIN);
    command.env_clear().arg0("-deploy-shell");
    site.run(command, b"list\nid\n").refused(64, "bad-request");
}

/// Returns a program for other clients to run: `ssh` with the harness's options.
pub fn wrapper(site: &Site) -> (PathBuf, String) {
    let command = site.ssh_command("ci");
    let mut words: Vec<&str> = command
        .get_args()
        .map(|word| word.to_str().expect("UTF-8"))
        .collect();
    let destination = words.pop().expect("the destination").to_owned();
    let words = shell_words::join(words);
    let text = format!(
        "#!/bin/sh\nunset SSH_AUTH_SOCK\nSHELL=/bin/sh exec ssh {} \"$@\"\n",
        words
    );
    let path = site.dir().join("ssh");
    write_file(&path, 0o755, text.as_bytes());
    (path, destination)
}

/// Checks that the client fails and prints one of `said`, and that the audit log has
/// one line about it.
#[track_caller]
fn assert_rejected(site: &Site, command: Command, said: &[&str]) {
    let shown = format!("{command:?}");
    let heard = site.audit_lines().len();
    let reply = site.run(command, b"");
    assert_ne!(reply.code, 0, "{shown}: {reply:?}");
    let times = |text: &&str| reply.stderr.matches(*text).count();
    assert_eq!(
        said.iter().map(times).sum::<usize>(),
        1,
        "{shown}: {reply:?}"
    );
    let audited = site.audit_lines().split_off(heard);
    assert_eq!(audited.len(), 1, "{shown}: {audited:?}");
    assert!(audited[0].contains("exit=\"64\""), "{shown}: {audited:?}");
}

/// The messages that clients show. sshd drops the stderr of a subsystem, so sftp,
/// and scp, which uses sftp, only see that the connection closed.
const REFUSED: &[&str] = &["deploy-shell: bad-request: "];
const DROPPED: &[&str] = &["deploy-shell: bad-request: ", "Connection closed"];

#[test]
fn other_clients_are_rejected() {
    let site = Site::new();
    site.receive(
        "20260412-142033",
        &crate::archive::tarball(&[("index.html", b"one")]),
    )
    .ok();
    let before = site.snapshot();
    let (ssh, host) = wrapper(&site);
    let client = |name: &str| Command::new(name);
    let stolen = site.dir().join("stolen");
    let from = format!("{host}:/etc/passwd");
    let to = format!("{host}:{}/planted", site.dir().display());

    let mut sftp = client("sftp");
    sftp.arg("-S").arg(&ssh).args(["-b", "/dev/null", &host]);
    assert_rejected(&site, sftp, DROPPED);
    let mut scp = client("scp");
    scp.arg("-S").arg(&ssh).arg(&from).arg(&stolen);
    assert_rejected(&site, scp, DROPPED);
    let mut scp = client("scp");
    scp.arg("-S").arg(&ssh).arg(site.config_path()).arg(&to);
    assert_rejected(&site, scp, DROPPED);
    let mut rsync = client("rsync");
    rsync.arg("-e").arg(&ssh).args(["-a", &from]).arg(&stolen);
    assert_rejected(&site, rsync, REFUSED);
    let mut rsync = client("rsync");
    rsync
        .arg("-e")
        .arg(&ssh)
        .arg("-a")
        .arg(site.config_path())
        .arg(&to);
    assert_rejected(&site, rsync, REFUSED);
    let mut git = client("git");
    git.args(["clone", "-q", &format!("ssh://{host}/srv/repository")]);
    git.arg(&stolen)
        .env("GIT_SSH", &ssh)
        .env("GIT_SSH_VARIANT", "ssh");
    assert_rejected(&site, git, REFUSED);

    assert!(!stolen.exists());
    assert!(!site.dir().join("planted").exists());
    assert_eq!(site.snapshot(), before);
}

#[test]
fn the_requests_of_other_clients_are_bad_requests() {
    let site = Site::new();
    for request in [
        "internal-sftp",
        "/usr/lib/openssh/sftp-server",
        "scp",
        "rsync --server --sender -logDtpre.iLsfxC . /etc",
        "git-upload-pack '/srv/repository'",
        "git-receive-pack '/srv/repository'",
        "git-shell",
        "bash",
        "true",
    ] {
        site.ssh("ci", request).refused(64, "bad-request");
    }
}

#[test]
fn a_login_without_a_command_is_a_bad_request() {
    let site = Site::new();
    let reply = site.run(site.ssh_command("ci"), b"");
    reply.refused(64, "bad-request");
    assert_eq!(site.audit_lines().len(), 1);
    // Typed lines are not read as requests either.
    let reply = site.run(site.ssh_command("ci"), b"list\nexit\n");
    reply.refused(64, "bad-request");
    assert!(
        fs::read_dir(site.root().join("releases"))
            .expect("a directory")
            .next()
            .is_none()
    );
}
