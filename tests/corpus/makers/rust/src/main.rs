//! `maker VARIANT SOURCE` writes a tar of SOURCE with the tar crate.

#![forbid(unsafe_code)]

use std::io::{self, Write};

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let variant = arguments.next().unwrap_or_default();
    let source = arguments.next().unwrap_or_default();
    let mut builder = tar::Builder::new(io::stdout().lock());
    builder.follow_symlinks(false);
    if variant == "deterministic" {
        builder.mode(tar::HeaderMode::Deterministic);
    }
    builder.append_dir_all(if variant == "empty-name" { "" } else { "." }, source)?;
    builder.into_inner()?.flush()
}
