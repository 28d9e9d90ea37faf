//! What the unpacker made, held against what it reported.
//!
//! The unpacker has handled hostile bytes; if it was taken over, both its files
//! and its report are hostile. So when it has ended, and nobody can change
//! anything any more, the staging tree is walked from its handle in step with
//! the manifest: the same names in the same order, the exact modes, sizes and
//! targets, one name for each file, and no link that leads out but those to
//! what the site shares, which are all there, each with its one text. Content
//! is not read again; `verify` does that.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use nix::errno::Errno;
use nix::sys::stat::{FileStat, SFlag};

use crate::dir::{self, Dir, Name};
use crate::error::{self, Code, Error, Result};
use crate::escape;
use crate::manifest::{Entry, Kind, Sums};
use crate::shared::Shared;
use crate::unpack::path::{self, CleanPath, Lead};

/// How many things are handed over at once to be looked at, and how many such
/// handfuls wait. Each thing may keep another folder open: this many times the
/// waiting ones and two are well below the 1,024 that the monitor may have.
const HANDFUL: usize = 64;
const HANDFULS: usize = 4;

/// Walks `tree`, taking an entry from `next` for each thing in it; `shared` is
/// what it must lead to.
///
/// This thread walks from name to name, and another looks at what bears them.
/// Gives what the entries come to.
///
/// Errors: [`Code::UnpackerDied`] for a difference, [`Code::IoError`].
pub fn inspect(
    tree: &Dir,
    shared: &Shared,
    next: impl FnMut() -> Result<Option<Entry>, &'static str>,
) -> Result<Sums> {
    std::thread::scope(|scope| {
        let (give, take) = sync_channel(HANDFULS);
        let looking = std::thread::Builder::new()
            .spawn_scoped(scope, move || look_at_all(tree, shared, &take))
            .map_err(|error| Error::io("cannot start a thread", error))?;
        let mut walk = Walk {
            next,
            give,
            handful: Vec::new(),
            sums: Sums::default(),
        };
        let walked = walk.release(tree).and(walk.hand_over());
        let Walk { sums, give, .. } = walk;
        drop(give);
        // What the other found comes first: this one may have stopped for it.
        let linked = looking.join().map_err(|_| error::bug())??;
        walked?;
        // No path comes twice, so all of them are there if so many are.
        if linked != shared.links.len() {
            return Err(lie(b"", "does not lead to all that is shared"));
        }
        Ok(sums)
    })
}

/// Something in the release, and the folder it stands in; none for the release's own.
struct Thing {
    entry: Entry,
    parent: Option<Arc<Dir>>,
}

struct Walk<F> {
    next: F,
    give: SyncSender<Vec<Thing>>,
    handful: Vec<Thing>,
    sums: Sums,
}

impl<F: FnMut() -> Result<Option<Entry>, &'static str>> Walk<F> {
    fn release(&mut self, tree: &Dir) -> Result<()> {
        let entry = self.entry(b"")?;
        let stat = tree.own_stat().map_err(|errno| io(b"", errno))?;
        hold_against(&entry, &stat)?;
        self.below(b"", tree, None)?;
        match (self.next)() {
            Ok(None) => Ok(()),
            Ok(Some(entry)) => Err(lie(&entry.path, "is reported and not there")),
            Err(why) => Err(lie(b"", why)),
        }
    }

    /// All in `folder`, which has `path`; `handle` keeps it open for those who
    /// look, but for the release. Bounded in depth by what a path may be.
    fn below(&mut self, path: &[u8], folder: &Dir, handle: Option<&Arc<Dir>>) -> Result<()> {
        for name in folder.names().map_err(|errno| io(path, errno))? {
            let name = name.as_bytes();
            let below = match path {
                b"" => name.to_vec(),
                path => [path, b"/", name].concat(),
            };
            let entry = self.entry(&below)?;
            let is_folder = entry.kind == Kind::Dir;
            let clean = CleanPath::read(&below, is_folder);
            if clean.map_or(true, |clean| clean.as_bytes() != below) {
                return Err(lie(&below, "has a name that no release may have"));
            }
            self.handful.push(Thing {
                entry,
                parent: handle.cloned(),
            });
            if self.handful.len() == HANDFUL {
                self.hand_over()?;
            }
            if is_folder {
                let inner = folder.open_dir(component(name, &below)?);
                let inner = Arc::new(inner.map_err(|errno| io(&below, errno))?);
                self.below(&below, &inner, Some(&inner))?;
            }
        }
        Ok(())
    }

    /// The next entry, which must be the one of `path`.
    fn entry(&mut self, path: &[u8]) -> Result<Entry> {
        match (self.next)() {
            Ok(Some(entry)) if entry.path == path => {
                self.sums.add(&entry);
                Ok(entry)
            }
            Ok(_) => Err(lie(path, "is there and not reported")),
            Err(why) => Err(lie(path, why)),
        }
    }

    fn hand_over(&mut self) -> Result<()> {
        let empty = Vec::with_capacity(HANDFUL);
        let handful = std::mem::replace(&mut self.handful, empty);
        // Whoever took them has stopped, and says why.
        self.give.send(handful).map_err(|_| error::bug())
    }
}

