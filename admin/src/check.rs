//! `check`, the doctor: reads the configuration, the machine and sshd, and
//! states key by key exactly what a thief of it could do. Whatever widens that
//! is a finding with its remedy.
//!
//! Three steps, apart from each other: facts are gathered (`account`, `disk`,
//! `paths`, `probe`, `server`, `sources`, each doing its own I/O), then judged
//! (`judge`, pure, over the table in `findings`), then told (`tell`, pure).

mod account;
mod authorized_keys;
mod capabilities;
mod facts;
mod filesystem;
mod findings;
#[cfg(test)]
mod fixture;
mod forced_command;
mod key_options;
mod keys_files;
mod paths;
mod probe;
mod report;
mod rules;
mod sshd_config;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use deploy_shell::config::Config;
use deploy_shell::error::{Result, describe};
use deploy_shell::signature::Requirement;
use facts::{Account, End, Facts, Places, Program, Runs, Source, named_ours};

pub use forced_command::{Forced, Read};

/// What `check` prints, and whether it found nothing.
#[derive(Debug)]
pub struct Report {
    pub lines: Vec<String>,
    pub sound: bool,
}

/// Checks the site of the configuration at `path`. `sshd_config` is the file
/// sshd reads, if it is not the usual one; `read` reads a forced command.
///
/// Afterwards this process is confined, and no longer root's: all that is left
/// to do is to print.
///
/// Errors: [`Code::BadConfig`](deploy_shell::error::Code::BadConfig) when the
/// configuration or its list of signers does not load.
pub fn check(path: &Path, sshd_config: Option<&Path>, read: Read) -> Result<Report> {
    let config = Config::load(path)?;
    // Every request but `list` fails on a list of signers that does not read.
    Requirement::load(&config)?;
    let ours = crate::program::deploy_shell()?;
    let facts = gather(path, config, sshd_config, &ours, read);
    let findings = rules::judge(&facts);
    Ok(Report {
        lines: report::report(&facts, &findings),
        sound: findings.is_empty(),
    })
}

fn gather(
    path: &Path,
    config: Config,
    sshd_config: Option<&Path>,
    ours: &Path,
    read: Read,
) -> Facts {
    let mut unseen = Vec::new();
    let below = folders(&config);
    let places = Places {
        config: paths::walk(path),
        signers: (config.signatures.as_ref())
            .map(|signatures| paths::walk(&signatures.allowed_signers)),
        hooks: (config.commands())
            .map(|command| paths::walk(command.program()))
            .collect(),
        root: paths::walk(&config.root),
        below: below.iter().map(|path| paths::walk(path)).collect(),
        shared: shared(&config).map(|path| paths::walk(&path)).collect(),
        socket: paths::walk(&config.audit.socket),
        sshd_config: sshd_config::files(sshd_config.unwrap_or(Path::new(sshd_config::CONFIG))),
    };
    let looked = [&places.config, &places.root, &places.socket];
    let looked = looked.into_iter().chain(&places.signers);
    let looked = looked.chain(&places.hooks);
    for way in looked.chain(&places.sshd_config) {
        if let End::Unseen(why) = &way.end {
            unseen.push(format!("who can write '{}': {why}", way.path.display()));
        }
    }
    let account = look_at_account(&config, &mut unseen);
    let entry = account.as_ref().and_then(|account| account.entry.as_ref());

    let server = entry.and_then(|entry| match sshd_config::ask(&entry.name, sshd_config) {
        Ok(settings) => Some(settings),
        Err(why) => {
            unseen.push(format!(
                "what sshd allows '{}': {why}; keys were looked for in the usual places",
                entry.name
            ));
            None
        }
    });
    let runs = |line: &authorized_keys::KeyLine| {
        let command = line.options.command.as_deref();
        forced_command::runs(command, read, |config| forced_command::site(config, path))
    };
    let sources = match (&account, entry) {
        (Some(account), Some(entry)) => {
            keys_files::look(server.as_ref(), entry, account.uid, runs, &mut unseen)
        }
        _ => Vec::new(),
    };
    let programs = programs(ours, account.as_ref(), &sources);
    let disk = filesystem::look(&config.root, &below, &mut unseen);
    // The last: it takes from this process what the rest needs.
    let probe = probe::all(path, &config, account.as_ref(), &mut unseen);
    Facts {
        path: path.to_owned(),
        config,
        places,
        programs,
        account,
        server,
        sources,
        disk,
        probe,
        unseen,
    }
}

/// The folders below the root that we rely on.
fn folders(config: &Config) -> Vec<PathBuf> {
    let names = [
        "releases",
        ".deploy-shell",
        ".deploy-shell/manifests",
        ".deploy-shell/incoming",
        ".deploy-shell/trash",
    ];
    names.map(|name| config.root.join(name)).to_vec()
}

fn shared(config: &Config) -> impl Iterator<Item = PathBuf> {
    let folder = config.root.join("shared");
    let links = config.shared.links.iter();
    links.map(move |link| folder.join(link.as_str()))
}

/// The account is whose the state folder is.
fn look_at_account(config: &Config, unseen: &mut Vec<String>) -> Option<Account> {
    let state = config.root.join(".deploy-shell");
    match state.symlink_metadata() {
        Ok(meta) => Some(account::look(meta.uid(), unseen)),
        Err(error) => {
            unseen.push(format!(
                "whose the site is: '{}': {}",
                state.display(),
                describe(&error)
            ));
            None
        }
    }
}

/// Every path by which this program is run, and itself.
fn programs(ours: &Path, account: Option<&Account>, sources: &[Source]) -> Vec<Program> {
    let entry = account.and_then(|account| account.entry.as_ref());
    let mut found = vec![ours.to_owned()];
    found.extend(
        entry
            .map(|entry| entry.shell.clone())
            .filter(|path| named_ours(path)),
    );
    let keys = sources.iter().flat_map(|source| &source.lines);
    for key in keys.filter_map(|line| line.key.as_ref().ok()) {
        if let Runs::Serve(serve) = &key.runs
            && serve.program.is_absolute()
        {
            found.push(serve.program.clone());
        }
    }
    found.sort();
    found.dedup();
    found
        .iter()
        .map(|path| paths::program(path, ours))
        .collect()
}
