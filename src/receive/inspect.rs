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

use nix::errno::Errno;
use nix::sys::stat::{FileStat, SFlag};

use crate::dir::{self, Dir, Name};
use crate::error::{Code, Error, Result};
use crate::escape;
use crate::manifest::{Entry, Kind};
use crate::shared::Shared;
use crate::unpack::path::{self, CleanPath, Lead};

/// Walks `tree`, taking an entry from `next` for each thing in it; `shared` is
/// what it must lead to.
///
/// Errors: [`Code::UnpackerDied`] for the first difference, [`Code::IoError`].
pub fn inspect(
    tree: &Dir,
    shared: &Shared,
    mut next: impl FnMut() -> Result<Option<Entry>, &'static str>,
) -> Result<()> {
    let mut walk = Walk {
        tree,
        shared,
        linked: 0,
        next: &mut next,
    };
    let stat = tree.own_stat().map_err(|errno| io(b"", errno))?;
    walk.thing(&[], &stat, tree)?;
    // No path comes twice, so all of them are there if so many are.
    if walk.linked != shared.links.len() {
        return Err(lie(b"", "does not lead to all that is shared"));
    }
    match (walk.next)() {
        Ok(None) => Ok(()),
        Ok(Some(entry)) => Err(lie(&entry.path, "is reported and not there")),
        Err(why) => Err(lie(b"", why)),
    }
}

struct Walk<'a, F> {
    tree: &'a Dir,
    shared: &'a Shared,
    /// Shared links met so far.
    linked: usize,
    next: &'a mut F,
}

impl<F: FnMut() -> Result<Option<Entry>, &'static str>> Walk<'_, F> {
    /// One thing and all below it; `parent` is the folder it stands in, or
    /// itself for the release. Bounded in depth by what a path may be.
    fn thing(&mut self, path: &[u8], stat: &FileStat, parent: &Dir) -> Result<()> {
        let entry = match (self.next)() {
            Ok(Some(entry)) if entry.path == path => entry,
            Ok(_) => return Err(lie(path, "is there and not reported")),
            Err(why) => return Err(lie(path, why)),
        };
        let is_folder = entry.kind == Kind::Dir;
        let clean = path.is_empty()
            || CleanPath::read(path, is_folder).is_ok_and(|clean| clean.as_bytes() == path);
        if !clean {
            return Err(lie(path, "has a name that no release may have"));
        }
        let (kind, mode) = match &entry.kind {
            Kind::Dir => (SFlag::S_IFDIR, 0o755),
            Kind::File { executable, .. } => {
                (SFlag::S_IFREG, if *executable { 0o755 } else { 0o644 })
            }
            Kind::Link { .. } => (SFlag::S_IFLNK, 0o777),
        };
        if dir::kind(stat) != kind || stat.st_mode & 0o7777 != mode {
            return Err(lie(path, "has another type or mode than reported"));
        }
        let shared = self.shared.at(path);
        if shared.is_some() && kind != SFlag::S_IFLNK {
            return Err(lie(path, "is not the link to what is shared"));
        }
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        match &entry.kind {
            Kind::Dir if path.is_empty() => self.below(path, parent),
            Kind::Dir => {
                let folder = parent.open_dir(component(name, path)?);
                self.below(path, &folder.map_err(|errno| io(path, errno))?)
            }
            Kind::File { size, .. } => {
                if stat.st_size as u64 != *size || stat.st_nlink != 1 {
                    return Err(lie(path, "has another size or more names than reported"));
                }
                Ok(())
            }
            Kind::Link { target } => {
                let found = parent
                    .read_link(component(name, path)?)
                    .map_err(|errno| io(path, errno))?;
                if found.as_bytes() != target || path::check_target(target).is_err() {
                    return Err(lie(path, "has another target than reported"));
                }
                match shared {
                    Some(shared) if *target == shared.target().as_bytes() => {
                        self.linked += 1;
                        Ok(())
                    }
                    Some(_) => Err(lie(path, "is not the link to what is shared")),
                    None => self.link(path, target),
                }
            }
        }
    }

    fn below(&mut self, path: &[u8], folder: &Dir) -> Result<()> {
        let names = folder.names().map_err(|errno| io(path, errno))?;
        for name in names {
            let name = name.as_bytes();
            let below = match path {
                b"" => name.to_vec(),
                path => [path, b"/", name].concat(),
            };
            let stat = folder
                .stat(component(name, &below)?)
                .map_err(|errno| io(&below, errno))?;
            self.thing(&below, &stat, folder)?;
        }
        Ok(())
    }

    fn link(&self, path: &[u8], target: &[u8]) -> Result<()> {
        let at = Path::new(OsStr::from_bytes(path));
        let target = || Ok(OsStr::from_bytes(target).to_owned());
        match path::lead(self.tree, at, target).map_err(|errno| io(path, errno))? {
            Lead::Inside => Ok(()),
            Lead::Out | Lead::Ring => Err(lie(path, "is a link out of the release")),
        }
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
    fn verdict(report: &[&str], change: impl FnOnce(&Path)) -> Result<()> {
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
        verdict(&HONEST, |_| ()).unwrap();
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
    fn shared_verdict(links: &[(&str, &str)]) -> Result<()> {
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
