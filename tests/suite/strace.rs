//! Runs the program by another one, such as strace(1) (Debian package strace).

use std::process::Command;

/// Returns a command that runs `program`, with its arguments and environment, under
/// strace with these options.
pub fn under(options: &[&str], program: &Command) -> Command {
    started_by("strace", options, program)
}

/// Returns a command by which `starter`, with these options, runs `program` with its
/// arguments and environment.
pub fn started_by(starter: &str, options: &[&str], program: &Command) -> Command {
    let mut command = Command::new(starter);
    command
        .args(options)
        .arg(program.get_program())
        .args(program.get_args())
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default());
    let set = program
        .get_envs()
        .filter_map(|(name, value)| Some((name, value?)));
    command.envs(set);
    command
}
