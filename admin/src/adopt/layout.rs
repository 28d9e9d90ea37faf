//! Recognizes the tool that made a site, its releases, and what `current` is.

use std::ffi::OsString;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use jiff::Timestamp;
use nix::errno::Errno;
use nix::sys::stat::SFlag;

use super::old_log::{self, Deployment};
use super::survey::SiteFacts;
use deploy_shell::config::Config;
use deploy_shell::dir::{self, Dir, Name};
use deploy_shell::error::{Code, Error, Result};
use deploy_shell::names::{LinkName, ReleaseId};
use deploy_shell::store::layout::RELEASES;
use deploy_shell::store::{Store, release_name};

/// How much of a log is read, from its end, in bytes.
const MAX_LOG: u64 = 1 << 20;

/// How many names `releases/` may have: the account could fill the memory of root's
/// process with more.
const MAX_NAMES: usize = 100_000;

/// How many deployments count, the newest ones. Each becomes a record, which is synced
/// under the lock, and the log is a file of the account.
const MAX_DEPLOYMENTS: usize = 300;

const DEPLOYER_DIR: Name<'static> = Name::literal(".dep");
const DEPLOYER_LOG: Name<'static> = Name::literal("releases_log");
const OLD_DEPLOYER_LOG: Name<'static> = Name::literal("releases");
const DEPLOYER_LOCK: Name<'static> = Name::literal("deploy.lock");
/// In the root: the release that Deployer is making, or has not completed.
const DEPLOYER_UNFINISHED: Name<'static> = Name::literal("release");
const CAPISTRANO_LOG: Name<'static> = Name::literal("revisions.log");
/// In a release: a rollback of Deployer left it.
const BAD_RELEASE: Name<'static> = Name::literal("BAD_RELEASE");

/// What made the releases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    Deployer,
    Capistrano,
    Script,
    /// Nothing did: `current` is a directory.
    Directory,
}

impl Tool {
    /// Returns its name for the log.
    pub fn name(self) -> &'static str {
        match self {
            Tool::Deployer => "deployer",
            Tool::Capistrano => "capistrano",
            Tool::Script => "script",
            Tool::Directory => "directory",
        }
    }

    /// Returns by what it was recognized.
    pub fn evidence(self) -> &'static str {
        match self {
            Tool::Deployer => "Deployer, by '.dep'",
            Tool::Capistrano => "Capistrano, by 'revisions.log'",
            Tool::Script => "a script, by 'releases' and a symlink to the live release",
            Tool::Directory => "a plain directory at the place of the symlink",
        }
    }
}

/// What is at the place of the current symlink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Current {
    /// A symlink exactly as deploy-shell makes it.
    Own,
    /// A symlink to a release, in this other spelling.
    Symlink(String),
    Directory,
}

/// A directory in `releases/`.
#[derive(Clone, Debug)]
pub struct Found {
    pub id: ReleaseId,
    /// Its last change, by its mtime.
    pub changed: Timestamp,
    /// When a rollback of Deployer left it.
    pub bad: Option<Option<Timestamp>>,
}

/// The site as the other tool left it.
#[derive(Debug)]
pub struct Layout {
    pub tool: Tool,
    pub current: Current,
    /// The live release. For a plain directory: the id that it gets.
    pub live: ReleaseId,
    /// The directories in `releases/`, sorted by name; or the plain directory alone.
    pub releases: Vec<Found>,
    /// Other names in `releases/`, with the reason why each is left alone.
    pub left: Vec<(String, String)>,
    /// The deployments, the first one first.
    pub log: Vec<Deployment>,
    /// The release that Deployer has not completed.
    pub unfinished: Option<String>,
}

/// Recognizes the layout.
///
/// # Errors
///
/// [`Code::BadLayout`] for a site without a live release, or whose live release has no
/// valid name; [`Code::Busy`] while Deployer holds its lock.
pub fn recognize(config: &Config, store: &Store, site: &SiteFacts<'_>) -> Result<Layout> {
    let cannot = |errno| store.io("cannot look at the site", errno);
    let (current, live) = find_current(config, store, site)?;
    let (mut releases, mut left) = (Vec::new(), Vec::new());
    for (name, file_type) in names_in_releases(store)? {
        let shown = name.to_string_lossy().into_owned();
        match (file_type, release_name(&name)) {
            (SFlag::S_IFDIR, Some(id)) => releases.push(found(store, id)?),
            (SFlag::S_IFDIR, None) => {
                left.push((shown, "its name is not that of a release".into()))
            }
            // An adoption that was killed made it: see `apply::prepare_exchange`.
            (SFlag::S_IFLNK, Some(id)) if current == Current::Directory && id == live => {}
            _ => left.push((shown, "it is not a directory".into())),
        }
    }
    if current == Current::Directory {
        let (_, changed) = look_at(&store.root, Name::from(&config.link)).map_err(cannot)?;
        releases = vec![Found {
            id: live.clone(),
            changed: second(changed),
            bad: None,
        }];
    }
    let (tool, mut log) = read_log(store, &current, &releases)?;
    log.drain(..log.len().saturating_sub(MAX_DEPLOYMENTS));
    let unfinished = match tool {
        Tool::Deployer => store.root.read_link(DEPLOYER_UNFINISHED).ok(),
        _ => None,
    };
    let unfinished = unfinished.and_then(|target| {
        let name = Path::new(&target).file_name()?;
        Some(name.to_string_lossy().into_owned())
    });
    Ok(Layout {
        tool,
        current,
        live,
        releases,
        left,
        log,
        unfinished,
    })
}

