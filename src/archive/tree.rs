//! What an archive has named so far: the guard against duplicates, against
//! names beneath a file, and the source of the manifest.
//!
//! It is kept as a tree of components, so that its size is bounded by the
//! names that are new and not by the paths that repeat them.

use std::collections::BTreeMap;

use super::rule::Rule;
use crate::names::Sha256Digest;

/// A node's place in the tree.
pub type Id = u32;

/// The release itself.
const ROOT: Id = 0;

#[derive(Debug)]
pub enum Node {
    Dir {
        /// By name, so that the manifest comes out sorted.
        children: BTreeMap<Box<[u8]>, Id>,
        /// Whether the archive has an entry of its own for it.
        named: bool,
    },
    File {
        executable: bool,
        size: u64,
        /// Once it is written.
        sha256: Option<Sha256Digest>,
    },
    /// The target is read back from disk; kept here it could be 100 MB.
    Link,
    /// A link of ours, to what the site shares.
    Shared,
}

/// Where an entry went.
#[derive(Debug, PartialEq, Eq)]
pub struct Added {
    pub id: Id,
    /// How many leading components were folders before; the others are new.
    pub known: usize,
}

#[derive(Debug)]
pub struct Tree {
    nodes: Vec<Node>,
    max: u32,
}

impl Tree {
    /// A tree of at most `max` things besides the release itself.
    pub fn new(max: u32) -> Tree {
        let root = Node::Dir {
            children: BTreeMap::new(),
            named: false,
        };
        Tree {
            nodes: vec![root],
            max,
        }
    }

    /// How many things there are, the release itself not counted.
    pub fn len(&self) -> u64 {
        self.nodes.len() as u64 - 1
    }

    /// Adds `node` at `path`, with the folders above it that are missing.
    pub fn add(&mut self, path: &[&[u8]], node: Node) -> Result<Added, Rule> {
        let Some((last, above)) = path.split_last() else {
            self.name_folder(ROOT)?;
            return Ok(Added { id: ROOT, known: 0 });
        };
        let (at, known) = self.folders(above)?;
        let folder = matches!(node, Node::Dir { .. });
        match self.child(at, last, || node)? {
            (id, true) => Ok(Added { id, known }),
            (id, false) if folder => {
                self.name_folder(id)?;
                Ok(Added {
                    id,
                    known: known + 1,
                })
            }
            (_, false) => Err(Rule::Duplicate),
        }
    }

    /// Puts a link of ours at `path`, in the place of whatever was added there:
    /// that was left out. Everything added goes on counting.
    ///
    /// Returns how many leading components were folders before.
    pub fn share(&mut self, path: &[&[u8]]) -> Result<usize, Rule> {
        let (last, above) = path.split_last().ok_or(Rule::NameEmpty)?;
        let (at, known) = self.folders(above)?;
        let next = self.nodes.len() as Id;
        if next > self.max {
            return Err(Rule::Entries(self.max));
        }
        if let Node::Dir { children, .. } = &mut self.nodes[at as usize] {
            children.insert((*last).into(), next);
        }
        self.nodes.push(Node::Shared);
        Ok(known)
    }

    /// The folder at `path`, made if need be, and how many of the components
    /// were there.
    fn folders(&mut self, path: &[&[u8]]) -> Result<(Id, usize), Rule> {
        let mut at = ROOT;
        let mut known = 0;
        for component in path {
            let (id, new) = self.child(at, component, || Node::Dir {
                children: BTreeMap::new(),
                named: false,
            })?;
            if !new {
                known += 1;
            }
            at = id;
        }
        Ok((at, known))
    }

    /// A folder may get its entry after things beneath it, but only one.
    fn name_folder(&mut self, id: Id) -> Result<(), Rule> {
        match &mut self.nodes[id as usize] {
            Node::Dir { named, .. } if !*named => {
                *named = true;
                Ok(())
            }
            _ => Err(Rule::Duplicate),
        }
    }

    fn child(
        &mut self,
        parent: Id,
        name: &[u8],
        make: impl FnOnce() -> Node,
    ) -> Result<(Id, bool), Rule> {
        let next = self.nodes.len() as Id;
        let Node::Dir { children, .. } = &mut self.nodes[parent as usize] else {
            return Err(Rule::BeneathNonFolder);
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

    /// Records what a file's content turned out to be.
    pub fn set_digest(&mut self, id: Id, digest: Sha256Digest) {
        if let Node::File { sha256, .. } = &mut self.nodes[id as usize] {
            *sha256 = Some(digest);
        }
    }

    /// Visits everything, parents first and siblings by name.
    pub fn visit<E>(&self, mut each: impl FnMut(&[u8], &Node) -> Result<(), E>) -> Result<(), E> {
        self.visit_from(ROOT, &mut Vec::new(), &mut each)
    }

    // Recursion is bounded: a path has at most 32 components.
    fn visit_from<E>(
        &self,
        id: Id,
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
            named: true,
        }
    }

    fn add(tree: &mut Tree, path: &str, node: Node) -> Result<usize, Rule> {
        let components: Vec<_> = path.split('/').map(str::as_bytes).collect();
        tree.add(&components, node).map(|added| added.known)
    }

    #[test]
    fn duplicates_and_names_beneath_files() {
        let mut tree = Tree::new(100);
        assert_eq!(add(&mut tree, "a/b/c", Node::Link), Ok(0));
        assert_eq!(add(&mut tree, "a/b/c", Node::Link), Err(Rule::Duplicate));
        assert_eq!(add(&mut tree, "a/b/c", dir()), Err(Rule::Duplicate));
        assert_eq!(
            add(&mut tree, "a/b/c/d", Node::Link),
            Err(Rule::BeneathNonFolder)
        );
        assert_eq!(add(&mut tree, "a/b", Node::Link), Err(Rule::Duplicate));
        assert_eq!(add(&mut tree, "a/b", dir()), Ok(2));
        assert_eq!(add(&mut tree, "a/b", dir()), Err(Rule::Duplicate));
        assert_eq!(tree.add(&[], dir()), Ok(Added { id: ROOT, known: 0 }));
        assert_eq!(tree.add(&[], dir()), Err(Rule::Duplicate));
    }

    #[test]
    fn folders_in_between_count_as_entries() {
        let mut tree = Tree::new(3);
        assert_eq!(add(&mut tree, "a/b/c", Node::Link), Ok(0));
        assert_eq!(add(&mut tree, "a/d", Node::Link), Err(Rule::Entries(3)));
    }

    #[test]
    fn a_shared_link_takes_the_place_of_what_was_left_out() {
        let mut tree = Tree::new(5);
        assert_eq!(add(&mut tree, "a/b/c", Node::Link), Ok(0));
        assert_eq!(tree.share(&[b"a", b"b"]), Ok(1));
        assert_eq!(tree.share(&[b"d"]), Ok(0));
        // What was left out counts: three, and the two links.
        assert_eq!(tree.share(&[b"e"]), Err(Rule::Entries(5)));
        assert_eq!(
            add(&mut tree, "a/b/c", Node::Link),
            Err(Rule::BeneathNonFolder)
        );
        let mut seen = Vec::new();
        tree.visit(|path, node| {
            let shared = matches!(node, Node::Shared);
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
    fn visits_in_order() {
        let mut tree = Tree::new(10);
        for path in ["b", "a/z", "a/y"] {
            add(&mut tree, path, Node::Link).unwrap();
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
