//! The termination signals of a `receive`. They are blocked, so that no request
//! ends without a line in the log. A receive looks for them and ends with a result.

use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;

use crate::error::{Code, Error, Result};
use crate::sandbox;

/// Reads the termination signals that arrive.
#[derive(Debug)]
pub struct TerminationSignals(SignalFd);

impl TerminationSignals {
    /// Opens the descriptor that reads them.
    ///
    /// # Errors
    ///
    /// [`Code::IoError`].
    pub fn open() -> Result<TerminationSignals> {
        sandbox::termination_signal_fd()
            .map(TerminationSignals)
            .map_err(|errno| Error::io("cannot wait for signals", errno))
    }

    /// Checks that no signal has arrived. `when` ends the sentence of the error.
    ///
    /// # Errors
    ///
    /// [`Code::IoError`], once for each signal.
    pub fn check(&self, when: impl FnOnce() -> String) -> Result<()> {
        let Ok(Some(signal)) = self.0.read_signal() else {
            return Ok(());
        };
        let signal = i32::try_from(signal.ssi_signo)
            .ok()
            .and_then(|number| Signal::try_from(number).ok())
            .map_or("a signal", Signal::as_str);
        let problem = format!("{signal} ended the request, {}", when());
        Err(Error::new(Code::IoError, problem).remedy("send the payload again"))
    }
}
