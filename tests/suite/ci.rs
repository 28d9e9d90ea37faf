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

const ACTION: &str = include_str!("../../packaging/ci/action/action.yml");
const FORGEJO: [&str; 2] = [
    include_str!("../../packaging/ci/forgejo/deploy.yml"),
    include_str!("../../packaging/ci/forgejo/rollback.yml"),
];

/// The commit that the forge builds.
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// The Python of Debian, which has a YAML parser.
const PYTHON: &str = "/usr/bin/python3";

#[derive(Clone, Copy, Debug, PartialEq)]
enum Forge {
    GitHub,
    GitLab,
    /// The action, for GitHub and Forgejo.
    Action,
}

const ALL: [Forge; 3] = [Forge::GitHub, Forge::GitLab, Forge::Action];

/// What a pipeline gives a script.
struct Settings {
    key: String,
    known_hosts: String,
    node: String,
    release: String,
    directory: String,
}

impl Settings {
    fn of(site: &Site) -> Settings {
        let read = |name: &str| fs::read_to_string(site.dir().join(name)).expect(name);
        let ssh = site.ssh_command("ci");
        let node = ssh.get_args().last().expect("user@node");
        Settings {
            // Without the last newline, which a form removes.
            key: read("key-ci").trim_end().to_owned(),
            known_hosts: read("known_hosts").trim_end().to_owned(),
            node: node.to_str().expect("a plain name").to_owned(),
            release: String::new(),
            directory: "dist".to_owned(),
        }
    }
}

impl Forge {
    fn files(self) -> [&'static str; 2] {
        match self {
            Forge::GitHub => [GITHUB_DEPLOY, GITHUB_ROLLBACK],
            Forge::GitLab => [GITLAB_DEPLOY, GITLAB_ROLLBACK],
            Forge::Action => [ACTION; 2],
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
            Forge::Action => file["runs"]["steps"][0]["run"].clone(),
        };
        script.as_str().expect("a script").to_owned()
    }

    /// Runs the script of the job `name` with the right settings.
    fn run(self, site: &Site, name: &str, release: &str) -> Reply {
        self.run_with(site, name, |settings| settings.release = release.to_owned())
    }

    /// Runs the script of the job `name` with changed settings.
    fn run_with(self, site: &Site, name: &str, change: impl FnOnce(&mut Settings)) -> Reply {
        let dir = site.dir();
        let mut settings = Settings::of(site);
        change(&mut settings);
        let text = |name: &str, text: &str| match self {
            Forge::GitHub | Forge::Action => text.to_owned(),
            Forge::GitLab if text.is_empty() => String::new(),
            // As a file that all can read.
            Forge::GitLab => {
                let path = dir.join(name);
                write_file(&path, 0o644, format!("{text}\n").as_bytes());
                path.to_str().expect("plain").to_owned()
            }
        };
        let key = text("variable", &settings.key);
        let mut command = Command::new("sh");
        command.args(["-ec", &self.script(name)]);
        command.current_dir(dir.join("work"));
        command.env_clear();
        command.env("PATH", format!("{}/bin:/usr/bin:/bin", dir.display()));
        command.env("SHELL", "/bin/sh");
        command.env("TMPDIR", dir.join("temporary"));
        command.env("COMMAND", name);
        command.env("DEPLOY_KEY", &key);
        command.env("ROLLBACK_KEY", &key);
        command.env("DEPLOY_KNOWN_HOSTS", text("hosts", &settings.known_hosts));
        command.env("DEPLOY_NODE", settings.node);
        command.env("DEPLOY_DIRECTORY", settings.directory);
        command.env("RELEASE", settings.release);
        command.env("PAUSE", "0");
        let commit = match self {
            Forge::GitHub | Forge::Action => "GITHUB_SHA",
            Forge::GitLab => "CI_COMMIT_SHA",
        };
        command.env(commit, COMMIT);
        command.stdin(Stdio::null());
        site.run(command, b"")
    }
}

