//! The tree of names that the archive has used so far. It finds duplicates, names
//! below a file and the targets of hard links.
//!
//! It is a tree of components, so that the new names limit its size, and not the
//! paths that repeat them.

use std::collections::BTreeMap;

use super::rule::Rule;
use super::time::Mtime;

/// The index of a node in the tree.
pub type NodeId = u32;

/// The release itself.
const ROOT: NodeId = 0;

#[derive(Debug)]
pub enum Node {
    Dir {
        children: BTreeMap<Box<[u8]>, NodeId>,
        /// The time of its entry, of the last one if there are several.
        mtime: Option<Mtime>,
    },
    File {
        executable: bool,
        size: u64,
        /// For a hard link, the file whose content it has. That is never a hard link.
        copy_of: Option<NodeId>,
    },
    /// The target is read back from disk. All targets together could be 100 MB.
    Symlink,
    /// A symlink of ours to a shared path of the site.
    SharedSymlink,
}

/// The result of adding an entry.
#[derive(Debug, PartialEq, Eq)]
pub struct Added {
    pub id: NodeId,
    /// How many leading components were directories before. The others are new.
    pub known: usize,
}

#[derive(Debug)]
pub struct Tree {
    nodes: Vec<Node>,
    max: u32,
}

impl Tree {
    /// Returns a tree of at most `max` nodes besides the release itself.
    pub fn new(max: u32) -> Tree {
        let root = Node::Dir {
            children: BTreeMap::new(),
            mtime: None,
        };
        Tree {
            nodes: vec![root],
            max,
        }
    }

    /// Returns the number of nodes without the release itself.
    pub fn len(&self) -> u64 {
        self.nodes.len() as u64 - 1
    }

    /// Adds `node` at `path`, with the missing directories above it.
    pub fn add(&mut self, path: &[&[u8]], node: Node) -> Result<Added, Rule> {
        let Some((last, above)) = path.split_last() else {
            return Ok(Added { id: ROOT, known: 0 });
        };
        let (parent, known) = self.add_directories(above)?;
        let is_dir = matches!(node, Node::Dir { .. });
        match self.find_or_add_child(parent, last, || node)? {
            (id, true) => Ok(Added { id, known }),
            // A directory may occur again: GNU tar, bsdtar and Python then set its
            // mode and times again.
            (id, false) if is_dir && self.is_dir(id) => Ok(Added {
                id,
                known: known + 1,
            }),
            (_, false) => Err(Rule::Duplicate),
        }
    }

    /// Adds a symlink of ours at `path`. It replaces what the archive added there,
    /// which was not unpacked but still counts.
    ///
    /// Returns how many leading components were directories before.
    pub fn add_shared_symlink(&mut self, path: &[&[u8]]) -> Result<usize, Rule> {
        let (last, above) = path.split_last().ok_or(Rule::NameEmpty)?;
        let (parent, known) = self.add_directories(above)?;
        let next = self.nodes.len() as NodeId;
        if next > self.max {
            return Err(Rule::Entries(self.max));
        }
        if let Node::Dir { children, .. } = &mut self.nodes[parent as usize] {
            children.insert((*last).into(), next);
        }
        self.nodes.push(Node::SharedSymlink);
        Ok(known)
    }

    /// Returns the directory at `path`, after adding the missing ones, and how many
    /// of the components were there before.
    fn add_directories(&mut self, path: &[&[u8]]) -> Result<(NodeId, usize), Rule> {
        let mut parent = ROOT;
        let mut known = 0;
        for component in path {
            let (id, new) = self.find_or_add_child(parent, component, || Node::Dir {
                children: BTreeMap::new(),
                mtime: None,
            })?;
            if !new {
                known += 1;
            }
            parent = id;
        }
        Ok((parent, known))
    }

    fn is_dir(&self, id: NodeId) -> bool {
        matches!(self.nodes[id as usize], Node::Dir { .. })
    }

    /// Returns what the archive has added at `path`, if anything.
    pub fn find(&self, path: &[&[u8]]) -> Option<(NodeId, &Node)> {
        let mut id = ROOT;
        for component in path {
            let Node::Dir { children, .. } = &self.nodes[id as usize] else {
                return None;
            };
            id = *children.get(*component)?;
        }
        Some((id, &self.nodes[id as usize]))
    }

    /// Returns the child of this name, and whether it is new.
    fn find_or_add_child(
        &mut self,
        parent: NodeId,
        name: &[u8],
        make: impl FnOnce() -> Node,
    ) -> Result<(NodeId, bool), Rule> {
        let next = self.nodes.len() as NodeId;
        let Node::Dir { children, .. } = &mut self.nodes[parent as usize] else {
            return Err(Rule::BelowNonDirectory);
        };
        if let Some(id) = children.get(name) {
            return Ok((*id, false));
        }
        if next > self.max {
            return Err(Rule::Entries(self.max));
        }
        children.insert(name.into(), next);
        self.nodes.push(make());
        Ok((next, true))
    }

