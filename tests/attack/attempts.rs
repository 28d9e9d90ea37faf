//! The table of attempts.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::os::unix::process::parent_id;
use std::path::Path;
use std::process::Command;

use deploy_shell::dir::Dir;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use nix::libc::{O_TMPFILE, O_TRUNC};
use nix::sys::signal::kill;
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::Pid;

use super::attempt::*;
use super::raw_syscalls::*;

pub const ATTEMPTS: &[Attempt] = &[
    Attempt {
        name: "read a file of the system",
        refused_to: EVERYONE,
        refusal: Refusal::Any,
        run: |_| File::open("/etc/passwd").map(drop),
    },
    Attempt {
        name: "read a secret beside the site",
        refused_to: EVERYONE,
        refusal: Refusal::Any,
        run: |site| File::open(site.path("beside/secret")).map(drop),
    },
    Attempt {
        name: "list a directory beside the site",
        refused_to: EVERYONE,
        refusal: Refusal::Any,
        run: |site| fs::read_dir(site.path("beside")).map(drop),
    },
    Attempt {
        name: "write beside the site",
        refused_to: EVERYONE,
        refusal: Refusal::Any,
        run: |site| fs::write(site.path("beside/new"), "x"),
    },
    Attempt {
        name: "write through the working directory's parent",
        refused_to: &[UNPACKER, ASSEMBLER, COPIER, LINKER, PROBE],
        refusal: Refusal::Any,
        run: |_| fs::write("../escaped", "x"),
    },
    Attempt {
        name: "write through a symlink out of the staging directory",
        refused_to: EVERYONE,
        refusal: Refusal::Any,
        run: |site| {
            symlink(site.path("beside"), "way-out")?;
            fs::write("way-out/new", "x")
        },
    },
    Attempt {
        name: "read the configuration",
        refused_to: EVERYONE,
        refusal: Refusal::Any,
        run: |site| File::open(site.path("site.toml")).map(drop),
    },
    Attempt {
        name: "create a file in the site's root",
        refused_to: EVERYONE,
        refusal: Refusal::Any,
        run: |site| fs::write(site.path("root/new"), "x"),
    },
    Attempt {
        name: "change a file of a release",
        refused_to: EVERYONE,
        refusal: Refusal::Any,
        run: |site| append(&site.path("root/releases/r1/index.html")),
    },
    Attempt {
        name: "truncate a file of a release",
        refused_to: EVERYONE,
        refusal: Refusal::Any,
        run: |site| {
            let path = site.path("root/releases/r1/index.html");
            let file = OpenOptions::new().write(true).truncate(true).open(path);
            file.map(drop)
        },
    },
    Attempt {
        name: "empty a file of a release by truncate(2)",
        refused_to: EVERYONE,
        refusal: Refusal::Any,
        run: |site| Ok(nix::unistd::truncate(&site.path(LIVE_FILE), 0)?),
    },
    // Landlock controls the following only from Linux 6.2 on. The access mode 3 asks for
    // neither reading nor writing.
    Attempt {
        name: "empty a file of a release by open(2) for reading",
        refused_to: EVERYONE,
        refusal: Refusal::Any,
        run: |site| {
            let mut options = OpenOptions::new();
            options.read(true).custom_flags(O_TRUNC);
            options.open(site.path(LIVE_FILE)).map(drop)
        },
    },
    Attempt {
        name: "empty a file of a release by openat(2) with mode 3",
        refused_to: EVERYONE,
        refusal: Refusal::Any,
        run: |_| raw_syscall(OPENAT_TRUNCATE_RELEASE),
    },
    Attempt {
        name: "empty a file of a release by open(2) with mode 3",
        refused_to: EVERYONE,
        refusal: Refusal::Any,
        run: |_| raw_syscall(OPEN_TRUNCATE_RELEASE),
    },
    Attempt {
        name: "empty a file of a release by openat2(2) with mode 3",
        refused_to: EVERYONE,
        refusal: Refusal::Any,
        run: |_| raw_syscall(OPENAT2_TRUNCATE_RELEASE),
    },
    Attempt {
        name: "empty a file beside the site by openat(2) with mode 3",
        refused_to: EVERYONE,
        refusal: Refusal::Any,
        run: |_| raw_syscall(OPENAT_TRUNCATE_SECRET),
    },
    Attempt {
        name: "empty a file beside the site by openat2(2) with mode 3",
        refused_to: EVERYONE,
        refusal: Refusal::Any,
        run: |_| raw_syscall(OPENAT2_TRUNCATE_SECRET),
    },
    Attempt {
        name: "empty a file of the upload by openat(2)",
        refused_to: &[
            UNPACKER, ASSEMBLER, COPIER, LINKER, PROBE, SWAP, ROLLBACK, LIST,
        ],
        refusal: Refusal::Any,
        run: |_| {
            let mut options = OpenOptions::new();
            options.write(true).truncate(true).open("own").map(drop)
        },
    },
    Attempt {
        name: "open an existing file of the upload as a new one",
        refused_to: &[
            UNPACKER, ASSEMBLER, COPIER, LINKER, PROBE, SWAP, ROLLBACK, LIST,
        ],
        refusal: Refusal::Any,
        run: |_| {
            let mut options = OpenOptions::new();
            let options = options.write(true).create(true).truncate(false).mode(0o644);
            options.open("own").map(drop)
        },
    },
    Attempt {
        name: "add a file to a release",
        refused_to: EVERYONE,
        refusal: Refusal::Any,
        run: |site| fs::write(site.path("root/releases/r1/new.html"), "x"),
    },
    Attempt {
        name: "remove a file of a release",
        refused_to: &[UNPACKER, ASSEMBLER, COPIER, LINKER, PROBE, RECEIVE, LIST],
        refusal: Refusal::Any,
        run: |site| fs::remove_file(site.path("root/releases/r1/index.html")),
    },
    Attempt {
        name: "move a file of a release into the working directory",
        refused_to: EVERYONE,
        refusal: Refusal::Any,
        run: |site| {
            let from = site.path("root/releases/r1/index.html");
            renameat2(
                AT_FDCWD,
                &from,
                AT_FDCWD,
                "moved",
                RenameFlags::RENAME_NOREPLACE,
            )
            .map_err(Into::into)
        },
    },
    Attempt {
        name: "move a release away",
        refused_to: &[UNPACKER, ASSEMBLER, COPIER, LINKER, PROBE, RECEIVE, LIST],
        refusal: Refusal::Any,
        run: |site| {
            let (from, to) = ("root/releases/r1", "root/.deploy-shell/trash/r1");
            fs::rename(site.path(from), site.path(to))
        },
    },
    Attempt {
        name: "replace the current symlink",
        refused_to: &[UNPACKER, ASSEMBLER, COPIER, LINKER, PROBE, RECEIVE, LIST],
        refusal: Refusal::Any,
        run: |site| {
            symlink("releases/r1", site.path("root/.deploy-shell/next"))?;
            fs::rename(
                site.path("root/.deploy-shell/next"),
                site.path("root/current"),
            )
        },
    },
    Attempt {
        name: "exchange the symlink that a swap has made",
        refused_to: &[UNPACKER, ASSEMBLER, COPIER, LINKER, PROBE, RECEIVE, LIST],
        refusal: Refusal::Any,
        run: |site| {
            let mine = site.path("root/.deploy-shell/incoming/mine");
            symlink("releases/r1", &mine)?;
            fs::rename(mine, site.path("root/.deploy-shell/next"))
        },
    },
    Attempt {
        name: "write the journal",
        refused_to: &[UNPACKER, ASSEMBLER, COPIER, LINKER, PROBE, LIST],
        refusal: Refusal::Any,
        run: |site| append(&site.path("root/.deploy-shell/journal.jsonl")),
    },
    Attempt {
        name: "write a shared file",
        refused_to: EVERYONE,
        refusal: Refusal::Any,
        run: |site| append(&site.path("root/shared/.env")),
    },
    Attempt {
        name: "write a shared file through a release's symlink",
        refused_to: EVERYONE,
        refusal: Refusal::Any,
        run: |site| append(&site.path("root/releases/r1/.env")),
    },
    Attempt {
        name: "read a shared file through a new symlink",
        refused_to: &[UNPACKER, ASSEMBLER, COPIER, LINKER],
        refusal: Refusal::Any,
        run: |_| {
            symlink("../../../../shared/.env", "mine")?;
            fs::read("mine").map(drop)
        },
    },
    Attempt {
        name: "execute a program of the system",
        refused_to: EVERYONE,
        refusal: Refusal::Any,
        run: |_| Command::new("/bin/true").status().map(drop),
    },
    Attempt {
        name: "execute this program itself",
        refused_to: ALL_WITHOUT_EXEC,
        refusal: Refusal::Any,
        run: |_| {
            Command::new("/proc/self/exe")
                .arg("nothing")
                .status()
                .map(drop)
        },
    },
    Attempt {
        name: "start a thread",
        refused_to: ALL_WITHOUT_EXEC,
        refusal: Refusal::Any,
        run: |_| std::thread::Builder::new().spawn(|| ()).map(drop),
    },
    Attempt {
        name: "connect out by TCP",
        refused_to: EVERYONE,
        refusal: Refusal::Any,
        run: |_| not_refused_by_peer(std::net::TcpStream::connect("127.0.0.1:9").map(drop)),
    },
    Attempt {
        name: "connect out by an abstract socket",
        refused_to: &[UNPACKER, ASSEMBLER, COPIER, LINKER, PROBE],
        refusal: Refusal::Any,
        run: |_| {
            let name = std::os::unix::net::SocketAddr::from_abstract_name("deploy-shell-nobody")?;
            let made = std::os::unix::net::UnixStream::connect_addr(&name);
            not_refused_by_peer(made.map(drop))
        },
    },
    Attempt {
        name: "read a file of the upload",
        // The unpacker reads its own files, to write a hard link as a file.
        refused_to: &[PROBE],
        refusal: Refusal::Any,
        run: |_| File::open("own").map(drop),
    },
    Attempt {
        name: "read a file of another upload",
        refused_to: &[UNPACKER, ASSEMBLER, COPIER, LINKER, PROBE],
        refusal: Refusal::Any,
        run: |_| File::open("../../r3.1.0/tree/theirs").map(drop),
    },
    Attempt {
        name: "list the upload",
        refused_to: &[UNPACKER, PROBE],
        refusal: Refusal::Any,
        run: |_| fs::read_dir(".")?.try_for_each(|entry| entry.map(drop)),
    },
    Attempt {
        name: "create a file in the working directory",
        refused_to: &[ASSEMBLER, LINKER, PROBE],
        refusal: Refusal::Any,
        run: |_| fs::write("new", "x"),
    },
    Attempt {
        name: "create a file without a name",
        refused_to: &[
            UNPACKER, ASSEMBLER, COPIER, LINKER, PROBE, SWAP, ROLLBACK, LIST,
        ],
        refusal: Refusal::Any,
        run: |_| {
            let mut options = OpenOptions::new();
            options.write(true).mode(0o644).custom_flags(O_TMPFILE);
            options.open(".").map(drop)
        },
    },
    Attempt {
        name: "send by UDP",
        refused_to: EVERYONE,
        refusal: Refusal::Any,
        run: |_| std::net::UdpSocket::bind("127.0.0.1:0").map(drop),
    },
    Attempt {
        name: "create a local socket",
        refused_to: &[UNPACKER, ASSEMBLER, COPIER, LINKER, PROBE],
        refusal: Refusal::Any,
        run: |_| std::os::unix::net::UnixDatagram::unbound().map(drop),
    },
    Attempt {
        name: CONNECT,
        refused_to: EVERYONE,
        refusal: Refusal::Any,
        run: |site| {
            let socket = std::os::unix::net::UnixDatagram::unbound()?;
            socket.connect(site.path("sockets/other"))
        },
    },
    Attempt {
        name: "listen on a local socket",
        refused_to: EVERYONE,
        refusal: Refusal::Any,
        run: |site| {
            std::os::unix::net::UnixListener::bind(site.path("root/.deploy-shell/s")).map(drop)
        },
    },
    Attempt {
        name: "trace the parent",
        refused_to: EVERYONE,
        refusal: Refusal::Any,
        run: |_| {
            nix::sys::ptrace::seize(parent(), nix::sys::ptrace::Options::empty())?;
            Ok(())
        },
    },
    Attempt {
        name: SIGNAL,
        refused_to: EVERYONE,
        refusal: Refusal::Any,
        run: |_| Ok(kill(parent(), None)?),
    },
    Attempt {
        name: "signal the parent by fcntl(2)",
        refused_to: EVERYONE,
        refusal: Refusal::Any,
        run: |_| raw_syscall(FCNTL_SETOWN),
    },
    Attempt {
        name: "signal the parent by fcntl(2) and F_SETOWN_EX",
        refused_to: EVERYONE,
        refusal: Refusal::Any,
        run: |_| raw_syscall(FCNTL_SETOWN_EX),
    },
    Attempt {
        name: "choose the signal of a descriptor by fcntl(2)",
        refused_to: EVERYONE,
        refusal: Refusal::Any,
        run: |_| raw_syscall(FCNTL_SETSIG),
    },
    Attempt {
        name: "signal the parent by ioctl(2)",
        refused_to: EVERYONE,
        refusal: Refusal::Any,
        run: |_| raw_syscall(IOCTL_FIOSETOWN),
    },
    Attempt {
        name: "take a lease on a file of a release",
        refused_to: EVERYONE,
        refusal: Refusal::AnyIfPossible,
        run: |_| raw_syscall(FCNTL_SETLEASE),
    },
    Attempt {
        name: "change the flags of a file of a release",
        refused_to: EVERYONE,
        refusal: Refusal::AnyIfPossible,
        run: |_| raw_syscall(IOCTL_SETFLAGS),
    },
    Attempt {
        name: "watch a directory",
        refused_to: EVERYONE,
        refusal: Refusal::Any,
        run: |_| raw_syscall(INOTIFY),
    },
    Attempt {
        name: "make a message queue",
        refused_to: EVERYONE,
        refusal: Refusal::AnyIfPossible,
        run: |_| raw_syscall(MESSAGE_QUEUE),
    },
    Attempt {
        name: "take what the machine has for asynchronous input",
        refused_to: EVERYONE,
        refusal: Refusal::AnyIfPossible,
        run: |_| raw_syscall(IO_SETUP),
    },
    Attempt {
        name: "read the attributes of a file outside of the site",
        refused_to: EVERYONE,
        refusal: Refusal::Any,
        run: |_| raw_syscall(LISTXATTR),
    },
    Attempt {
        name: "reach the code of another protocol family by socketpair(2)",
        refused_to: EVERYONE,
        refusal: Refusal::Any,
        run: |_| raw_syscall(INET_PAIR),
    },
    Attempt {
        name: "take the lock",
        refused_to: &[UNPACKER, ASSEMBLER, COPIER, LINKER, PROBE, LIST],
        refusal: Refusal::Any,
        run: |site| {
            let lock = File::open(site.path("root/.deploy-shell/lock"))?;
            Ok(lock.try_lock()?)
        },
    },
    Attempt {
        name: "read the parent's memory through /proc",
        refused_to: EVERYONE,
        refusal: Refusal::Any,
        run: |_| {
            let mut byte = [0];
            let path = format!("/proc/{}/environ", parent_id());
            File::open(path)?.read(&mut byte).map(drop)
        },
    },
    Attempt {
        name: "read the parent's memory by system call",
        refused_to: EVERYONE,
        refusal: Refusal::Any,
        run: |_| {
            let remote = nix::sys::uio::RemoteIoVec { base: 0, len: 1 };
            let mut byte = [0];
            let mut local = [std::io::IoSliceMut::new(&mut byte)];
            match nix::sys::uio::process_vm_readv(parent(), &mut local, &[remote]) {
                // Nothing is mapped at address 0: the kernel looked there.
                Ok(_) | Err(nix::Error::EFAULT) => Ok(()),
                Err(errno) => Err(errno.into()),
            }
        },
    },
    Attempt {
        name: "make a file set-user-id",
        refused_to: EVERYONE,
        refusal: Refusal::Any,
        run: |_| fs::set_permissions("own", fs::Permissions::from_mode(0o4777)),
    },
    Attempt {
        name: "make an open file set-user-id",
        refused_to: EVERYONE,
        refusal: Refusal::Any,
        run: |site| set_mode_of_live_file(site, 0o4755),
    },
    Attempt {
        name: "make an open file writable for all",
        refused_to: EVERYONE,
        refusal: Refusal::Any,
        run: |site| set_mode_of_live_file(site, 0o777),
    },
    Attempt {
        name: "make an open file executable",
        refused_to: EVERYONE,
        refusal: Refusal::Any,
        run: |site| set_mode_of_live_file(site, 0o755),
    },
    Attempt {
        name: "set the access control list of a directory",
        refused_to: EVERYONE,
        refusal: Refusal::Any,
        run: |site| {
            let directory = Dir::open_root(&site.path("root/releases"))?;
            Ok(directory.set_default_acl(None)?)
        },
    },
    Attempt {
        name: "set the time of a file of a release by its path",
        refused_to: EVERYONE,
        refusal: Refusal::Any,
        run: |site| {
            let path = site.path("root/releases/r1/index.html");
            let (omit, time) = (TimeSpec::UTIME_OMIT, TimeSpec::new(1, 0));
            let follow = UtimensatFlags::NoFollowSymlink;
            Ok(utimensat(AT_FDCWD, &path, &omit, &time, follow)?)
        },
    },
    Attempt {
        name: "set the time of a file of a release by a descriptor",
        refused_to: &[UNPACKER, ASSEMBLER, PROBE, ROLLBACK, LIST],
        refusal: Refusal::Any,
        run: |site| {
            let file = File::open(site.path("root/releases/r1/index.html"))?;
            file.set_modified(std::time::UNIX_EPOCH)
        },
    },
    Attempt {
        name: "change the owner of a file",
        refused_to: EVERYONE,
        refusal: Refusal::Any,
        run: |_| {
            let own = nix::unistd::geteuid().as_raw();
            std::os::unix::fs::chown("own", Some(own), None)
        },
    },
    Attempt {
        name: "create a hard link",
        refused_to: EVERYONE,
        refusal: Refusal::Any,
        run: |site| fs::hard_link(site.path("beside/secret"), "secret"),
    },
    Attempt {
        name: "create a fifo",
        refused_to: EVERYONE,
        refusal: Refusal::Any,
        run: |_| Ok(nix::unistd::mkfifo("fifo", nix::sys::stat::Mode::S_IRUSR)?),
    },
    Attempt {
        name: "remove its own file",
        refused_to: &[UNPACKER, ASSEMBLER, COPIER, LINKER, PROBE, LIST],
        refusal: Refusal::Any,
        run: |_| fs::remove_file("own"),
    },
    Attempt {
        name: "fill the memory",
        refused_to: &[UNPACKER, ASSEMBLER, COPIER, LINKER, PROBE],
        refusal: Refusal::Any,
        run: |_| {
            let mut all: Vec<u8> = Vec::new();
            let reserved = all.try_reserve_exact(3 << 30);
            reserved.map_err(|_| ErrorKind::OutOfMemory.into())
        },
    },
    Attempt {
        name: "write a file larger than the limit",
        refused_to: &[UNPACKER, ASSEMBLER, COPIER, LINKER, PROBE],
        refusal: Refusal::Any,
        run: |_| {
            let file = OpenOptions::new()
                .create_new(true)
                .write(true)
                .open("large")?;
            std::os::unix::fs::FileExt::write_all_at(&file, b"x", MAX_FILE)
        },
    },
    Attempt {
        name: "call getpid(2) by the x32 ABI",
        refused_to: CHILDREN,
        refusal: Refusal::Killed,
        run: |_| raw_syscall(X32_GETPID),
    },
    Attempt {
        name: "call getpid(2) by the x32 ABI, in a monitor",
        refused_to: MONITORS,
        refusal: Refusal::AnyIfPossible,
        run: |_| raw_syscall(X32_GETPID),
    },
    Attempt {
        name: "call execve(2) by the x32 ABI",
        refused_to: CHILDREN,
        refusal: Refusal::Killed,
        run: |_| raw_syscall(X32_EXECVE),
    },
    Attempt {
        name: "call execve(2) by the x32 ABI, in a monitor",
        refused_to: MONITORS,
        refusal: Refusal::AnyIfPossible,
        run: |_| raw_syscall(X32_EXECVE),
    },
    #[cfg(target_arch = "x86_64")]
    Attempt {
        name: "call getpid(2) by the i386 ABI",
        refused_to: EVERYONE,
        refusal: Refusal::Killed,
        run: |_| raw_syscall(I386_GETPID),
    },
    Attempt {
        name: "create a process by clone3(2)",
        refused_to: EVERYONE,
        refusal: Refusal::Any,
        run: |_| raw_syscall(CLONE3),
    },
    Attempt {
        name: "create a namespace by clone(2)",
        refused_to: EVERYONE,
        refusal: Refusal::Any,
        run: |_| raw_syscall(CLONE_NEW_NAMESPACE),
    },
    Attempt {
        name: "change another process's memory by process_madvise(2)",
        refused_to: EVERYONE,
        refusal: Refusal::Any,
        run: |_| raw_syscall(PROCESS_MADVISE),
    },
    Attempt {
        name: "attach shared memory by shmat(2)",
        refused_to: EVERYONE,
        refusal: Refusal::Any,
        run: |_| raw_syscall(SHMAT),
    },
    Attempt {
        name: "copy a mount by open_tree_attr(2)",
        refused_to: EVERYONE,
        refusal: Refusal::AnyIfPossible,
        run: |_| raw_syscall(OPEN_TREE_ATTR),
    },
    Attempt {
        name: "configure a mount by fspick(2)",
        refused_to: EVERYONE,
        refusal: Refusal::AnyIfPossible,
        run: |_| raw_syscall(FSPICK),
    },
    Attempt {
        name: "load a kernel by kexec_file_load(2)",
        refused_to: EVERYONE,
        refusal: Refusal::AnyIfPossible,
        run: |_| raw_syscall(KEXEC_FILE_LOAD),
    },
    Attempt {
        name: "stop swapping by swapoff(2)",
        refused_to: EVERYONE,
        refusal: Refusal::AnyIfPossible,
        run: |_| raw_syscall(SWAPOFF),
    },
];

/// The file of the live release.
const LIVE_FILE: &str = "root/releases/r1/index.html";

fn set_mode_of_live_file(site: &Site, mode: u32) -> Outcome {
    let file = File::open(site.path("root/releases/r1/index.html"))?;
    file.set_permissions(fs::Permissions::from_mode(mode))
}

fn append(path: &Path) -> Outcome {
    let mut file = OpenOptions::new().append(true).open(path)?;
    file.write_all(b"x")
}

/// Nothing listens there: a refusal by the peer means that the connection got out.
fn not_refused_by_peer(outcome: Outcome) -> Outcome {
    match outcome {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(()),
        other => other,
    }
}

fn parent() -> Pid {
    Pid::from_raw(parent_id() as i32)
}
