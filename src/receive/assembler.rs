//! The monitor's side of the assembler: starts it, waits for its answer, and copies the
//! entries of the manifest.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use super::odd_names::OddNames;
use super::share::{Allowance, Share};
use super::termination::TerminationSignals;
use super::unpacker::LOOK_INTERVAL;
use crate::assemble::{self, Answer, AssembleJob, Assembled};
use crate::config::{Config, Reuse};
use crate::deadline::{Deadline, TimedReader};
use crate::error::{Code, Error, Result};
use crate::manifest::{Entry, MAX_LINE, Sums, compare_paths, trailer};
use crate::message;
use crate::names::Sha256Digest;
use crate::sandbox::Enforcement;
use crate::store::Store;

/// The number of bytes of the manifest between two looks at the free space.
const CHECK_EVERY: u64 = 1 << 20;

/// The time in which an assembler ends after its stdin has closed.
const EXIT_TIMEOUT: Duration = Duration::from_secs(2);

/// The time between two checks whether the assembler has ended.
const POLL_INTERVAL: Duration = Duration::from_micros(200);

/// The process. Dropping it closes its stdin, which ends it.
pub struct Assembler(Child);

impl Assembler {
    /// Starts the assembler, which waits for its job.
    ///
    /// Call it before the monitor enters its sandbox. The monitor's end of the pipe is
    /// close-on-exec, so no later child keeps it open.
    ///
    /// # Errors
    ///
    /// [`Code::IoError`].
    pub fn start(config: &Config, store: &Store) -> Result<Assembler> {
        let word = match config.delta.reuse {
            Reuse::Clone => assemble::WORD,
            Reuse::Link => assemble::LINKING_WORD,
        };
        // This very program, even if an upgrade has just replaced its file: both processes
        // must agree about the messages.
        Command::new("/proc/self/exe")
            .arg(word)
            .env_clear()
            // By handle: in the child /proc/self is the child, which still has our
            // descriptors when it changes directory, and loses them at exec.
            .current_dir(format!("/proc/self/fd/{}", store.root.as_fd().as_raw_fd()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map(Assembler)
            .map_err(|error| Error::io("cannot start the assembler", error))
    }

    /// Gives the assembler its job, and waits until it has hashed every file. `allowance` is
    /// what a delta may use.
    ///
    /// # Errors
    ///
    /// The failure that it reports, [`Code::Timeout`], and [`Code::UnpackerDied`] for any
    /// other end.
    pub fn assemble<'a>(
        mut self,
        config: &'a Config,
        share: &Share<'a>,
        allowance: Option<Allowance>,
        job: &AssembleJob,
        deadline: Deadline,
    ) -> Result<AssembledRelease<'a>> {
        let store = share.store;
        let signals = TerminationSignals::open()?;
        let Some(stdout) = self.0.stdout.take() else {
            return Err(Error::new(Code::Internal, "the assembler has no pipe"));
        };
        let job = message::encode(job)?;
        // Without a time limit: the assembler reads at once, and nothing that a client has
        // sent could stop it. If it has exited, there is no answer.
        if let Some(to) = &mut self.0.stdin {
            match to.write_all(format!("{job}\n").as_bytes()) {
                // It has ended.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
                // It would wait for its job until the deadline of the request.
                Err(error) => return Err(Error::io("cannot send the assembler its job", error)),
                Ok(()) => {}
            }
        }
        let timed = TimedReader::new(stdout, deadline.left(), deadline);
        let mut answers = BufReader::with_capacity(64 * 1024, timed);
        // Terminates: the reader has a deadline, and is readable after it.
        while !answers.get_ref().is_readable_within(LOOK_INTERVAL) {
            signals.check(|| "while the release was hashed".to_owned())?;
            store.room(config.limits.reserve)?;
        }
        let answer = message::read_message(&mut answers, assemble::MAX_ANSWER);
        let Assembled {
            sandbox,
            tree,
            known,
        } = match answer {
            Ok(Answer::Assembled(assembled)) => assembled,
            Ok(Answer::Failed(report)) => {
                return Err(share.complete(report.into_error(), allowance));
            }
            Err(_) => {
                deadline.check("hashing the release")?;
                return Err(died("it gives no answer"));
            }
        };
        Ok(AssembledRelease {
            sandbox,
            tree,
            added: assemble::added(&config.shared, &known),
            config,
            store,
            entries: answers,
            _process: self,
        })
    }
}

impl Drop for Assembler {
    fn drop(&mut self) {
        // The monitor's sandbox permits no signal to a process that it does not contain.
        self.0.stdin = None;
        let deadline = Deadline::after(EXIT_TIMEOUT);
        // Terminates: each turn sleeps, and the deadline does not move. The kernel kills a
        // process that is left when this one ends.
        while !deadline.has_passed() && matches!(self.0.try_wait(), Ok(None)) {
            std::thread::sleep(POLL_INTERVAL);
        }
    }
}

/// A release whose files are all hashed, and whose entries are still to be read.
pub struct AssembledRelease<'a> {
    /// The state of the assembler's sandbox.
    pub sandbox: Enforcement,
    /// The digest of the tree list.
    pub tree: Sha256Digest,
    /// The paths that the client did not send.
    pub added: Vec<Vec<u8>>,
    config: &'a Config,
    store: &'a Store,
    entries: BufReader<TimedReader<ChildStdout>>,
    _process: Assembler,
}

impl AssembledRelease<'_> {
    /// Passes the entries and the sums to `write`, line by line. Returns the sums, and the
    /// names to warn about.
    ///
    /// # Errors
    ///
    /// Those of `write`, [`Code::DiskFull`], and [`Code::UnpackerDied`] for lines that are
    /// not the entries of a release.
    pub fn copy_entries(
        &mut self,
        mut write: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<(Sums, OddNames)> {
        let (mut sums, mut odd_names) = (Sums::default(), OddNames::default());
        let mut last: Option<Vec<u8>> = None;
        let (mut lines, mut unchecked) = (0, 0);
        let mut line = Vec::new();
        // Terminates: each turn consumes a line, and their number is limited.
        loop {
            line.clear();
            let mut from = std::io::Read::take(&mut self.entries, MAX_LINE as u64);
            let read = from.read_until(b'\n', &mut line);
            let text = read.ok().and_then(|_| std::str::from_utf8(&line).ok());
            let Some(text) = text.and_then(|text| text.strip_suffix('\n')) else {
                return Err(died("its entries are cut short"));
            };
            // The manifest of 100,000 long names has 100 MB.
            unchecked += line.len() as u64;
            if unchecked >= CHECK_EVERY {
                self.store.room(self.config.limits.reserve)?;
                unchecked = 0;
            }
            if text.starts_with('#') {
                if format!("{text}\n") != trailer(sums) || last.is_none() {
                    return Err(died("its sums do not agree"));
                }
                write(&line)?;
                return Ok((sums, odd_names));
            }
            let entry = Entry::parse(text).map_err(died)?;
            let follows = |before: &Vec<u8>| compare_paths(before, &entry.path).is_lt();
            // One more is for the release itself.
            if lines > self.config.archive.max_entries || !last.as_ref().is_none_or(follows) {
                return Err(died("its entries are too many or not in order"));
            }
            lines += 1;
            sums.add(&entry);
            odd_names.add(&entry.path);
            write(&line)?;
            last = Some(entry.path);
        }
    }
}

fn died(how: &str) -> Error {
    let problem = format!("the assembler did not finish: {how}");
    Error::new(Code::UnpackerDied, problem)
        .remedy("nothing was published; keep the payload and report it")
}
