//! The three pages. Options come from the command line's own definition, tables
//! and prose from docs/, which is held against the program elsewhere.

use clap::{Arg, Command};

use super::markdown::{inline, section, to_man};

const REQUESTS: &str = include_str!("../../../docs/requests.md");
const CONFIGURATION: &str = include_str!("../../../docs/configuration.md");
const HOOKS: &str = include_str!("../../../docs/hooks-and-health.md");
const SHARED_PATHS: &str = include_str!("../../../docs/shared-paths.md");
const ARCHIVES: &str = include_str!("../../../docs/archives.md");
const SIGNING: &str = include_str!("../../../docs/signing.md");
const AUDIT: &str = include_str!("../../../docs/audit.md");
const ON_DISK: &str = include_str!("../../../docs/on-disk.md");
const OPERATING: &str = include_str!("../../../docs/operating.md");
/// Of the last change of a text that stands here; a page must have a date, and
/// the same in every build.
const DATE: &str = "2026-11-20";

fn head(name: &str, section: u8, about: &str) -> String {
    format!(
        ".\\\" Made by packaging/pages: change it there, or in docs/.\n\
         .TH {} {section} {DATE} \"deploy-shell {}\"\n\
         .SH NAME\n{} \\- {about}\n",
        name.to_uppercase(),
        env!("CARGO_PKG_VERSION"),
        name.replace('-', "\\-"),
    )
}

/// A page of `docs` without its title.
fn page_of(text: &str) -> String {
    let (title, text) = text.split_once("\n\n").expect("a title");
    assert!(title.starts_with("# "), "{title}");
    to_man(text)
}

/// deploy-shell(1)
pub fn program(command: &Command) -> String {
    let mut page = head(
        "deploy-shell",
        1,
        "forced command and restricted shell for deploys over ssh",
    );
    page += ".SH SYNOPSIS\n";
    for sub in command.get_subcommands() {
        page += &format!("{}\n.br\n", synopsis(sub));
    }
    page += "\\fBdeploy\\-shell \\-c\\fR \\fISTRING\\fR\n";
    page += ".SH DESCRIPTION\n";
    page += &to_man(
        "`deploy-shell` is the program that sshd runs for a locked-down deploy account: as the \
         forced command of its keys, and as its login shell. It reads one request from \
         `SSH_ORIGINAL_COMMAND`, answers it, puts it on record in syslog, and exits. What a client \
         may ask is in deploy-shell-requests(7); what a site allows, in deploy-shell.toml(5).\n\
         \n\
         Its command line is the operator's, and the only source of authority. Nothing of it can \
         be said by a client.\n",
    );
    page += ".SH COMMANDS\n";
    for sub in command.get_subcommands() {
        let about = sub.get_about().expect("a command says what it does");
        page += &format!(".SS {}\n{}\n", sub.get_name(), inline(&about.to_string()));
        for arg in arguments(sub) {
            let help = arg.get_help().expect("an argument says what it is");
            page += &format!(".TP\n{}\n{}\n", usage(arg), inline(&help.to_string()));
        }
        if sub.get_name() == "verify" {
            page += &to_man(&section(OPERATING, "## Verify releases"));
        }
    }
    page += ".SS \\-c STRING\n";
    page += &to_man(
        "How sshd starts a login shell. `STRING` must be a `serve` command line, as `authorize` \
         writes it into an authorized key; anything else is refused with exit status 64, and so is \
         a login without a command.\n",
    );
    page += ".TP\n\\fB\\-h\\fR, \\fB\\-\\-help\\fR\nPrint help.\n";
    page += ".TP\n\\fB\\-V\\fR, \\fB\\-\\-version\\fR\nPrint the version.\n";
    page += ".SH EXIT STATUS\n";
    page += &exit_status();
    page += ".SH ENVIRONMENT\n";
    page += &to_man(
        "`serve` reads three variables, all of them set by sshd, and no other:\n\n\
         | a | b |\n|---|---|\n\
         | `SSH_ORIGINAL_COMMAND` | the client's request |\n\
         | `SSH_USER_AUTH` | a file with the key that was used, for the record (`ExposeAuthInfo yes`) |\n\
         | `SSH_CONNECTION` | the client's address, for the record |\n",
    );
    page += ".SH FILES\n";
    page += &to_man(
        "| a | b |\n|---|---|\n\
         | `/etc/deploy-shell/NAME.toml` | a site; see deploy-shell.toml(5) |\n\
         | `/etc/deploy-shell/authorized_keys/deploy` | the keys, each with its forced command |\n\
         | `/etc/ssh/sshd_config.d/00-deploy-shell.conf` | what sshd lets the account do |\n",
    );
    page += ".PP\nBelow the root of a site:\n";
    page += page_of(ON_DISK)
        .split(".SS ")
        .next()
        .expect("the text before the subsections");
    page += ".SH SEE ALSO\n\
             .BR deploy\\-shell.toml (5),\n\
             .BR deploy\\-shell\\-requests (7),\n\
             .BR sshd (8),\n\
             .BR ssh\\-keygen (1)\n";
    page
}

