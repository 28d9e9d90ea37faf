//! Findings about the directories and files that a request of the account needs.

use std::path::{Path, PathBuf};

use super::remedies::{chown_or_move, give_to_account, on, run_script};
use crate::check::facts::{
    ComponentKind, Facts, PathComponent, Resolution, ResolvedPath, Unusable, UnusableFault,
};
use crate::check::findings::{Finding, FindingCode};
use deploy_shell::shell_word::Word;
use deploy_shell::store::AS_FOR_A_FILE;
use deploy_shell::store::layout::{RELEASES, STATE};

pub fn layout_findings(facts: &Facts) -> Vec<Finding> {
    let root = &facts.paths.root;
    if let Some(finding) = root_missing(facts, root) {
        return vec![finding];
    }
    let mut findings = Vec::new();
    findings.extend((facts.paths.directories.iter()).filter_map(|it| symlink(facts, it)));
    if findings.is_empty() {
        findings.extend(incomplete(facts));
    }
    let (owned, owners): (Vec<&PathBuf>, Vec<u32>) = foreign_directories(facts).unzip();
    if let Some(first) = owned.first() {
        let name = facts.account_name();
        let shown: Vec<String> = (owned.iter())
            .map(|path| format!("'{}'", path.display()))
            .collect();
        let verb = if owned.len() == 1 { "does" } else { "do" };
        let text = format!(
            "{} {verb} not belong to '{name}': every request is refused",
            shown.join(", ")
        );
        let remedy = give_to_account(facts, owners);
        let code = FindingCode::NotOwned;
        findings.push(Finding::with_remedy(code, first.display(), text, &remedy));
    }
    findings.extend(root_not_writable(facts));
    findings.extend(unusable_state(facts));
    findings
}

fn root_missing(facts: &Facts, root: &ResolvedPath) -> Option<Finding> {
    let last = root.components.last();
    let what = match root.resolution {
        Resolution::Missing => "does not exist",
        Resolution::Complete if last?.kind != ComponentKind::Directory => "is not a directory",
        _ => return None,
    };
    let (shown, config) = (root.path.display(), facts.config_path.display());
    let text = format!("the root '{shown}' of the configuration {what}: every request is refused");
    let remedy = format!("'{config}'; for a new site, make it: {}", init(facts));
    Some(Finding::with_remedy(
        FindingCode::RootMissing,
        shown,
        text,
        &remedy,
    ))
}

/// Returns the command that makes the directories of the site.
fn init(facts: &Facts) -> String {
    let of_root = facts.paths.root.end().filter(|root| root.uid != 0);
    let owner = match (&facts.account, of_root) {
        (Some(account), _) if account.uid != 0 => facts.account_login(),
        // `.deploy-shell` is missing, which says who the account is.
        (None, Some(root)) => root.uid.to_string(),
        _ => "ACCOUNT".to_owned(),
    };
    let (site, root) = (facts.config.site_option(), Word::new(&facts.config.root));
    let owner = Word::new(owner);
    format!("deploy-shell-admin init {site} --root {root} --owner {owner}")
}

/// Returns the component of the directory itself, which may be a symlink.
fn own_component(directory: &ResolvedPath) -> Option<&PathComponent> {
    let mut components = directory.components.iter();
    components.find(|component| component.path == directory.path)
}

/// A request opens each directory by its handle, and follows no symlink there.
fn symlink(facts: &Facts, directory: &ResolvedPath) -> Option<Finding> {
    own_component(directory).filter(|own| own.kind == ComponentKind::Symlink)?;
    let shown = directory.path.display();
    let text = format!("'{shown}' is a symlink, and not a directory: every request is refused");
    let remedy = format!(
        "copy the directory to its place: {}",
        run_script(facts, &make_directory(facts, &directory.path))
    );
    let code = FindingCode::LayoutSymlink;
    Some(Finding::with_remedy(code, shown, text, &remedy))
}

/// Returns the command that replaces a symlink by a copy of the directory to which it leads.
///
/// Visitors come through `releases`. Until the copy is there, `current` names the live
/// release at its old place. So the site is served all the time, without `mv --exchange`,
/// which Debian 12 lacks. The command changes no name if `current` is not the name of a
/// release there.
fn make_directory(facts: &Facts, path: &Path) -> String {
    let (word, new) = (Word::new(path), Word::with_suffix(path, ".new"));
    let copy = format!("cp -aT {word}/. {new}");
    let replace = format!("rm {word} && mv -T {new} {word}");
    let is_served = facts.paths.current.end().is_some();
    if path != facts.config.root.join(RELEASES) || !is_served {
        return format!("{copy} && {replace}");
    }
    let link = facts.config.root.join(facts.config.link.as_str());
    let (link, next) = (Word::new(&link), Word::with_suffix(&link, ".new"));
    format!(
        "live=$(readlink -e {link}) && id=$(basename \"$live\") && {copy} && \
         test -d {new}/\"$id\" && ln -sT \"$live\" {next} && mv -T {next} {link} && \
         {replace} && ln -sT {RELEASES}/\"$id\" {next} && mv -T {next} {link}"
    )
}