/// Returns a file as a YAML parser reads it.
pub fn parse_yaml(text: &str) -> Value {
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
/// connection removes one and is refused. While `busy/` has files, each swap or rollback
/// removes one and gets the answer of a site that is locked: a mock, because a real lock
/// would be held for half a minute. A file `lose` suppresses the answer of one swap or
/// rollback.
fn site() -> Site {
    let site = Site::new();
    let dir = site.dir().display();
    for directory in ["bin", "busy", "refuse", "temporary", "work/dist"] {
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
         echo \"$*\" >> {dir}/attempts\n\
         case \" $* \" in *' swap '* | *' rollback '*)\n\
             for token in {dir}/busy/*; do [ ! -e \"$token\" ] || {{\n\
                 rm \"$token\"; echo 'deploy-shell: busy: the site is locked' >&2; exit 75; }}; done;;\n\
         esac\n\
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
    for forge in ALL {
        let site = site();
        let output = forge.run(&site, "deploy", "").ok();
        let lines: Vec<&str> = output.lines().collect();
        assert_eq!(lines.len(), 2, "{output}");
        assert!(lines[0].starts_with("node: ok receive "), "{output}");
        assert!(lines[1].starts_with("node: ok swap "), "{output}");
        // The swap names the payload that this run has sent.
        let (_, sum) = lines[0].split_once(" sha256=").expect("a digest");
        let swap = format!(" --sha256 {}\"", &sum[..64]);
        let audit = site.audit_lines();
        let named = |line: &&String| line.contains("request=\"swap ") && line.contains(&swap);
        assert!(audit.iter().any(|line| named(&line)), "{audit:?}");
        let list = site.ssh("ci", "list --json").ok();
        assert!(list.contains(&format!("\"commit\":\"{COMMIT}\"")), "{list}");
        let page = fs::read_to_string(site.root().join("current/index.html"));
        assert_eq!(page.expect("the page"), "<h1>it works</h1>");
        assert_nothing_left(&site);
    }
}

/// A tar that cannot read a file makes an incomplete archive, and nobody reads its
/// message.
#[test]
fn a_failed_tar_sends_nothing() {
    for forge in ALL {
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
    for forge in ALL {
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
    for forge in ALL {
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

/// The node prefers requests that wait, so a busy one must wait there again.
#[test]
fn a_busy_swap_or_rollback_is_repeated_more_often() {
    let lock = |site: &Site, times: usize| {
        for token in 0..times {
            let token = site.dir().join("busy").join(token.to_string());
            fs::write(token, "").expect("a file");
        }
    };
    let unused = |site: &Site| {
        let tokens = fs::read_dir(site.dir().join("busy")).expect("a directory");
        tokens.count()
    };
    let pauses = |site: &Site| {
        let pauses = fs::read_to_string(site.dir().join("pauses"));
        pauses.map_or(0, |text| text.lines().count())
    };
    for forge in ALL {
        let site = site();
        let sleep = format!("#!/bin/sh\necho >> {}/pauses\n", site.dir().display());
        write_file(&site.dir().join("bin/sleep"), 0o755, sleep.as_bytes());
        stage_and_swap(&site, &["one", "two"]);
        lock(&site, 60);
        forge.run(&site, "deploy", "").ok();
        assert_ne!(site.current().as_deref(), Some("two"));
        lock(&site, 60);
        forge.run(&site, "rollback", "one").ok();
        assert_eq!(site.current().as_deref(), Some("one"));
        assert_eq!((unused(&site), pauses(&site)), (0, 0));
        // Four tries and sixty without a pause.
        lock(&site, 65);
        let reply = forge.run(&site, "rollback", "two");
        assert_ne!(reply.code, 0, "{reply:?}");
        assert_eq!((unused(&site), pauses(&site)), (1, 3));
        assert_nothing_left(&site);
    }
}

#[test]
fn a_node_with_another_host_key_gets_nothing() {
    for forge in ALL {
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

/// A runner obeys a line that begins like a command. .NET, in which that of GitHub is written,
/// also ends a line at a carriage return, and that runner skips spaces and looks for `##[` in
/// the whole line. The agent of Azure Pipelines, which may run the client, looks for `##vso[`.
#[test]
fn no_line_of_a_node_begins_like_a_command_of_the_runner() {
    for forge in ALL {
        let site = site();
        let says = "::add-path::/x\n  ::set-env name=X::1\nx\r::add-path::/x\nx ##[add-path]/x\ny ##vso[x]/x\n\
                    {\"current\":\"a\",\"releases\":[{\"release\":\"::add-path::/x\",\
                    \"state\":\"good\",\"last_live\":\"x\r::add-path::/x\"},{\"release\":\"b\",\
                    \"state\":\"good\",\"last_live\":\"x\r::add-path::/x\"}]}\n::add-path::/x";
        fs::write(site.dir().join("says"), says).expect("a file");
        let ssh = format!(
            "#!/bin/sh\ncat {0}/says\ncat {0}/says >&2\n",
            site.dir().display()
        );
        write_file(&site.dir().join("bin/ssh"), 0o755, ssh.as_bytes());
        for job in ["deploy", "choices", "rollback"] {
            let reply = forge.run(&site, job, "b");
            let shown = format!("{}{}", reply.stdout, reply.stderr);
            assert!(
                shown.contains("node: ::add-path::/x"),
                "{forge:?} {job}: {shown}"
            );
            for line in shown.split(['\n', '\r']).map(str::trim_start) {
                let is_command = line.starts_with("::") || line.contains("##");
                assert!(!is_command, "{forge:?} {job}: {line:?}");
            }
        }
    }
}

#[test]
fn a_rollback_shows_its_choices_and_takes_one() {
    for forge in ALL {
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
    for forge in ALL {
        for name in ["deploy", "choices", "rollback"] {
            let script = forge.script(name);
            assert!(!script.contains("${{"), "{script}");
            assert!(script.contains("-o StrictHostKeyChecking=yes"), "{script}");
            // ssh takes no name of a node for an option.
            assert!(script.contains(" -- \"$user@$host\" "), "{script}");
        }
    }
    let mut actions = 0;
    for text in Forge::GitHub.files().iter().chain(&FORGEJO) {
        for line in text.lines() {
            let Some((_, action)) = line.split_once("uses: ") else {
                continue;
            };
            // The action beside the workflow is a copy in the same repository.
            if action == "./.forgejo/actions/deploy-shell" {
                continue;
            }
            let (_, commit) = action.split_once('@').expect("a version");
            let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
            assert!(commit.len() == 40 && commit.bytes().all(hex), "{line}");
            actions += 1;
        }
    }
    assert_eq!(actions, 3);
    // Deploys and rollbacks wait for each other.
    let [deploy, rollback] = Forge::GitHub.files().map(parse_yaml);
    assert_eq!(deploy["concurrency"], rollback["concurrency"]);
    assert_eq!(deploy["concurrency"]["cancel-in-progress"], false);
    assert_eq!(
        deploy["permissions"],
        serde_json::json!({"contents": "read"})
    );
    assert_eq!(rollback["permissions"], serde_json::json!({}));
    let [deploy, rollback] = FORGEJO.map(parse_yaml);
    assert_eq!(deploy["concurrency"], rollback["concurrency"]);
    let [deploy, rollback] = Forge::GitLab.files().map(parse_yaml);
    let group = &deploy["deploy"]["resource_group"];
    assert!(group.is_string());
    assert_eq!(*group, rollback[".rollback"]["resource_group"]);
}

/// ssh repeats a connection with a wrong key or name as often as the script lets it. So the
/// settings are looked at first, and one line says which one is wrong.
#[test]
fn wrong_settings_stop_before_the_first_connection() {
    type Change = fn(&mut Settings);
    let for_every_job: [(Change, &str); 14] = [
        (|it| it.key.clear(), "empty settings: the private key ("),
        (|it| it.node.clear(), "empty settings: the node ("),
        (
            |it| it.known_hosts.clear(),
            "empty settings: the host key of the node (",
        ),
        (
            |it| {
                it.key.clear();
                it.node.clear();
                it.known_hosts.clear();
            },
            "empty settings: the private key, the node, the host key of the node (",
        ),
        (
            |it| it.key = "nonsense".to_owned(),
            "the private key is not one, ",
        ),
        // The file of the public key in its place.
        (
            |it| it.key = format!("ssh-ed25519 {}", "A".repeat(68)),
            "the private key is not one, ",
        ),
        (
            |it| it.node = "node".to_owned(),
            "the node 'node' is not USER@HOST ",
        ),
        (
            |it| it.node = "@node".to_owned(),
            "the node '@node' is not ",
        ),
        (
            |it| it.node = "-oX@node".to_owned(),
            "the node '-oX@node' is not ",
        ),
        (
            |it| it.node = "a@b c".to_owned(),
            "the node 'a@b c' is not ",
        ),
        (
            |it| it.node = "a@node:".to_owned(),
            "the node 'a@node:' is not ",
        ),
        (
            |it| it.node = "a@node:ssh".to_owned(),
            "the node 'a@node:ssh' is not ",
        ),
        (
            |it| it.node = "a@other".to_owned(),
            "the host keys have no line that begins with 'other'",
        ),
        (
            |it| it.node = "a@other:2222".to_owned(),
            "the host keys have no line that begins with '[other]:2222'",
        ),
    ];
    let empty: Change = |it| it.directory = "empty".to_owned();
    let missing: Change = |it| it.directory = "missing".to_owned();
    for forge in ALL {
        let site = site();
        fs::create_dir(site.dir().join("work/empty")).expect("a directory");
        let refuses = |job: &str, change: Change, words: &str| {
            let reply = forge.run_with(&site, job, |settings| {
                settings.release = "one".to_owned();
                change(settings);
            });
            assert_eq!(reply.code, 1, "{forge:?} {job}: {reply:?}");
            let start = format!("deploy-shell: {words}");
            assert!(
                reply.stderr.starts_with(&start),
                "{forge:?} {job}: {reply:?}"
            );
            assert_eq!(
                reply.stderr.lines().count(),
                1,
                "{forge:?} {job}: {reply:?}"
            );
            assert_eq!(reply.stdout, "", "{forge:?} {job}: {reply:?}");
        };
        for (change, words) in for_every_job {
            for job in ["deploy", "choices", "rollback"] {
                refuses(job, change, words);
            }
        }
        refuses("deploy", empty, "the directory 'empty' is missing or empty");
        refuses(
            "deploy",
            missing,
            "the directory 'missing' is missing or empty",
        );
        let attempts = site.dir().join("attempts");
        assert!(!attempts.exists(), "{forge:?} has connected");
        assert_nothing_left(&site);
    }
}

#[test]
fn a_node_can_have_a_port() {
    for forge in ALL {
        let site = site();
        let key = Settings::of(&site).known_hosts.replacen("node ", "", 1);
        for (host, name) in [
            ("node:2222", "[node]:2222"),
            ("[::1]:2222", "[::1]:2222"),
            ("::1", "::1"),
            ("[::1]", "::1"),
            // ssh accepts a line without the port as well.
            ("node:2222", "node"),
        ] {
            let before = site.current();
            let reply = forge.run_with(&site, "deploy", |it| {
                let (user, _) = it.node.split_once('@').expect("user@node");
                it.node = format!("{user}@{host}");
                it.known_hosts = format!("{name} {key}");
            });
            // Two deploys in one second have the same id and content.
            reply.ok();
            let attempts = site.dir().join("attempts");
            let connected = fs::read_to_string(&attempts).expect("it has connected");
            let port = if host.ends_with(":2222") {
                "2222"
            } else {
                "22"
            };
            let words = format!(" -p {port} -- ");
            assert!(
                connected.lines().all(|line| line.contains(&words)),
                "{connected}"
            );
            fs::remove_file(attempts).expect("it is there");
            assert!(before.is_none() || site.current().is_some());
        }
        assert_nothing_left(&site);
    }
}

/// A copy of a script that differs from the others is a fault that one of them keeps.
#[test]
fn all_scripts_connect_in_the_same_way() {
    let connection = |forge: Forge, name: &str| {
        let script = forge.script(name);
        let (_, rest) = script.split_once("\nuser=").expect("the node");
        let (node, rest) = rest.split_once("\n[ -n \"$host\" ]").expect("the node");
        let (_, rest) = rest.split_once("\nssh-keygen -y ").expect("the key");
        let (request, _) = rest.split_once("\n}\n").expect("the end of request()");
        (node.to_owned(), request.to_owned())
    };
    let expected = connection(Forge::GitHub, "deploy");
    for forge in ALL {
        for name in ["deploy", "choices", "rollback"] {
            assert_eq!(connection(forge, name), expected, "{forge:?} {name}");
        }
    }
}

/// The workflows of Forgejo give the action what it requires, and nothing that it does
/// not know.
#[test]
fn the_workflows_of_forgejo_use_the_action() {
    let action = parse_yaml(ACTION);
    let inputs = action["inputs"].as_object().expect("inputs");
    for text in FORGEJO {
        let file = parse_yaml(text);
        let jobs = file["jobs"].as_object().expect("jobs");
        let steps = jobs
            .values()
            .flat_map(|job| job["steps"].as_array().expect("steps"));
        let uses: Vec<&Value> = steps
            .filter(|step| step["uses"] == "./.forgejo/actions/deploy-shell")
            .collect();
        let [step] = uses[..] else {
            panic!("not one step: {uses:?}");
        };
        let with = step["with"].as_object().expect("inputs");
        assert!(
            with.keys().all(|name| inputs.contains_key(name)),
            "{with:?}"
        );
        for (name, input) in inputs {
            assert!(
                input["required"] != true || with.contains_key(name),
                "{name}"
            );
        }
    }
    // The environment of the script has every input.
    let environment = action["runs"]["steps"][0]["env"].as_object().expect("env");
    for name in inputs.keys() {
        let value = format!("${{{{ inputs.{name} }}}}");
        assert!(environment.values().any(|it| *it == value), "{name}");
    }
}
