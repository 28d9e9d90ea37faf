//! The README: what it tells a reader to type works, and its tables say what
//! the program says.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use deploy_shell::error::Code;

use crate::signing::key;
use crate::site::{BIN, Reply, Site, write_file};

const README: &str = include_str!("../../README.md");
const TEMPLATE: &str = include_str!("../../admin/src/template.toml");

/// The lines from the first that begins with `start` on, as long as they are
/// indented like it or empty; without the indentation.
fn block(start: &str) -> String {
    let lines = README
        .lines()
        .skip_while(|line| !line.trim_start().starts_with(start));
    let first = lines.clone().next();
    let first = first.unwrap_or_else(|| panic!("the README has no '{start}'"));
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

/// Runs a script of the README where `dist/` is, with an `ssh` that takes the
/// words behind the destination to the harness' node, whatever options and
/// node the README names.
fn run(site: &Site, script: &str, variables: &[(&str, &str)]) -> Reply {
    let work = site.dir().join("work");
    fs::create_dir_all(work.join("dist/assets")).expect("a folder");
    fs::create_dir_all(site.dir().join("bin")).expect("a folder");
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

fn find(program: &str) -> PathBuf {
    ["/usr/local/bin", "/usr/bin", "/bin"]
        .iter()
        .map(|folder| PathBuf::from(folder).join(program))
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("'{program}' is not installed"))
}

/// Two replies, and what was in `dist/` is live.
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
    let lines = block("tar -C dist -c . | zstd -T0 > site.tar.zst");
    let lines: Vec<&str> = lines.lines().take(3).collect();
    let reply = run(&site, &lines.join("\n"), &[]);
    has_deployed(&site, reply);
    assert_eq!(site.current().as_deref(), Some("20260412-142033"));
}

#[test]
fn the_session_is_what_the_program_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    if fs::read_dir(root).is_err() {
        println!("skipped: this user cannot read the sources");
        return;
    }
    let output = Command::new(root.join("sshd/record"))
        .arg("--check")
        .env("DEPLOY_SHELL", BIN)
        .output()
        .expect("it starts");
    assert!(output.status.success(), "{output:#?}");
}

#[test]
fn the_signing_lines_sign() {
    let site = Site::with_config("[signatures]\nallowed_signers = \"{dir}/signers\"\n");
    let list = block("echo \"blog namespaces=");
    let (list, _) = list.split_once(" >> ").expect("it goes into the list");
    let sign = block("printf 'deploy-shell release v1");
    assert_eq!(sign.trim_end().lines().count(), 2, "{sign}");
    let send = block("ssh deploy@node receive \"$release\" --sha256 \"$sum\" --signature");
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
    let lines = block("tar -C dist -c . | zstd -T0 > site.tar.zst");
    let first: Vec<&str> = lines.lines().take(3).collect();
    has_deployed(&site, run(&site, &first.join("\n"), &[]));

    // Both names lead to the one node here: the second time, all is done.
    let both = block("for node in a b; do ssh deploy@$node receive");
    let both: Vec<&str> = both.lines().take(2).collect();
    let prepare = "echo new > dist/index.html\n\
                   tar -C dist -c . | zstd -q > site.tar.zst\n\
                   sum=$(sha256sum < site.tar.zst | cut -c1-64)\n\
                   release=next; old=20260412-142033\n";
    let receive = format!("{prepare}{}\n", both[0]);
    let output = run(&site, &receive, &[]).ok();
    assert_eq!(output.matches("ok receive next ").count(), 2, "{output}");
    assert!(output.contains("already received"), "{output}");
    // And the second swap finds another release live than it was told.
    let swap = format!("release=next; old=20260412-142033\n{}\n", both[1]);
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
            assert!(README.contains(&format!("| **`{table}`** |")), "{table}");
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
        assert!(README.contains(&row), "{table} {row}");
        keys += 1;
    }
    assert!(keys > 15, "{keys}");
}

#[test]
fn every_code_word_is_listed_with_its_exit_status() {
    for code in Code::ALL {
        let (word, status) = code.parts();
        let row = README
            .lines()
            .find(|row| row.starts_with(&format!("| {status} |")))
            .unwrap_or_else(|| panic!("no row for {status}"));
        assert!(row.contains(&format!("`{word}`")), "{word}: {row}");
    }
}
