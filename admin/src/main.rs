//! Hands argv to the library; nothing else.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(deploy_shell_admin::cli::run(std::env::args_os().collect()))
}
