//! What the audit log learns of a change before the journal has it.
//!
//! The account can alter the journal, and not the audit log. So a line goes to the audit log
//! first, and the record follows. A request that is killed in
//! between leaves a journal that lags behind the disk; the next request completes it, and
//! writes the line again. A line may come twice. It is never missing.

use std::fmt;
use std::rc::Rc;

use super::journal::Record;
use crate::error::Result;

/// A change of the site that has happened, and is not in the journal yet.
#[derive(Clone, Copy, Debug)]
pub struct Notice<'a> {
    pub record: &'a Record,
    /// None for a change by the request that reports it.
    pub found: Option<Found>,
}

/// How a request that completes the journal explains what it found on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// An earlier request was ended between the change and its record.
    Interrupted,
    /// Nothing says who made the change: another program, or a request whose traces a
    /// power failure removed.
    Unrecorded,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Found::Interrupted => "interrupted",
            Found::Unrecorded => "unrecorded",
        })
    }
}

/// Writes a notice to the audit log.
type Write = dyn Fn(&Notice<'_>) -> Result<()>;

/// Takes the notices of one request. The caller of the store writes them to the audit log.
#[derive(Clone, Default)]
pub struct NoticeLog(Option<Rc<Write>>);

impl NoticeLog {
    /// Returns a log that passes each notice to `write`. It returns an error only if the
    /// record must not follow.
    pub fn new(write: impl Fn(&Notice<'_>) -> Result<()> + 'static) -> NoticeLog {
        NoticeLog(Some(Rc::new(write)))
    }

    /// Writes a notice.
    ///
    /// # Errors
    ///
    /// Those of the function that takes the notices.
    pub fn write(&self, notice: &Notice<'_>) -> Result<()> {
        self.0.as_ref().map_or(Ok(()), |write| write(notice))
    }
}

impl fmt::Debug for NoticeLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NoticeLog").field(&self.0.is_some()).finish()
    }
}
