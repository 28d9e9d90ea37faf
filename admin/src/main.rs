//! `deploy-shell-admin`: the operator's program. It sets up a site, authorizes
//! keys, checks a server and verifies releases.
//!
//! It is a separate program so that `deploy-shell` contains nothing of it:
//! `deploy-shell` is the login shell of an account whose keys other people hold.

#![forbid(unsafe_code)]

mod authorize;
mod check;
mod cli;
mod init;
mod program;
mod verify;

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(cli::run(std::env::args_os().collect()))
}
