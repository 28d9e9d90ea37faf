//! The man pages. Options come from the definitions of the command lines, the rest
//! from `docs/`, so that a page and a document never differ.

use clap::{Arg, ArgAction, Command};
use clap_mangen::Man;

use crate::Page;
use crate::markdown::to_roff;

/// The date in the header of each page: the day on which the texts of this file last
/// changed. It is fixed, so that each build makes the same bytes.
const DATE: &str = "2026-11-28";

const CONFIGURATION: &str = include_str!("../../docs/configuration.md");
const REQUESTS: &str = include_str!("../../docs/requests.md");
const HOOKS_AND_HEALTH: &str = include_str!("../../docs/hooks-and-health.md");
const SHARED_PATHS: &str = include_str!("../../docs/shared-paths.md");
const ARCHIVES: &str = include_str!("../../docs/archives.md");
const SIGNING: &str = include_str!("../../docs/signing.md");
const AUDIT: &str = include_str!("../../docs/audit.md");
const OPERATING: &str = include_str!("../../docs/operating.md");
const MONITORING: &str = include_str!("../../docs/monitoring.md");
const DEPLOY_SHELL: &str = include_str!("../pages/deploy-shell.md");
const ADMIN: &str = include_str!("../pages/deploy-shell-admin.md");

pub fn pages() -> Vec<Page> {
    vec![
        Page {
            path: "man/deploy-shell.1",
            text: program(
                deploy_shell::cli::definition(),
                "forced command and restricted shell for deploys over ssh",
                DEPLOY_SHELL,
            ),
        },
        Page {
            path: "man/deploy-shell-admin.8",
            text: program(
                deploy_shell_admin::cli::command(),
                "set up, check and verify the sites of deploy-shell",
                &ADMIN
                    .replace(
                        "<!-- check -->",
                        section(OPERATING, "## What `check` reports"),
                    )
                    .replace(
                        "<!-- attention -->",
                        section(MONITORING, "## What needs attention"),
                    ),
            ),
        },
        Page {
            path: "man/deploy-shell.toml.5",
            text: document(
                "deploy-shell.toml",
                5,
                "configuration of a deploy-shell site",
                &[
                    ("DESCRIPTION", CONFIGURATION),
                    ("HOOKS AND HEALTH CHECKS", HOOKS_AND_HEALTH),
                    ("SHARED PATHS", SHARED_PATHS),
                ],
                &[
                    "deploy-shell (1)",
                    "deploy-shell-admin (8)",
                    "deploy-shell-requests (7)",
                ],
            ),
        },
        Page {
            path: "man/deploy-shell-requests.7",
            text: document(
                "deploy-shell-requests",
                7,
                "the requests that a client of deploy-shell can send",
                &[
                    ("DESCRIPTION", REQUESTS),
                    ("ARCHIVES", ARCHIVES),
                    ("SIGNED RELEASES", SIGNING),
                    ("LOG", AUDIT),
                ],
                &[
                    "deploy-shell (1)",
                    "deploy-shell.toml (5)",
                    "ssh (1)",
                    "zstd (1)",
                ],
            ),
        },
    ]
}

fn header(name: &str, section: u8, about: &str) -> String {
    format!(
        ".\\\" Made by 'cargo run -p xtask -- pages'. Change the documents, not this file.\n\
         .TH {} {section} {DATE} \"deploy-shell {}\"\n\
         .SH NAME\n{} \\- {}\n",
        name.to_uppercase(),
        env!("CARGO_PKG_VERSION"),
        escape(name),
        escape(about),
    )
}

fn escape(text: &str) -> String {
    text.replace('-', "\\-")
}

/// A page made of documents of `docs/`.
fn document(
    name: &str,
    section: u8,
    about: &str,
    parts: &[(&str, &str)],
    see_also: &[&str],
) -> String {
    let mut page = header(name, section, about);
    for (title, text) in parts {
        page += &format!(".SH {title}\n{}", to_roff(text));
    }
    page += ".SH SEE ALSO\n";
    let references: Vec<String> = see_also
        .iter()
        .map(|reference| format!(".BR {}", escape(reference)))
        .collect();
    page + &references.join(",\n") + "\n"
}

