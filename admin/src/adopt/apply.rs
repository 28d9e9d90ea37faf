//! Carries out the plan of an adoption. The caller holds the site's lock.
//!
//! root only changes owners, by handles. Everything else happens as the account. Each
//! step may be the last one before a kill: what is done then is seen as done by the next
//! adoption, and the live release is served all the time.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{self, AT_FDCWD, AtFlags, RenameFlags};
use nix::sys::stat::{self, FchmodatFlags, Mode, SFlag};
use nix::unistd::{self, Uid};

use super::history::Adopted;
use super::layout::Current;
use super::plan::{Candidate, Plan, digest, open_tree};
use super::survey::{Foreign, SiteFacts, survey_content};
use deploy_shell::config::Config;
use deploy_shell::dir::{self, Dir, Name};
use deploy_shell::error::{Code, Error, Result};
use deploy_shell::manifest::{Identity, compare_paths, trailer, tree_list};
use deploy_shell::names::ReleaseId;
use deploy_shell::store::Store;
use deploy_shell::store::layout::{BACK, NEXT, RELEASES};

/// In `manifests/`: a manifest before it gets its name. It is not the name of a release,
/// so the next request removes what a kill leaves.
const UNNAMED_MANIFEST: Name<'static> = Name::literal(".adopting");

/// Gives all that needs it to the account. Only root can.
///
/// # Errors
///
/// [`Code::IoError`], and [`Code::BadLayout`] for a file that changed since the survey.
pub fn change_owners(config: &Config, store: &Store, plan: &Plan, account: u32) -> Result<()> {
    for change in &plan.directories {
        let directory = change.name.map_or(&store.root, |_| &store.releases);
        if change.owner.is_some() {
            unistd::fchown(directory, Some(Uid::from_raw(account)), None)
                .map_err(|errno| store.io("cannot change the owner of the site", errno))?;
        }
    }
    for candidate in &plan.candidates {
        let id = &candidate.id;
        let (parent, name, tree) = open_tree(config, store, &plan.layout, id)
            .map_err(|errno| changed_meanwhile(store, id, b"", errno))?;
        let modes: BTreeMap<&[u8], u32> = (candidate.survey.modes.iter())
            .map(|(path, _, mode)| (path.as_slice(), *mode))
            .collect();
        // The release itself comes last. A survey after a kill compares the others with
        // its owner.
        for foreign in candidate.survey.owners.iter().rev() {
            let path = &foreign.path;
            let gift = Gift {
                from: foreign,
                to: account,
                mode: modes.get(path.as_slice()).copied(),
            };
            let changed = match path.as_slice() {
                b"" => gift.give(parent, name),
                path => at(&tree, path, |dir, name| gift.give(dir, name)),
            };
            changed.map_err(|errno| changed_meanwhile(store, id, path, errno))?;
        }
    }
    Ok(())
}

/// A change of the owner of one file.
struct Gift<'a> {
    from: &'a Foreign,
    to: u32,
    /// The new mode, if it changes as well.
    mode: Option<u32>,
}

impl Gift<'_> {
    /// Changes the file, which must still be the one of the survey, with one name.
    ///
    /// The handle is of the file itself and never of a symlink's target, so nothing can
    /// exchange the file between the check and the change. A hard link to another file
    /// of the old owner, or to one of the system, has two names.
    ///
    /// The mode comes first. Afterwards the group is that of another user, and a survey
    /// after a kill would find that this user may write.
    fn give(&self, dir: &Dir, name: Name<'_>) -> nix::Result<()> {
        let file = dir.handle_of_this_mount(name)?;
        let found = stat::fstat(&file)?;
        if found.st_uid == self.to {
            return Ok(());
        }
        let file_type = dir::file_type(&found);
        let has_one_name = file_type == SFlag::S_IFDIR || found.st_nlink == 1;
        let is_same = (found.st_dev, found.st_ino) == self.from.inode;
        if !is_same || found.st_uid != self.from.uid || !has_one_name {
            return Err(Errno::ESTALE);
        }
        if let Some(mode) = self.mode
            && file_type != SFlag::S_IFLNK
        {
            // fchmod(2) refuses an O_PATH handle, and proc(5) leads to the same file.
            let path = format!("/proc/self/fd/{}", file.as_raw_fd());
            let mode = Mode::from_bits_truncate(mode);
            stat::fchmodat(AT_FDCWD, path.as_str(), mode, FchmodatFlags::FollowSymlink)?;
        }
        let to = Some(Uid::from_raw(self.to));
        unistd::fchownat(&file, "", to, None, AtFlags::AT_EMPTY_PATH)
    }
}

