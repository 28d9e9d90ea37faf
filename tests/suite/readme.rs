//! The README and the pages of `docs`: the commands that they give work, and their
//! tables agree with the program.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use deploy_shell::error::Code;

use crate::operator::init;
use crate::signing::key;
use crate::site::{BIN, Reply, Site, admin, write_file};

const README: &str = include_str!("../../README.md");
const MANY_NODES: &str = include_str!("../../docs/many-nodes.md");
const SIGNING: &str = include_str!("../../docs/signing.md");
const REQUESTS: &str = include_str!("../../docs/requests.md");
const CONFIGURATION: &str = include_str!("../../docs/configuration.md");
const TROUBLESHOOTING: &str = include_str!("../../docs/troubleshooting.md");
const TEMPLATE: &str = include_str!("../../admin/src/template.toml");

/// Returns the lines of `page` from the first that begins with `start`, as long as
/// they are indented like it or empty; without the indentation.
pub fn block(page: &str, start: &str) -> String {
    let lines = page
        .lines()
        .skip_while(|line| !line.trim_start().starts_with(start));
    let first = lines.clone().next();
    let first = first.unwrap_or_else(|| panic!("the page has no '{start}'"));
    let indent = &first[..first.len() - first.trim_start().len()];
    let mut found = String::new();
    for line in lines {
        match line.strip_prefix(indent) {
            Some(text) => found += text,
            None if line.is_empty() => {}
            None => break,
        }
        found.push('\n');
    }
    found
}

/// Returns the three commands that the README shows first, without the prompts and
/// answers between them.
fn client_lines() -> String {
    let lines = README.lines().filter_map(|line| line.strip_prefix("$ "));
    let lines: Vec<&str> = lines.take(3).collect();
    assert!(lines[0].starts_with("tar -C dist -c . | zstd"), "{lines:?}");
    lines.join("\n")
}

/// Runs a script of a page in the directory that contains `dist/`. Its `ssh` sends
/// the words after the destination to the harness' node and ignores the options and
/// the node that the page names.
fn run(site: &Site, script: &str, variables: &[(&str, &str)]) -> Reply {
    let work = site.dir().join("work");
    fs::create_dir_all(work.join("dist/assets")).expect("a directory");
    fs::create_dir_all(site.dir().join("bin")).expect("a directory");
    fs::write(work.join("dist/index.html"), "<h1>it works</h1>").expect("a file");
    fs::write(work.join("dist/assets/app.js"), "let one = 1;").expect("a file");

    let ssh = site.ssh_command("ci");
    let words: Vec<String> = [ssh.get_program()]
        .into_iter()
        .chain(ssh.get_args())
        .map(|word| word.to_str().expect("text").replace('\'', r"'\''"))
        .map(|word| format!("'{word}'"))
        .collect();
    let real = find("ssh");
    let wrapper = format!(
        "#!/bin/sh\n\
         while [ $# -gt 0 ]; do\n\
         case $1 in deploy@*) shift; exec {} {} -- \"$@\" ;; esac\n\
         shift\n\
         done\n\
         exit 250\n",
        real.display(),
        words[1..].join(" ")
    );
    write_file(&site.dir().join("bin/ssh"), 0o755, wrapper.as_bytes());

    let path = format!("{}/bin:/usr/local/bin:/usr/bin:/bin", site.dir().display());
    let mut command = Command::new("sh");
    command.args(["-euc", script]).current_dir(&work);
    command
        .env_clear()
        .env("PATH", path)
        .env("SHELL", "/bin/sh");
    command.envs(variables.iter().copied());
    command.stdin(Stdio::null());
    site.run(command, b"")
}

pub fn find(program: &str) -> PathBuf {
    ["/usr/local/bin", "/usr/bin", "/bin"]
        .iter()
        .map(|directory| PathBuf::from(directory).join(program))
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("'{program}' is not installed"))
}

/// Asserts that there are two replies, and that the content of `dist/` is live.
#[track_caller]
fn has_deployed(site: &Site, reply: Reply) {
    let output = reply.ok();
    let replies: Vec<&str> = output.lines().collect();
    assert_eq!(replies.len(), 2, "{output}");
    assert!(replies[0].starts_with("ok receive "), "{output}");
    assert!(replies[1].starts_with("ok swap "), "{output}");
    let page = fs::read_to_string(site.root().join("current/index.html"));
    assert_eq!(page.expect("the page"), "<h1>it works</h1>");
    assert_eq!(site.releases().len(), 1);
}

#[test]
fn the_three_lines_deploy() {
    let site = Site::new();
    let reply = run(&site, &client_lines(), &[]);
    has_deployed(&site, reply);
    assert_eq!(site.current().as_deref(), Some("20260412-142033"));
}

#[test]
fn the_lines_of_the_first_deploy_deploy() {
    let site = Site::new();
    let lines = block(README, "echo \"node $(cat ssh_host_ed25519_key.pub)\"");
    let (known, lines) = lines.split_once('\n').expect("several lines");
    assert_eq!(lines.trim_end().lines().count(), 4, "{lines}");
    let script = format!(
        "HOME=$PWD; mkdir .ssh; echo ssh-ed25519 KEY > ssh_host_ed25519_key.pub\n{known}\n\
         grep -qx 'node ssh-ed25519 KEY' .ssh/known_hosts\n{lines}"
    );
    has_deployed(&site, run(&site, &script, &[]));
    assert_eq!(site.current().as_deref(), Some("20260412-142033"));
}

