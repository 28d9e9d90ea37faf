//! `packaging/man` and `packaging/completions`: made from the program's own
//! command line and from the README, and complete.
//!
//! `packaging/pages` writes them; the tests compare and look for what is missing.

mod man;
mod markdown;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap_complete::Shell;
use deploy_shell::cli;
use deploy_shell::config::Config;
use deploy_shell::error::Code;

use crate::process::daemon;

/// The files as the repository has them.
const COMMITTED: &[(&str, &str)] = &[
    (
        "man/deploy-shell.1",
        include_str!("../../packaging/man/deploy-shell.1"),
    ),
    (
        "man/deploy-shell.toml.5",
        include_str!("../../packaging/man/deploy-shell.toml.5"),
    ),
    (
        "man/deploy-shell-requests.7",
        include_str!("../../packaging/man/deploy-shell-requests.7"),
    ),
    (
        "completions/deploy-shell.bash",
        include_str!("../../packaging/completions/deploy-shell.bash"),
    ),
    (
        "completions/_deploy-shell",
        include_str!("../../packaging/completions/_deploy-shell"),
    ),
    (
        "completions/deploy-shell.fish",
        include_str!("../../packaging/completions/deploy-shell.fish"),
    ),
];

/// The operator's command line without what is not for hands.
fn visible() -> clap::Command {
    let whole = cli::definition();
    let about = whole
        .get_about()
        .expect("the program says what it is")
        .clone();
    whole
        .get_subcommands()
        .filter(|command| !command.is_hide_set())
        .cloned()
        .fold(
            clap::Command::new("deploy-shell"),
            clap::Command::subcommand,
        )
        .about(about)
        .version(env!("CARGO_PKG_VERSION"))
        .disable_help_subcommand(true)
}

fn made() -> Vec<(&'static str, String)> {
    let completion = |shell: Shell| {
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut visible(), "deploy-shell", &mut text);
        let text = String::from_utf8(text).expect("a script is text");
        // clap_complete 4.6 takes the hyphen of a program's name for a step to a
        // subcommand, in half of the places (its issue 6421): bash would complete
        // no option of a subcommand.
        text.replace("deploy__subcmd__shell", "deploy__shell")
    };
    vec![
        ("man/deploy-shell.1", man::program(&visible())),
        ("man/deploy-shell.toml.5", man::configuration()),
        ("man/deploy-shell-requests.7", man::requests()),
        ("completions/deploy-shell.bash", completion(Shell::Bash)),
        ("completions/_deploy-shell", completion(Shell::Zsh)),
        ("completions/deploy-shell.fish", completion(Shell::Fish)),
    ]
}

#[test]
#[ignore = "writes into packaging/; packaging/pages runs it"]
fn write() {
    let packaging = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging");
    for (path, text) in made() {
        fs::write(packaging.join(path), text).expect("it can be written");
    }
}

#[test]
fn the_committed_pages_and_completions_are_up_to_date() {
    let made = made();
    assert_eq!(made.len(), COMMITTED.len());
    for ((path, new), (_, old)) in made.iter().zip(COMMITTED) {
        assert!(
            new == old,
            "packaging/{path} is not what packaging/pages makes"
        );
    }
}

fn committed(path: &str) -> &'static str {
    let found = COMMITTED.iter().find(|(name, _)| *name == path);
    found.expect("a page").1
}

/// A page as it is read: without what is only for roff.
fn read(path: &str) -> String {
    committed(path)
        .replace("\\-", "-")
        .replace("\\fB", "")
        .replace("\\fI", "")
        .replace("\\fR", "")
}

