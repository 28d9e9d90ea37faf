//! What the user can do about a refusal. Each remedy works with the tool that made
//! the archive: the options of one tool are marked with its name.

use super::pax;
use super::rule::{PayloadFormat, Rule};

const WITHOUT_SPARSE: &str = "GNU tar: leave out --sparse (-S); bsdtar: add --no-read-sparse";
const CONTENT: &str = "archive the content of the site's directory: tar -C dist -c .";
const AGAIN: &str = "make the archive again with GNU tar, bsdtar or Python's tarfile";
const WHOLE: &str = "make the payload again, and test it: zstd -dc site.tar.zst | tar -t";
const ZSTD: &str = "make it with zstd: tar -C dist -c . | zstd -T0 > site.tar.zst";
const SHORTER: &str = "shorten the path, or leave it out (--exclude)";
const RENAME: &str = "rename it, or leave it out (--exclude)";
const ONCE: &str =
    "archive each path once: no --append or --update; 'find | tar -T -' needs --no-recursion";
const INSIDE: &str = "use a relative symlink that stays inside, or leave it out (--exclude); \
    a Python venv: python3 -m venv --copies; files of the server: [shared] links";

impl Rule {
    /// Returns what the user can do so that the archive is accepted.
    pub fn remedy(&self) -> &'static str {
        match self {
            Rule::NotZstd(PayloadFormat::Nothing) => "send the archive as stdin: < site.tar.zst",
            Rule::NotZstd(PayloadFormat::Tar) => "compress it: zstd -T0 site.tar",
            Rule::NotZstd(_) => ZSTD,
            Rule::Window => "compress with zstd --long=27, or with a smaller window",
            Rule::Dictionary => "compress without a dictionary (zstd -D)",
            Rule::ZstdDamaged | Rule::AfterFrame | Rule::CutShort => WHOLE,
            Rule::Frames | Rule::Skippable => {
                "compress it again: zstd -dc OLD | zstd -T0 > site.tar.zst"
            }
            Rule::NoContent => {
                "the command before zstd wrote nothing: look at its error, and use set -o pipefail"
            }
            Rule::CompressedTwice(_) => {
                "compress it once, without --zstd or -z for tar: \
                 tar -C dist -c . | zstd -T0 > site.tar.zst"
            }
            Rule::Version7 => "GNU tar: --format=gnu; bsdtar: --format pax; pax: -x ustar",
            Rule::Padding => "GNU tar and bsdtar: use a smaller --blocking-factor (-b)",
            Rule::NoEnd | Rule::AfterEnd => {
                "send one whole archive; join archives with GNU tar --concatenate"
            }
            Rule::CharacterDevice | Rule::BlockDevice | Rule::Fifo => "leave it out (--exclude)",
            Rule::Sparse => WITHOUT_SPARSE,
            Rule::UnknownType(b'D') => "GNU tar: leave out --incremental and --listed-incremental",
            Rule::VolumeLabel => "GNU tar: leave out --label (-V), or use --format=posix",
            Rule::UnknownType(b'M') => "GNU tar: leave out --multi-volume (-M)",
            Rule::ExtendedTooLong => {
                "GNU tar: leave out --xattrs and --acls; \
                 bsdtar: add --no-xattrs --no-acls --no-mac-metadata"
            }
            Rule::Acl => "GNU tar: leave out --acls; bsdtar: add --no-acls",
            Rule::Extended(_) => {
                "GNU tar: leave out --xattrs; bsdtar: add --no-xattrs --no-acls --no-mac-metadata; \
                 or raise max_entries in [archive]"
            }
            Rule::PaxKey(key) if pax::changes_content(key) => WITHOUT_SPARSE,
            Rule::PaxKey(_) => "leave that key out; GNU tar: --pax-option=delete=KEY",
            Rule::PaxGlobal => {
                "leave the global header out; GNU tar: write --pax-option=KEY:=VALUE with ':='"
            }
            Rule::GnuTimes => {
                "Go: use tar.FormatPAX, or clear AccessTime and ChangeTime; \
                 GNU tar: leave out --incremental and --listed-incremental"
            }
            Rule::NameEmpty | Rule::NameAbsolute | Rule::NameDotDot | Rule::NameWindows => CONTENT,
            Rule::NameNotUtf8 | Rule::NameControl => RENAME,
            Rule::NameComponent | Rule::NamePath | Rule::NameDepth => SHORTER,
            Rule::Duplicate | Rule::BelowNonDirectory | Rule::EntriesRead(_) => ONCE,
            Rule::Time => "set the file's time (touch), and make the archive again",
            Rule::AtSharedPath => {
                "leave it out (--exclude), or set existing = \"replace\" in [shared]"
            }
            Rule::AboveSharedPath => "make it a directory, or leave it out (--exclude)",
            Rule::ChangesName => "send a delta with --base, or leave the file out (--exclude)",
            Rule::ChangesFirst | Rule::DeltaMember => {
                "archive '.deploy-shell-changes' and then the files that it adds, and nothing else; \
                 or send the whole release, without --base"
            }
            Rule::ChangesLong(_) => "send the whole release, without --base",
            Rule::HardLink(..) => {
                "archive that file as well, before the link; or archive a copy of the tree, \
                 which has no hard links: cp -R; GNU tar: --hard-dereference"
            }
            Rule::TargetAbsolute | Rule::SymlinkEscapes => INSIDE,
            Rule::TargetLong => "use a shorter target, or leave the symlink out (--exclude)",
            Rule::TargetEmpty | Rule::TargetNotUtf8 | Rule::TargetControl => {
                "correct the target, or leave the link out (--exclude)"
            }
            Rule::SymlinkUnresolved => {
                "archive the missing part, or write the target without it: ln -sr"
            }
            Rule::SymlinkLoop => "correct the target, or leave the symlink out (--exclude)",
            Rule::SymlinksDenied => {
                "archive the files themselves (tar -h), or set symlinks = \"inside\" in [archive]"
            }
            Rule::Entries(_) => "leave files out (--exclude), or raise max_entries in [archive]",
            Rule::Unpacked(_) => "leave files out (--exclude), or raise max_unpacked in [archive]",
            Rule::OnDisk(_) => {
                "leave files out (--exclude), or raise max_unpacked or max_entries in [archive]"
            }
            Rule::File(_) => "leave the file out (--exclude), or raise max_file in [archive]",
            Rule::Empty | Rule::NoFile => CONTENT,
            Rule::Number("mtime") => {
                "tar-stream (tar-fs, archiver) cannot write a time after 2038: set the file's time \
                 (touch), or make the archive with GNU tar, bsdtar or Python's tarfile"
            }
            Rule::Checksum
            | Rule::Magic
            | Rule::FirstHeader
            | Rule::Number(_)
            | Rule::AfterNul(_)
            | Rule::UnknownType(_)
            | Rule::SizeWithoutData
            | Rule::ExtendedAfterEnd
            | Rule::TwoLongNames
            | Rule::TwoPaxHeaders
            | Rule::PaxMalformed
            | Rule::PaxRepeated
            | Rule::PaxSize
            | Rule::ExtendedAlone
            | Rule::LongTargetAlone
            | Rule::HardLinkMode
            | Rule::FileSlash => AGAIN,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_remedy_of_a_key_depends_on_what_it_does() {
        let remedy = |key: &str| Rule::PaxKey(key.to_owned()).remedy();
        assert_eq!(remedy("GNU.sparse.major"), WITHOUT_SPARSE);
        assert!(remedy("hdrcharset").contains("delete=KEY"));
    }
}
