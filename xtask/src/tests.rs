//! The committed pages and completions are up to date, complete, and accepted by
//! the programs that read them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use deploy_shell::config::Config;
use deploy_shell::error::Code;

use super::{outdated, packaging};

/// Returns a page as a reader sees it: without the fonts and escapes of roff.
fn plain(path: &str) -> String {
    committed(path)
        .replace("\\-", "-")
        .replace("\\fB", "")
        .replace("\\fI", "")
        .replace("\\fR", "")
}

fn committed(path: &str) -> String {
    let path = packaging().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

const MAN: [&str; 4] = [
    "man/deploy-shell.1",
    "man/deploy-shell-admin.8",
    "man/deploy-shell.toml.5",
    "man/deploy-shell-requests.7",
];

/// Finds a program also where the PATH of an ordinary user does not look.
fn program(name: &str) -> PathBuf {
    ["/usr/bin", "/bin", "/usr/sbin", "/sbin", "/usr/local/bin"]
        .iter()
        .map(|directory| Path::new(directory).join(name))
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("'{name}' is not installed"))
}

#[test]
fn committed_files_are_up_to_date() {
    assert_eq!(outdated(), [""; 0], "run 'cargo run -p xtask -- pages'");
}

#[test]
fn page_and_completions_name_every_command_and_option() {
    let page = plain("man/deploy-shell-admin.8");
    let shells = [
        "completions/deploy-shell-admin.bash",
        "completions/_deploy-shell-admin",
        "completions/deploy-shell-admin.fish",
    ]
    .map(committed);
    for command in deploy_shell_admin::cli::command().get_subcommands() {
        let name = command.get_name();
        let part = page.split(&format!("\n.SS {name}\n")).nth(1);
        let part = part.and_then(|rest| rest.split("\n.SS ").next());
        let part = part.unwrap_or_else(|| panic!("the page has no section '{name}'"));
        for argument in command.get_positionals() {
            let value = argument.get_value_names().expect("an argument has a value")[0].as_str();
            let (open, close) = if argument.is_required_set() {
                ('<', '>')
            } else {
                ('[', ']')
            };
            assert!(
                part.contains(&format!("{open}{value}{close}")),
                "{name} {value}: {part}"
            );
            // zsh names them; one colon gives a function the options too.
            assert!(
                shells[1].contains(&format!(":{} -- ", argument.get_id())),
                "{name}"
            );
        }
        for argument in command.get_arguments() {
            let Some(long) = argument.get_long().filter(|long| *long != "help") else {
                continue;
            };
            assert!(part.contains(&format!("\n--{long}")), "{name} --{long}");
            let in_fish = format!("__fish_deploy_shell_admin_using_subcommand {name}\" -l {long}");
            assert!(
                shells[0].contains(&format!("--{long}")),
                "bash: {name} --{long}"
            );
            assert!(
                shells[1].contains(&format!("--{long}")),
                "zsh: {name} --{long}"
            );
            assert!(shells[2].contains(&in_fish), "fish: {name} --{long}");
        }
    }
}

#[test]
fn page_of_the_shell_names_every_option_and_no_child_process() {
    let page = plain("man/deploy-shell.1");
    for text in [
        "\n.SS serve\n",
        "\n.SS -c STRING\n",
        "--site",
        "--config",
        "--key",
        "--allow",
    ] {
        assert!(page.contains(text), "{text}");
    }
    for path in MAN {
        let page = committed(path);
        assert!(
            !page.contains("deploy\\-shell unpack"),
            "{path} names a child process"
        );
    }
}

/// Returns the keys that serde accepts at `place`: TOML that ends where a key may
/// follow. The error for an unknown key names all known ones.
fn keys_at(place: &str) -> Option<Vec<String>> {
    let text = format!("root = \"/srv/x\"\n{place}\nno_such_key = 1");
    let problem = Config::parse(Path::new("/blog.toml"), &text).err()?.problem;
    let (_, named) = problem.split_once("unknown key 'no_such_key', expected ")?;
    let keys = named.split('\'').skip(1).step_by(2).map(str::to_owned);
    Some(keys.collect())
}