#[test]
fn every_command_and_option_is_in_page_and_completions() {
    let page = read("man/deploy-shell.1");
    let (mut options, mut positionals) = (0, 0);
    for command in visible().get_subcommands() {
        let name = command.get_name();
        assert!(page.contains(&format!("\n.SS {name}\n")), "{name}");
        let part = page.split(&format!("\n.SS {name}\n")).nth(1);
        let part = part.and_then(|rest| rest.split("\n.SS ").next());
        let part = part.expect("a part of the page");
        for arg in command.get_positionals() {
            // The shells complete files there; only zsh has a line for it.
            let names = arg.get_value_names().expect("a value has a name");
            let found = part.lines().any(|line| line == names[0].as_str());
            assert!(found, "{name} {}", names[0]);
            let zsh = committed("completions/_deploy-shell");
            assert!(zsh.contains(&format!("::{} -- ", arg.get_id())), "{name}");
            positionals += 1;
        }
        for arg in command.get_arguments() {
            let Some(long) = arg.get_long().filter(|long| *long != "help") else {
                continue;
            };
            assert!(part.contains(&format!("\n--{long}")), "{name} --{long}");
            for shell in ["deploy-shell.bash", "_deploy-shell", "deploy-shell.fish"] {
                let script = committed(&format!("completions/{shell}"));
                let said = match shell.ends_with("fish") {
                    true => script.contains(&format!(
                        "__fish_deploy_shell_using_subcommand {name}\" -l {long}"
                    )),
                    false => script.contains(name) && script.contains(&format!("--{long}")),
                };
                assert!(said, "{shell}: {name} --{long}");
            }
            options += 1;
        }
    }
    assert!(options >= 12, "{options}");
    assert_eq!(positionals, 2);
    // What is no command's own.
    for said in ["\n.SS -c STRING\n", "\n-h, --help\n", "\n-V, --version\n"] {
        assert!(page.contains(said), "{said}");
    }
    for (shell, said) in [
        ("deploy-shell.bash", ["--help", "--version"]),
        ("_deploy-shell", ["'--help[", "'--version["]),
        ("deploy-shell.fish", ["-s h -l help", "-s V -l version"]),
    ] {
        for said in said {
            let script = committed(&format!("completions/{shell}"));
            assert!(script.contains(said), "{shell}: {said}");
        }
    }
    for (path, text) in COMMITTED {
        assert!(!text.contains("unpack "), "{path} tells of what is hidden");
    }
}

/// The keys that serde takes at `place` (TOML that ends where a key may stand):
/// an unknown one makes it name them all.
fn keys_at(place: &str) -> Option<Vec<String>> {
    let text = format!("root = \"/srv/x\"\n{place}\nno_such_key = 1");
    let problem = Config::parse(Path::new("/blog.toml"), &text).err()?.problem;
    let (_, named) = problem.split_once("unknown field 'no_such_key', expected ")?;
    let keys = named.split('\'').skip(1).step_by(2).map(str::to_owned);
    Some(keys.collect())
}

/// Every table and key, as `table.key`; tables are found by trying.
fn every_key() -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    for key in keys_at("").expect("the keys of a site") {
        let Some(inner) = keys_at(&format!("[{key}]")) else {
            keys.insert(format!(".{key}"));
            continue;
        };
        for name in inner {
            match keys_at(&format!("[[{key}.{name}]]")) {
                Some(fields) => {
                    keys.extend(fields.iter().map(|field| format!("[{key}.{name}].{field}")));
                }
                None => {
                    keys.insert(format!("[{key}].{name}"));
                }
            }
        }
    }
    keys
}

#[test]
fn every_key_of_the_configuration_is_in_its_page() {
    let page = read("man/deploy-shell.toml.5");
    let (body, _) = page
        .split_once("\n.SH HOOKS AND HEALTH\n")
        .expect("the keys come first");
    let keys = every_key();
    for key in &keys {
        let (table, name) = key.rsplit_once('.').expect("a table and a key");
        let part = match table {
            "" => body.split("\n.SS ").next(),
            _ => body.split("\n.SS ").find(|part| {
                let title = part.lines().next().unwrap_or_default();
                title
                    .split(' ')
                    .any(|word| word == table || word == format!("[{table}]"))
            }),
        };
        let part = part.unwrap_or_else(|| panic!("the page has no '{table}'"));
        let found = part
            .lines()
            .collect::<Vec<_>>()
            .windows(2)
            .any(|pair| pair[0] == ".TP" && pair[1].split("  ").next() == Some(name));
        assert!(found, "the page has no '{key}'");
    }
    assert!(keys.len() > 20, "{keys:?}");
    for key in [
        ".root",
        "[archive].max_file",
        "[health].contains",
        "[hooks.after_swap].timeout",
    ] {
        assert!(keys.contains(key), "{key} is not found by asking: {keys:?}");
    }
}

