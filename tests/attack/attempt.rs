//! What an attempt is, and what it attacks.

use std::path::PathBuf;

pub type Outcome = std::io::Result<()>;

/// An attack, and the sandboxed processes that must not succeed with it.
pub struct Attempt {
    pub name: &'static str,
    pub refused_to: &'static [&'static str],
    pub refusal: Refusal,
    pub run: fn(&Site) -> Outcome,
}

/// The result that proves that the sandbox refused an attempt.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// An error, or SIGSYS.
    Any,
    /// As `Any`. Only root may do it, or only a newer kernel has it: where the control
    /// run fails, a refusal proves nothing, and the attempt is skipped.
    AnyIfPossible,
    /// SIGSYS alone. This kernel may lack the call: then an error proves nothing, and
    /// the control run fails as well.
    Killed,
}

pub const SIGNAL: &str = "signal the parent";
pub const CONNECT: &str = "connect to a local socket by its path";
pub const UNPACKER: &str = "unpacker";
pub const ASSEMBLER: &str = "assembler";
/// An assembler that builds the tree of a delta from copies.
pub const COPIER: &str = "assembler that copies";
/// An assembler that builds the tree of a delta from hard links.
pub const LINKER: &str = "assembler that links";
pub const PROBE: &str = "probe";
pub const RECEIVE: &str = "receive";
pub const SWAP: &str = "swap";
pub const ROLLBACK: &str = "rollback";
pub const LIST: &str = "list";
/// The control run: no sandbox.
pub const CONTROL: &str = "control";
pub const EVERYONE: &[&str] = &[
    UNPACKER, ASSEMBLER, COPIER, LINKER, PROBE, RECEIVE, SWAP, ROLLBACK, LIST,
];
pub const CHILDREN: &[&str] = &[UNPACKER, ASSEMBLER, COPIER, LINKER, PROBE];
pub const MONITORS: &[&str] = &[RECEIVE, SWAP, ROLLBACK, LIST];
pub const ALL_WITHOUT_EXEC: &[&str] = &[
    UNPACKER, ASSEMBLER, COPIER, LINKER, PROBE, SWAP, ROLLBACK, LIST,
];

/// The site that is attacked: `site.toml`, `root/` with a release in it, and
/// `beside/`, which is outside of the site.
pub struct Site(pub PathBuf);

impl Site {
    pub fn path(&self, path: &str) -> PathBuf {
        self.0.join(path)
    }
}

/// The maximum size of a file in this test, in bytes.
pub const MAX_FILE: u64 = 1 << 20;
