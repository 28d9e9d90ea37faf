//! The completions for bash, zsh and fish, of the operator's program alone: nobody
//! types a command line of `deploy-shell`.

use clap_complete::Shell;

use crate::Page;

pub fn pages() -> Vec<Page> {
    let shells = [
        ("completions/deploy-shell-admin.bash", Shell::Bash),
        ("completions/_deploy-shell-admin", Shell::Zsh),
        ("completions/deploy-shell-admin.fish", Shell::Fish),
    ];
    let page = |(path, shell)| Page {
        path,
        text: completion(shell),
    };
    shells.map(page).into()
}

fn completion(shell: Shell) -> String {
    let mut text = Vec::new();
    let mut command = deploy_shell_admin::cli::command().disable_help_subcommand(true);
    clap_complete::generate(shell, &mut command, "deploy-shell-admin", &mut text);
    let text = String::from_utf8(text).expect("a completion script is UTF-8");
    // clap_complete 4.6 takes each hyphen in the name of a program for a step to a
    // subcommand, in half of the places (its issue 6421). bash then completes no
    // option of a subcommand.
    let text = text.replace(
        "deploy__subcmd__shell__subcmd__admin",
        "deploy__shell__admin",
    );
    let text = match shell {
        Shell::Bash => with_values_of_bash(&text),
        Shell::Zsh => text
            .replace(":NAME:_default", ":NAME:($(_deploy_shell_sites))")
            .replace(":ACCOUNT:_default", ":ACCOUNT:_users")
            // With two colons, the function would not see the options.
            .replace("'*::releases -- The releases:_default'", "'*:releases -- The releases:_deploy_shell_releases'")
            .replace("'*::releases -- The releases \\[default\\: all\\]:_default'", "'*:releases -- The releases \\[default\\: all\\]:_deploy_shell_releases'")
            .replace(
                ":VERBS:_default",
                &format!(":VERBS:_values -s , verb {VERBS}"),
            )
            .replace(
                "\n_deploy-shell-admin() {",
                &format!(
                    "\n_deploy_shell_sites() {{\n    {SITES}\n}}\n\n{RELEASES_OF_ZSH}\n_deploy-shell-admin() {{"
                ),
            ),
        _ => with_values_of_fish(&text),
    };
    text.replace("@PLAIN_NAMES@", PLAIN_NAMES)
}

/// The verbs of `--allow`.
const VERBS: &str = "receive swap rollback list files";

/// Lets only the names through that a site or a release may have.
///
/// `releases/` belongs to the account, and root uses the completion. bash expands the words of
/// `compgen -W`, commands in them included. So every shell gets plain names alone.
const PLAIN_NAMES: &str = "LC_ALL=C grep -x '[0-9A-Za-z][0-9A-Za-z._-]*'";

/// Prints the names of the sites. A shell without a match passes the pattern on, so `ls`
/// gets the directory alone.
const SITES: &str =
    "command ls /etc/deploy-shell 2> /dev/null | sed -n 's/\\.toml$//p' |\n        @PLAIN_NAMES@";

/// The same for fish, in which `$` and quotes have other rules. The directory is root's, and
/// fish expands no word.
const SITES_OF_FISH: &str =
    "command ls /etc/deploy-shell 2> /dev/null | string match -r \".*(?=[.]toml)\"";

/// Completes the releases of the site that the command line names, if it may be read.
const RELEASES_OF_ZSH: &str = r#"_deploy_shell_releases() {
    local i config root
    for ((i = 1; i < CURRENT; i++)); do
        case ${words[i]} in
            --site) config=/etc/deploy-shell/${words[i + 1]}.toml ;;
            --config) config=${words[i + 1]} ;;
        esac
    done
    root=$(sed -n 's/^root = "\([^"]*\)".*/\1/p' "${config:-/dev/null}" 2> /dev/null)
    [[ -z $root ]] || compadd -- ${(f)"$(command ls "$root/releases" 2> /dev/null |
        @PLAIN_NAMES@)"}
}
"#;