/// Sets the modes of the root and of `releases/`.
///
/// # Errors
///
/// [`Code::IoError`].
pub fn change_directory_modes(store: &Store, plan: &Plan) -> Result<()> {
    for change in &plan.directories {
        let directory = change.name.map_or(&store.root, |_| &store.releases);
        if let Some((_, mode)) = change.mode {
            directory
                .set_mode(mode)
                .map_err(|errno| store.io("cannot change the mode of the site", errno))?;
        }
    }
    Ok(())
}

/// Makes the release one that deploy-shell could have received, and writes its manifest.
///
/// # Errors
///
/// [`Code::IoError`], and [`Code::BadLayout`] for a release that changes meanwhile.
pub fn adopt_release(
    config: &Config,
    store: &Store,
    plan: &Plan,
    candidate: &Candidate,
    site: &SiteFacts<'_>,
) -> Result<Adopted> {
    let id = &candidate.id;
    let (parent, name, tree) = open_tree(config, store, &plan.layout, id)
        .map_err(|errno| changed_meanwhile(store, id, b"", errno))?;
    for (path, _, mode) in &candidate.survey.modes {
        let changed = match path.as_slice() {
            b"" => change_mode(parent, name, *mode),
            path => at(&tree, path, |dir, name| change_mode(dir, name, *mode)),
        };
        changed.map_err(|errno| changed_meanwhile(store, id, path, errno))?;
    }
    for (path, target) in &candidate.survey.symlinks {
        at(&tree, path, |dir, name| {
            replace_symlink(store, dir, name, target)
        })
        .map_err(|errno| changed_meanwhile(store, id, path, errno))?;
    }
    let found = survey_content(site, &tree)?;
    if !found.is_ready() {
        let path = found.faults.values().flatten().next();
        let path = path.map_or(&b""[..], Vec::as_slice);
        return Err(changed_meanwhile(store, id, path, Errno::ESTALE));
    }
    let lines: String = found
        .entries
        .iter()
        .map(|entry| format!("{entry}\n"))
        .collect();
    let received = plan.order.releases.get(id).copied().unwrap_or_default();
    let shared = found.shared.iter().map(|path| path.as_bytes().to_vec());
    let mut added: Vec<_> = shared.collect();
    added.sort_by(|one, other| compare_paths(one, other));
    let identity = Identity {
        release: id.clone(),
        sha256: digest(lines.as_bytes()),
        tree: Some(tree_list::digest(tree_list::in_order(
            &found.entries,
            &added,
        ))),
        base: None,
        signatures: Vec::new(),
        added,
        received,
    };
    let text = format!("{identity}{lines}{}", trailer(found.sums));
    write_manifest(store, id, text.as_bytes())
        .map_err(|error| store.io(format!("cannot write the manifest of '{id}'"), error))?;
    Ok(Adopted {
        identity,
        sums: found.sums,
    })
}

fn change_mode(dir: &Dir, name: Name<'_>, mode: u32) -> nix::Result<()> {
    // Opening a symlink fails: only the file itself is changed.
    match dir.open_dir_of_this_mount(name) {
        Ok(directory) => directory.set_mode(mode),
        Err(Errno::ENOTDIR) => stat::fchmod(dir.open_file(name)?, Mode::from_bits_truncate(mode)),
        Err(errno) => Err(errno),
    }
}

/// Replaces a symlink by one to `target`, in one step.
fn replace_symlink(store: &Store, dir: &Dir, name: Name<'_>, target: &str) -> nix::Result<()> {
    if dir::file_type(&dir.stat_of_this_mount(name)?) != SFlag::S_IFLNK {
        return Err(Errno::ESTALE);
    }
    store.state.remove_file(NEXT)?;
    store.state.symlink(OsStr::new(target), NEXT)?;
    store.state.rename(NEXT, dir, name)
}

fn write_manifest(store: &Store, id: &ReleaseId, text: &[u8]) -> std::io::Result<()> {
    let manifests = &store.manifests;
    manifests.remove_file(UNNAMED_MANIFEST)?;
    let mut file = manifests.create_new(UNNAMED_MANIFEST, 0o600)?;
    file.write_all(text)?;
    file.sync_all()?;
    manifests.rename(UNNAMED_MANIFEST, manifests, id)?;
    manifests.sync()?;
    Ok(())
}

