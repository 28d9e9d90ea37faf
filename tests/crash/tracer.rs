//! Runs the program under ptrace(2), and kills it at one system call of one thread, or
//! lets that call fail.
//!
//! strace's injection counts a call in each thread separately, so it cannot reach the
//! third `openat` of the unpacker without killing the monitor at its third. Also, the
//! seccomp filters see a call that strace lets fail as number -1, and kill the process.
//! Here a point is a thread, a call and how often that thread made it before, and the
//! filters see a failing call as close(2).

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

/// The maximum duration of a run; only a hang reaches it.
const RUN_TIMEOUT: Duration = Duration::from_secs(60);

/// One system call of one thread: threads (and processes) by the order in
/// which they were made, from 0 for the one that serves the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Point {
    pub thread: usize,
    pub call: i64,
    /// Counts this call in this thread, from 1.
    pub nth: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL to the process, on entry: the call is not made.
    Kill,
    /// The call is not made, and returns this error.
    Fail(Errno),
    /// The call is not made, and returns 0.
    Skip,
}

/// The result of a run.
#[derive(Debug)]
pub struct Run {
    /// None if a signal killed it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    /// Every call that was made, in order.
    pub calls: Vec<Point>,
    /// Whether the fault's point was reached.
    pub reached: bool,
    /// Whether that was in the program's own process, in any thread, and not in a child.
    pub own: bool,
    pub hung: bool,
}

/// Returns an error that says why one process may not trace another here.
pub fn allowed() -> Result<(), String> {
    run(Command::new("true"), Stdio::null(), None).map(drop)
}

/// Returns an error that says why calls cannot be counted or made to fail here.
pub fn possible() -> Result<(), String> {
    if !cfg!(target_arch = "x86_64") {
        return Err("a call is made to fail through x86-64's registers".to_owned());
    }
    allowed()
}

