//! The commands of remedies that change owners and modes.
//!
//! A remedy must not widen access, and must not make sshd or the account lose what they
//! need: a file that the account reads because it owns it must stay readable for it when
//! root becomes its owner. No remedy has a command of root's for a path below the site's root,
//! nor below any other directory that somebody but root can write, such as the account's home
//! directory: the account may put anything at each name there before root runs the command. `run`
//! makes the command one of the account's, and `repair` works by handles.

use std::path::Path;

use super::paths::first_writable;
use crate::check::facts::{Blocked, ComponentKind, Facts, PathComponent, ResolvedPath};
use crate::site_account::MOVE_THE_SITE;
use deploy_shell::shell_word::{self, Word};
use deploy_shell::store::COPY_THE_SITE;

/// Returns whether root alone can exchange what is below these components. In a sticky directory,
/// the owner of a file can exchange it.
pub fn is_fixed(components: &[PathComponent]) -> bool {
    let is_open = |last: &PathComponent| last.is_sticky_directory();
    !components.last().is_none_or(is_open) && first_writable(components, &[0]).is_none()
}

/// Returns `command`, which works on the end of a path: as the account, where somebody but root
/// can exchange what is there.
pub fn on(facts: &Facts, resolved: &ResolvedPath, command: String) -> String {
    as_who(facts, resolved.above(), command)
}

/// Returns `command`, on a file in the directory at the end of a path, as [`on`] does.
pub fn within(facts: &Facts, directory: &ResolvedPath, command: String) -> String {
    as_who(facts, &directory.components, command)
}

fn as_who(facts: &Facts, components: &[PathComponent], command: String) -> String {
    if is_fixed(components) {
        return command;
    }
    run(facts, &command)
}

/// Returns `chown`, a command of root's on what is below the components `above`; or how to move
/// the site, where somebody but root can put something else there.
pub fn chown_or_move(above: &[PathComponent], chown: String) -> String {
    if is_fixed(above) {
        return chown;
    }
    MOVE_THE_SITE.to_owned()
}

/// Returns how to keep everybody but root from writing `component`, on the way to
/// `file`.
pub fn give_to_root(facts: &Facts, component: &PathComponent, file: &Path) -> String {
    let shown = Word::new(&component.path);
    let root = &facts.config.root;
    // With another owner than the account, every swap fails.
    if component.path.starts_with(root) {
        let (file, root) = (file.display(), root.display());
        return format!("move '{file}' out of the site's root '{root}'");
    }
    let directory = component.kind == ComponentKind::Directory;
    let needed = if directory { 0o005 } else { 0o004 };
    match facts.passwd() {
        _ if component.kind == ComponentKind::Symlink => look_at_symlink(component, "root"),
        Some(entry) if component.mode & needed != needed => {
            let executes = directory || component.mode & 0o100 != 0;
            let group = if executes { "rx" } else { "r" };
            let gid = entry.gid;
            format!("chown -h root:{gid} {shown} && chmod g={group},o-w {shown}")
        }
        _ => format!("chown -h root {shown} && chmod go-w {shown}"),
    }
}

/// Returns how to give a symlink to `owner`. Its owner so far has chosen where it leads.
fn look_at_symlink(symlink: &PathComponent, owner: impl std::fmt::Display) -> String {
    let shown = Word::new(&symlink.path);
    format!(
        "look where it leads (ls -l {shown}); if that is right: chown -h {owner} {shown}; if not: \
         rm {shown}"
    )
}

/// Returns how to keep others from writing `component`, on the way to a directory of the
/// site. The account owns the root and what is below it; root owns what is above.
pub fn give_to_site(facts: &Facts, resolved: &ResolvedPath, component: &PathComponent) -> String {
    let root = &facts.config.root;
    if component.path.starts_with(root) && component.path != *root {
        return give_to_account(facts, [component.uid]);
    }
    let shown = Word::new(&component.path);
    let is_root = component.path == *root;
    let account = facts.account.as_ref().map(|account| account.uid);
    if is_root && Some(component.uid) == account {
        return on(facts, resolved, format!("chmod go-w {shown}"));
    }
    let owner = if is_root {
        facts.account_word()
    } else {
        Word::new("root")
    };
    let command = match component.kind {
        ComponentKind::Symlink => look_at_symlink(component, owner),
        _ => format!("chown -h {owner} {shown} && chmod go-w {shown}"),
    };
    let components = &resolved.components;
    let at = components.iter().position(|it| it.path == component.path);
    chown_or_move(&components[..at.unwrap_or_default()], command)
}

/// Returns how to give one account, and nobody else, these rights to `path`. A group or
/// the mode for others would give them to more accounts.
pub fn let_account(facts: &Facts, account: &str, rights: &str, at: &ResolvedPath) -> String {
    let entry = Word::new(format!("u:{account}:{rights}"));
    let command = format!("setfacl -m {entry} {}", Word::new(&at.path));
    // The account owns the root. setfacl(1) follows a symlink.
    let setfacl = if at.path.starts_with(&facts.config.root) {
        run(facts, &command)
    } else {
        on(facts, at, command)
    };
    format!("with setfacl, which the package acl installs: {setfacl}")
}

/// Returns how to let the account, and nobody else, use what it cannot.
pub fn let_use(facts: &Facts, blocked: &Blocked) -> String {
    let rights = if blocked.directory { "x" } else { "r" };
    let_account(facts, &facts.account_login(), rights, &blocked.at)
}

/// As [`shell_word::run_command`].
pub fn run(facts: &Facts, command: &str) -> String {
    shell_word::run_command(&facts.config.site_option(), command)
}

/// As [`shell_word::run_script`].
pub fn run_script(facts: &Facts, script: &str) -> String {
    shell_word::run_script(&facts.config.site_option(), script)
}

/// Returns how the account gets what belongs to `owners`, with the modes that requests need.
/// `repair` takes nothing from another user than root.
pub fn give_to_account(facts: &Facts, owners: impl IntoIterator<Item = u32>) -> String {
    let account = facts.account.as_ref().map(|account| account.uid);
    let is_taken = |uid| uid == 0 || Some(uid) == account;
    if !owners.into_iter().all(is_taken) {
        return COPY_THE_SITE.to_owned();
    }
    shell_word::repair_command(&facts.config.site_option())
}
