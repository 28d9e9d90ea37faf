//! `check`: audits the configuration, the machine and sshd, and reports for each
//! key what someone with that key can do. Everything that gives a key, the account
//! or another user more than the README promises is a finding with its remedy.
//!
//! There are three separate steps. `access`, `account`, `filesystem`, `keys_files`, `path_reader`, `paths`,
//! `probe`, `reader`, `releases` and `sshd_config` gather facts and do I/O; `rules` turns the facts into
//! findings of the table in `findings`; `report`, `json` and `capabilities` print both.
//! The last two steps do no I/O.

mod access;
pub(crate) mod account;
mod authorized_keys;
mod capabilities;
mod certificates;
mod delegation;
mod facts;
mod filesystem;
mod findings;
#[cfg(test)]
mod fixture;
mod forced_command;
mod json;
mod key_options;
mod keys_files;
mod path_reader;
pub(crate) mod paths;
pub(crate) mod probe;
mod reader;
mod releases;
mod report;
mod rules;
mod sshd_config;

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::output::{self, Output};
use crate::site_account;
use access::Need;
use deploy_shell::config::{Config, RelativePath};
use deploy_shell::dir::Dir;
use deploy_shell::error::{Result, describe};
use deploy_shell::look_up;
use deploy_shell::sandbox;
use deploy_shell::signature::Requirement;
use deploy_shell::store::layout::{RELEASES, SHARED, STATE, STATE_DIRS};
use facts::{
    Account, Facts, ForcedCommand, InstalledProgram, KeysFile, PasswdEntry, Resolution, SitePaths,
};
pub(crate) use facts::{PathComponent, ResolvedPath, is_deploy_shell};
use filesystem::Mounts;
use path_reader::resolve_paths;
pub use path_reader::run_child;
use paths::resolve_path;
pub(crate) use rules::{chown_or_move, first_writable};

/// How long a look-up of the shared paths may take: a file system that is mounted there
/// may not answer.
const SHARED_LIMIT: Duration = Duration::from_secs(5);

/// Checks the site of the configuration at `config_path`. The output is
/// sound if there are no findings. `sshd_config` is the
/// file that sshd reads, if it is not the default one. With `json`, the output is one
/// JSON document, also for an error.
///
/// Afterwards this process runs as the account in a sandbox: it can only print.
///
/// # Errors
///
/// [`Code::BadConfig`](deploy_shell::error::Code::BadConfig) when the configuration
/// or its list of signers does not load.
pub fn check(config_path: &Path, sshd_config: Option<&Path>, json: bool) -> Result<Output> {
    let checked = check_site(config_path, sshd_config, json);
    if let (true, Err(error)) = (json, &checked) {
        output::print([json::failure(error)?.as_str()])?;
    }
    checked
}

fn check_site(config_path: &Path, sshd_config: Option<&Path>, json: bool) -> Result<Output> {
    let config = Config::load(config_path)?;
    // Every request but `list` fails on a list of signers that does not load.
    Requirement::load(&config)?;
    // A child that runs as the account must not get a descriptor of root's shell.
    sandbox::reset_inherited_state();
    let program = crate::program::deploy_shell()?;
    let facts = gather_facts(config_path, config, sshd_config, &program);
    let findings = rules::all_findings(&facts);
    Ok(Output {
        lines: if json {
            vec![json::document(&facts, &findings)?]
        } else {
            report::report_lines(&facts, &findings)
        },
        sound: findings.is_empty(),
    })
}

/// The files that close the machine to all users but root: nologin(5).
const NOLOGIN_FILES: [&str; 2] = ["/etc/nologin", "/run/nologin"];

/// The script that sshd runs with sh(1) before a command, unless it runs the `~/.ssh/rc` of
/// the user: sshd(8). `PermitUserRC` does not turn it off (`do_rc_files` in session.c of OpenSSH).
const SYSTEM_RC: &str = "/etc/ssh/sshrc";