#[test]
fn the_first_page_names_the_lines_that_init_prints() {
    let site = Site::new();
    let config = site.dir().join("new.toml");
    let output = init(&config, &site.dir().join("new"))
        .output()
        .expect("it starts");
    // The README's own site and root in the place of these.
    let printed = String::from_utf8_lossy(&output.stdout)
        .replace(&config.display().to_string(), "/etc/deploy-shell/blog.toml")
        .replace(
            &site.dir().join("new").display().to_string(),
            "/srv/www/example.com",
        );
    let shown = block(README, "wrote /etc/deploy-shell/blog.toml");
    let shown: Vec<&str> = shown.trim_end().lines().collect();
    assert_eq!(shown.len(), 2, "{shown:?}");
    for line in shown {
        assert!(
            printed.lines().any(|other| other == line),
            "{line}: {output:?}"
        );
    }
}

#[test]
fn the_recorded_session_is_up_to_date() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    if fs::read_dir(root).is_err() {
        println!("skipped: this user cannot read the sources");
        return;
    }
    let output = Command::new(root.join("sshd/record"))
        .arg("--check")
        .env("DEPLOY_SHELL", BIN)
        .env("DEPLOY_SHELL_ADMIN", admin())
        .output()
        .expect("it starts");
    assert!(output.status.success(), "{output:#?}");
}

#[test]
fn the_signing_lines_sign() {
    let site = Site::with_config("[signatures]\nallowed_signers = \"{dir}/signers\"\n");
    let list = block(SIGNING, "echo \"blog namespaces=");
    let (list, _) = list.split_once(" >> ").expect("it goes into the list");
    let sign = block(SIGNING, "printf 'deploy-shell release v1");
    assert_eq!(sign.trim_end().lines().count(), 2, "{sign}");
    let send = block(
        SIGNING,
        "ssh deploy@node receive \"$release\" --sha256 \"$sum\" --signature",
    );
    let send = send.lines().next().expect("a line");
    let key = key("ed25519/alice").path;
    let (key, public) = (key.display(), key.with_extension("pub"));
    let script = format!(
        "umask 022; cp '{}' alice.pub; {list} >> ../signers\n\
         umask 077; cp '{key}' key\n\
         tar -C dist -c . | zstd -q > site.tar.zst\n\
         release=20260412-142033; sum=$(sha256sum < site.tar.zst | cut -c1-64)\n\
         {sign}{send}\nssh deploy@node swap $release\n",
        public.display()
    );
    has_deployed(&site, run(&site, &script, &[]));
    let manifest = site.root().join(".deploy-shell/manifests/20260412-142033");
    let manifest = fs::read_to_string(manifest).expect("a manifest");
    assert!(manifest.contains("\n# signature "), "{manifest}");
}

#[test]
fn the_two_node_lines_deploy() {
    let site = Site::new();
    has_deployed(&site, run(&site, &client_lines(), &[]));

    // Both names lead to the one node here: the second time, all is done.
    let both = block(MANY_NODES, "for node in a b; do ssh deploy@$node receive");
    let both: Vec<&str> = both.lines().take(2).collect();
    let prepare = "echo new > dist/index.html\n\
                   tar -C dist -c . | zstd -q > site.tar.zst\n\
                   sum=$(sha256sum < site.tar.zst | cut -c1-64)\n\
                   release=next; old=20260412-142033\n";
    let receive = format!("{prepare}{}\n", both[0]);
    let output = run(&site, &receive, &[]).ok();
    assert_eq!(output.matches("ok receive next ").count(), 2, "{output}");
    assert!(output.contains("already received"), "{output}");
    // And the second swap finds another release live than it expects.
    let sum = "sum=$(sha256sum < site.tar.zst | cut -c1-64)";
    let swap = format!("{sum}\nrelease=next; old=20260412-142033\n{}\n", both[1]);
    let reply = run(&site, &swap, &[]);
    assert_eq!(reply.stdout, "ok swap next previous=20260412-142033\n");
    assert!(reply.stderr.contains("not-current"), "{reply:?}");
    assert_eq!(site.current().as_deref(), Some("next"));
}

#[test]
fn every_key_is_listed_with_its_default() {
    let mut keys = 0;
    let mut table = "";
    for line in TEMPLATE.lines() {
        if line.starts_with('[') {
            table = line;
            assert!(
                CONFIGURATION.contains(&format!("| **`{table}`** |")),
                "{table}"
            );
        }
        let Some((key, value)) = line
            .strip_prefix('#')
            .and_then(|rest| rest.split_once(" = "))
        else {
            continue;
        };
        if key.starts_with(' ') {
            continue;
        }
        // Shown as an example in the template; nothing is required by default.
        let value = if key == "required_paths" { "[]" } else { value };
        let row = format!("| `{key}` | `{value}` |");
        assert!(CONFIGURATION.contains(&row), "{table} {row}");
        keys += 1;
    }
    assert!(keys > 15, "{keys}");
}

#[test]
fn every_code_word_is_listed_with_its_exit_status() {
    for code in Code::ALL {
        let (word, status) = code.parts();
        let status = status.to_string();
        let row = REQUESTS
            .lines()
            .find(|row| row.starts_with(&format!("| {status} |")))
            .unwrap_or_else(|| panic!("no row for {status}"));
        assert!(row.contains(&format!("`{word}`")), "{word}: {row}");
        let heading = TROUBLESHOOTING.lines().any(|line| {
            let title = line
                .strip_prefix("## ")
                .and_then(|title| title.strip_suffix(')'));
            let parts = title.and_then(|title| title.rsplit_once(" ("));
            parts.is_some_and(|(words, of)| of == status && words.split(", ").any(|w| w == word))
        });
        assert!(
            heading,
            "troubleshooting has no heading for {word} ({status})"
        );
    }
}
