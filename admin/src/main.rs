//! `deploy-shell-admin`: the operator's program. It sets up a site, authorizes
//! keys, checks a server and verifies releases.
//!
//! It is a program of its own so that nothing of it is part of `deploy-shell`,
//! which is the login shell of an account that others hold keys of.

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
