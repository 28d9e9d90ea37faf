//! Walks a release of another tool, by handle, and collects what has to change before
//! it can be adopted, and what prevents that. Changes nothing.
//!
//! The same walk makes the entries of the manifest, once nothing has to change.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use nix::errno::Errno;
use nix::sys::stat::{FileStat, SFlag};
use nix::unistd::{Gid, Group, Uid, User};
use rustix::fs::fgetxattr;

use super::rules::{Fault, GroupWriters, Owner, adopted_mode, adopted_owner};
use deploy_shell::archive::path::{self, CleanPath, LinkTarget};
use deploy_shell::config::{Archive, Config};
use deploy_shell::dir::{self, Dir, Name};
use deploy_shell::error::{self, Result, describe};
use deploy_shell::hash::{Outcome, Pool};
use deploy_shell::manifest::{Entry, Kind, Sums};
use deploy_shell::names::Sha256Digest;
use deploy_shell::shared_paths::SharedPath;
use deploy_shell::verify;

/// The attribute of an access control list (acl(5)).
const ACCESS_ACL: &str = "system.posix_acl_access";

const PASSWD: &str = "/etc/passwd";

/// What the rules need to know of the site.
pub struct SiteFacts<'a> {
    pub account: u32,
    pub is_root: bool,
    /// The limits are those of an archive: the walk and the hashing end there.
    pub archive: &'a Archive,
    /// The spellings of the root with which an absolute symlink may begin.
    pub roots: Vec<String>,
    /// Whether a group is the own one of a user, by both ids.
    private_groups: RefCell<BTreeMap<(u32, u32), bool>>,
}

impl<'a> SiteFacts<'a> {
    pub fn new(account: u32, is_root: bool, config: &'a Config) -> SiteFacts<'a> {
        let root = &config.root;
        let mut roots = vec![root.display().to_string()];
        roots.extend(root.canonicalize().map(|root| root.display().to_string()));
        roots.dedup();
        SiteFacts {
            account,
            is_root,
            archive: &config.archive,
            roots,
            private_groups: RefCell::default(),
        }
    }

    /// Returns the rest of an absolute path below the root.
    pub fn below_root<'t>(&self, target: &'t str) -> Option<&'t str> {
        let below = |root: &String| target.strip_prefix(root)?.strip_prefix('/');
        self.roots.iter().find_map(below)
    }

    fn is_private_group(&self, gid: u32, uid: u32) -> bool {
        let mut known = self.private_groups.borrow_mut();
        *known
            .entry((gid, uid))
            .or_insert_with(|| is_private_group(gid, uid))
    }
}

/// Returns whether nobody but the user `uid` is in the group: it has the user's name,
/// as useradd(8) makes it, and no other member.
fn is_private_group(gid: u32, uid: u32) -> bool {
    let (Ok(Some(group)), Ok(Some(user))) = (
        Group::from_gid(Gid::from_raw(gid)),
        User::from_uid(Uid::from_raw(uid)),
    ) else {
        return false;
    };
    // Not known means not private.
    let Ok(passwd) = std::fs::read_to_string(PASSWD) else {
        return false;
    };
    let is_primary_of_other = passwd.lines().any(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        fields.len() > 3 && fields[3].parse() == Ok(gid) && fields[2].parse() != Ok(uid)
    });
    group.name == user.name
        && group.mem.iter().all(|member| *member == user.name)
        && !is_primary_of_other
}

/// A file, directory or symlink that is not the account's yet.
#[derive(Debug)]
pub struct Foreign {
    pub path: Vec<u8>,
    /// The present owner.
    pub uid: u32,
    /// The device and the inode. The account may own a directory above it by the time when
    /// root changes its owner, and exchange it for another file of the old owner.
    pub inode: (u64, u64),
}

/// What a walk has found. Paths are relative to the release; that of itself is empty.
#[derive(Debug, Default)]
pub struct Survey {
    /// The owner of the release itself: 0 for one that cannot be walked.
    pub owner: u32,
    pub faults: BTreeMap<Fault, BTreeSet<Vec<u8>>>,
    pub owners: Vec<Foreign>,
    /// With the present mode and the new one.
    pub modes: Vec<(Vec<u8>, u32, u32)>,
    /// Absolute symlinks into shared/, with their new targets.
    pub symlinks: Vec<(Vec<u8>, String)>,
    /// The shared paths to which the release has symlinks.
    pub shared: Vec<SharedPath>,
    pub sums: Sums,
    /// Files with several names: device, inode, the number of names, and the path.
    pub several_names: Vec<((u64, u64), u64, Vec<u8>)>,
    /// The entries of the manifest, if the walk hashes.
    pub entries: Vec<Entry>,
}