/// Runs a command with only the environment that is set in it.
///
/// # Errors
///
/// The kernel does not allow tracing (yama's ptrace_scope, seccomp).
pub fn run(command: Command, stdin: Stdio, fault: Option<(Point, Fault)>) -> Result<Run, String> {
    let mut stdout = tempfile::tempfile().map_err(|error| error.to_string())?;
    let mut stderr = tempfile::tempfile().map_err(|error| error.to_string())?;
    let share = |file: &File| file.try_clone().map(Stdio::from);
    // The shell stops until it is traced, and then executes the program. Children of the program
    // close each number below the limit of descriptors, and each call costs two stops here.
    let mut waiting = Command::new("/bin/sh");
    waiting
        .args(["-c", "ulimit -n 256; kill -STOP $$; exec \"$0\" \"$@\""])
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
    if let Some(directory) = command.get_current_dir() {
        waiting.current_dir(directory);
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
        .expect("the output");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Kills a run that hangs.
struct Guard(Option<(Sender<()>, JoinHandle<bool>)>);

impl Guard {
    fn over(pid: Pid) -> Guard {
        let (done, wait) = channel();
        let thread = thread::spawn(move || {
            let hangs = wait.recv_timeout(RUN_TIMEOUT) == Err(RecvTimeoutError::Timeout);
            if hangs {
                let _ = kill(pid, Signal::SIGKILL);
            }
            hangs
        });
        Guard(Some((done, thread)))
    }

    /// Returns whether it killed the run.
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
    /// Set once the shell has executed the program.
    started: bool,
    threads: HashMap<Pid, usize>,
    counts: HashMap<(usize, i64), usize>,
    /// The calls that were not made and return next: what each returns, and the argument
    /// that was replaced.
    replaced: HashMap<Pid, (i64, u64)>,
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
            return Err(format!("a child cannot be traced: {errno}"));
        }
        Ok(Tracing {
            pid,
            guard: Guard::over(pid),
            fault,
            started: false,
            threads: HashMap::from([(pid, 0)]),
            counts: HashMap::new(),
            replaced: HashMap::new(),
            calls: Vec::new(),
            reached: false,
            own: false,
            code: None,
        })
    }

    /// Handles one stop of one thread; returns false when no thread is left.
    fn step(&mut self) -> Result<bool, String> {
        // Only children and tracees of this thread: tests run in parallel.
        let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
        match waitpid(None::<Pid>, Some(flags)) {
            Err(Errno::ECHILD) => return Ok(false),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(format!("waitpid: {errno}")),
            Ok(WaitStatus::Exited(pid, code)) if pid == self.pid => self.code = Some(code),
            Ok(WaitStatus::PtraceSyscall(pid)) => {
                let signal = self.call(pid);
                resume(pid, signal);
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
                resume(pid, None);
            }
            Ok(WaitStatus::Stopped(pid, signal)) => resume(pid, Some(signal)),
            Ok(_) => {}
        }
        Ok(true)
    }

    /// Returns a thread's number. It is the same whether the call that makes the thread or
    /// its own first stop comes first: no other thread is made in between.
    fn number(&mut self, thread: Pid) -> usize {
        let next = self.threads.len();
        *self.threads.entry(thread).or_insert(next)
    }

    /// Handles a thread at the entry or the exit of a call. ptrace fails for a thread that
    /// was killed meanwhile.
    #[cfg(target_arch = "x86_64")]
    fn call(&mut self, pid: Pid) -> Option<Signal> {
        let Ok(info) = ptrace::syscall_info(pid) else {
            return None;
        };
        let Ok(mut registers) = ptrace::getregs(pid) else {
            return None;
        };
        if info.op == libc::PTRACE_SYSCALL_INFO_EXIT {
            if let Some((result, argument)) = self.replaced.remove(&pid) {
                registers.rax = result as u64;
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
                    Fault::Fail(_) | Fault::Skip => {
                        let result = match fault {
                            Fault::Fail(errno) => -i64::from(errno as i32),
                            _ => 0,
                        };
                        self.replaced.insert(pid, (result, registers.rdi));
                        // close(2) frees the descriptor whatever it returns. Any other
                        // call becomes close(-1), which no filter refuses and which has
                        // no effect.
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

fn resume(pid: Pid, signal: Option<Signal>) {
    // It fails if the thread was killed; the next wait reports that.
    let _ = ptrace::syscall(pid, signal);
}

/// Returns whether a call may fail for a disk, a pipe, a socket or the process table.
pub fn may_fail(call: i64) -> bool {
    known_name(call).is_some()
}

/// Returns the name of a call, if it is one that may fail.
pub fn name(call: i64) -> String {
    known_name(call).map_or_else(|| format!("call {call}"), str::to_owned)
}

fn known_name(call: i64) -> Option<&'static str> {
    let mut calls = CALLS.iter().chain(LEGACY_CALLS);
    let found = calls.find(|(number, _)| *number == call);
    found.map(|(_, name)| *name)
}

macro_rules! calls {
    ($($name:ident)*) => {
        &[$((paste(libc::$name), stringify!($name))),*]
    };
}

const fn paste(number: libc::c_long) -> i64 {
    number
}

/// The calls that may fail and that every architecture has.
const CALLS: &[(i64, &str)] = calls![
    SYS_read SYS_write SYS_close SYS_openat SYS_openat2 SYS_newfstatat SYS_fstat SYS_statx
    SYS_statfs SYS_fstatfs SYS_getdents64 SYS_lseek SYS_fcntl SYS_ftruncate SYS_fsync
    SYS_fdatasync SYS_syncfs SYS_sync_file_range SYS_fallocate SYS_renameat SYS_renameat2
    SYS_unlinkat SYS_mkdirat SYS_symlinkat SYS_readlinkat SYS_flock SYS_ppoll
    SYS_pipe2 SYS_dup3 SYS_chdir SYS_fchdir SYS_clone SYS_clone3
    SYS_execve SYS_wait4 SYS_waitid SYS_socket SYS_connect SYS_sendto SYS_sendmsg
    SYS_recvfrom SYS_uname SYS_getrandom SYS_fchmod SYS_fchmodat SYS_pwrite64 SYS_pread64
    SYS_copy_file_range SYS_linkat SYS_utimensat
];

/// Older forms of them, which only x86-64 has.
#[cfg(target_arch = "x86_64")]
const LEGACY_CALLS: &[(i64, &str)] = calls![SYS_poll SYS_dup2 SYS_vfork];
#[cfg(not(target_arch = "x86_64"))]
const LEGACY_CALLS: &[(i64, &str)] = &[];