    /// Records the time of a directory's entry.
    pub fn set_mtime(&mut self, id: NodeId, time: Mtime) {
        if let Node::Dir { mtime, .. } = &mut self.nodes[id as usize] {
            *mtime = Some(time);
        }
    }

    /// Visits every node: parents first, siblings by name.
    pub fn visit<E>(&self, mut each: impl FnMut(&[u8], &Node) -> Result<(), E>) -> Result<(), E> {
        self.visit_from(ROOT, &mut Vec::new(), &mut each)
    }

    // Terminates: a path has at most 32 components, which limits the recursion.
    fn visit_from<E>(
        &self,
        id: NodeId,
        path: &mut Vec<u8>,
        each: &mut impl FnMut(&[u8], &Node) -> Result<(), E>,
    ) -> Result<(), E> {
        let node = &self.nodes[id as usize];
        each(path, node)?;
        if let Node::Dir { children, .. } = node {
            for (name, id) in children {
                let len = path.len();
                if len > 0 {
                    path.push(b'/');
                }
                path.extend_from_slice(name);
                self.visit_from(*id, path, each)?;
                path.truncate(len);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir() -> Node {
        Node::Dir {
            children: BTreeMap::new(),
            mtime: None,
        }
    }

    fn add(tree: &mut Tree, path: &str, node: Node) -> Result<usize, Rule> {
        let components: Vec<_> = path.split('/').map(str::as_bytes).collect();
        tree.add(&components, node).map(|added| added.known)
    }

    #[test]
    fn duplicates_and_names_below_files_are_refused() {
        let mut tree = Tree::new(100);
        assert_eq!(add(&mut tree, "a/b/c", Node::Symlink), Ok(0));
        assert_eq!(add(&mut tree, "a/b/c", Node::Symlink), Err(Rule::Duplicate));
        assert_eq!(add(&mut tree, "a/b/c", dir()), Err(Rule::Duplicate));
        assert_eq!(
            add(&mut tree, "a/b/c/d", Node::Symlink),
            Err(Rule::BelowNonDirectory)
        );
        assert_eq!(add(&mut tree, "a/b", Node::Symlink), Err(Rule::Duplicate));
        assert_eq!(add(&mut tree, "a/b", dir()), Ok(2));
        for _ in 0..2 {
            assert_eq!(add(&mut tree, "a/b", dir()), Ok(2));
            assert_eq!(tree.add(&[], dir()), Ok(Added { id: ROOT, known: 0 }));
        }
        assert_eq!(tree.len(), 3);
    }

    #[test]
    fn only_added_paths_are_found() {
        let mut tree = Tree::new(10);
        add(&mut tree, "a/b", Node::Symlink).unwrap();
        let found = |path: &[&[u8]]| tree.find(path).map(|(id, _)| id);
        assert_eq!(found(&[]), Some(ROOT));
        assert_eq!(found(&[b"a"]), Some(1));
        assert_eq!(found(&[b"a", b"b"]), Some(2));
        assert_eq!(found(&[b"b"]), None);
        assert_eq!(found(&[b"a", b"b", b"c"]), None);
    }

    #[test]
    fn implied_directories_count_as_entries() {
        let mut tree = Tree::new(3);
        assert_eq!(add(&mut tree, "a/b/c", Node::Symlink), Ok(0));
        assert_eq!(add(&mut tree, "a/d", Node::Symlink), Err(Rule::Entries(3)));
    }

    #[test]
    fn a_shared_symlink_replaces_an_entry_that_was_not_unpacked() {
        let mut tree = Tree::new(5);
        assert_eq!(add(&mut tree, "a/b/c", Node::Symlink), Ok(0));
        assert_eq!(tree.add_shared_symlink(&[b"a", b"b"]), Ok(1));
        assert_eq!(tree.add_shared_symlink(&[b"d"]), Ok(0));
        // The replaced entries count: three of them, and the two symlinks.
        assert_eq!(tree.add_shared_symlink(&[b"e"]), Err(Rule::Entries(5)));
        assert_eq!(
            add(&mut tree, "a/b/c", Node::Symlink),
            Err(Rule::BelowNonDirectory)
        );
        let mut seen = Vec::new();
        tree.visit(|path, node| {
            let shared = matches!(node, Node::SharedSymlink);
            seen.push((String::from_utf8(path.to_vec()).unwrap(), shared));
            Ok::<_, ()>(())
        })
        .unwrap();
        let seen: Vec<_> = seen.iter().map(|(path, it)| (path.as_str(), *it)).collect();
        assert_eq!(
            seen,
            [("", false), ("a", false), ("a/b", true), ("d", true)]
        );
    }

    #[test]
    fn nodes_are_visited_in_order() {
        let mut tree = Tree::new(10);
        for path in ["b", "a/z", "a/y"] {
            add(&mut tree, path, Node::Symlink).unwrap();
        }
        let mut seen = Vec::new();
        tree.visit(|path, _| {
            seen.push(String::from_utf8(path.to_vec()).unwrap());
            Ok::<_, ()>(())
        })
        .unwrap();
        assert_eq!(seen, ["", "a", "a/y", "a/z", "b"]);
    }
}