/// Returns every table and key as `table.key`. It tries each key as a table.
fn every_key() -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    for key in keys_at("").expect("a site has keys") {
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
fn page_names_every_key_of_the_configuration() {
    let page = plain("man/deploy-shell.toml.5");
    let (body, _) = page
        .split_once("\n.SH HOOKS AND HEALTH CHECKS\n")
        .expect("the keys are the first section");
    let keys = every_key();
    for key in &keys {
        let (table, name) = key.rsplit_once('.').expect("a table and a key");
        let mut parts = body.split("\n.SS ");
        let part = if table.is_empty() {
            parts.next()
        } else {
            parts.find(|part| {
                let title = part.lines().next().unwrap_or_default();
                let mut words = title.split(' ');
                words.any(|word| word == table || word == format!("[{table}]"))
            })
        };
        let part = part.unwrap_or_else(|| panic!("the page has no '{table}'"));
        let lines: Vec<&str> = part.lines().collect();
        let found = lines
            .windows(2)
            .any(|pair| pair[0] == ".TP" && pair[1].split("  ").next() == Some(name));
        assert!(found, "the page has no '{key}'");
    }
    for key in [
        ".root",
        "[archive].max_file",
        "[health].contains",
        "[hooks.after_swap].timeout",
    ] {
        assert!(keys.contains(key), "{key} is not among the keys: {keys:?}");
    }
}

#[test]
fn page_names_every_code_word_with_its_status() {
    let page = plain("man/deploy-shell-requests.7");
    for code in Code::ALL {
        let (name, exit) = code.parts();
        let exit = exit.to_string();
        let found = page.lines().any(|line| {
            let mut words = line.split_whitespace();
            words.next() == Some(&exit) && words.any(|word| word.trim_matches(',') == name)
        });
        assert!(found, "{exit} {name}");
    }
}

/// A document with emphasis that the conversion does not understand would leave a
/// pair of fonts with no text in it.
#[test]
fn no_emphasis_is_empty() {
    for path in MAN {
        let text = committed(path);
        assert!(text.contains("\\fB"), "{path} has no emphasis at all");
        for font in ["\\fI\\fR", "\\fB\\fR"] {
            assert!(!text.contains(font), "{path}");
        }
    }
}

#[test]
fn mandoc_accepts_the_pages() {
    for path in MAN {
        let mut mandoc = Command::new(program("mandoc"));
        mandoc
            .args(["-T", "lint", "-W", "warning"])
            .arg(packaging().join(path));
        let output = mandoc.stdin(Stdio::null()).output().expect("mandoc starts");
        assert!(
            output.status.success() && output.stdout.is_empty(),
            "{path}: {output:?}"
        );
    }
}

#[test]
fn shells_complete_with_the_committed_scripts() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let bash = format!(
        "source '{}'; COMP_WORDS=(deploy-shell-admin verify --s); COMP_CWORD=2; \
         _deploy__shell__admin deploy-shell-admin --s verify; echo \"${{COMPREPLY[*]}}\"",
        packaging()
            .join("completions/deploy-shell-admin.bash")
            .display()
    );
    // zsh completes only in a line editor, which needs a terminal.
    fs::write(
        directory.path().join("_deploy-shell-admin"),
        committed("completions/_deploy-shell-admin"),
    )
    .expect("a file");
    let zsh = format!(
        "zmodload zsh/zpty; zpty shell {} -f -i\n\
         zpty -w shell \"PS1= fpath=('{}' \\$fpath); autoload -U compinit; compinit -D -u; echo rea''dy\"\n\
         zpty -r shell said '*ready*'\n\
         zpty -n -w shell $'deploy-shell-admin verify --s\\t'\n\
         zpty -r shell said '*--site*'; print -r -- $said",
        program("zsh").display(),
        directory.path().display()
    );
    let fish = format!(
        "source '{}'; complete -C 'deploy-shell-admin verify --s'",
        packaging()
            .join("completions/deploy-shell-admin.fish")
            .display()
    );
    let root = directory.path().join("root");
    fs::create_dir_all(root.join("releases/r1-of-zsh")).expect("a release");
    let config = directory.path().join("x.toml");
    fs::write(&config, format!("root = \"{}\"\n", root.display())).expect("a file");
    let of_zsh = |typed: &str, shown: &str| {
        zsh.replace("verify --s\\t", &format!("{typed}\\t"))
            .replace("*--site*", &format!("*{shown}*"))
    };
    let releases = of_zsh(
        &format!("drop --config {} r1", config.display()),
        "r1-of-zsh",
    );
    let verbs = of_zsh("authorize --allow receive,sw", "receive,swap");
    for (shell, flags, script, expected) in [
        ("bash", "--norc", bash, "--site"),
        ("zsh", "-f", releases, "r1-of-zsh"),
        ("zsh", "-f", verbs, "receive,swap"),
        ("zsh", "-f", zsh.clone(), "verify --site"),
        ("fish", "-N", fish, "--site"),
    ] {
        // A shell that does not complete would wait without limit.
        let mut command = Command::new("timeout");
        command
            .arg("60")
            .arg(program(shell))
            .arg(flags)
            .env("TERM", "dumb")
            .args(["-c", &script])
            .env("HOME", directory.path());
        let output = command.stdin(Stdio::null()).output().expect("it starts");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains(expected), "{shell}: {output:?}");
    }
}