/// deploy-shell.toml(5)
pub fn configuration() -> String {
    let mut page = head(
        "deploy-shell.toml",
        5,
        "configuration of a deploy\\-shell site",
    );
    page += ".SH DESCRIPTION\n";
    page += &page_of(CONFIGURATION);
    page += ".SH HOOKS AND HEALTH\n";
    page += &page_of(HOOKS);
    page += ".SH SHARED PATHS\n";
    page += &page_of(SHARED_PATHS);
    page += ".SH EXAMPLE\n.nf\n.RS 4\n\
             root = \"/srv/www/example.com\"\n\
             keep = 3\n\
             \n\
             [archive]\n\
             required_paths = [\"index.html\"]\n\
             .RE\n.fi\n\
             .PP\nThe file that\n\
             .B deploy\\-shell init\n\
             writes has every key, with its default, and a comment.\n";
    page += ".SH SEE ALSO\n\
             .BR deploy\\-shell (1),\n\
             .BR deploy\\-shell\\-requests (7)\n";
    page
}

/// deploy-shell-requests(7)
pub fn requests() -> String {
    let mut page = head(
        "deploy-shell-requests",
        7,
        "what a client of deploy\\-shell may ask",
    );
    page += ".SH DESCRIPTION\n";
    let text = page_of(REQUESTS);
    page += &text;
    page += ".SH ARCHIVES\n";
    page += &page_of(ARCHIVES);
    page += ".SH SIGNATURES\n";
    page += &page_of(SIGNING);
    page += ".SH RECORD\n";
    page += &page_of(AUDIT);
    page += ".SH SEE ALSO\n\
             .BR deploy\\-shell (1),\n\
             .BR deploy\\-shell.toml (5),\n\
             .BR ssh (1),\n\
             .BR zstd (1)\n";
    page
}

/// The table of exit statuses, and what stands below it.
fn exit_status() -> String {
    let requests = section(REQUESTS, "## Exit statuses");
    let table = requests.find("| Exit |").expect("a table of exit statuses");
    to_man(&requests[table..])
}

fn arguments(command: &Command) -> impl Iterator<Item = &Arg> {
    command
        .get_arguments()
        .filter(|arg| !arg.is_hide_set() && !matches!(arg.get_id().as_str(), "help" | "version"))
}

/// `--key LABEL`, or `FILE.pub`.
fn usage(arg: &Arg) -> String {
    let mut words = Vec::new();
    if let Some(long) = arg.get_long() {
        words.push(format!("\\fB\\-\\-{}\\fR", long.replace('-', "\\-")));
    }
    if arg.get_action().takes_values() {
        let names = arg.get_value_names().expect("a value has a name");
        words.extend(names.iter().map(|name| format!("\\fI{name}\\fR")));
    }
    words.join(" ")
}

fn synopsis(command: &Command) -> String {
    let one_of: Vec<&str> = command
        .get_groups()
        .filter(|group| group.is_required_set())
        .flat_map(|group| group.get_args().map(clap::Id::as_str))
        .collect();
    let mut words = vec![format!("\\fBdeploy\\-shell {}\\fR", command.get_name())];
    let alternatives: Vec<String> = arguments(command)
        .filter(|arg| one_of.contains(&arg.get_id().as_str()))
        .map(usage)
        .collect();
    if !alternatives.is_empty() {
        words.push(format!("{{{}}}", alternatives.join(" | ")));
    }
    for arg in arguments(command).filter(|arg| !one_of.contains(&arg.get_id().as_str())) {
        let many = if matches!(arg.get_action(), clap::ArgAction::Append) {
            "..."
        } else {
            ""
        };
        words.push(match arg.is_required_set() {
            true => usage(arg),
            false => format!("[{}]{many}", usage(arg)),
        });
    }
    words.join(" ")
}
