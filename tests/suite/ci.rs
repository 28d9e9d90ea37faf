//! `packaging/ci`: runs the unchanged scripts of the workflows against a real sshd.
//! The key, the host key and the node come as a pipeline gives them. Nothing tests
//! the forges themselves (queues, environments, protected variables).

use std::fs;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::archive::tarball;
use crate::site::{Reply, Site, generate_key, write_file};

const GITHUB_DEPLOY: &str = include_str!("../../packaging/ci/github/deploy.yml");
const GITHUB_ROLLBACK: &str = include_str!("../../packaging/ci/github/rollback.yml");
const GITLAB_DEPLOY: &str = include_str!("../../packaging/ci/gitlab/deploy.yml");
const GITLAB_ROLLBACK: &str = include_str!("../../packaging/ci/gitlab/rollback.yml");

const RELEASE: &str = include_str!("../../.github/workflows/release.yml");

/// The Python of Debian, which has a YAML parser.
const PYTHON: &str = "/usr/bin/python3";

#[derive(Clone, Copy, Debug, PartialEq)]
enum Forge {
    GitHub,
    GitLab,
}

const BOTH: [Forge; 2] = [Forge::GitHub, Forge::GitLab];

impl Forge {
    fn files(self) -> [&'static str; 2] {
        match self {
            Forge::GitHub => [GITHUB_DEPLOY, GITHUB_ROLLBACK],
            Forge::GitLab => [GITLAB_DEPLOY, GITLAB_ROLLBACK],
        }
    }

    /// Returns the script of the job `name`.
    fn script(self, name: &str) -> String {
        let [deploy, rollback] = self.files();
        let file = parse_yaml(if name == "deploy" { deploy } else { rollback });
        let script = match self {
            Forge::GitHub => {
                let steps = file["jobs"][name]["steps"].as_array().expect("steps");
                let step = steps.iter().find(|step| step["name"] == name);
                step.expect("a step of that name")["run"].clone()
            }
            Forge::GitLab => file[name]["script"][0].clone(),
        };
        script.as_str().expect("a script").to_owned()
    }

    /// Runs the script of the job `name`.
    fn run(self, site: &Site, name: &str, release: &str) -> Reply {
        let dir = site.dir();
        let read = |name: &str| fs::read_to_string(dir.join(name)).expect(name);
        let (key, hosts) = match self {
            // As text without the last newline, which a form removes.
            Forge::GitHub => (
                read("key-ci").trim_end().to_owned(),
                read("known_hosts").trim_end().to_owned(),
            ),
            // As files that all can read.
            Forge::GitLab => {
                write_file(&dir.join("variable"), 0o644, read("key-ci").as_bytes());
                let path = |name: &str| dir.join(name).to_str().expect("plain").to_owned();
                (path("variable"), path("known_hosts"))
            }
        };
        let ssh = site.ssh_command("ci");
        let mut command = Command::new("sh");
        command.args(["-ec", &self.script(name)]);
        command.current_dir(dir.join("work"));
        command.env_clear();
        command.env("PATH", format!("{}/bin:/usr/bin:/bin", dir.display()));
        command.env("SHELL", "/bin/sh");
        command.env("TMPDIR", dir.join("temporary"));
        command.env("DEPLOY_KEY", &key);
        command.env("ROLLBACK_KEY", &key);
        command.env("DEPLOY_KNOWN_HOSTS", hosts);
        command.env("DEPLOY_NODE", ssh.get_args().last().expect("user@node"));
        command.env("RELEASE", release);
        command.env("PAUSE", "0");
        command.stdin(Stdio::null());
        site.run(command, b"")
    }
}

