//! The commands of remedies that change owners and modes.
//!
//! A remedy must not widen access, and must not make sshd or the account lose what they
//! need: a file that the account reads because it owns it must stay readable for it when
//! root becomes its owner. Commands for files in a directory of the account do not follow
//! symlinks (`chown -h`) or run as the account: it may replace a file by a symlink before
//! root runs the command.

use std::path::{Path, PathBuf};

use crate::check::facts::{Blocked, ComponentKind, Facts, PathComponent};
use deploy_shell::store::layout::STATE;

/// Returns how to keep everybody but root from writing `component`, on the way to
/// `file`.
pub fn give_to_root(facts: &Facts, component: &PathComponent, file: &Path) -> String {
    let shown = component.path.display();
    let root = &facts.config.root;
    // With another owner than the account, every swap fails.
    if component.path.starts_with(root) {
        let (file, root) = (file.display(), root.display());
        return format!("move '{file}' out of the site's root '{root}'");
    }
    let directory = component.kind == ComponentKind::Directory;
    let needed = if directory { 0o005 } else { 0o004 };
    match facts.passwd() {
        _ if component.kind == ComponentKind::Symlink => format!("chown -h root '{shown}'"),
        Some(entry) if component.mode & needed != needed => {
            let executes = directory || component.mode & 0o100 != 0;
            let group = if executes { "rx" } else { "r" };
            let gid = entry.gid;
            format!("chown root:{gid} '{shown}' && chmod g={group},o-w '{shown}'")
        }
        _ => format!("chown root '{shown}' && chmod go-w '{shown}'"),
    }
}

/// Returns how to keep others from writing `component`, on the way to a directory of the
/// site. The account owns the root and what is below it; root owns what is above.
pub fn give_to_site(facts: &Facts, component: &PathComponent) -> String {
    let shown = component.path.display();
    let owner = if component.path.starts_with(&facts.config.root) {
        facts.account_name()
    } else {
        "root".to_owned()
    };
    if component.kind == ComponentKind::Symlink {
        return format!("chown -h '{owner}' '{shown}'");
    }
    format!("chown -h '{owner}' '{shown}' && chmod go-w '{shown}'")
}

/// Returns how to let the account, and nobody else, use what it cannot.
pub fn let_use(facts: &Facts, blocked: &Blocked) -> String {
    let shown = blocked.at.display();
    let account = facts.account_name();
    let gid = facts.passwd().map(|entry| entry.gid).unwrap_or_default();
    if blocked.directory {
        format!("setfacl -m 'u:{account}:x' '{shown}'")
    } else {
        format!("chgrp {gid} '{shown}' && chmod g+r '{shown}'")
    }
}

/// Returns how to give files of the site to the account: those that are named, or the
/// whole state directory where there are many, or one has a name that a shell could
/// interpret.
pub fn give_to_account(facts: &Facts, paths: &[&PathBuf]) -> String {
    let account = facts.account_name();
    let plain = |path: &&PathBuf| {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+@,=: ".contains(&byte);
        path.to_str().is_some_and(|text| text.bytes().all(is_plain))
    };
    if paths.len() <= 5 && paths.iter().all(plain) {
        let shown: Vec<String> = (paths.iter())
            .map(|path| format!("'{}'", path.display()))
            .collect();
        return format!("chown -h '{account}' {}", shown.join(" "));
    }
    let state = facts.config.root.join(STATE);
    format!("chown -hR '{account}' '{}'", state.display())
}
