//! What a command prints.

/// The lines of a command that succeeded.
#[derive(Debug)]
pub struct Output {
    pub lines: Vec<String>,
    /// Whether the site has no problem; the exit status is 1 otherwise.
    pub sound: bool,
}