#[test]
fn every_code_word_and_status_is_in_the_pages() {
    let pages = [
        read("man/deploy-shell.1"),
        read("man/deploy-shell-requests.7"),
    ];
    for code in Code::ALL {
        let (word, status) = code.parts();
        let status = status.to_string();
        for page in &pages {
            let found = page.lines().any(|line| {
                let mut parts = line.split_whitespace();
                parts.next() == Some(status.as_str()) && parts.any(|part| part == word)
            });
            assert!(found, "{status} {word}");
        }
    }
    // And the two that go without a word.
    for page in &pages {
        assert!(page.contains("\n.TP\n0\ndone\n"));
        assert!(
            page.contains("deploy-shell-admin check and deploy-shell-admin verify exit with 1 if")
        );
    }
}

/// Emphasis with nothing in it: what it was meant for stands outside.
#[test]
fn no_emphasis_is_empty() {
    let mut marks = 0;
    for (path, text) in COMMITTED {
        for font in ["\\fI", "\\fB"] {
            assert!(!text.contains(&format!("{font}\\fR")), "{path}");
            marks += text.matches(font).count();
        }
    }
    assert!(marks > 100, "{marks}");
}

#[test]
fn a_formatter_has_nothing_to_complain_about() {
    for (path, text) in COMMITTED
        .iter()
        .filter(|(path, _)| path.starts_with("man/"))
    {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("page");
        fs::write(&file, text).expect("a file");
        let mut mandoc = Command::new(daemon("mandoc"));
        mandoc.args(["-T", "lint", "-W", "warning"]).arg(&file);
        let output = mandoc.stdin(Stdio::null()).output().expect("mandoc starts");
        assert!(
            output.status.success() && output.stdout.is_empty(),
            "{path}: {output:?}"
        );
    }
}

/// Each shell reads its script, and completes with it.
#[test]
fn the_shells_take_their_completions() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let write = |name: &str| -> PathBuf {
        let path = folder.path().join(name);
        fs::write(&path, committed(&format!("completions/{name}"))).expect("a file");
        path
    };
    let bash = format!(
        "source '{}'; COMP_WORDS=(deploy-shell verify --s); COMP_CWORD=2; \
         _deploy__shell deploy-shell --s verify; echo \"${{COMPREPLY[*]}}\"",
        write("deploy-shell.bash").display()
    );
    // zsh completes only where there is a line editor, so on a terminal.
    write("_deploy-shell");
    let zsh = format!(
        "zmodload zsh/zpty; zpty shell {} -f -i\n\
         zpty -w shell \"PS1= fpath=('{}' \\$fpath); autoload -U compinit; compinit -D -u; echo rea''dy\"\n\
         zpty -r shell said '*ready*'\n\
         zpty -n -w shell $'deploy-shell verify --s\\t'\n\
         zpty -r shell said '*--site*'; print -r -- $said",
        daemon("zsh").display(),
        folder.path().display()
    );
    let fish = format!(
        "source '{}'; complete -C 'deploy-shell verify --s'",
        write("deploy-shell.fish").display()
    );
    for (shell, flags, script, expected) in [
        ("bash", "--norc", bash, "--site"),
        ("zsh", "-f", zsh, "verify --site"),
        ("fish", "-N", fish, "--site"),
    ] {
        // What does not complete is waited for.
        let mut command = Command::new("timeout");
        command
            .arg("60")
            .arg(daemon(shell))
            .arg(flags)
            .env("TERM", "dumb")
            .args(["-c", &script])
            .env("HOME", folder.path());
        let output = command.stdin(Stdio::null()).output().expect("it starts");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains(expected), "{shell}: {output:?}");
    }
}