fn gather_facts(
    config_path: &Path,
    config: Config,
    sshd_config: Option<&Path>,
    program: &Path,
) -> Facts {
    let mut not_checked = Vec::new();
    let shared = paths_in_shared(&config);
    let answers = match Dir::open_root(&config.root) {
        Ok(root) => look_up::look_up(&root, &config.root, &shared, SHARED_LIMIT),
        // No system call gets to what is below it.
        Err(_) => Ok(Vec::new()),
    };
    let mounts = Mounts::find(&config.root, &mut not_checked);
    let mut directories = site_directories(&config.root);
    directories.retain(|path| !mounts.cover(path));
    let mut paths = resolve_site_paths(config_path, &config, &directories, &mounts, sshd_config);
    // After a mount that stalls, another child would wait for it as well.
    let resolved = answers.map_err(|error| error.problem).and_then(|_| {
        let below = config.root.join(SHARED);
        let all = shared.iter().map(|path| below.join(path.as_path()));
        resolve_paths(all.collect(), SHARED_LIMIT)
    });
    match resolved {
        Ok(resolved) => paths.shared = resolved,
        Err(why) => not_checked.push(format!("who can write the shared paths: {why}")),
    }
    for resolved in unowned_paths(&paths) {
        if let Resolution::NotChecked(why) = &resolved.resolution {
            let shown = resolved.path.display();
            not_checked.push(format!("who can write '{shown}': {why}"));
        }
    }
    let account = account_of_site(&config, &mounts, &mut not_checked);
    let passwd = account.as_ref().and_then(|account| account.passwd.as_ref());
    let answer = passwd.map(|entry| sshd_config::query_sshd(&entry.name, sshd_config));
    let (sshd, sshd_failure) = match answer {
        Some(Ok(settings)) => (Some(settings), None),
        Some(Err(why)) => (None, Some(why)),
        None => (None, None),
    };
    let classify = |command: Option<&str>| {
        forced_command::classify_command(command, |config| {
            forced_command::site_of(config, config_path)
        })
    };
    let classify_key =
        |key: &authorized_keys::AuthorizedKey| classify(key.options.command.as_deref());
    let keys_files = match (&account, passwd) {
        (Some(Account { uid, .. }), Some(entry)) => {
            keys_files::read_keys_files(sshd.as_ref(), entry, *uid, classify_key, &mut not_checked)
        }
        _ => Vec::new(),
    };
    let certificates = match (&account, passwd, &sshd) {
        (Some(Account { uid, .. }), Some(entry), Some(settings)) => {
            certificates::read_certificates(settings, entry, *uid, classify, &mut not_checked)
        }
        _ => facts::Certificates::default(),
    };
    // A user who can write these decides who logs in.
    let files = certificates.files.iter();
    (paths.sshd_config).extend(files.map(|path| resolve_path(path)));
    let programs = installed_programs(program, passwd, &keys_files);
    let filesystem =
        filesystem::examine_filesystem(&config.root, &directories, &mounts, &mut not_checked);
    let reader = reader::probe_reader(&config, &mut not_checked);
    let uses_pam = sshd
        .as_ref()
        .is_some_and(|settings| settings.is_on("usepam"));
    let delegated_cgroup =
        uses_pam && passwd.is_some_and(|entry| delegation::is_delegated(&entry.name));
    let needed = needed_files(account.as_ref(), &programs, &keys_files);
    // The last step: it takes from this process what the other steps need.
    let probe = probe::probe_as_account(
        config_path,
        &config,
        &resolve_path(program),
        account.as_ref(),
        &needed,
        &mounts,
        &mut not_checked,
    );
    Facts {
        program: program.to_owned(),
        config_path: config_path.to_owned(),
        config,
        paths,
        programs,
        account,
        sshd,
        sshd_failure,
        certificates,
        keys_files,
        nologin_files: (NOLOGIN_FILES.iter().map(PathBuf::from))
            .filter(|file| file.symlink_metadata().is_ok())
            .collect(),
        system_rc: Some(PathBuf::from(SYSTEM_RC)).filter(|file| file.symlink_metadata().is_ok()),
        filesystem,
        reader,
        delegated_cgroup,
        probe,
        not_checked,
    }
}

/// Returns the directories below the root that deploy-shell relies on.
fn site_directories(root: &Path) -> Vec<PathBuf> {
    let state = root.join(STATE);
    let mut directories = vec![root.join(RELEASES), state.clone()];
    directories.extend(STATE_DIRS.map(|name| state.join(name)));
    directories
}

/// Returns the shared paths, relative to `shared/`.
fn paths_in_shared(config: &Config) -> Vec<RelativePath> {
    config.shared.links.iter().map(RelativePath::from).collect()
}