fn incomplete(facts: &Facts) -> Option<Finding> {
    let missing = |path: &&ResolvedPath| path.resolution == Resolution::Missing;
    let missing: Vec<String> = (facts.paths.directories.iter().filter(missing))
        .map(|path| format!("'{}'", path.path.display()))
        .collect();
    let verb = match missing.len() {
        0 => return None,
        1 => "does",
        _ => "do",
    };
    let text = format!(
        "{} {verb} not exist: every request is refused",
        missing.join(", ")
    );
    let root = facts.config.root.display();
    let code = FindingCode::SiteIncomplete;
    Some(Finding::with_remedy(code, root, text, &init(facts)))
}

/// Iterates over the directories that belong to another user than the account, each with its
/// owner.
fn foreign_directories(facts: &Facts) -> impl Iterator<Item = (&PathBuf, u32)> {
    let uid = facts.account.as_ref().map(|account| account.uid);
    let directories = facts.paths.directories.iter();
    directories.filter_map(move |directory| {
        let own = own_component(directory)?;
        let is_foreign = own.kind == ComponentKind::Directory && own.uid != uid?;
        is_foreign.then_some((&directory.path, own.uid))
    })
}

/// Every swap renames a symlink in the root.
fn root_not_writable(facts: &Facts) -> Option<Finding> {
    let root = &facts.config.root;
    let unusable = facts.probe.unusable.iter().find(|it| it.path == *root)?;
    let name = facts.account_name();
    // The root may be a symlink.
    let real = facts.paths.root.components.last();
    let path = real.map_or(root, |real| &real.path);
    let (shown, word) = (path.display(), Word::new(path));
    let mut text =
        format!("'{name}' cannot create names in '{shown}': every swap and rollback fails");
    let remedy = match unusable.fault {
        UnusableFault::ReadOnly => {
            text += "; its file system is read-only";
            format!("mount the file system of '{shown}' read-write")
        }
        _ if Some(unusable.uid) == facts.account.as_ref().map(|account| account.uid) => {
            on(facts, &facts.paths.root, format!("chmod u+rwx {word}"))
        }
        _ => {
            let command = format!("chown -h {} {word}", facts.account_word());
            chown_or_move(facts.paths.root.above(), command)
        }
    };
    let code = FindingCode::RootNotWritable;
    Some(Finding::with_remedy(code, shown, text, &remedy))
}

fn unusable_state(facts: &Facts) -> Vec<Finding> {
    let name = facts.account_name();
    let foreign: Vec<&PathBuf> = foreign_directories(facts).map(|(path, _)| path).collect();
    // The finding about a symlink has the remedy.
    let is_symlink = |path: &PathBuf| {
        let mut directories = facts.paths.directories.iter().filter_map(own_component);
        directories.any(|own| own.path == *path && own.kind == ComponentKind::Symlink)
    };
    // A read-only file system is one finding, about the root.
    let entries = (facts.probe.unusable.iter()).filter(|entry| {
        entry.path != facts.config.root
            && entry.fault != UnusableFault::ReadOnly
            && !foreign.contains(&&entry.path)
            && !is_symlink(&entry.path)
    });
    let entries: Vec<&Unusable> = entries.collect();
    let (odd, denied): (Vec<&Unusable>, Vec<&Unusable>) =
        (entries.into_iter()).partition(|entry| entry.fault == UnusableFault::NotAFile);
    let state = facts.config.root.join(STATE);
    let mut findings = Vec::new();
    let mut add = |entries: &[&Unusable], what: String, remedy: String| {
        let Some(first) = entries.first() else {
            return;
        };
        let shown = first.path.display();
        let more = match entries.len() {
            1 => String::new(),
            count => format!(" and {} more", count - 1),
        };
        let text = format!("'{shown}'{more} {what}");
        let code = FindingCode::StateUnusable;
        findings.push(Finding::with_remedy(code, shown, text, &remedy));
    };
    let what = format!("cannot be used by '{name}': requests fail");
    let account = facts.account.as_ref().map(|account| account.uid);
    let (ours, others): (Vec<&Unusable>, Vec<&Unusable>) =
        (denied.into_iter()).partition(|entry| entry.uid == 0 || Some(entry.uid) == account);
    let owners = ours.iter().map(|entry| entry.uid);
    add(&ours, what.clone(), give_to_account(facts, owners));
    let away = format!("look at it, and move it away, {AS_FOR_A_FILE}");
    add(&others, what, away);
    let what = "is not a regular file: requests fail".to_owned();
    let remedy = format!("look at it, and move it out of '{}'", state.display());
    add(&odd, what, remedy);
    findings
}
