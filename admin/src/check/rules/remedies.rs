//! The commands of remedies that change owners and modes.
//!
//! A remedy must not widen access, and must not make sshd or the account lose what they
//! need: a file that the account reads because it owns it must stay readable for it when
//! root becomes its owner. Commands for files in a directory of the account do not follow
//! symlinks (`chown -h`) or run as the account: it may replace a file by a symlink before
//! root runs the command.

use std::path::{Path, PathBuf};

use crate::check::facts::{Blocked, ComponentKind, Facts, PathComponent};
use deploy_shell::shell_word::{Word, run_as};
use deploy_shell::store::layout::STATE;

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
        _ if component.kind == ComponentKind::Symlink => format!("chown -h root {shown}"),
        Some(entry) if component.mode & needed != needed => {
            let executes = directory || component.mode & 0o100 != 0;
            let group = if executes { "rx" } else { "r" };
            let gid = entry.gid;
            format!("chown -h root:{gid} {shown} && chmod g={group},o-w {shown}")
        }
        _ => format!("chown -h root {shown} && chmod go-w {shown}"),
    }
}

/// Returns how to keep others from writing `component`, on the way to a directory of the
/// site. The account owns the root and what is below it; root owns what is above.
pub fn give_to_site(facts: &Facts, component: &PathComponent) -> String {
    let shown = Word::new(&component.path);
    let owner = if component.path.starts_with(&facts.config.root) {
        facts.account_word()
    } else {
        Word::new("root")
    };
    if component.kind == ComponentKind::Symlink {
        return format!("chown -h {owner} {shown}");
    }
    let chmod = format!("chmod go-w {shown}");
    if component.path.starts_with(&facts.config.root) && component.path != facts.config.root {
        let give = give_to_account(facts, &[&component.path]);
        return format!("{give} && {}", as_account(facts, &chmod));
    }
    format!("chown -h {owner} {shown} && {chmod}")
}

/// Returns how to give one account, and nobody else, these rights to `path`. A group or
/// the mode for others would give them to more accounts.
pub fn let_account(facts: &Facts, account: &str, rights: &str, path: &Path) -> String {
    let (entry, word) = (Word::new(format!("u:{account}:{rights}")), Word::new(path));
    let mut setfacl = format!("setfacl -m {entry} {word}");
    // setfacl(1) follows a symlink.
    if path.starts_with(&facts.config.root) {
        setfacl = as_account(facts, &setfacl);
    }
    format!("with setfacl, which the package acl installs: {setfacl}")
}

/// Returns how to let the account, and nobody else, use what it cannot.
pub fn let_use(facts: &Facts, blocked: &Blocked) -> String {
    let rights = if blocked.directory { "x" } else { "r" };
    let_account(facts, &facts.account_login(), rights, &blocked.at)
}

/// Returns the command by which root runs `command` as the account: one that makes or changes
/// files in a directory of the account.
pub fn as_account(facts: &Facts, command: &str) -> String {
    let user = format!("runuser -u {} -- sh -c", facts.account_word());
    run_as(&user, &Word::new(command).to_string())
}

/// Returns how to give files of the site to the account: directories of the root, and the
/// whole state directory for what is in it. The path of a file in there would lead root
/// through a symlink that the account can put in the place of a directory; `-R` follows none.
pub fn give_to_account(facts: &Facts, paths: &[&PathBuf]) -> String {
    let account = facts.account_word();
    let state = facts.config.root.join(STATE);
    let (inside, direct): (Vec<&&PathBuf>, Vec<&&PathBuf>) =
        (paths.iter()).partition(|path| path.starts_with(&state) && **path != &state);
    let mut commands = Vec::new();
    if !direct.is_empty() {
        let words: Vec<String> = (direct.iter())
            .map(|path| Word::new(path).to_string())
            .collect();
        commands.push(format!("chown -h {account} {}", words.join(" ")));
    }
    if !inside.is_empty() {
        commands.push(format!("chown -hR {account} {}", Word::new(state)));
    }
    commands.join(" && ")
}