impl Survey {
    /// Returns the survey of a release that cannot be walked.
    pub fn of_fault(fault: Fault) -> Survey {
        let mut survey = Survey::default();
        survey.add_fault(fault, b"");
        survey
    }

    pub fn add_fault(&mut self, fault: Fault, path: &[u8]) {
        self.faults.entry(fault).or_default().insert(path.to_vec());
    }

    /// Returns whether the release can be adopted as it is.
    pub fn is_ready(&self) -> bool {
        self.faults.is_empty()
            && self.owners.is_empty()
            && self.modes.is_empty()
            && self.symlinks.is_empty()
    }
}

/// Walks `tree`.
pub fn survey(site: &SiteFacts<'_>, tree: &Dir) -> Survey {
    walk(site, tree, None)
}

/// Walks `tree`, and makes the entries of its manifest.
///
/// # Errors
///
/// [`Code::Internal`](deploy_shell::error::Code::Internal).
pub fn survey_content(site: &SiteFacts<'_>, tree: &Dir) -> Result<Survey> {
    let outcomes = Arc::<Mutex<Vec<(usize, Outcome)>>>::default();
    let start = |threads| {
        let outcomes = Arc::clone(&outcomes);
        Pool::start(threads, move |entry, outcome| {
            // Poisoned if another thread panicked; `finish` reports that.
            if let Ok(mut outcomes) = outcomes.lock() {
                outcomes.push((entry, outcome));
            }
        })
    };
    // Without any thread, this one hashes.
    let mut pool = start(verify::threads()).or_else(|_| start(0))?;
    let mut found = walk(site, tree, Some(&mut pool));
    pool.finish()?;
    let outcomes = std::mem::take(&mut *outcomes.lock().map_err(|_| error::bug())?);
    for (at, outcome) in outcomes {
        let fault = match (outcome, &mut found.entries[at].kind) {
            (Ok(Some(digest)), Kind::File { sha256, .. }) => {
                *sha256 = digest;
                continue;
            }
            (Err(error), _) => Fault::Unreadable(describe(&error)),
            (Ok(_), _) => Fault::Unreadable("its size changes".to_owned()),
        };
        let path = found.entries[at].path.clone();
        found.add_fault(fault, &path);
    }
    Ok(found)
}

fn walk(site: &SiteFacts<'_>, tree: &Dir, pool: Option<&mut Pool<usize>>) -> Survey {
    let mut walk = Walk {
        site,
        tree,
        pool,
        entries: 0,
        bytes: 0,
        is_too_large: false,
        found: Survey::default(),
    };
    match tree.metadata() {
        Ok(stat) => {
            walk.found.owner = stat.st_uid;
            walk.owner(b"", &stat);
            walk.mode(b"", &stat, tree);
            walk.add_entry(b"", Kind::Dir);
            walk.directory(tree, b"");
        }
        Err(errno) => walk.unreadable(b"", errno),
    }
    walk.found
}

struct Walk<'a> {
    site: &'a SiteFacts<'a>,
    tree: &'a Dir,
    /// Hashes the files, by the numbers of their entries.
    pool: Option<&'a mut Pool<usize>>,
    /// The files, directories and symlinks so far.
    entries: u32,
    /// The lengths of the files so far.
    bytes: u64,
    /// Whether the release is larger than an archive may be. The walk then ends.
    is_too_large: bool,
    found: Survey,
}

