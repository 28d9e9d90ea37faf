//! One run of the program under ptrace(2), in which one system call of one
//! thread is the last, or fails.
//!
//! strace's own injection counts a call in every thread by itself, and so
//! cannot reach the third `openat` of the unpacker without killing the monitor
//! at its third; and the calls it makes fail are seen by our seccomp filters as
//! number -1, and end the process. Here a point is a thread, a call and how
//! often that thread has made it before, and what fails is seen as a close(2).

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// The longest a run may take; reached only where the program hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// One system call of one thread: threads (and processes) by the order in
/// which they were made, from 0 for the one that serves the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Point {
    pub thread: usize,
    pub call: i64,
    /// The how-manyth of this call in this thread, from 1.
    pub nth: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL to the process, on entry: the call is not made any more.
    Kill,
    /// The call is not made, and returns this.
    Fail(Errno),
}

/// What became of a run.
#[derive(Debug)]
pub struct Run {
    /// None where a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    /// Every call that was made, in order.
    pub calls: Vec<Point>,
    /// Whether the fault's point was reached.
    pub reached: bool,
    /// Whether that was in the program's own process, in whichever thread, and
    /// not in one that it started.
    pub own: bool,
    pub hung: bool,
}

/// Whether one process may trace another here, or why not.
pub fn allowed() -> Result<(), String> {
    run(Command::new("true"), Stdio::null(), None).map(drop)
}

/// Whether calls may be counted and made to fail as well, or why not.
pub fn possible() -> Result<(), String> {
    if !cfg!(target_arch = "x86_64") {
        return Err("a call is made to fail through x86-64's registers".to_owned());
    }
    allowed()
}

/// Runs a command, with its environment cleared but for what is set in it.
///
/// Errors: the kernel does not let us trace it (yama's ptrace_scope, seccomp).
pub fn run(command: Command, stdin: Stdio, fault: Option<(Point, Fault)>) -> Result<Run, String> {
    let mut stdout = tempfile::tempfile().map_err(|error| error.to_string())?;
    let mut stderr = tempfile::tempfile().map_err(|error| error.to_string())?;
    let share = |file: &File| file.try_clone().map(Stdio::from);
    // It waits, stopped, until it is traced, and then becomes the program.
    let mut waiting = Command::new("/bin/sh");
    waiting
        .args(["-c", "kill -STOP $$; exec \"$0\" \"$@\""])
        .arg(command.get_program())
        .args(command.get_args())
        .env_clear()
        .envs(
            command
                .get_envs()
                .filter_map(|(key, value)| Some((key, value?))),
        )
        .stdin(stdin)
        .stdout(share(&stdout).map_err(|error| error.to_string())?)
        .stderr(share(&stderr).map_err(|error| error.to_string())?);
    if let Some(folder) = command.get_current_dir() {
        waiting.current_dir(folder);
    }
    let child = waiting.spawn().map_err(|error| format!("sh: {error}"))?;
    let mut tracing = Tracing::start(child, fault)?;
    while tracing.step()? {}
    let (code, hung) = (tracing.code, tracing.guard.end());
    let Tracing {
        calls,
        reached,
        own,
        ..
    } = tracing;
    Ok(Run {
        code,
        stdout: text(&mut stdout),
        stderr: text(&mut stderr),
        calls,
        reached,
        own,
        hung,
    })
}

fn text(file: &mut File) -> String {
    let mut bytes = Vec::new();
    file.rewind()
        .and_then(|()| file.read_to_end(&mut bytes))
        .expect("what was printed");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Ends a run that hangs.
struct Guard(Option<(Sender<()>, JoinHandle<bool>)>);

impl Guard {
    fn over(pid: Pid) -> Guard {
        let (done, wait) = channel();
        let thread = thread::spawn(move || {
            let hangs = wait.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout);
            if hangs {
                let _ = kill(pid, Signal::SIGKILL);
            }
            hangs
        });
        Guard(Some((done, thread)))
    }

    /// Whether it came to that.
    fn end(&mut self) -> bool {
        self.0.take().is_some_and(|(done, thread)| {
            drop(done);
            thread.join().unwrap_or(true)
        })
    }
}

struct Tracing {
    pid: Pid,
    guard: Guard,
    fault: Option<(Point, Fault)>,
    /// Set once the shell has become the program.
    started: bool,
    threads: HashMap<Pid, usize>,
    counts: HashMap<(usize, i64), usize>,
    /// Calls on their way out that shall have failed, and the argument that
    /// was taken from them.
    failing: HashMap<Pid, (Errno, u64)>,
    calls: Vec<Point>,
    reached: bool,
    own: bool,
    code: Option<i32>,
}

impl Tracing {
    fn start(mut child: Child, fault: Option<(Point, Fault)>) -> Result<Tracing, String> {
        let pid = Pid::from_raw(i32::try_from(child.id()).expect("a process id"));
        let options = Options::PTRACE_O_TRACESYSGOOD
            | Options::PTRACE_O_TRACECLONE
            | Options::PTRACE_O_TRACEFORK
            | Options::PTRACE_O_TRACEVFORK
            | Options::PTRACE_O_TRACEEXEC
            | Options::PTRACE_O_EXITKILL;
        let traced = waitpid(pid, Some(WaitPidFlag::WUNTRACED))
            .and_then(|_| ptrace::seize(pid, options))
            .and_then(|()| kill(pid, Signal::SIGCONT));
        if let Err(errno) = traced {
            let _ = child.kill();
            let _ = child.wait();
            return Err(format!("a process of ours cannot be traced: {errno}"));
        }
        Ok(Tracing {
            pid,
            guard: Guard::over(pid),
            fault,
            started: false,
            threads: HashMap::from([(pid, 0)]),
            counts: HashMap::new(),
            failing: HashMap::new(),
            calls: Vec::new(),
            reached: false,
            own: false,
            code: None,
        })
    }

