//! Archives by the usual tools are received, and the release is what was archived:
//! names, bytes, symlink targets, and normalized modes.

mod manifest;
mod tools;
mod tree;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::site::Site;
use tree::Carries;

/// Returns a program that the test needs, and names the Debian package that has it.
fn tool(program: &str, package: &str) -> Command {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|directory| directory.join(program).is_file());
    assert!(found, "'{program}' is missing: install '{package}'");
    let mut command = Command::new(program);
    command.env("LC_ALL", "C.UTF-8");
    // These change what the tools write.
    for name in ["TAR_OPTIONS", "ZSTD_CLEVEL", "ZSTD_NBTHREADS", "GIT_DIR"] {
        command.env_remove(name);
    }
    command
}

/// Runs a command and returns its standard output.
#[track_caller]
fn run(mut command: Command) -> Vec<u8> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {stderr}");
    output.stdout
}

/// Returns the output of the pipeline `first | second`.
#[track_caller]
fn piped(mut first: Command, mut second: Command) -> Vec<u8> {
    let mut writer = first
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{first:?}: {error}"));
    let pipe = writer.stdout.take().expect("a pipe");
    let output = second.stdin(pipe).stderr(Stdio::inherit()).output();
    let status = writer.wait().expect("an exit status");
    assert!(status.success(), "{first:?}: {status}");
    let output = output.unwrap_or_else(|error| panic!("{second:?}: {error}"));
    assert!(output.status.success(), "{second:?}: {}", output.status);
    output.stdout
}

/// Returns `zstd` from standard input to standard output, where it does not know the
/// size.
fn zstd(arguments: &[&str]) -> Command {
    let mut zstd = tool("zstd", "zstd");
    zstd.args(["-q", "-c"]).args(arguments);
    zstd
}

/// A site and a source tree to send to it.
struct Bench {
    site: Site,
    source: PathBuf,
    sent: u32,
}

impl Bench {
    fn new(carries: Carries) -> Bench {
        let site = Site::with_config("[pending]\nmax = 100\n");
        let source = site.dir().join("source");
        tree::create(&source, carries);
        Bench {
            site,
            source,
            sent: 0,
        }
    }

    /// Receives the payload and compares the release and its manifest with the
    /// source.
    #[track_caller]
    fn receive(&mut self, payload: &[u8]) {
        self.sent += 1;
        let release = format!("release-{}", self.sent);
        let line = self.site.receive(&release, payload).ok();
        let source = tree::expected(&self.source);
        assert_eq!(tree::released(&self.site, &release), source);
        manifest::assert_lists(&self.site, &release, &source);
        assert!(self.site.leftovers().is_empty());

        let files = source.values().filter(|text| text.starts_with("file"));
        let files = format!(" files={} ", files.count());
        assert!(line.contains(&files), "{line} has not{files}");
    }

    /// The archiver's output, streamed through `zstd -T0`.
    #[track_caller]
    fn receive_from(&mut self, archiver: Command) {
        self.receive(&piped(archiver, zstd(&["-T0"])));
    }

    fn gnu_tar(&self, arguments: &[&str]) -> Command {
        let mut tar = tool("tar", "tar");
        tar.args(arguments).arg("-C").arg(&self.source);
        tar.args(["-c", "."]);
        tar
    }

    fn bsdtar(&self, arguments: &[&str]) -> Command {
        let mut bsdtar = tool("bsdtar", "libarchive-tools");
        bsdtar.args(arguments).arg("-C").arg(&self.source);
        bsdtar.args(["-cf", "-", "."]);
        bsdtar
    }

    fn python(&self, format: &str) -> Command {
        let script = format!(
            "import sys, tarfile\n\
             out = tarfile.open(fileobj=sys.stdout.buffer, mode='w|', {format})\n\
             out.add('.')\n\
             out.close()\n"
        );
        let mut python = tool("python3", "python3");
        python.args(["-c", &script]).current_dir(&self.source);
        python
    }
}

#[test]
fn gnu_tar_archives_in_gnu_and_pax_format_are_received() {
    let mut bench = Bench::new(Carries::Everything);
    for arguments in [
        &["--format=gnu"][..],
        &["--format=oldgnu"],
        &["--format=pax"],
        &["--format=gnu", "--blocking-factor=1"],
        &["--format=gnu", "--blocking-factor=2048"],
        // The options for a reproducible archive.
        &[
            "--format=posix",
            "--sort=name",
            "--owner=0",
            "--group=0",
            "--numeric-owner",
            "--mtime=@0",
            "--pax-option=delete=atime,delete=ctime",
        ],
        &["--format=posix", "--label=site"],
        // The result of --xattrs on a file system with extended attributes.
        &[
            "--format=posix",
            "--pax-option=SCHILY.xattr.user.note:=text",
        ],
    ] {
        bench.receive_from(bench.gnu_tar(arguments));
    }
}

#[test]
fn gnu_tar_archives_of_named_files_are_received() {
    let mut bench = Bench::new(Carries::Everything);
    let mut tar = tool("tar", "tar");
    tar.arg("-C").arg(&bench.source).arg("-c").arg("--");
    for entry in fs::read_dir(&bench.source).expect("a directory") {
        tar.arg(entry.expect("an entry").file_name());
    }
    bench.receive_from(tar);
}

#[test]
fn gnu_tar_archives_without_directories_are_received() {
    let mut bench = Bench::new(Carries::Git);
    let mut find = tool("find", "findutils");
    find.current_dir(&bench.source);
    find.args([".", "!", "-type", "d", "-print0"]);
    let list = bench.site.dir().join("list");
    fs::write(&list, run(find)).expect("the list");
    let mut tar = tool("tar", "tar");
    tar.arg("-C")
        .arg(&bench.source)
        .args(["-c", "--null", "-T"]);
    tar.arg(&list);
    bench.receive_from(tar);
}

