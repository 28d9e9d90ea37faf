//! The threads of this program.

use std::thread::Builder;

/// The stack of a thread, in bytes: that of the standard library by default. A thread
/// whose size is not given has the size that the variable `RUST_MIN_STACK` says, and no
/// variable of the environment has an effect here.
const STACK: usize = 2 << 20;

/// Returns what starts a thread.
#[expect(clippy::disallowed_methods, reason = "here is the size of the stack")]
pub fn builder() -> Builder {
    Builder::new().stack_size(STACK)
}