/// The same for fish.
const RELEASES_OF_FISH: &str = r#"function __deploy_shell_releases
    set -l words (commandline -opc)
    set -l config /dev/null
    for i in (seq (count $words))
        switch $words[$i]
            case --site
                set config /etc/deploy-shell/$words[(math $i + 1)].toml
            case --config
                set config $words[(math $i + 1)]
        end
    end
    set -l root (sed -n 's/^root = "\([^"]*\)".*/\1/p' $config 2> /dev/null)
    test -z "$root"; or command ls $root/releases 2> /dev/null |
        @PLAIN_NAMES@
end
complete -c deploy-shell-admin -n "__fish_deploy_shell_admin_using_subcommand drop" -f -a "(__deploy_shell_releases)"
complete -c deploy-shell-admin -n "__fish_deploy_shell_admin_using_subcommand verify" -f -a "(__deploy_shell_releases)"
"#;

/// Completes sites, verbs, accounts and releases. clap_complete knows only files.
fn with_values_of_bash(text: &str) -> String {
    let files = "COMPREPLY=($(compgen -f \"${cur}\"))";
    let mut text = text.to_owned();
    for (option, values) in [
        (
            "--site)",
            "-W \"$(_deploy_shell_sites)\" -- \"${cur}\"".to_owned(),
        ),
        ("--owner)", "-u -- \"${cur}\"".to_owned()),
        (
            "--allow)",
            format!("-W \"{VERBS}\" -P \"${{cur%\"${{cur##*,}}\"}}\" -- \"${{cur##*,}}\""),
        ),
    ] {
        let indent = "\n                    ";
        text = text.replace(
            &format!("{option}{indent}{files}"),
            &format!("{option}{indent}COMPREPLY=($(compgen {values}))"),
        );
    }
    let words = "COMPREPLY=( $(compgen -W \"${opts}\" -- \"${cur}\") )\n            return 0";
    let releases = "COMPREPLY=( $(compgen -W \"${opts} $(_deploy_shell_releases)\" -- \"${cur}\") )\n            return 0";
    for command in ["drop)\n            opts", "verify)\n            opts"] {
        let (before, after) = text.split_once(command).expect("the command is there");
        text = format!("{before}{command}{}", after.replacen(words, releases, 1));
    }
    format!(
        "_deploy_shell_sites() {{\n    {SITES}\n}}\n\n\
         # The releases of the site that the command line names, if it may be read. The account\n\
         # chooses the names there, and compgen -W expands what it gets.\n\
         _deploy_shell_releases() {{\n    \
             local i config root\n    \
             for ((i = 1; i < COMP_CWORD; i++)); do\n        \
                 case ${{COMP_WORDS[i]}} in\n            \
                     --site) config=/etc/deploy-shell/${{COMP_WORDS[i + 1]}}.toml ;;\n            \
                     --config) config=${{COMP_WORDS[i + 1]}} ;;\n        \
                 esac\n    \
             done\n    \
             root=$(sed -n 's/^root = \"\\([^\"]*\\)\".*/\\1/p' \"${{config:-/dev/null}}\" 2> /dev/null)\n    \
             [ -z \"$root\" ] || command ls \"$root/releases\" 2> /dev/null |\n        \
                 @PLAIN_NAMES@\n}}\n\n{text}"
    )
}

fn with_values_of_fish(text: &str) -> String {
    let value = |line: &str| {
        let values = [
            (" -l site ", format!("-f -a '({SITES_OF_FISH})'")),
            (" -l owner ", "-f -a '(__fish_complete_users)'".to_owned()),
            (" -l allow ", format!("-f -a '{VERBS}'")),
        ];
        let found = values.iter().find(|(option, _)| line.contains(option));
        match found {
            Some((_, values)) => format!("{line} {values}\n"),
            None => format!("{line}\n"),
        }
    };
    let lines: String = text.lines().map(value).collect();
    lines + RELEASES_OF_FISH
}