/// Tries out whether the file system can exchange two names.
///
/// # Errors
///
/// [`Code::BadLayout`] if it cannot.
pub fn probe_exchange(store: &Store) -> Result<()> {
    let probe = || {
        for name in [NEXT, BACK] {
            store.state.remove_file(name)?;
            store.state.symlink(OsStr::new("."), name)?;
        }
        exchange(&store.state, NEXT, &store.state, BACK)
    };
    let probed = probe();
    store.clear_links();
    probed.map_err(|errno| no_exchange(store, errno))
}

fn exchange(from: &Dir, name: Name<'_>, to: &Dir, other: Name<'_>) -> nix::Result<()> {
    let flags = RenameFlags::RENAME_EXCHANGE;
    fcntl::renameat2(
        from.as_fd(),
        name.as_os_str(),
        to.as_fd(),
        other.as_os_str(),
        flags,
    )
}

/// Exchanges two names in one step.
///
/// # Errors
///
/// [`Code::BadLayout`] if the file system cannot do that, and [`Code::IoError`].
pub fn exchange_names(
    store: &Store,
    from: &Dir,
    name: Name<'_>,
    to: &Dir,
    other: Name<'_>,
) -> Result<()> {
    exchange(from, name, to, other).map_err(|errno| no_exchange(store, errno))
}

fn no_exchange(store: &Store, errno: Errno) -> Error {
    match errno {
        Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP => Error::new(
            Code::BadLayout,
            format!(
                "the file system of '{}' cannot exchange a directory and a symlink in one step",
                store.path().display()
            ),
        )
        .remedy("docs/adopting.md has the way to a new directory"),
        errno => store.io("cannot exchange two names", errno),
    }
}

/// Makes the symlink to the release that a plain directory becomes, at the place of the
/// release. It keeps the id, which the next adoption finds after a kill.
///
/// # Errors
///
/// [`Code::IoError`].
pub fn prepare_exchange(store: &Store, plan: &Plan) -> Result<()> {
    let live = &plan.layout.live;
    let prepare = || {
        if !store.releases.exists(live)? {
            let target = format!("{RELEASES}/{live}");
            store.releases.symlink(OsStr::new(&target), live)?;
        }
        store.releases.sync()
    };
    prepare().map_err(|errno| store.io("cannot prepare the symlink", errno))
}

/// Makes `current` the symlink that deploy-shell expects. A reader finds the live release
/// before and after each system call.
///
/// # Errors
///
/// [`Code::IoError`], and those of [`probe_exchange`].
pub fn replace_current(config: &Config, store: &Store, plan: &Plan) -> Result<()> {
    let live = &plan.layout.live;
    match plan.layout.current {
        Current::Own => return Ok(()),
        Current::Symlink(_) => store.set_current(Some(live))?,
        // The symlink of `prepare_exchange` leads nowhere from its place. This puts it
        // and the directory each to the place of the other.
        Current::Directory => {
            let (link, id) = (Name::from(&config.link), Name::from(live));
            exchange_names(store, &store.root, link, &store.releases, id)?;
        }
    }
    let synced = store.releases.sync().and_then(|()| store.root.sync());
    synced.map_err(|errno| store.io("cannot sync the site", errno))
}

/// Calls `change` with the directory and the name of a path below `tree`.
fn at<T>(
    tree: &Dir,
    path: &[u8],
    change: impl FnOnce(&Dir, Name<'_>) -> nix::Result<T>,
) -> nix::Result<T> {
    let (parent, name) = match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (Some(&path[..slash]), &path[slash + 1..]),
        None => (None, path),
    };
    let name = Name::new(name).ok_or(Errno::EINVAL)?;
    match parent {
        None => change(tree, name),
        Some(parent) => {
            let parent = tree.open_dir_beneath(Path::new(OsStr::from_bytes(parent)))?;
            change(&parent, name)
        }
    }
}

fn changed_meanwhile(store: &Store, id: &ReleaseId, path: &[u8], errno: Errno) -> Error {
    let shown = String::from_utf8_lossy(path);
    if !matches!(
        errno,
        Errno::ESTALE | Errno::ENOENT | Errno::ELOOP | Errno::ENOTDIR | Errno::EXDEV
    ) {
        return store.io(
            format!("cannot change './{shown}' of release '{id}'"),
            errno,
        );
    }
    Error::new(
        Code::BadLayout,
        format!("'./{shown}' of release '{id}' changed while it was adopted"),
    )
    .remedy("stop what writes the release, and run adopt again: it continues")
}
