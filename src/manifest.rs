//! A release's manifest: an mtree(5) file with one full path a line, which bsdtar and
//! mtree(8) can read too. docs/formats.md has the grammar.
//!
//! ```text
//! #mtree
//! # format 2
//! # release 20260412-142033
//! # sha256 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
//! # tree 2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae
//! # base 20260410-090512
//! # signature U1NIU0lHAAAA…
//! # added ./uploads
//! # received 2026-04-12T14:20:41Z
//! . type=dir mode=0755
//! ./index.html type=file mode=0644 size=12 sha256digest=…
//! ./latest type=link mode=0777 link=index.html
//! # files 1 bytes 12
//! ```
//!
//! This program writes the comments: the release, the digest of its tree list (see
//! [`tree_list`]), the base if it came as a delta, the signatures with which it was received
//! (a line for each, if the site requires any), the paths that the client did not send (a
//! line for each), and at the end the sums, which only a whole manifest has. Each line has one spelling, and the reader refuses
//! every other: it also reads the lines of a client that sends a delta.

pub mod tree_list;
mod vis;

use std::cmp::Ordering;
use std::fmt;
use std::io::{BufRead, Read};

use jiff::Timestamp;
use nix::sys::stat::SFlag;

use crate::names::{MAX_DEPTH, MAX_SIGNATURES, ReleaseId, Sha256Digest, SignatureText};
use crate::shared_paths::MAX_LINKS;
use vis::{unvis, vis_len};

pub use vis::Vis;

/// The maximum length of a line: a path and a symlink's target of 1,024 bytes each,
/// every byte escaped, and the fixed words.
pub const MAX_LINE: usize = 2 * 4 * 1024 + 256;

/// The maximum number of manifest bytes of other releases that a request reads to measure
/// the shares, and again to compare times. A client chooses the size of its manifests, and
/// must not delay the requests of other keys: 100,000 long symlinks have 527 MB. 64 MiB are
/// read in about a quarter of a second, and hold 31 releases of 10,000 files.
pub const MAX_OTHER_MANIFESTS: u64 = 64 << 20;

/// Compares two paths as manifests sort them: a directory before what is in it, names by
/// their bytes. The release itself has no name.
pub fn compare_paths(one: &[u8], other: &[u8]) -> Ordering {
    let names = |path| <[u8]>::split(path, |byte| *byte == b'/');
    names(one).cmp(names(other))
}

/// The maximum length of a line without its path and target: that of a file.
const MAX_WORDS: usize = 192;

/// Returns the maximum length of the line of an entry whose path has these components,
/// with its line feed, in bytes. `target` is empty for an entry that is not a symlink.
pub fn max_line_len(path: &[&[u8]], target: &[u8]) -> usize {
    let components = path.iter().map(|name| 1 + vis_len(name));
    MAX_WORDS + components.sum::<usize>() + vis_len(target)
}

/// One file, directory or symlink of a release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Relative to the release, without `./`; empty for the release itself.
    pub path: Vec<u8>,
    pub kind: Kind,
}

/// What an entry is, with what the manifest says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    Dir,
    File {
        executable: bool,
        /// Bytes.
        size: u64,
        sha256: Sha256Digest,
    },
    Link {
        target: Vec<u8>,
    },
}

/// The newest format that this program reads. Format 2 adds the digest of the tree and the
/// added paths. A manifest of format 1 does not state its format; any other has the line
/// `# format N` after `#mtree`.
const FORMAT: u64 = 2;

/// The maximum number of added paths: every shared path, and the directories above it.
const MAX_ADDED: usize = MAX_LINKS * MAX_DEPTH;

/// Why the head of a manifest cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadFlaw {
    /// A newer version of this program wrote it, in this format.
    Newer(u64),
    /// No version of this program wrote it; the text is a phrase.
    Malformed(&'static str),
}

impl From<&'static str> for HeadFlaw {
    fn from(why: &'static str) -> Self {
        HeadFlaw::Malformed(why)
    }
}