/// Looks at what comes; gives how many shared links were among it.
fn look_at_all(tree: &Dir, shared: &Shared, things: &Receiver<Vec<Thing>>) -> Result<usize> {
    let mut linked = 0;
    for Thing { entry, parent } in things.iter().flatten() {
        linked += usize::from(look_at(tree, shared, &entry, parent.as_deref())?);
    }
    Ok(linked)
}

/// Holds one thing against its entry; tells whether it is a shared link.
fn look_at(tree: &Dir, shared: &Shared, entry: &Entry, parent: Option<&Dir>) -> Result<bool> {
    let (path, parent) = (entry.path.as_slice(), parent.unwrap_or(tree));
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let name = component(name, path)?;
    let stat = parent.stat(name.clone());
    let stat = stat.map_err(|errno| io(path, errno))?;
    hold_against(entry, &stat)?;
    let shared = shared.at(path);
    let Kind::Link { target } = &entry.kind else {
        return match shared {
            Some(_) => Err(lie(path, "is not the link to what is shared")),
            None => Ok(false),
        };
    };
    let found = parent.read_link(name).map_err(|errno| io(path, errno))?;
    if found.as_bytes() != target || path::check_target(target).is_err() {
        return Err(lie(path, "has another target than reported"));
    }
    match shared {
        Some(shared) if *target == shared.target().as_bytes() => Ok(true),
        Some(_) => Err(lie(path, "is not the link to what is shared")),
        None => stays_inside(tree, path, target).map(|()| false),
    }
}

/// Type, mode, size and number of names: what stat(2) tells.
fn hold_against(entry: &Entry, stat: &FileStat) -> Result<()> {
    let (kind, mode) = match &entry.kind {
        Kind::Dir => (SFlag::S_IFDIR, 0o755),
        Kind::File { executable, .. } => (SFlag::S_IFREG, if *executable { 0o755 } else { 0o644 }),
        Kind::Link { .. } => (SFlag::S_IFLNK, 0o777),
    };
    if dir::kind(stat) != kind || stat.st_mode & 0o7777 != mode {
        return Err(lie(&entry.path, "has another type or mode than reported"));
    }
    match entry.kind {
        Kind::File { size, .. } if stat.st_size as u64 != size || stat.st_nlink != 1 => Err(lie(
            &entry.path,
            "has another size or more names than reported",
        )),
        _ => Ok(()),
    }
}

fn stays_inside(tree: &Dir, path: &[u8], target: &[u8]) -> Result<()> {
    let at = Path::new(OsStr::from_bytes(path));
    let target = || Ok(OsStr::from_bytes(target).to_owned());
    match path::lead(tree, at, target).map_err(|errno| io(path, errno))? {
        Lead::Inside => Ok(()),
        Lead::Out | Lead::Ring => Err(lie(path, "is a link out of the release")),
    }
}

fn component<'a>(name: &'a [u8], path: &[u8]) -> Result<Name<'a>> {
    Name::new(name).ok_or_else(|| lie(path, "has a name that no release may have"))
}

