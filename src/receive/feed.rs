//! Gives the unpacker its payload: from the spool, or through a pipe while it arrives.
//!
//! Where no signature covers the payload, its digest comes from the client that sends the
//! bytes. So the unpacker starts before the digest is known: a stolen key
//! could name the digest of any bytes. The sandbox of the unpacker and the staging directory
//! protect the site. The digest decides before anything is published.

use std::io::{ErrorKind, PipeWriter, Write, pipe};
use std::process::Stdio;
use std::time::Duration;

use nix::fcntl::{FcntlArg, fcntl};

use super::arrival::{Arrival, BUFFER, Piece, VerifiedPayload};
use super::share::Share;
use super::spool::SpooledPayload;
use super::unpacker::{LOOK_INTERVAL, Unpacked, Unpacker};
use crate::archive::DiskNeed;
use crate::config::Config;
use crate::deadline::{Deadline, TimedWriter};
use crate::dir::Dir;
use crate::error::{Error, Result};

/// The size of the pipe, in bytes: the most that pipe(7) permits by default. The unpacker
/// has something to read while this process hashes.
const PIPE: i32 = 1 << 20;

/// Where the payload comes from.
pub enum Source<'a> {
    Spooled(SpooledPayload),
    Arriving(Box<Arrival<'a>>),
}

/// Unpacks the payload into `tree`, or a delta into its directory of members. The digest of
/// the payload is verified, and no process writes into the directory any more.
///
/// # Errors
///
/// Those of [`Arrival`] and of [`Unpacker`], and [`crate::error::Code::IoError`] for the
/// pipe. If both the digest and the archive are wrong, that of the digest: a broken
/// connection is then the reason. A signal, a full disk and the deadline end the request at
/// once, so they come before both.
pub fn unpack(
    share: &Share<'_>,
    config: &Config,
    source: Source<'_>,
    tree: &Dir,
    delta: bool,
    deadline: Deadline,
) -> Result<(Unpacked, VerifiedPayload)> {
    let start = |stdin, held| Unpacker::start(share, config, stdin, held, tree, delta, deadline);
    match source {
        Source::Spooled(payload) => {
            let held = payload.disk_need();
            let unpacked = start(Stdio::from(payload.file), held)?.finish()?;
            Ok((unpacked, payload.verified))
        }
        Source::Arriving(mut arrival) => {
            let cannot = |error| Error::io("cannot make a pipe for the unpacker", error);
            let (from, to) = pipe().map_err(cannot)?;
            // Without effect where the account has many pipes: a smaller one works too.
            _ = fcntl(&to, FcntlArg::F_SETPIPE_SZ(PIPE));
            let to = TimedWriter::new(to, LOOK_INTERVAL, deadline).map_err(cannot)?;
            let mut unpacker = start(Stdio::from(from), DiskNeed::default())?;
            feed(&mut arrival, to, &mut unpacker, deadline)?;
            let verified = arrival.verify()?;
            Ok((unpacker.finish()?, verified))
        }
    }
}

/// Passes the payload on until its end. An unpacker that has failed, or has sent its last
/// message, gets no more of it. The client sends the rest all the same, because its digest
/// may be wrong too; what was unpacked stays meanwhile, as with a client that is slow.
fn feed(
    arrival: &mut Arrival<'_>,
    to: TimedWriter<PipeWriter>,
    unpacker: &mut Unpacker<'_>,
    deadline: Deadline,
) -> Result<()> {
    let mut to = Some(to);
    let mut buffer = vec![0; BUFFER];
    let mut next_look = Deadline::after(LOOK_INTERVAL);
    // Terminates: each turn adds to the bytes of the arrival, which limits them, or waits,
    // for which it has a limit too, or returns.
    loop {
        let mut unwritten = match arrival.read(&mut buffer)? {
            Piece::Bytes(read) => &buffer[..read],
            Piece::Nothing => &[],
            Piece::End => return Ok(()),
        };
        // Terminates: each turn writes something, or waits for the unpacker, until the
        // deadline.
        loop {
            if next_look.has_passed() {
                let came = arrival.bytes();
                let when = || format!("after {came} bytes of the payload");
                if unpacker.look(Duration::ZERO, when)? {
                    // This process reads no more of its messages, so the unpacker may block on
                    // one and never read the pipe again.
                    to = None;
                }
                next_look = Deadline::after(LOOK_INTERVAL);
            }
            let Some(pipe) = to.as_mut().filter(|_| !unwritten.is_empty()) else {
                break;
            };
            match pipe.write(unwritten) {
                Ok(written) => unwritten = &unwritten[written..],
                Err(error) if error.kind() == ErrorKind::TimedOut => deadline.check("unpacking")?,
                // It has ended, and its exit status says why.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => to = None,
                // The unpacker would take the end of the pipe for that of the payload.
                Err(error) => return Err(Error::io("cannot pass the payload on", error)),
            }
        }
    }
}