impl fmt::Display for HeadFlaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HeadFlaw::Newer(format) => write!(
                f,
                "it has format {format}, and this version reads up to format {FORMAT}"
            ),
            HeadFlaw::Malformed(why) => f.write_str(why),
        }
    }
}

/// The mode of every directory of a release.
pub const DIR_MODE: u32 = 0o755;

/// Returns the mode of a regular file of a release: one of two.
pub const fn file_mode(executable: bool) -> u32 {
    if executable { 0o755 } else { 0o644 }
}

impl Kind {
    /// Returns the permission bits that an entry of this kind has on disk. Linux
    /// shows 0777 for every symlink.
    pub const fn mode(&self) -> u32 {
        match self {
            Kind::Dir => DIR_MODE,
            Kind::File { executable, .. } => file_mode(*executable),
            Kind::Link { .. } => 0o777,
        }
    }

    /// Returns the file type that stat(2) shows for an entry of this kind.
    pub const fn file_type(&self) -> SFlag {
        match self {
            Kind::Dir => SFlag::S_IFDIR,
            Kind::File { .. } => SFlag::S_IFREG,
            Kind::Link { .. } => SFlag::S_IFLNK,
        }
    }
}

/// The head of a manifest: the release that it describes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub release: ReleaseId,
    /// Of the payload as received.
    pub sha256: Sha256Digest,
    /// Of the tree list; a manifest of format 1 has none.
    pub tree: Option<Sha256Digest>,
    /// The base, if the payload was a delta. Its payload gives another release with another
    /// base.
    pub base: Option<ReleaseId>,
    /// Those that were valid when it was received. They are verified again before the
    /// release becomes live.
    pub signatures: Vec<SignatureText>,
    /// The paths that the client did not send, sorted as the entries are: the shared
    /// symlinks, and the directories above them that the client did not send either. They
    /// are not in the tree list.
    pub added: Vec<Vec<u8>>,
    pub received: Timestamp,
}

/// The number of regular files, and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    pub files: u64,
    pub bytes: u64,
}

impl Sums {
    pub fn add(&mut self, entry: &Entry) {
        if let Kind::File { size, .. } = entry.kind {
            self.files += 1;
            self.bytes = self.bytes.saturating_add(size);
        }
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.as_slice() {
            b"" => f.write_str(".")?,
            path => write!(f, "./{}", Vis(path))?,
        }
        let mode = self.kind.mode();
        match &self.kind {
            Kind::Dir => write!(f, " type=dir mode={mode:04o}"),
            Kind::File { size, sha256, .. } => write!(
                f,
                " type=file mode={mode:04o} size={size} sha256digest={sha256}"
            ),
            Kind::Link { target } => {
                write!(f, " type=link mode={mode:04o} link={}", Vis(target))
            }
        }
    }
}

impl Entry {
    /// Parses one line (without its line feed).
    ///
    /// Each part must have its one spelling, so the line is the one that
    /// [`Display`](fmt::Display) writes. Writing it again and comparing would be simpler,
    /// but would double the time; the tests do it.
    ///
    /// # Errors
    ///
    /// Returns a phrase that says what is wrong with the line.
    pub fn parse(line: &str) -> Result<Entry, &'static str> {
        let (path, rest) = line.split_once(' ').ok_or("not a line of a manifest")?;
        let path = parse_path(path)?;
        let kind = match rest.split_once(' ') {
            Some(("type=dir", "mode=0755")) => Kind::Dir,
            Some(("type=file", rest)) => parse_file(rest)?,
            Some(("type=link", rest)) => {
                let target = rest.strip_prefix("mode=0777 link=");
                let target = unvis(target.ok_or("symlink has no target")?)?;
                Kind::Link { target }
            }
            _ => return Err("not a line of a manifest"),
        };
        Ok(Entry { path, kind })
    }
}

