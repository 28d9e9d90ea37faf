//! Passes argv to the library.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(deploy_shell::cli::run(std::env::args_os().collect()))
}