/// Returns a file as a YAML parser reads it.
fn parse_yaml(text: &str) -> Value {
    let program = "import json, sys, yaml; json.dump(yaml.safe_load(sys.argv[1]), sys.stdout)";
    let output = Command::new(PYTHON)
        .args(["-c", program, text])
        .output()
        .expect("python starts");
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// Creates a site with something to deploy, and an `ssh` in front of the real one
/// that connects only to the sshd of the harness. While `refuse/` has files, each
/// connection removes one and is refused. A file `lose` suppresses the answer of one
/// swap or rollback.
fn site() -> Site {
    let site = Site::new();
    let dir = site.dir().display();
    for directory in ["bin", "refuse", "temporary", "work/dist"] {
        fs::create_dir_all(site.dir().join(directory)).expect("a directory");
    }
    fs::write(site.dir().join("work/dist/index.html"), "<h1>it works</h1>").expect("a file");
    let proxy = format!(
        "#!/bin/sh\n\
         for token in {dir}/refuse/*; do [ ! -e \"$token\" ] || {{ rm \"$token\"; exit 1; }}; done\n\
         trap '' HUP\n\
         /usr/sbin/sshd -i -f {dir}/sshd_config -E {dir}/sshd.log\n"
    );
    write_file(&site.dir().join("proxy"), 0o755, proxy.as_bytes());
    let ssh = format!(
        "#!/bin/sh\n\
         code=0\n\
         /usr/bin/ssh -F none -o LogLevel=ERROR -o ProxyCommand={dir}/proxy \"$@\" || code=$?\n\
         case \" $* \" in *' swap '* | *' rollback '*) rm {dir}/lose 2> /dev/null && exit 255;; esac\n\
         exit $code\n"
    );
    write_file(&site.dir().join("bin/ssh"), 0o755, ssh.as_bytes());
    site
}

fn stage_and_swap(site: &Site, releases: &[&str]) {
    for release in releases {
        let payload = tarball(&[("index.html", release.as_bytes())]);
        site.receive(release, &payload).ok();
        site.ssh("ci", &format!("swap {release}")).ok();
    }
}

/// Checks that a job left no file, and above all not the key.
#[track_caller]
fn assert_nothing_left(site: &Site) {
    let mut left = fs::read_dir(site.dir().join("temporary")).expect("a directory");
    assert!(left.next().is_none());
}

#[test]
fn a_deploy_deploys() {
    for forge in BOTH {
        let site = site();
        let output = forge.run(&site, "deploy", "").ok();
        let lines: Vec<&str> = output.lines().collect();
        assert_eq!(lines.len(), 2, "{output}");
        assert!(lines[0].starts_with("ok receive "), "{output}");
        assert!(lines[1].starts_with("ok swap "), "{output}");
        // The swap names the payload that this run has sent.
        let (_, sum) = lines[0].split_once(" sha256=").expect("a digest");
        let swap = format!(" --sha256 {}\"", &sum[..64]);
        let audit = site.audit_lines();
        let named = |line: &&String| line.contains("request=\"swap ") && line.contains(&swap);
        assert!(audit.iter().any(|line| named(&line)), "{audit:?}");
        let page = fs::read_to_string(site.root().join("current/index.html"));
        assert_eq!(page.expect("the page"), "<h1>it works</h1>");
        assert_nothing_left(&site);
    }
}

/// A tar that cannot read a file makes an incomplete archive, and nobody reads its
/// message.
#[test]
fn a_failed_tar_sends_nothing() {
    for forge in BOTH {
        let site = site();
        let tar = b"#!/bin/sh\n/usr/bin/tar \"$@\"\nexit 2\n";
        write_file(&site.dir().join("bin/tar"), 0o755, tar);
        let reply = forge.run(&site, "deploy", "");
        assert_eq!(reply.code, 2, "{reply:?}");
        assert!(site.releases().is_empty());
        assert!(site.audit_lines().is_empty());
        assert_nothing_left(&site);
    }
}

#[test]
fn a_deploy_retries() {
    for forge in BOTH {
        let site = site();
        stage_and_swap(&site, &["before"]);
        for token in ["1", "2", "3"] {
            fs::write(site.dir().join("refuse").join(token), "").expect("a file");
        }
        // The swap succeeds, and its answer gets lost.
        fs::write(site.dir().join("lose"), "").expect("a file");
        let reply = forge.run(&site, "deploy", "");
        assert!(reply.stderr.contains("not-current"), "{reply:?}");
        reply.ok();
        assert_ne!(site.current().as_deref(), Some("before"));
        assert_nothing_left(&site);
    }
}

#[test]
fn a_deploy_stops_retrying() {
    for forge in BOTH {
        let site = site();
        for token in ["1", "2", "3", "4", "5"] {
            fs::write(site.dir().join("refuse").join(token), "").expect("a file");
        }
        let reply = forge.run(&site, "deploy", "");
        assert_ne!(reply.code, 0, "{reply:?}");
        assert!(site.releases().is_empty());
        let left = fs::read_dir(site.dir().join("refuse")).expect("a directory");
        assert_eq!(left.count(), 1);
        assert_nothing_left(&site);
    }
}

#[test]
fn a_node_with_another_host_key_gets_nothing() {
    for forge in BOTH {
        let site = site();
        let hosts = fs::read_to_string(site.dir().join("known_hosts")).expect("it is there");
        // The key of another host under the name of the node.
        let other = generate_key(&site.dir().join("other"));
        fs::write(site.dir().join("known_hosts"), format!("node {other}")).expect("a file");
        assert_ne!(hosts, format!("node {other}"));
        let reply = forge.run(&site, "deploy", "");
        assert_ne!(reply.code, 0, "{reply:?}");
        assert!(
            reply.stderr.contains("Host key verification failed"),
            "{reply:?}"
        );
        assert!(site.releases().is_empty());
        assert!(site.audit_lines().is_empty());
    }
}

#[test]
fn a_rollback_shows_its_choices_and_takes_one() {
    for forge in BOTH {
        let site = site();
        stage_and_swap(&site, &["one", "two", "three"]);
        let output = forge.run(&site, "choices", "").ok();
        let lines: Vec<&str> = output.lines().skip(1).collect();
        let starts = ["three  current, ", "two  previous, ", "one  good, "];
        assert_eq!(lines.len(), starts.len(), "{output}");
        for (line, start) in lines.iter().zip(starts) {
            assert!(line.starts_with(start) && line.ends_with('Z'), "{output}");
        }
        assert_eq!(site.current().as_deref(), Some("three"));

        fs::write(site.dir().join("lose"), "").expect("a file");
        forge.run(&site, "rollback", "one").ok();
        assert_eq!(site.current().as_deref(), Some("one"));

        // Words that are not a choice, or not an id.
        for release in [
            "three",
            "four",
            "two; id",
            "$(id)",
            "two --if-current one",
            "-1",
        ] {
            let reply = forge.run(&site, "rollback", release);
            assert_ne!(reply.code, 0, "{release}: {reply:?}");
            if release.contains(' ') || release.contains('$') {
                let message = format!("'{release}' is not a release id");
                assert!(reply.stderr.contains(&message), "{release}: {reply:?}");
            }
            assert_eq!(site.current().as_deref(), Some("one"), "{release}");
        }
        assert_nothing_left(&site);
    }
}

/// The shell would interpret text that a forge puts into a script, so secrets and
/// inputs come through the environment only. Each action is pinned to one commit.
#[test]
fn scripts_contain_no_inputs_and_actions_are_pinned() {
    for forge in BOTH {
        for name in ["deploy", "choices", "rollback"] {
            let script = forge.script(name);
            assert!(!script.contains("${{"), "{script}");
            assert!(script.contains("-o StrictHostKeyChecking=yes"), "{script}");
            // ssh takes no name of a node for an option.
            assert!(script.contains(" -- \"$DEPLOY_NODE\" "), "{script}");
        }
    }
    let mut actions = 0;
    for text in Forge::GitHub.files() {
        for line in text.lines() {
            let Some((_, action)) = line.split_once("uses: ") else {
                continue;
            };
            let (_, commit) = action.split_once('@').expect("a version");
            let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
            assert!(commit.len() == 40 && commit.bytes().all(hex), "{line}");
            actions += 1;
        }
    }
    assert_eq!(actions, 1);
    // Deploys and rollbacks wait for each other.
    let [deploy, rollback] = Forge::GitHub.files().map(parse_yaml);
    assert_eq!(deploy["concurrency"], rollback["concurrency"]);
    assert_eq!(deploy["concurrency"]["cancel-in-progress"], false);
    assert_eq!(
        deploy["permissions"],
        serde_json::json!({"contents": "read"})
    );
    assert_eq!(rollback["permissions"], serde_json::json!({}));
    let [deploy, rollback] = Forge::GitLab.files().map(parse_yaml);
    let group = &deploy["deploy"]["resource_group"];
    assert!(group.is_string());
    assert_eq!(*group, rollback[".rollback"]["resource_group"]);
}

/// The workflow publishes only the files it built after all tests have passed.
#[test]
fn nothing_is_released_untested() {
    let jobs = &parse_yaml(RELEASE)["jobs"];
    let runs = |job: &str, line: &str| {
        let steps = jobs[job]["steps"].as_array().expect("steps");
        let step = steps.iter().find(|step| {
            let script = step["run"].as_str().unwrap_or_default();
            script.lines().any(|said| said == line)
        });
        let step = step.unwrap_or_else(|| panic!("'{job}' does not run '{line}'"));
        // A failure of the step fails the job.
        for part in [&jobs[job], step] {
            assert!(part["continue-on-error"].is_null() && part["if"].is_null());
        }
    };
    runs("tests", "tests/run");
    runs("libraries", "cargo deny --locked check");
    assert_eq!(
        jobs["build"]["needs"],
        serde_json::json!(["tests", "libraries"])
    );
    assert_eq!(jobs["publish"]["needs"], "build");
    for job in ["build", "publish"] {
        assert!(jobs[job]["if"].is_null(), "{job} may run after a failure");
    }
}