/// Parses a path as a line has it: `.` is the release itself, whose path is empty.
///
/// # Errors
///
/// Returns a phrase that says what is wrong with it.
pub fn parse_path(text: &str) -> Result<Vec<u8>, &'static str> {
    if text == "." {
        return Ok(Vec::new());
    }
    let path = text.strip_prefix("./");
    let path = unvis(path.ok_or("path does not start with './'")?)?;
    if path.is_empty() {
        return Err("path is empty");
    }
    Ok(path)
}

/// Parses the line of a file, from its mode on.
fn parse_file(rest: &str) -> Result<Kind, &'static str> {
    let mut words = rest.split(' ');
    let executable = match words.next() {
        Some("mode=0755") => true,
        Some("mode=0644") => false,
        _ => return Err("mode is not one of a file"),
    };
    let size = words.next().and_then(|word| word.strip_prefix("size="));
    // A number has one spelling: without a sign and without leading zeros.
    let canonical = |digits: &&str| matches!(digits.as_bytes(), [b'0'] | [b'1'..=b'9', ..]);
    let size = size
        .filter(canonical)
        .and_then(|digits| digits.parse().ok());
    let digest = words
        .next()
        .and_then(|word| word.strip_prefix("sha256digest="));
    let digest = digest.and_then(|hex| Sha256Digest::try_from(hex).ok());
    let kind = Kind::File {
        executable,
        size: size.ok_or("size is not a number")?,
        sha256: digest.ok_or("sha256digest is not one")?,
    };
    match words.next() {
        None => Ok(kind),
        Some(_) => Err("something follows the digest"),
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Identity {
            release,
            sha256,
            tree,
            base,
            signatures,
            added,
            received,
        } = self;
        f.write_str("#mtree\n")?;
        if tree.is_some() {
            f.write_str("# format 2\n")?;
        }
        write!(f, "# release {release}\n# sha256 {sha256}\n")?;
        if let Some(tree) = tree {
            writeln!(f, "# tree {tree}")?;
        }
        if let Some(base) = base {
            writeln!(f, "# base {base}")?;
        }
        for signature in signatures {
            writeln!(f, "# signature {signature}")?;
        }
        for path in added {
            writeln!(f, "# added ./{}", Vis(path))?;
        }
        writeln!(f, "# received {received}")
    }
}

/// Returns what follows `key` on a line of the head.
fn head_value<'a>(line: &'a str, key: &str) -> Result<&'a str, &'static str> {
    line.strip_prefix(key).ok_or("head is not of deploy-shell")
}

