//! What is done once everything is in its place: no link of the archive may lead
//! out of the release, and what there is now is reported.

use std::ffi::OsStr;
use std::io::{BufWriter, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use super::cannot;
use super::path::{self, Lead};
use super::rule::{Failure, Rule};
use super::tree::{Node, Tree};
use crate::dir::Dir;
use crate::manifest::{Entry, Kind, Sums, trailer};

/// Sees that no link of the archive leads out of the release, with everything
/// in its place. A shared link leads out, and so does what goes through one.
pub fn check_links(tree: &Tree, staging: &Dir) -> Result<(), Failure> {
    tree.visit(|path, node| {
        if !matches!(node, Node::Link) {
            return Ok(());
        }
        let refused = |rule: Rule| Err(Failure::from(rule).at(path));
        let path = Path::new(OsStr::from_bytes(path));
        let target = || staging.read_link_beneath(path);
        match path::lead(staging, path, target) {
            Ok(Lead::Inside) => Ok(()),
            Ok(Lead::Out) => refused(Rule::LinkLeaves),
            Ok(Lead::Ring) => refused(Rule::LinkLoops),
            Err(errno) => Err(cannot("follow a link", errno)),
        }
    })
}

/// Writes the manifest's entries and its sums.
pub fn report(tree: &Tree, staging: &Dir, out: &mut impl Write) -> Result<(), Failure> {
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
            Node::Link | Node::Shared => {
                let target = staging.read_link_beneath(Path::new(OsStr::from_bytes(path)));
                let target = target.map_err(|errno| cannot("read a link", errno))?;
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
        writeln!(out, "{entry}").map_err(|error| cannot("write the report", error))
    })?;
    out.write_all(trailer(sums).as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| cannot("write the report", error))
}