impl Walk<'_> {
    /// Terminates: `CleanPath` limits the depth.
    fn directory(&mut self, directory: &Dir, path: &[u8]) {
        // One more, which `count` reports.
        let max = u64::from(self.site.archive.max_entries.saturating_sub(self.entries)) + 1;
        let names = match directory.names_up_to(usize::try_from(max).unwrap_or(usize::MAX)) {
            Ok(names) => names,
            Err(Errno::EOVERFLOW) => return self.too_many_entries(),
            Err(errno) => return self.unreadable(path, errno),
        };
        for name in names {
            if self.is_too_large {
                return;
            }
            let below = match path {
                b"" => name.as_bytes().to_vec(),
                path => [path, b"/", name.as_bytes()].concat(),
            };
            let looked = Name::new(name.as_bytes()).ok_or(Errno::EINVAL);
            match looked.and_then(|name| Ok((name, directory.stat_of_this_mount(name)?))) {
                Ok((name, stat)) => {
                    self.count(&stat);
                    if !self.is_too_large {
                        self.entry(directory, name, &below, &stat);
                    }
                }
                Err(errno) => self.unreadable(&below, errno),
            }
        }
    }

    /// Counts one more entry, and notes if the release is larger than an archive may be: a
    /// sparse file or millions of files must not keep the lock for hours.
    fn count(&mut self, stat: &FileStat) {
        let limits = self.site.archive;
        let size = match dir::file_type(stat) {
            SFlag::S_IFREG => stat.st_size as u64,
            _ => 0,
        };
        self.entries = self.entries.saturating_add(1);
        self.bytes = self.bytes.saturating_add(size);
        if self.entries > limits.max_entries {
            self.too_many_entries();
        } else if self.bytes > limits.max_unpacked {
            self.too_large(format!("{} bytes ('max_unpacked')", limits.max_unpacked));
        }
    }

    fn too_many_entries(&mut self) {
        let max = self.site.archive.max_entries;
        self.too_large(format!("{max} entries ('max_entries')"));
    }

    fn too_large(&mut self, limit: String) {
        self.is_too_large = true;
        self.found.add_fault(Fault::TooLarge(limit), b"");
    }

    fn entry(&mut self, parent: &Dir, name: Name<'_>, path: &[u8], stat: &FileStat) {
        let file_type = dir::file_type(stat);
        if let Err(rule) = CleanPath::from_entry_name(path, file_type == SFlag::S_IFDIR) {
            return self.found.add_fault(Fault::Name(rule.to_string()), path);
        }
        self.owner(path, stat);
        match file_type {
            SFlag::S_IFDIR => match parent.open_dir_of_this_mount(name) {
                Ok(directory) => {
                    self.mode(path, stat, &directory);
                    self.add_entry(path, Kind::Dir);
                    self.directory(&directory, path);
                }
                Err(errno) => self.unreadable(path, errno),
            },
            SFlag::S_IFREG => self.file(parent, name, path, stat),
            SFlag::S_IFLNK => self.symlink(parent, name, path),
            other => {
                let kind = special_name(other);
                self.found.add_fault(Fault::SpecialFile(kind), path);
            }
        }
    }

    fn owner(&mut self, path: &[u8], stat: &FileStat) {
        let (uid, site) = (stat.st_uid, self.site);
        match adopted_owner(uid, site.account, self.found.owner, site.is_root) {
            Ok(Owner::Stays) => {}
            // Another name may be that of a system's file, which the tool's account has
            // linked here: root gives no such file away.
            Ok(Owner::Changes) if has_several_names(stat) => {
                self.found.add_fault(Fault::OtherName, path);
            }
            Ok(Owner::Changes) => self.found.owners.push(Foreign {
                path: path.to_vec(),
                uid,
                inode: (stat.st_dev, stat.st_ino),
            }),
            Err(fault) => self.found.add_fault(fault, path),
        }
    }

    fn mode(&mut self, path: &[u8], stat: &FileStat, open: &impl AsFd) {
        let mode = stat.st_mode & 0o7777;
        let is_dir = dir::file_type(stat) == SFlag::S_IFDIR;
        let writers = if self.site.is_private_group(stat.st_gid, stat.st_uid) && !has_acl(open) {
            GroupWriters::Nobody
        } else {
            GroupWriters::Others
        };
        match adopted_mode(is_dir, mode, self.site.archive.acl, writers) {
            Ok(new) if new == mode => {}
            Ok(new) => self.found.modes.push((path.to_vec(), mode, new)),
            Err(fault) => self.found.add_fault(fault, path),
        }
    }

    fn file(&mut self, parent: &Dir, name: Name<'_>, path: &[u8], stat: &FileStat) {
        // The account must read it, also where root looks at it now.
        if stat.st_mode & 0o400 == 0 {
            let why = "its owner has no right to".to_owned();
            return self.found.add_fault(Fault::Unreadable(why), path);
        }
        let file = match parent.open_file(name) {
            Ok(file) => file,
            Err(errno) => return self.unreadable(path, errno),
        };
        self.mode(path, stat, &file);
        let size = stat.st_size as u64;
        if has_several_names(stat) {
            let inode = (stat.st_dev, stat.st_ino);
            let names = stat.st_nlink;
            self.found.several_names.push((inode, names, path.to_vec()));
        }
        self.found.sums.files += 1;
        self.found.sums.bytes = self.found.sums.bytes.saturating_add(size);
        let executable = stat.st_mode & 0o100 != 0;
        let entry = self.found.entries.len();
        self.add_entry(
            path,
            Kind::File {
                executable,
                size,
                // Until the pool has hashed it.
                sha256: Sha256Digest([0; 32]),
            },
        );
        if let Some(pool) = &mut self.pool {
            pool.submit(file, size, entry);
        }
    }

    fn symlink(&mut self, parent: &Dir, name: Name<'_>, path: &[u8]) {
        let target = match parent.read_link(name) {
            Ok(target) => target,
            Err(errno) => return self.unreadable(path, errno),
        };
        let bytes = target.as_bytes();
        match self.judge_symlink(path, bytes) {
            Ok(SymlinkTarget::Inside) => {}
            Ok(SymlinkTarget::Shared(shared)) => {
                if shared.target().as_bytes() != bytes {
                    self.found.symlinks.push((path.to_vec(), shared.target()));
                }
                self.found.shared.push(shared);
            }
            Err(why) => return self.found.add_fault(Fault::Target(why), path),
        }
        let target = bytes.to_vec();
        self.add_entry(path, Kind::Link { target });
    }

    /// Returns where a symlink leads, or why it may not.
    fn judge_symlink(&self, path: &[u8], target: &[u8]) -> Result<SymlinkTarget, String> {
        let text = str::from_utf8(target).map_err(|_| "its target is not UTF-8".to_owned())?;
        // Capistrano makes absolute symlinks to shared/, Deployer relative ones.
        let own = str::from_utf8(path).ok();
        let own = own.and_then(|own| SharedPath::try_from(own.to_owned()).ok());
        if let Some(shared) = own {
            let absolute = self.site.below_root(text);
            let absolute = absolute.and_then(|below| below.strip_prefix("shared/"));
            if shared.target() == text || absolute == Some(shared.as_str()) {
                return Ok(SymlinkTarget::Shared(shared));
            }
        }
        path::check_symlink_target(target).map_err(|rule| rule.to_string())?;
        let at = Path::new(OsStr::from_bytes(path));
        let read = || Ok(OsStr::from_bytes(target).to_owned());
        match path::check_link_escape(self.tree.resolve_in_mount(at).map(drop), read) {
            Ok(LinkTarget::Inside) => Ok(SymlinkTarget::Inside),
            Ok(LinkTarget::Escapes) => Err(format!("'{text}' leads out of the release")),
            Ok(LinkTarget::Unresolved) => Err(format!("'{text}' may lead out of the release")),
            Ok(LinkTarget::Loop) => Err(format!("'{text}' leads back to itself")),
            Err(errno) => Err(describe(&errno.into())),
        }
    }

    fn add_entry(&mut self, path: &[u8], kind: Kind) {
        if self.pool.is_some() {
            let path = path.to_vec();
            self.found.entries.push(Entry { path, kind });
        }
    }

    fn unreadable(&mut self, path: &[u8], errno: Errno) {
        self.found.add_fault(Fault::of_errno(errno), path);
    }
}