/// Resolves all paths but those in `shared/`.
fn resolve_site_paths(
    config_path: &Path,
    config: &Config,
    directories: &[PathBuf],
    mounts: &Mounts,
    sshd_config: Option<&Path>,
) -> SitePaths {
    let current = config.root.join(config.link.as_str());
    let signatures = config.signatures.as_ref();
    SitePaths {
        config: resolve_path(config_path),
        signers: signatures.map(|signatures| resolve_path(&signatures.allowed_signers)),
        hooks: (config.commands())
            .map(|command| resolve_path(command.program()))
            .collect(),
        root: resolve_path(&config.root),
        current: if mounts.cover(&current) {
            not_resolved(current, "it is a mount point".to_owned())
        } else {
            resolve_in_child(current)
        },
        directories: directories.iter().map(|path| resolve_path(path)).collect(),
        shared: Vec::new(),
        socket: resolve_path(&config.audit.socket),
        sshd_config: sshd_config::resolve_config_files(
            sshd_config.unwrap_or(Path::new(sshd_config::DEFAULT_CONFIG)),
        ),
    }
}

/// Resolves a path that may lead to a file system which stalls.
fn resolve_in_child(path: PathBuf) -> ResolvedPath {
    match resolve_paths(vec![path.clone()], SHARED_LIMIT) {
        Ok(mut resolved) => resolved.remove(0),
        Err(why) => not_resolved(path, why),
    }
}

fn not_resolved(path: PathBuf, why: String) -> ResolvedPath {
    ResolvedPath {
        path,
        components: Vec::new(),
        resolution: Resolution::NotChecked(why),
    }
}

/// Iterates over the paths that every user must be able to look at. The probe
/// reports on the site's directories and shared paths.
fn unowned_paths(paths: &SitePaths) -> impl Iterator<Item = &ResolvedPath> {
    [&paths.config, &paths.root, &paths.socket]
        .into_iter()
        .chain(&paths.signers)
        .chain(&paths.hooks)
        .chain(&paths.sshd_config)
}

/// Returns the account of the site.
fn account_of_site(
    config: &Config,
    mounts: &Mounts,
    not_checked: &mut Vec<String>,
) -> Option<Account> {
    let state = config.root.join(STATE);
    if mounts.cover(&state) {
        let shown = state.display();
        not_checked.push(format!(
            "who owns the site, and its keys: '{shown}' is a mount point"
        ));
        return None;
    }
    match site_account::owner_of_damaged(config) {
        Ok(uid) => Some(account::look_up_account(uid, not_checked)),
        Err(error) => {
            let (shown, why) = (state.display(), describe(&error));
            not_checked.push(format!("who owns the site, and its keys: '{shown}': {why}"));
            None
        }
    }
}

/// Returns the files that sshd or the account must be able to use before a request
/// starts. sshd changes to the account's directory, starts its programs, and reads its
/// keys files as the account (auth2-pubkey.c of OpenSSH).
fn needed_files(
    account: Option<&Account>,
    programs: &[InstalledProgram],
    keys_files: &[KeysFile],
) -> Vec<(PathBuf, Need)> {
    let home = account.and_then(|account| account.home.location.as_ref());
    let home = home.map(|home| (home.path.clone(), Need::Execute));
    let programs = programs
        .iter()
        .map(|program| (program.location.path.clone(), Need::Execute));
    let keys_files = keys_files
        .iter()
        .map(|file| (file.location.path.clone(), Need::Read));
    home.into_iter().chain(programs).chain(keys_files).collect()
}

/// Examines `program`, and every path by which the account or a key runs it.
fn installed_programs(
    program: &Path,
    account: Option<&PasswdEntry>,
    keys_files: &[KeysFile],
) -> Vec<InstalledProgram> {
    let mut paths = vec![program.to_owned()];
    paths.extend(
        account
            .map(|entry| entry.shell.clone())
            .filter(|path| is_deploy_shell(path)),
    );
    let lines = keys_files.iter().flat_map(|file| &file.lines);
    for key in lines.filter_map(|line| line.key.as_ref().ok()) {
        if let ForcedCommand::Serve(serve) = &key.command
            && serve.program.is_absolute()
        {
            paths.push(serve.program.clone());
        }
    }
    paths.sort();
    paths.dedup();
    paths
        .iter()
        .map(|path| paths::examine_program(path, program))
        .collect()
}