#[test]
fn shells_complete_the_values_of_options_and_releases() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let root = directory.path().join("root");
    // The account chooses these names, and root uses the completion.
    for release in [
        "r1",
        "r2",
        "r3$(cd;:>executed)",
        "r4;`cd;:>executed`",
        "r5\x1b[2J",
    ] {
        fs::create_dir_all(root.join("releases").join(release)).expect("directories");
    }
    let config = directory.path().join("x.toml");
    fs::write(&config, format!("root = \"{}\"\n", root.display())).expect("a file");
    let config = config.to_str().expect("text");
    let bash_script = packaging().join("completions/deploy-shell-admin.bash");
    let fish_script = packaging().join("completions/deploy-shell-admin.fish");
    // Sites come from /etc/deploy-shell, which a test leaves alone.
    for (words, expected, of_fish) in [
        (
            vec!["authorize", "--allow", "receive,s"],
            "receive,swap",
            false,
        ),
        (vec!["authorize", "--allow", "s"], "swap", true),
        (vec!["init", "--owner", "nobod"], "nobody", true),
        (vec!["verify", "--config", config, "r1"], "r1", true),
        (vec!["verify", "--config", config, "r"], "r1 r2\n", false),
        (vec!["drop", "--config", config, "r2"], "r2", true),
    ] {
        let line = words.join(" ");
        let (last, count) = (words[words.len() - 1], words.len());
        let bash = format!(
            "source '{}'; COMP_WORDS=(deploy-shell-admin {line}); COMP_CWORD={count}; \
             _deploy__shell__admin deploy-shell-admin '{last}' '{}'; echo \"${{COMPREPLY[*]}}\"",
            bash_script.display(),
            words[count - 2]
        );
        let fish = format!(
            "source '{}'; complete -C 'deploy-shell-admin {line}'",
            fish_script.display()
        );
        let shells = [
            ("bash", "--norc", bash, true),
            ("fish", "-N", fish, of_fish),
        ];
        for (shell, flag, script, _) in shells.iter().filter(|(.., is_tried)| *is_tried) {
            let mut command = Command::new(program(shell));
            command.args([flag, "-c", script.as_str()]);
            command.env("HOME", directory.path());
            let output = command.stdin(Stdio::null()).output().expect("it starts");
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(said.contains(expected), "{shell}: {line}: {output:?}");
            let executed = directory.path().join("executed").exists();
            assert!(!executed, "{shell}: {line}: a name was executed");
        }
    }
}