enum SymlinkTarget {
    Inside,
    Shared(SharedPath),
}

fn has_several_names(stat: &FileStat) -> bool {
    dir::file_type(stat) != SFlag::S_IFDIR && stat.st_nlink > 1
}

/// Returns whether the file has an access control list. A list that cannot be read
/// counts as one.
fn has_acl(open: &impl AsFd) -> bool {
    let mut nothing = [0; 0];
    let found = fgetxattr(open.as_fd(), ACCESS_ACL, &mut nothing[..]);
    let missing = [rustix::io::Errno::NODATA, rustix::io::Errno::OPNOTSUPP];
    !matches!(found, Err(errno) if missing.contains(&errno))
}

fn special_name(file_type: SFlag) -> &'static str {
    match file_type {
        SFlag::S_IFIFO => "fifo",
        SFlag::S_IFSOCK => "socket",
        SFlag::S_IFCHR => "character device",
        SFlag::S_IFBLK => "block device",
        _ => "special file",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// stat(2) says that files of proc(5) are empty, so each of them has another size than
    /// its entry, as a file has that another process writes at the same time.
    #[test]
    fn a_file_whose_size_changes_has_no_entry() {
        let site = SiteFacts {
            account: 0,
            is_root: true,
            archive: &Archive::default(),
            roots: Vec::new(),
            private_groups: RefCell::default(),
        };
        let tree = Dir::open_root(Path::new("/proc/sys/kernel/random")).unwrap();
        let found = survey_content(&site, &tree).unwrap();
        let fault = Fault::Unreadable("its size changes".to_owned());
        let path = b"boot_id".to_vec();
        assert!(found.faults[&fault].contains(&path), "{:?}", found.faults);
    }
}