fn found(store: &Store, id: ReleaseId) -> Result<Found> {
    let cannot = |errno| store.io(format!("cannot look at release '{id}'"), errno);
    let (_, changed) = look_at(&store.releases, Name::from(&id)).map_err(cannot)?;
    // A release that cannot be opened has a fault, which the survey reports.
    let tree = store.releases.open_dir_of_this_mount(&id).ok();
    let mark = tree.filter(|tree| tree.exists(BAD_RELEASE) == Ok(true));
    let bad = mark.map(|tree| old_log::read_bad_mark(&read_text(&tree, BAD_RELEASE)?));
    Ok(Found {
        changed: second(changed),
        id,
        bad,
    })
}

/// Returns the type of a file, and when it was last changed. A mount point counts as a
/// directory of an unknown time: the survey reports it, and nothing looks at what is
/// mounted.
fn look_at(dir: &Dir, name: Name<'_>) -> nix::Result<(SFlag, i64)> {
    match dir.stat_of_this_mount(name) {
        Ok(stat) => Ok((dir::file_type(&stat), stat.st_mtime)),
        Err(Errno::EXDEV) => Ok((SFlag::S_IFDIR, 0)),
        Err(errno) => Err(errno),
    }
}

fn second(time: i64) -> Timestamp {
    Timestamp::from_second(time).unwrap_or_default()
}

/// Returns what `current` is, and the live release.
fn find_current(
    config: &Config,
    store: &Store,
    site: &SiteFacts<'_>,
) -> Result<(Current, ReleaseId)> {
    let shown = store.path().join(config.link.as_str());
    let shown = shown.display();
    let bad = |problem: String, remedy: &str| {
        Err(Error::new(Code::BadLayout, format!("'{shown}' {problem}")).remedy(remedy))
    };
    let (file_type, changed) = match look_at(&store.root, Name::from(&config.link)) {
        Ok(found) => found,
        Err(Errno::ENOENT) => {
            return bad(
                "does not exist: nothing is live that could be adopted".to_owned(),
                "set 'link' in the configuration to the name of the live symlink or directory",
            );
        }
        Err(errno) => return Err(store.io(format!("cannot look at '{shown}'"), errno)),
    };
    match file_type {
        SFlag::S_IFDIR => {
            let id = unfinished_exchange(store)?
                .map_or_else(|| free_id(store, &config.link, changed), Ok)?;
            Ok((Current::Directory, id))
        }
        SFlag::S_IFLNK => {
            let target = store
                .root
                .read_link(&config.link)
                .map_err(|errno| store.io(format!("cannot read '{shown}'"), errno))?;
            let text = target.to_string_lossy().into_owned();
            match release_of(site, &text) {
                Some(id) if text == format!("{RELEASES}/{id}") => Ok((Current::Own, id)),
                Some(id) => Ok((Current::Symlink(text), id)),
                None => bad(
                    format!("names '{text}', which is not a release in '{RELEASES}'"),
                    "docs/adopting.md has the way to a new directory",
                ),
            }
        }
        _ => bad(
            "is neither a symlink nor a directory".to_owned(),
            "docs/adopting.md has the way to a new directory",
        ),
    }
}

/// Returns the release that a target names in any spelling, if its name is valid.
fn release_of(site: &SiteFacts<'_>, target: &str) -> Option<ReleaseId> {
    let below = if target.starts_with('/') {
        site.below_root(target)?
    } else {
        target
    };
    let mut names = Path::new(below)
        .components()
        .filter(|component| *component != Component::CurDir);
    let releases = names.next()?;
    let Component::Normal(id) = names.next()? else {
        return None;
    };
    let is_release = releases.as_os_str() == RELEASES.as_os_str() && names.next().is_none();
    is_release.then(|| release_name(id)).flatten()
}

