//! What the unpacker reports to the monitor.
//!
//! On stdout: one message about the sandbox, then the entries and sums of the
//! manifest, as lines of the manifest. The monitor copies those lines into the
//! manifest as they are. On stderr: after a failure, one message that says why.

use std::ffi::OsStr;
use std::io::{BufWriter, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use super::io_error;
use super::path::{self, LinkTarget};
use super::rule::{Rule, UnpackError};
use super::tree::{Node, Tree};
use crate::dir::Dir;
use crate::manifest::{Entry, Kind, Sums, trailer};

/// Checks that no symlink of the archive leads out of the release, after everything
/// has been unpacked. A shared symlink leads out, and so does a symlink through it.
pub fn check_symlinks(tree: &Tree, staging: &Dir) -> Result<(), UnpackError> {
    tree.visit(|path, node| {
        if !matches!(node, Node::Symlink) {
            return Ok(());
        }
        let refuse = |rule: Rule| Err(UnpackError::from(rule).at(path));
        let path = Path::new(OsStr::from_bytes(path));
        let target = || staging.read_link_beneath(path);
        match path::check_link_escape(staging, path, target) {
            Ok(LinkTarget::Inside) => Ok(()),
            Ok(LinkTarget::Escapes) => refuse(Rule::SymlinkEscapes),
            Ok(LinkTarget::Loop) => refuse(Rule::SymlinkLoop),
            Err(errno) => Err(io_error("follow a symlink", errno)),
        }
    })
}

/// Writes the manifest's entries and its sums.
pub fn write_report(tree: &Tree, staging: &Dir, out: &mut impl Write) -> Result<(), UnpackError> {
    let mut out = BufWriter::with_capacity(64 * 1024, out);
    let mut sums = Sums::default();
    tree.visit(|path, node| {
        let kind = match node {
            Node::Dir { .. } => Kind::Dir,
            Node::File {
                executable,
                size,
                sha256,
            } => Kind::File {
                executable: *executable,
                size: *size,
                sha256: sha256.expect("every file was written"),
            },
            Node::Symlink | Node::SharedSymlink => {
                let target = staging.read_link_beneath(Path::new(OsStr::from_bytes(path)));
                let target = target.map_err(|errno| io_error("read a symlink", errno))?;
                Kind::Link {
                    target: target.into_vec(),
                }
            }
        };
        let entry = Entry {
            path: path.to_vec(),
            kind,
        };
        sums.add(&entry);
        writeln!(out, "{entry}").map_err(|error| io_error("write the report", error))
    })?;
    out.write_all(trailer(sums).as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| io_error("write the report", error))
}