    /// One stop of one thread; false when there are none left.
    fn step(&mut self) -> Result<bool, String> {
        // Only what this thread has started or traces: tests run side by side.
        let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
        match waitpid(None::<Pid>, Some(flags)) {
            Err(Errno::ECHILD) => return Ok(false),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(format!("waitpid: {errno}")),
            Ok(WaitStatus::Exited(pid, code)) if pid == self.pid => self.code = Some(code),
            Ok(WaitStatus::PtraceSyscall(pid)) => {
                let signal = self.call(pid);
                go_on(pid, signal);
            }
            Ok(WaitStatus::PtraceEvent(pid, _, event)) => {
                match event {
                    libc::PTRACE_EVENT_EXEC if pid == self.pid => self.started = true,
                    libc::PTRACE_EVENT_CLONE
                    | libc::PTRACE_EVENT_FORK
                    | libc::PTRACE_EVENT_VFORK => {
                        if let Ok(new) = ptrace::getevent(pid) {
                            self.number(Pid::from_raw(new as i32));
                        }
                    }
                    _ => {}
                }
                go_on(pid, None);
            }
            Ok(WaitStatus::Stopped(pid, signal)) => go_on(pid, Some(signal)),
            Ok(_) => {}
        }
        Ok(true)
    }

    /// A thread's number. Whichever is heard of first, the call that makes it
    /// or its own first stop: no other can be made in between.
    fn number(&mut self, thread: Pid) -> usize {
        let next = self.threads.len();
        *self.threads.entry(thread).or_insert(next)
    }

    /// A thread stands at the entry of a call, or at its end. Errors of
    /// ptrace are those of threads that have been killed meanwhile.
    #[cfg(target_arch = "x86_64")]
    fn call(&mut self, pid: Pid) -> Option<Signal> {
        let Ok(info) = ptrace::syscall_info(pid) else {
            return None;
        };
        let Ok(mut registers) = ptrace::getregs(pid) else {
            return None;
        };
        if info.op == libc::PTRACE_SYSCALL_INFO_EXIT {
            if let Some((errno, argument)) = self.failing.remove(&pid) {
                registers.rax = (-i64::from(errno as i32)) as u64;
                registers.rdi = argument;
                let _ = ptrace::setregs(pid, registers);
            }
            return None;
        }
        if !self.started {
            return None;
        }
        let thread = self.number(pid);
        let call = registers.orig_rax as i64;
        let count = self.counts.entry((thread, call)).or_default();
        *count += 1;
        let point = Point {
            thread,
            call,
            nth: *count,
        };
        self.calls.push(point);
        match self.fault {
            Some((at, fault)) if at == point => {
                self.reached = true;
                let thread = format!("/proc/{}/task/{pid}", self.pid);
                self.own = std::path::Path::new(&thread).exists();
                match fault {
                    Fault::Kill => _ = kill(pid, Signal::SIGKILL),
                    Fault::Fail(errno) => {
                        self.failing.insert(pid, (errno, registers.rdi));
                        // close(2) gives the descriptor back whatever it
                        // returns. Any other call becomes one that no filter
                        // refuses and that does nothing: close(-1).
                        if call != libc::SYS_close {
                            registers.orig_rax = libc::SYS_close as u64;
                            registers.rdi = u64::MAX;
                            let _ = ptrace::setregs(pid, registers);
                        }
                    }
                }
            }
            _ => {}
        }
        None
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn call(&mut self, _: Pid) -> Option<Signal> {
        None
    }
}

fn go_on(pid: Pid, signal: Option<Signal>) {
    // It fails where the thread has been killed; that is heard of next.
    let _ = ptrace::syscall(pid, signal);
}

/// A call by its name, where it is one that the tests speak of.
pub fn name(call: i64) -> String {
    CALLS
        .iter()
        .find(|(number, _)| *number == call)
        .map_or_else(|| format!("call {call}"), |(_, name)| (*name).to_owned())
}

macro_rules! calls {
    ($($name:ident)*) => {
        &[$((paste(libc::$name), stringify!($name))),*]
    };
}

const fn paste(number: libc::c_long) -> i64 {
    number
}

/// The calls that a disk, a pipe, a socket or a process table may refuse.
pub const CALLS: &[(i64, &str)] = calls![
    SYS_read SYS_write SYS_close SYS_openat SYS_openat2 SYS_newfstatat SYS_fstat SYS_statx
    SYS_statfs SYS_fstatfs SYS_getdents64 SYS_lseek SYS_fcntl SYS_ftruncate SYS_fsync
    SYS_fdatasync SYS_syncfs SYS_sync_file_range SYS_fallocate SYS_renameat SYS_renameat2
    SYS_unlinkat SYS_mkdirat SYS_symlinkat SYS_readlinkat SYS_flock SYS_poll SYS_ppoll
    SYS_pipe2 SYS_dup2 SYS_dup3 SYS_chdir SYS_fchdir SYS_clone SYS_clone3 SYS_vfork
    SYS_execve SYS_wait4 SYS_waitid SYS_socket SYS_connect SYS_sendto SYS_sendmsg
    SYS_recvfrom SYS_uname SYS_getrandom SYS_fchmod SYS_fchmodat SYS_pwrite64 SYS_pread64
    SYS_copy_file_range SYS_linkat SYS_utimensat
];
