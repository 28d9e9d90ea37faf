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
    text.replace(
        "deploy__subcmd__shell__subcmd__admin",
        "deploy__shell__admin",
    )
}
