//! The paths that must exist: those in `shared/`, and those that a release must have.

use std::os::unix::ffi::OsStrExt;

use crate::config::{Config, RelativePath};
use crate::deadline::Deadline;
use crate::dir::Dir;
use crate::error::{Code, Error, Result};
use crate::look_up;
use crate::store::Store;
use crate::store::shared_dir::Fault;

/// Looks at paths in `shared/`, and returns what is wrong with each; none if nothing is.
///
/// # Errors
///
/// As [`look_up::look_up`].
fn look_at_shared(
    config: &Config,
    store: &Store,
    paths: &[RelativePath],
    deadline: Deadline,
) -> Result<Vec<Option<Fault>>> {
    let limit = config.limits.idle_timeout.min(deadline.left());
    let found = look_up::look_up(&store.root, store.path(), paths, limit);
    let found = found.map_err(|mut error| {
        error.problem.push_str("; nothing was published");
        error
    })?;
    let faults = paths.iter().zip(found);
    let faults = faults.map(|(path, found)| store.shared_fault(path.as_path(), found));
    Ok(faults.collect())
}

/// Requires every shared path to exist.
///
/// # Errors
///
/// [`Code::BadLayout`] for the first one that does not, and [`Code::Timeout`].
pub fn check_shared(config: &Config, store: &Store, deadline: Deadline) -> Result<()> {
    let links = config.shared.links.iter().map(RelativePath::from);
    let faults = look_at_shared(config, store, &links.collect::<Vec<_>>(), deadline)?;
    match faults.into_iter().flatten().next() {
        Some(fault) => Err(fault.into()),
        None => Ok(()),
    }
}

/// Checks that the release has every path that the configuration requires. A path at
/// or below a shared path is looked up in `shared/`, because the symlink to it leads
/// nowhere in the staging directory.
///
/// # Errors
///
/// [`Code::MissingPath`], the failures of `shared/`, and [`Code::Timeout`].
pub fn check_release(config: &Config, store: &Store, tree: &Dir, deadline: Deadline) -> Result<()> {
    let required = config.archive.required_paths.iter().cloned();
    let (in_shared, in_release): (Vec<_>, Vec<_>) = required.partition(|path| {
        let bytes = path.as_path().as_os_str().as_bytes();
        config.shared.covering(bytes).is_some()
    });
    for path in in_release {
        deadline.check(super::CHECKING)?;
        let shown = path.as_path().display();
        match tree.resolve_beneath(path.as_path()) {
            Ok(_) => {}
            Err(nix::Error::ENOENT | nix::Error::ENOTDIR) => {
                return Err(Error::new(
                    Code::MissingPath,
                    format!("the release has no '{shown}', which this site requires"),
                )
                .remedy("archive the contents of the site's directory: tar -C dist -c ."));
            }
            Err(errno) => return Err(Error::io(format!("cannot look for '{shown}'"), errno)),
        }
    }
    let faults = look_at_shared(config, store, &in_shared, deadline)?;
    for (path, fault) in in_shared.iter().zip(faults) {
        let Some(fault) = fault else {
            continue;
        };
        if !fault.missing {
            return Err(fault.into());
        }
        let (root, shown) = (store.path().display(), path.as_path().display());
        let problem = format!("'{root}/shared/{shown}' does not exist, which this site requires");
        return Err(Error::new(Code::MissingPath, problem)
            .remedy(format!("create '{root}/shared/{shown}'")));
    }
    Ok(())
}