/// A page of a program: its command line, and the sections of `text`, in which a
/// comment says where the commands go.
fn program(command: Command, about: &str, text: &str) -> String {
    let name = command.get_name().to_owned();
    let section = if name == "deploy-shell" { 1 } else { 8 };
    let mut page = header(&name, section, about);
    let commands = subcommands(&command);
    let lines: Vec<String> = commands.iter().map(synopsis).collect();
    page += &format!(".SH SYNOPSIS\n{}\n", lines.join("\n.br\n"));
    let (before, after) = text
        .split_once("<!-- commands -->")
        .expect("the text says where the commands go");
    page += &to_roff(before);
    // clap_mangen writes an apostrophe as this string, and defines it in each part.
    let apostrophe = ".ie \\n(.g .ds Aq \\(aq\n.el .ds Aq '\n";
    page += &format!("{apostrophe}.SH COMMANDS\n");
    for command in commands {
        let about = command.get_about().expect("each command has a description");
        page += &format!(
            ".SS {}\n{}\n",
            escape(command.get_name()),
            escape(&about.to_string())
        );
        let mut options = Vec::new();
        Man::new(command)
            .render_options_section(&mut options)
            .expect("a write to memory succeeds");
        page += &String::from_utf8(options)
            .expect("a man page is UTF-8")
            .replace(".SH OPTIONS\n", "")
            .replace(apostrophe, "");
    }
    page + &to_roff(after)
}

/// Returns a section of a document, with its heading.
fn section<'a>(document: &'a str, heading: &str) -> &'a str {
    let start = document.find(heading).expect("the section");
    let text = &document[start..];
    let end = text[1..].find("\n## ").map_or(text.len(), |end| end + 1);
    text[..end].trim_end()
}

/// `deploy-shell-admin init --root DIR {--site NAME | --config FILE}`. The synopsis
/// of clap_mangen leaves out the names of the values.
fn synopsis(command: &Command) -> String {
    let alternatives: Vec<&str> = command
        .get_groups()
        .filter(|group| group.is_required_set())
        .flat_map(|group| group.get_args().map(clap::Id::as_str))
        .collect();
    let (one_of, others): (Vec<&Arg>, Vec<&Arg>) = command
        .get_arguments()
        .filter(|argument| !matches!(argument.get_id().as_str(), "help" | "version"))
        .partition(|argument| alternatives.contains(&argument.get_id().as_str()));
    let name = command.get_bin_name().expect("clap has built the command");
    let mut words = vec![format!("\\fB{}\\fR", escape(name))];
    if !one_of.is_empty() {
        let usages: Vec<String> = one_of.into_iter().map(usage).collect();
        words.push(format!("{{{}}}", usages.join(" | ")));
    }
    for argument in others {
        let repeats = match argument.get_action() {
            ArgAction::Append => "...",
            _ => "",
        };
        words.push(if argument.is_last_set() {
            format!("\\-\\- {}{repeats}", usage(argument))
        } else if argument.is_required_set() {
            usage(argument)
        } else {
            format!("[{}]{repeats}", usage(argument))
        });
    }
    words.join(" ")
}

/// `--key LABEL`, or `FILE.pub`.
fn usage(argument: &Arg) -> String {
    let mut words = Vec::new();
    if let Some(long) = argument.get_long() {
        words.push(format!("\\fB\\-\\-{}\\fR", escape(long)));
    }
    if argument.get_action().takes_values() {
        let names = argument.get_value_names().expect("a value has a name");
        words.extend(names.iter().map(|name| format!("\\fI{name}\\fR")));
    }
    words.join(" ")
}

/// The commands that a person types, each with the name of the program before its own.
fn subcommands(command: &Command) -> Vec<Command> {
    let mut command = command.clone().disable_help_subcommand(true);
    command.build();
    let shown = command.get_subcommands().filter(|sub| !sub.is_hide_set());
    shown.cloned().collect()
}
