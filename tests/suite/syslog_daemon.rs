//! The audit log as a real rsyslogd parses it: RFC 5424 from a separate socket,
//! and the local format from `/dev/log`.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};

use crate::archive::tarball;
use crate::audit_socket::{bind, site};
use crate::process::{Running, copy_program, daemon, eventually};
use crate::site::{BIN, Reply, Site};

/// A syslog daemon that listens at `{dir}/other` and writes to `{dir}/written`.
struct Rsyslogd {
    _process: Running,
}

impl Rsyslogd {
    /// `input` configures how rsyslogd reads the socket.
    fn start(site: &Site, input: &str) -> Rsyslogd {
        let dir = site.dir().to_str().expect("a plain path");
        let properties = [
            "programname",
            "syslogfacility-text",
            "syslogseverity-text",
            "procid",
            "msg",
        ];
        let template: Vec<String> = properties
            .iter()
            .map(|name| format!("property(name=\"{name}\")"))
            .collect();
        let template = template.join(" constant(value=\"|\") ");
        let config = format!(
            "module(load=\"imuxsock\" SysSock.Use=\"off\")\n\
             template(name=\"taken-apart\" type=\"list\") {{ {template} constant(value=\"\\n\") }}\n\
             input(type=\"imuxsock\" Socket=\"{dir}/other\" RateLimit.Interval=\"0\" {input})\n\
             action(type=\"omfile\" file=\"{dir}/written\" template=\"taken-apart\")\n"
        );
        fs::write(site.dir().join("rsyslog.conf"), config).expect("its configuration");
        // A copy, because AppArmor confines the program by its path on some
        // distributions, to directories that do not include ours.
        let program = site.dir().join("rsyslogd");
        copy_program(daemon("rsyslogd"), &program);
        let process = Command::new(&program)
            .args(["-n", "-f", "rsyslog.conf", "-i"])
            .arg(site.dir().join("rsyslogd.pid"))
            .current_dir(site.dir())
            .stdin(Stdio::null())
            .spawn()
            .expect("rsyslogd starts");
        let process = Running(process);
        let socket = site.dir().join("other");
        eventually("rsyslogd listens", || {
            let probe = UnixDatagram::unbound().expect("a socket");
            probe.connect(&socket).is_ok()
        });
        Rsyslogd { _process: process }
    }
}

/// Returns the properties that rsyslogd parsed from the lines that contain `mark`.
fn written(site: &Site, mark: &str, count: usize) -> Vec<Vec<String>> {
    let path = site.dir().join("written");
    let mut found = Vec::new();
    eventually("rsyslogd writes", || {
        let text = fs::read_to_string(&path).unwrap_or_default();
        let lines = text.lines().filter(|line| line.contains(mark));
        found = lines
            .map(|line| line.splitn(5, '|').map(str::to_owned).collect())
            .collect();
        found.len() >= count
    });
    found
}

#[track_caller]
fn arrived_whole(lines: &[Vec<String>], request: &str) {
    for line in lines {
        assert_eq!(line[..3], ["deploy-shell", "authpriv", "info"], "{line:?}");
        assert!(line[3].parse::<u32>().is_ok(), "{line:?}");
    }
    let (first, second) = (lines[0][4].trim_start(), lines[1][4].trim_start());
    assert!(
        first.starts_with("event=\"request\" site=\"blog\" key=\"ci\" "),
        "{first}"
    );
    assert!(
        first.contains(&format!(" request=\"{request}\"")),
        "{first}"
    );
    assert!(first.contains(" decision=\"allowed\""), "{first}");
    assert!(second.starts_with("event=\"result\" "), "{second}");
    assert!(second.ends_with('"'), "{second}");
}

#[test]
fn a_real_rsyslogd_parses_the_lines() {
    let site = site(true);
    // As rsyslog documents for senders of RFC 5424.
    let _daemon = Rsyslogd::start(&site, "UseSpecialParser=\"off\" ParseHostname=\"on\"");
    let payload = tarball(&[("a", b"1")]);
    site.receive("r1", &payload).ok();
    let lines = written(&site, "event=", 2);
    assert_eq!(lines.len(), 2, "{lines:?}");
    arrived_whole(&lines, &Site::receive_command("r1", &payload));
}

/// Returns `program` in a new mount namespace where `/dev/log` is `{dir}/other`.
/// Returns none and prints the reason if this machine allows no such namespace.
fn behind_dev_log(site: &Site, program: &[&str]) -> Option<Command> {
    // Only what a program may need: the socket and /dev/null.
    let script = "mkdir -p \"$0.dev\" && mount -t tmpfs -o mode=755 none \"$0.dev\" && \
                  : > \"$0.dev/null\" && mount --bind /dev/null \"$0.dev/null\" && \
                  ln -s \"$0\" \"$0.dev/log\" && mount --rbind \"$0.dev\" /dev && \
                  exec \"$@\"";
    let apart = |program: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script]);
        command.arg(site.dir().join("other")).args(program);
        command
    };
    let trial = site.run(apart(&["true"]), b"");
    if trial.code != 0 {
        println!("skipped: no mount namespace: {}", trial.stderr.trim_end());
        return None;
    }
    Some(apart(program))
}

/// Sends one request to a site whose audit log goes to the path `/dev/log`.
fn serve_behind_dev_log(site: &Site, request: &str, input: &[u8]) -> Option<Reply> {
    let config = site.config_path().to_str().expect("a plain path");
    let program = [BIN, "serve", "--key", "ci", "--config", config];
    let mut command = behind_dev_log(site, &program)?;
    command.env("SSH_ORIGINAL_COMMAND", request);
    Some(site.run(command, input))
}

/// With rsyslogd's default input.
#[test]
fn a_real_rsyslogd_behind_dev_log_parses_the_lines() {
    let site = Site::with_config("[audit]\nsocket = \"/dev/log\"\n");
    let _daemon = Rsyslogd::start(&site, "");
    let payload = tarball(&[("a", b"1")]);
    let request = Site::receive_command("r1", &payload);
    let Some(reply) = serve_behind_dev_log(&site, &request, &payload) else {
        return;
    };
    reply.ok();
    let lines = written(&site, "event=", 2);
    assert_eq!(lines.len(), 2, "{lines:?}");
    arrived_whole(&lines, &request);
}

/// The local format has no host and no year; every syslogd parses it.
#[test]
fn dev_log_gets_the_local_format() {
    let site = Site::with_config("[audit]\nsocket = \"/dev/log\"\n");
    let socket = bind(&site);
    let Some(reply) = serve_behind_dev_log(&site, "list", b"") else {
        return;
    };
    reply.ok();
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer).expect("a line");
    let line = String::from_utf8_lossy(&buffer[..length]).into_owned();
    let date = line.strip_prefix("<86>").and_then(|rest| rest.get(..15));
    let date = date.unwrap_or_else(|| panic!("no priority and date: {line}"));
    // A leap year, because the format has no year and February may have 29 days.
    let dated = format!("2028 {date}");
    jiff::civil::DateTime::strptime("%Y %b %e %H:%M:%S", &dated).expect("a date");
    let rest = &line["<86>".len() + 15..];
    let (tag, text) = rest.split_once(": ").expect("a tag");
    assert!(tag.starts_with(" deploy-shell["), "{line}");
    assert!(tag.ends_with(']'), "{line}");
    assert!(
        text.starts_with("event=\"request\" site=\"blog\""),
        "{line}"
    );
}