impl Identity {
    /// Reads the head of a manifest and nothing after it.
    ///
    /// # Errors
    ///
    /// Returns why the head cannot be read.
    pub fn read(manifest: &mut impl BufRead) -> Result<Identity, HeadFlaw> {
        if read_line(manifest)?.as_deref() != Some("#mtree") {
            return Err("first line is not '#mtree'".into());
        }
        let mut line = || read_line(manifest)?.ok_or("head is cut short");
        let mut first = line()?;
        let has_tree = first.starts_with("# format ");
        if let Some(format) = first.strip_prefix("# format ")
            && format != "2"
        {
            let newer = format.parse().ok().filter(|format| *format > FORMAT);
            return Err(newer.map_or("format is not a newer one".into(), HeadFlaw::Newer));
        }
        if has_tree {
            first = line()?;
        }
        let release = ReleaseId::try_from(head_value(&first, "# release ")?)
            .map_err(|_| "release is not one")?;
        let sha256 = Sha256Digest::try_from(head_value(&line()?, "# sha256 ")?)
            .map_err(|_| "sha256 is not one")?;
        let tree = if has_tree {
            let tree = Sha256Digest::try_from(head_value(&line()?, "# tree ")?);
            Some(tree.map_err(|_| "tree is not a digest")?)
        } else {
            None
        };
        // The signatures and the added paths come before the last line of the head, so its
        // end is known without reading what follows.
        let mut signatures = Vec::new();
        let mut last = line()?;
        let mut base = None;
        if has_tree && let Some(text) = last.strip_prefix("# base ") {
            base = Some(ReleaseId::try_from(text).map_err(|_| "base is not one")?);
            last = line()?;
        }
        while let Some(text) = last.strip_prefix("# signature ") {
            let signature = SignatureText::try_from(text).map_err(|_| "signature is not one")?;
            signatures.push(signature);
            if signatures.len() > MAX_SIGNATURES {
                return Err("head has too many signatures".into());
            }
            last = line()?;
        }
        let mut added: Vec<Vec<u8>> = Vec::new();
        while has_tree && let Some(path) = last.strip_prefix("# added ./") {
            let path = unvis(path)?;
            let follows = |before: &Vec<u8>| compare_paths(before, &path).is_lt();
            if path.is_empty() || !added.last().is_none_or(follows) {
                return Err("added paths are not in order".into());
            }
            added.push(path);
            if added.len() > MAX_ADDED {
                return Err("head has too many added paths".into());
            }
            last = line()?;
        }
        let received = head_value(&last, "# received ")?;
        let time: Timestamp = received.parse().map_err(|_| "received is not a time")?;
        // A time has many spellings, and a manifest has one of them.
        if time.to_string() != received {
            return Err("received is not in its one exact form".into());
        }
        Ok(Identity {
            release,
            sha256,
            tree,
            base,
            signatures,
            added,
            received: time,
        })
    }
}

/// Returns the line with the sums, which ends a whole manifest.
pub fn trailer(sums: Sums) -> String {
    format!("# files {} bytes {}\n", sums.files, sums.bytes)
}

/// Reads entries one by one up to the trailer. The trailer must agree with what was
/// read, and nothing may follow it.
#[derive(Debug)]
pub struct Entries<'a, R> {
    from: &'a mut R,
    sums: Sums,
    whole: bool,
}

impl<'a, R: BufRead> Entries<'a, R> {
    pub fn new(from: &'a mut R) -> Self {
        Entries {
            from,
            sums: Sums::default(),
            whole: false,
        }
    }

    /// Returns the next entry; none after the trailer.
    ///
    /// # Errors
    ///
    /// Returns a phrase that says what is wrong with the next line.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, &'static str> {
        if self.whole {
            return Ok(None);
        }
        let line = read_line(self.from)?.ok_or("manifest is cut short")?;
        if !line.starts_with('#') {
            let entry = Entry::parse(&line)?;
            self.sums.add(&entry);
            return Ok(Some(entry));
        }
        if line != trailer(self.sums).trim_end() {
            return Err("sums do not agree");
        }
        if read_line(self.from)?.is_some() {
            return Err("something follows the sums");
        }
        self.whole = true;
        Ok(None)
    }
}

/// Reads all entries, and returns their sums.
///
/// # Errors
///
/// As [`Entries::next_entry`].
pub fn read_sums(from: &mut impl BufRead) -> Result<Sums, &'static str> {
    let mut entries = Entries::new(from);
    // Terminates: every turn consumes a line, and the input has an end.
    while entries.next_entry()?.is_some() {}
    Ok(entries.sums)
}

/// Reads one line of bounded length, ended by a line feed; none at the end.
///
/// # Errors
///
/// Returns a phrase that says what is wrong with the line.
pub fn read_line(from: &mut impl BufRead) -> Result<Option<String>, &'static str> {
    let mut line = Vec::new();
    Read::take(from, MAX_LINE as u64)
        .read_until(b'\n', &mut line)
        .map_err(|_| "manifest cannot be read")?;
    match line.pop() {
        None => Ok(None),
        Some(b'\n') => String::from_utf8(line)
            .map(Some)
            .map_err(|_| "line is not text"),
        Some(_) => Err("line is cut short or too long"),
    }
}

#[cfg(test)]
mod tests;