#[test]
fn bsdtar_archives_in_all_formats_are_received() {
    let mut bench = Bench::new(Carries::Everything);
    bench.receive_from(bench.bsdtar(&[]));
    bench.receive_from(bench.bsdtar(&["--format", "pax"]));
    bench.receive_from(bench.bsdtar(&["--format", "gnutar"]));
}

#[test]
fn bsdtar_archives_from_a_locale_without_a_character_set_are_received() {
    let mut bench = Bench::new(Carries::Everything);
    let mut bsdtar = bench.bsdtar(&[]);
    // It warns about each name that it cannot translate, and still writes it.
    bsdtar.env("LC_ALL", "C").stderr(Stdio::null());
    bench.receive_from(bsdtar);
}

#[test]
fn ustar_archives_of_every_tool_are_received() {
    let mut bench = Bench::new(Carries::Ustar);
    bench.receive_from(bench.gnu_tar(&["--format=ustar"]));
    bench.receive_from(bench.bsdtar(&["--format", "ustar"]));
    bench.receive_from(bench.python("format=tarfile.USTAR_FORMAT"));
}

#[test]
fn busybox_tar_archives_are_received() {
    let mut bench = Bench::new(Carries::Everything);
    let mut busybox = tool("busybox", "busybox");
    busybox.args(["tar", "-cf", "-", "-C"]);
    busybox.arg(&bench.source).arg(".");
    bench.receive_from(busybox);
}

#[test]
fn python_tarfile_archives_are_received() {
    let mut bench = Bench::new(Carries::Everything);
    bench.receive_from(bench.python("format=tarfile.DEFAULT_FORMAT"));
    bench.receive_from(bench.python("format=tarfile.PAX_FORMAT"));
    bench.receive_from(bench.python("format=tarfile.GNU_FORMAT"));
}

/// Returns git with a repository beside the source, which keeps the source unchanged.
fn git(bench: &Bench, arguments: &[&str]) -> Command {
    let mut git = tool("git", "git");
    git.env("GIT_CONFIG_GLOBAL", "/dev/null");
    git.env("GIT_CONFIG_NOSYSTEM", "1");
    git.args(["-c", "user.name=test", "-c", "user.email=test@localhost"]);
    git.arg("--git-dir")
        .arg(bench.site.dir().join("repository"));
    git.arg("--work-tree").arg(&bench.source);
    git.args(arguments).current_dir(&bench.source);
    git
}

#[test]
fn git_archives_of_a_commit_and_of_a_tree_are_received() {
    let mut bench = Bench::new(Carries::Git);
    run(git(&bench, &["init", "-q"]));
    run(git(&bench, &["add", "--all", "--force"]));
    run(git(&bench, &["commit", "-q", "-m", "site"]));
    // git puts the id of a commit into a global header, as a comment.
    bench.receive_from(git(&bench, &["archive", "--format=tar", "HEAD"]));
    bench.receive_from(git(&bench, &["archive", "--format=tar", "HEAD^{tree}"]));
}

/// Ids and times that do not fit into an octal field are in base 256. Only a size must
/// not be.
#[test]
fn large_ids_and_old_times_are_received() {
    let mut bench = Bench::new(Carries::Ustar);
    for arguments in [
        &["--format=gnu", "--owner=ci:1000000000"][..],
        &["--format=gnu", "--mtime=@-86400"],
        &["--format=posix", "--owner=ci:1000000000"],
        &["--format=posix", "--mtime=@-86400"],
    ] {
        bench.receive_from(bench.gnu_tar(arguments));
    }
    for arguments in [
        &["--uid", "1000000000"][..],
        &["--format", "gnutar", "--uid", "1000000000"],
    ] {
        bench.receive_from(bench.bsdtar(arguments));
    }
}

#[test]
fn payloads_of_every_way_to_call_zstd_are_received() {
    let mut bench = Bench::new(Carries::Everything);
    let plain = bench.site.dir().join("site.tar");
    fs::write(&plain, run(bench.gnu_tar(&[]))).expect("the archive");
    let path = plain.to_str().expect("a UTF-8 path");
    // From a file: the frame states its size.
    for arguments in [
        &["-T0", path][..],
        &["-1", "--single-thread", path],
        &["-19", "--long=27", path],
        &["--fast=5", path],
        &["--rsyncable", "-T0", path],
    ] {
        bench.receive(&run(zstd(arguments)));
    }
    // From a pipe: it does not.
    for arguments in [&["-19", "--long=27"][..], &["--no-check"], &["-3"]] {
        bench.receive(&piped(bench.gnu_tar(&[]), zstd(arguments)));
    }
}

#[test]
fn archives_that_the_archiver_compresses_are_received() {
    let mut bench = Bench::new(Carries::Everything);
    let target = bench.site.dir().join("site.tar.zst");
    let source = bench.source.clone();
    let create = |program: &str, package: &str, arguments: &[&str]| {
        let mut tar = tool(program, package);
        tar.args(arguments).arg("-cf").arg(&target);
        tar.arg("-C").arg(&source).arg(".");
        run(tar);
        fs::read(&target).expect("the archive")
    };
    bench.receive(&create("tar", "tar", &["--zstd"]));
    bench.receive(&create("tar", "tar", &["-I", "zstd -T0 -19"]));
    bench.receive(&create("bsdtar", "libarchive-tools", &["--zstd"]));
}
