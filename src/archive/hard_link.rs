//! Finds the file that a hard link of the archive links to.
//!
//! The file must be an earlier entry. Then GNU tar, bsdtar and Python read the same
//! content. A target that comes later, or never, gives a different result in each of
//! them: an error, no file, or a file that was there before.

use super::path::CleanPath;
use super::rule::Rule;
use super::tree::{Node, NodeId, Tree};
use crate::shared_paths::{Existing, Shared};

/// The earlier file whose content a hard link gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// The file itself, which is no hard link.
    pub original: NodeId,
    /// Of the file, and of the link.
    pub executable: bool,
    pub size: u64,
}

/// Returns the file that a hard link at `path` links to; none for a link that changes
/// nothing, because both names have the same content already.
///
/// `find | tar -T -` adds each file and each symlink a second time, as a hard link to
/// itself. GNU tar leaves it as it is, and Python reads the same content. bsdtar does
/// the same, or reports an error: no reader finds other content.
///
/// GNU tar and bsdtar ignore the mode of a hard link. Python sets it on the file that
/// both names have.
///
/// # Errors
///
/// [`Rule::HardLink`] for a target that is not an earlier regular file, and
/// [`Rule::HardLinkMode`] for a link that is executable where the file is not, or the
/// other way round.
pub fn find_source(
    tree: &Tree,
    shared: &Shared,
    path: &[&[u8]],
    target: &CleanPath,
    link_executable: bool,
) -> Result<Option<Source>, Rule> {
    let refuse = |fault| Err(Rule::HardLink(target.as_bytes().to_vec(), fault));
    // The archive's file was not unpacked, and the shared file may not be read.
    if shared.covering(target.as_bytes()).is_some() {
        // A link to itself changes nothing of the symlink that replaces the file.
        if shared.existing == Existing::Replace && path == target.components() {
            return Ok(None);
        }
        return refuse("which is at a shared path");
    }
    let (id, node) = match tree.find(&target.components()) {
        Some(found) => found,
        None => return refuse("which is no earlier entry of the archive"),
    };
    let source = match node {
        Node::File {
            executable,
            size,
            copy_of,
            ..
        } => Source {
            original: copy_of.unwrap_or(id),
            executable: *executable,
            size: *size,
        },
        Node::Dir { .. } => return refuse("which is a directory"),
        Node::Symlink if path == target.components() => return Ok(None),
        Node::Symlink | Node::SharedSymlink => return refuse("which is a symlink"),
    };
    if source.executable != link_executable {
        return Err(Rule::HardLinkMode);
    }
    let has_the_content = match tree.find(path) {
        Some((own, Node::File { copy_of, .. })) => copy_of.unwrap_or(own) == source.original,
        _ => false,
    };
    Ok((!has_the_content).then_some(source))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn components(path: &str) -> Vec<&[u8]> {
        path.split('/').map(str::as_bytes).collect()
    }

    fn file(copy_of: Option<NodeId>) -> Node {
        Node::File {
            executable: true,
            size: 7,
            copy_of,
        }
    }

    fn find(
        tree: &Tree,
        shared: &[&str],
        path: &str,
        target: &str,
    ) -> Result<Option<NodeId>, Rule> {
        let links = shared.iter().map(|it| (*it).to_owned().try_into().unwrap());
        let shared = Shared {
            links: links.collect(),
            ..Shared::default()
        };
        let target = CleanPath::from_entry_name(target.as_bytes(), false).unwrap();
        let source = find_source(tree, &shared, &components(path), &target, true)?;
        Ok(source.map(|source| source.original))
    }

    #[test]
    fn only_an_earlier_regular_file_is_a_source() {
        let mut tree = Tree::new(10);
        let original = tree.add(&components("d/a"), file(None)).unwrap().id;
        tree.add(&components("b"), file(Some(original))).unwrap();
        tree.add(&components("l"), Node::Symlink).unwrap();
        let refused = |target: &str, fault| Err(Rule::HardLink(target.as_bytes().to_vec(), fault));
        assert_eq!(find(&tree, &[], "new", "./d//a"), Ok(Some(original)));
        // A hard link to a hard link has the content of the file.
        assert_eq!(find(&tree, &[], "new", "b"), Ok(Some(original)));
        assert_eq!(
            find(&tree, &[], "new", "d"),
            refused("d", "which is a directory")
        );
        assert_eq!(
            find(&tree, &[], "new", "l"),
            refused("l", "which is a symlink")
        );
        let missing = "which is no earlier entry of the archive";
        for target in ["new", "c", "d/a/x", "l/a"] {
            assert_eq!(find(&tree, &[], "new", target), refused(target, missing));
        }
        let shared = find(&tree, &["d"], "new", "d/a");
        assert_eq!(shared, refused("d/a", "which is at a shared path"));
    }

    #[test]
    fn a_link_with_another_mode_is_refused() {
        let mut tree = Tree::new(10);
        tree.add(&components("a"), file(None)).unwrap();
        let target = CleanPath::from_entry_name(b"a", false).unwrap();
        for path in ["a", "new"] {
            let found = find_source(&tree, &Shared::default(), &components(path), &target, false);
            assert_eq!(found, Err(Rule::HardLinkMode), "{path}");
        }
    }

    #[test]
    fn a_repeated_link_changes_nothing() {
        let mut tree = Tree::new(10);
        let original = tree.add(&components("a"), file(None)).unwrap().id;
        tree.add(&components("b"), file(Some(original))).unwrap();
        tree.add(&components("c"), file(None)).unwrap();
        for (path, target) in [("a", "a"), ("b", "a"), ("a", "b"), ("b", "b")] {
            assert_eq!(find(&tree, &[], path, target), Ok(None), "{path} {target}");
        }
        tree.add(&components("l"), Node::Symlink).unwrap();
        assert_eq!(find(&tree, &[], "l", "./l"), Ok(None));
        // The tree refuses this one as a duplicate.
        assert_eq!(find(&tree, &[], "c", "a"), Ok(Some(original)));
    }

    #[test]
    fn a_link_to_itself_at_a_replaced_path_changes_nothing() {
        let target = CleanPath::from_entry_name(b"a", false).unwrap();
        let source = |existing, path| {
            let links = vec!["a".to_owned().try_into().unwrap()];
            let shared = Shared { links, existing };
            find_source(&Tree::new(9), &shared, &components(path), &target, false)
        };
        assert_eq!(source(Existing::Replace, "a"), Ok(None));
        assert!(source(Existing::Replace, "b").is_err());
        assert!(source(Existing::Refuse, "a").is_err());
    }
}
