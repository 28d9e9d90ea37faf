//! The lines that `adopt` prints: what it found, what it does, and what stops it.

use super::layout::Current;
use super::plan::{Candidate, Plan, rollback_target};
use deploy_shell::config::Config;
use deploy_shell::shell_word::Word;
use deploy_shell::store::Store;
use deploy_shell::store::layout::RELEASES;

/// Returns a line for each change and for each release that is left alone.
pub fn plan_lines(config: &Config, store: &Store, plan: &Plan, account: u32) -> Vec<String> {
    let layout = &plan.layout;
    let mut lines = vec![format!(
        "found {}; '{}' is live",
        layout.tool.evidence(),
        layout.live
    )];
    for change in &plan.directories {
        let path = match change.name {
            None => store.path().to_owned(),
            Some(name) => store.path().join(name),
        };
        let shown = Word::new(path);
        if let Some(owner) = change.owner {
            lines.push(format!("chown {shown} from user {owner} to user {account}"));
        }
        if let Some((from, to)) = change.mode {
            lines.push(format!("chmod {shown} from {from:04o} to {to:04o}"));
        }
    }
    for id in plan.completed.keys() {
        lines.push(format!("'{id}' is adopted already"));
    }
    for candidate in &plan.candidates {
        lines.extend(candidate_lines(plan, candidate, account));
    }
    for refused in &plan.refused {
        lines.extend(refused_lines(config, store, plan, refused, account));
    }
    for (name, why) in layout.left.iter().chain(&plan.order.left) {
        lines.push(format!("leave '{RELEASES}/{name}' alone: {why}"));
    }
    lines.extend(current_line(config, plan));
    match rollback_target(plan, config) {
        Some(target) => lines.push(format!("'rollback' then goes to '{target}'")),
        None => lines.push("'rollback' then has no release to go to".to_owned()),
    }
    if let Some(time) = plan.begun {
        lines.push(format!(
            "the journal has requests until {time}: no old deployment gets an earlier time"
        ));
    }
    if config.signatures.is_some() {
        lines.push("no adopted release has a signature, so no rollback goes to one".to_owned());
    }
    lines.extend(shared_lines(config, plan));
    lines
}

fn candidate_lines(plan: &Plan, candidate: &Candidate, account: u32) -> Vec<String> {
    let Candidate { id, survey } = candidate;
    let since = match plan.order.releases.get(id) {
        Some(time) => format!(", deployed {time}"),
        None => String::new(),
    };
    let (files, bytes) = (survey.sums.files, survey.sums.bytes);
    let mut lines = vec![format!("adopt '{id}': {files} files, {bytes} bytes{since}")];
    if let Some(foreign) = survey.owners.first() {
        let (first, from) = (shown(&foreign.path), foreign.uid);
        let more = more(survey.owners.len());
        lines.push(format!(
            "  chown {first} from user {from} to user {account}{more}"
        ));
    }
    if let Some((first, from, to)) = survey.modes.first() {
        let (first, more) = (shown(first), more(survey.modes.len()));
        lines.push(format!("  chmod {first} from {from:04o} to {to:04o}{more}"));
    }
    for (path, target) in &survey.symlinks {
        lines.push(format!(
            "  make the symlink {} relative: '{target}'",
            shown(path)
        ));
    }
    lines
}

/// Counts the entries besides the first one.
fn more(number: usize) -> String {
    match number {
        1 => String::new(),
        number => format!(", and {} more", number - 1),
    }
}

fn shown(path: &[u8]) -> String {
    match path {
        b"" => "'.'".to_owned(),
        path => format!("'./{}'", String::from_utf8_lossy(path)),
    }
}

/// Returns the faults of a release, each with its remedy.
fn refused_lines(
    config: &Config,
    store: &Store,
    plan: &Plan,
    refused: &Candidate,
    account: u32,
) -> Vec<String> {
    let Candidate { id, survey } = refused;
    let as_owner = |command: &str| match survey.owner {
        // Only root can run it: `run` runs nothing as root.
        0 => format!("as root, before others can write above it: {command}"),
        owner if owner == account => store.run_command(command),
        owner => store.run_command_of(owner, command),
    };
    let is_live = *id == plan.layout.live;
    let result = if is_live {
        format!("the live release '{id}' cannot be adopted")
    } else {
        format!("'{id}' is left alone")
    };
    let release = match plan.layout.current {
        Current::Directory if is_live => store.path().join(config.link.as_str()),
        _ => store.path().join(RELEASES).join(id.as_str()),
    };
    let mut lines = Vec::new();
    for (fault, paths) in &survey.faults {
        let first = paths.first().map_or(&b""[..], Vec::as_slice);
        let (first_shown, more) = (shown(first), more(paths.len()));
        lines.push(format!("{result}: {first_shown} {fault}{more}"));
        lines.push(format!("  {}", fault.remedy(&release, paths, as_owner)));
    }
    lines
}

fn current_line(config: &Config, plan: &Plan) -> Option<String> {
    let (link, live) = (&config.link, &plan.layout.live);
    match &plan.layout.current {
        Current::Own => None,
        Current::Symlink(target) => Some(format!(
            "replace the symlink '{link}' to '{target}' by one to '{RELEASES}/{live}', in one step"
        )),
        Current::Directory => Some(format!(
            "exchange the directory '{link}' for a symlink to '{RELEASES}/{live}', in one step"
        )),
    }
}

/// Returns the table that the configuration needs, if it lacks shared paths.
fn shared_lines(config: &Config, plan: &Plan) -> Vec<String> {
    if plan.missing_shared.is_empty() {
        return Vec::new();
    }
    let links = config.shared.links.iter().chain(&plan.missing_shared);
    let quoted: Vec<String> = links
        .map(|link| toml::Value::String(link.to_string()).to_string())
        .collect();
    vec![
        "the live release has symlinks to shared/ that the configuration does not have".to_owned(),
        "set this in the configuration, which may have the line [shared] already, and run adopt again:".to_owned(),
        "[shared]".to_owned(),
        format!("links = [{}]", quoted.join(", ")),
    ]
}
