//! The directories that the unpacker has open.

use std::sync::Arc;

use nix::errno::Errno;

use super::io_error;
use super::rule::{Rule, UnpackError};
use crate::dir::{Dir, Name};
use crate::manifest::DIR_MODE;

/// The directories from the release down to that of the last call, with their names. Their
/// handles stay open because archives list one directory after the other.
pub struct OpenDirectories(Vec<(Vec<u8>, Arc<Dir>)>);

impl OpenDirectories {
    /// Begins with the directory of the release.
    pub fn new(release: Arc<Dir>) -> OpenDirectories {
        OpenDirectories(vec![(Vec::new(), release)])
    }

    /// Opens a directory. The first `known` components of its path exist; the
    /// others are created.
    ///
    /// Each component is opened from the handle of the one above, and no symlink
    /// is followed.
    ///
    /// # Errors
    ///
    /// [`Rule::Duplicate`] if one that is to be created exists, and those of the system calls.
    pub fn directory(&mut self, path: &[&[u8]], known: usize) -> Result<Arc<Dir>, UnpackError> {
        let same = self.0[1..]
            .iter()
            .zip(path)
            .take_while(|((open, _), name)| open == *name)
            .count();
        self.0.truncate(1 + same);
        for (depth, component) in path.iter().enumerate().skip(same) {
            let parent = &self.0[depth].1;
            let name = Name::new(component).ok_or(Rule::NameEmpty)?;
            if depth >= known {
                match parent.make_dir(name, DIR_MODE) {
                    Ok(()) => {}
                    Err(Errno::EEXIST) => return Err(Rule::Duplicate.into()),
                    Err(errno) => return Err(io_error("create a directory", errno)),
                }
            }
            let dir = parent
                .open_dir(name)
                .map_err(|errno| io_error("open a directory", errno))?;
            self.0.push((component.to_vec(), Arc::new(dir)));
        }
        Ok(Arc::clone(&self.0[path.len()].1))
    }
}