/// Returns the id for which a killed adoption has made its symlink.
pub fn unfinished_exchange(store: &Store) -> Result<Option<ReleaseId>> {
    let cannot = |errno| store.io("cannot look at 'releases'", errno);
    for (name, file_type) in names_in_releases(store)? {
        if let (SFlag::S_IFLNK, Some(id)) = (file_type, release_name(&name)) {
            let target = store.releases.read_link(&id).map_err(cannot)?;
            if target.as_bytes() == format!("{RELEASES}/{id}").as_bytes() {
                return Ok(Some(id));
            }
        }
    }
    Ok(None)
}

/// Returns the names in `releases/`, with their file types.
fn names_in_releases(store: &Store) -> Result<Vec<(OsString, SFlag)>> {
    let listed = store.releases.entries_with_type_up_to(MAX_NAMES);
    listed.map_err(|errno| match errno {
        Errno::EOVERFLOW => {
            let path = store.path().join(RELEASES);
            let problem = format!("'{}' has more than {MAX_NAMES} names", path.display());
            Error::new(Code::BadLayout, problem).remedy("move what is no release out of it")
        }
        errno => store.io("cannot look at 'releases'", errno),
    })
}

/// How many seconds [`free_id`] tries. The time of the directory may be out of range, and
/// then every second has the same name.
const MAX_TRIES: i64 = 10_000;

/// Returns the id of a plain directory: the time of its last change, in UTC, or the first
/// second after it that is free.
fn free_id(store: &Store, link: &LinkName, changed: i64) -> Result<ReleaseId> {
    for time in changed..changed.saturating_add(MAX_TRIES) {
        let name = second(time).strftime("%Y%m%d-%H%M%S").to_string();
        let id = ReleaseId::try_from(name.as_str())
            .map_err(|why| Error::new(Code::BadLayout, format!("'{name}' is {why}")))?;
        let exists = store.releases.exists(&id);
        if !exists.map_err(|errno| store.io("cannot look at 'releases'", errno))? {
            return Ok(id);
        }
    }
    let problem = format!("'releases' has a directory for every id that '{link}' could get");
    Err(Error::new(Code::BadLayout, problem).remedy("move those directories away"))
}

/// Recognizes the tool and reads its log.
fn read_log(
    store: &Store,
    current: &Current,
    releases: &[Found],
) -> Result<(Tool, Vec<Deployment>)> {
    if *current == Current::Directory {
        return Ok((Tool::Directory, order_of_script(releases)));
    }
    if let Ok(deployer) = store.root.open_dir_of_this_mount(DEPLOYER_DIR) {
        if deployer.exists(DEPLOYER_LOCK) == Ok(true) {
            let shown = store.path().join(DEPLOYER_DIR).join(DEPLOYER_LOCK);
            let problem = format!("Deployer holds its lock '{}'", shown.display());
            return Err(Error::new(Code::Busy, problem)
                .remedy("wait for the deployment to end, or run: dep deploy:unlock"));
        }
        if let Some(text) = read_text(&deployer, DEPLOYER_LOG) {
            return Ok((Tool::Deployer, old_log::read_deployer(&text)));
        }
        if let Some(text) = read_text(&deployer, OLD_DEPLOYER_LOG) {
            return Ok((Tool::Deployer, old_log::read_old_deployer(&text)));
        }
    }
    if let Some(text) = read_text(&store.root, CAPISTRANO_LOG) {
        return Ok((Tool::Capistrano, old_log::read_capistrano(&text)));
    }
    Ok((Tool::Script, order_of_script(releases)))
}

/// Returns the order of releases without a log: that of the times in their names if each
/// name is one, or else that of the last changes of their directories.
fn order_of_script(releases: &[Found]) -> Vec<Deployment> {
    let by_name: Option<Vec<Timestamp>> = releases
        .iter()
        .map(|found| old_log::read_digits(found.id.as_str()))
        .collect();
    let times = by_name.unwrap_or_else(|| releases.iter().map(|found| found.changed).collect());
    let mut order: Vec<Deployment> = (releases.iter().zip(times))
        .map(|(found, time)| Deployment {
            name: found.id.to_string(),
            time: Some(time),
            rollback: false,
        })
        .collect();
    order.sort_by_key(|deployment| deployment.time);
    order
}

/// Reads the end of a text file, from the beginning of a line; none if it does not exist,
/// or is not a regular file.
fn read_text(dir: &Dir, name: Name<'_>) -> Option<String> {
    let mut file = dir.open_file(name).ok()?;
    let before = file.metadata().ok()?.len().saturating_sub(MAX_LOG);
    file.seek(SeekFrom::Start(before)).ok()?;
    let mut bytes = Vec::new();
    file.take(MAX_LOG).read_to_end(&mut bytes).ok()?;
    let mut text = bytes.as_slice();
    if before > 0 {
        let end = text.iter().position(|byte| *byte == b'\n')?;
        text = &text[end + 1..];
    }
    Some(String::from_utf8_lossy(text).into_owned())
}