fn lie(path: &[u8], what: &str) -> Error {
    let path = escape::bounded(&escape::line(path), 300);
    Error::new(
        Code::UnpackerDied,
        format!("the unpacker's report is not true: './{path}' {what}"),
    )
    .remedy("nothing was published; keep the payload and report it")
}

fn io(path: &[u8], errno: Errno) -> Error {
    let path = escape::bounded(&escape::line(path), 300);
    Error::io(format!("cannot inspect './{path}'"), errno)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::Sha256Digest;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn entry(line: &str) -> Entry {
        let digest = Sha256Digest([0; 32]);
        Entry::parse(&line.replace("SHA", &format!("sha256digest={digest}"))).unwrap()
    }

    const HONEST: [&str; 4] = [
        ". type=dir mode=0755",
        "./d type=dir mode=0755",
        "./d/l type=link mode=0777 link=../f",
        "./f type=file mode=0644 size=1 SHA",
    ];

    /// Makes the honest tree, lets `change` at it, and inspects it by `report`.
    fn verdict(report: &[&str], change: impl FnOnce(&Path)) -> Result<Sums> {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("tree");
        let mode = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode));
        fs::create_dir_all(root.join("d")).unwrap();
        mode(&root, 0o755).unwrap();
        mode(&root.join("d"), 0o755).unwrap();
        fs::write(root.join("f"), "x").unwrap();
        mode(&root.join("f"), 0o644).unwrap();
        symlink("../f", root.join("d/l")).unwrap();
        change(&root);
        let mut entries = report.iter().map(|line| entry(line));
        let shared = Shared::default();
        inspect(&Dir::open_root(&root).unwrap(), &shared, || {
            Ok(entries.next())
        })
    }

    #[test]
    fn an_honest_report_is_believed() {
        let sums = verdict(&HONEST, |_| ()).unwrap();
        assert_eq!(sums, Sums { files: 1, bytes: 1 });
    }

    #[test]
    fn every_lie_is_found() {
        type Change = fn(&Path);
        let lies: [(&str, Change); 10] = [
            ("an extra file", |root| {
                fs::write(root.join("z"), "").unwrap()
            }),
            ("a missing file", |root| {
                fs::remove_file(root.join("f")).unwrap()
            }),
            ("a longer file", |root| {
                fs::write(root.join("f"), "xx").unwrap()
            }),
            ("set-user-id", |root| {
                fs::set_permissions(root.join("f"), Permissions::from_mode(0o4644)).unwrap();
            }),
            ("a folder for all", |root| {
                fs::set_permissions(root.join("d"), Permissions::from_mode(0o1777)).unwrap();
            }),
            ("a second name", |root| {
                fs::hard_link(root.join("f"), root.parent().unwrap().join("g")).unwrap();
            }),
            ("a link for a file", |root| {
                fs::remove_file(root.join("f")).unwrap();
                symlink("d", root.join("f")).unwrap();
            }),
            ("another target", |root| {
                fs::remove_file(root.join("d/l")).unwrap();
                symlink("../d", root.join("d/l")).unwrap();
            }),
            ("a fifo", |root| {
                fs::remove_file(root.join("f")).unwrap();
                let mode = nix::sys::stat::Mode::from_bits_truncate(0o644);
                nix::unistd::mkfifo(&root.join("f"), mode).unwrap();
            }),
            ("an open root", |root| {
                fs::set_permissions(root, Permissions::from_mode(0o777)).unwrap();
            }),
        ];
        for (what, change) in lies {
            let error = verdict(&HONEST, change).expect_err(what);
            assert_eq!(error.code, Code::UnpackerDied, "{what}: {error}");
        }
    }

    #[test]
    fn reported_lies_are_found() {
        let with = |extra: &'static str, at: usize| {
            let mut report = HONEST.to_vec();
            report.insert(at, extra);
            verdict(&report, |_| ())
        };
        assert!(with("./../../etc/passwd type=file mode=0644 size=1 SHA", 4).is_err());
        assert!(with("./f type=file mode=0644 size=1 SHA", 4).is_err());
        assert!(verdict(&HONEST[..3], |_| ()).is_err());
        let out = [
            HONEST[0],
            HONEST[1],
            "./d/l type=link mode=0777 link=../../f",
            HONEST[3],
        ];
        let change = |root: &Path| {
            fs::remove_file(root.join("d/l")).unwrap();
            symlink("../../f", root.join("d/l")).unwrap();
        };
        assert!(verdict(&out, change).is_err());
        let newline = "./a\\012b type=dir mode=0755";
        let report = [HONEST[0], newline, HONEST[1], HONEST[2], HONEST[3]];
        let make = |root: &Path| fs::create_dir(root.join("a\nb")).unwrap();
        assert!(verdict(&report, make).is_err());
    }

    /// The verdict on links, where the site shares `e` and `d/s`.
    fn shared_verdict(links: &[(&str, &str)]) -> Result<Sums> {
        let folder = tempfile::tempdir().unwrap();
        // Deep enough that every way out leads somewhere.
        let root = folder.path().join("releases/tree");
        let mode = |path: &Path| fs::set_permissions(path, Permissions::from_mode(0o755));
        fs::create_dir_all(root.join("d")).unwrap();
        fs::create_dir_all(folder.path().join("shared/d/s")).unwrap();
        fs::write(folder.path().join("shared/e"), "").unwrap();
        mode(&root).unwrap();
        mode(&root.join("d")).unwrap();
        let mut report = vec![
            ". type=dir mode=0755".into(),
            "./d type=dir mode=0755".into(),
        ];
        for (path, target) in links {
            symlink(target, root.join(path)).unwrap();
            report.push(format!("./{path} type=link mode=0777 link={target}"));
        }
        let mut entries = report.iter().map(|line: &String| entry(line));
        let shared = Shared {
            links: vec!["e".parse().unwrap(), "d/s".parse().unwrap()],
            ..Shared::default()
        };
        inspect(&Dir::open_root(&root).unwrap(), &shared, || {
            Ok(entries.next())
        })
    }

    #[test]
    fn shared_links_are_all_there_and_exact_and_no_other_leads_out() {
        let (d, e) = ("../../../shared/d/s", "../../shared/e");
        shared_verdict(&[("d/s", d), ("e", e)]).unwrap();
        shared_verdict(&[("d/s", d), ("e", e), ("f", "d")]).unwrap();
        for lies in [
            &[("d/s", d)][..],
            &[("e", e)],
            &[],
            &[("d/s", d), ("e", "../../shared/d")],
            &[("d/s", d), ("e", "../../shared/../shared/e")],
            &[("d/s", d), ("e", "d")],
            &[("d/s", "../../../shared/d"), ("e", e)],
            // Theirs is the place, not the text.
            &[("d/s", d), ("e", e), ("f", e)],
            &[("d/s", d), ("e", e), ("f", "e")],
            &[("d/s", d), ("e", e), ("f", "d/s/below")],
            &[("d/s", d), ("e", e), ("f", "d/s/../e")],
        ] {
            let error = shared_verdict(lies).expect_err(&format!("{lies:?}"));
            assert_eq!(error.code, Code::UnpackerDied, "{lies:?}: {error}");
        }
    }

    #[test]
    fn a_folder_where_a_shared_link_must_be_is_found() {
        let shared = Shared {
            links: vec!["d".parse().unwrap()],
            ..Shared::default()
        };
        let folder = tempfile::tempdir().unwrap();
        let mode = |path: &Path| fs::set_permissions(path, Permissions::from_mode(0o755));
        mode(folder.path()).unwrap();
        fs::create_dir(folder.path().join("d")).unwrap();
        mode(&folder.path().join("d")).unwrap();
        let report = [". type=dir mode=0755", "./d type=dir mode=0755"];
        let mut entries = report.iter().map(|line| entry(line));
        let tree = Dir::open_root(folder.path()).unwrap();
        let error = inspect(&tree, &shared, || Ok(entries.next())).unwrap_err();
        assert!(error.problem.contains("./d"), "{error}");
    }
}
