//! Whether a program of the operator can be started, before it has to start.
//!
//! A program that is missing says nothing about a release: the request ends before the
//! swap, and no release is marked bad. Only execve(2) itself decides, so
//! [`StartError::of`] sorts its errors the same way.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};

use super::protocol::{MAX_TEXT, RunOutcome};
use crate::error::describe;
use crate::escape;

/// The number of bytes of a script in which the kernel looks for its interpreter
/// (BINPRM_BUF_SIZE, execve(2)).
const MAX_SCRIPT_HEAD: u64 = 256;

/// Why a command cannot be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartError {
    /// The operator's program is missing, not executable or not acceptable.
    Program(String),
    /// Anything else: the release's directory, or a lack of processes or memory.
    Other(String),
}

impl StartError {
    /// Returns the reason why `program` did not start, from the error of the start.
    pub fn of(program: &Path, error: &io::Error) -> StartError {
        let why = format!(
            "'{}' cannot be started: {}",
            program.display(),
            describe(error)
        );
        // Those of execve(2) that stay until the operator changes something.
        let lasts = match error.raw_os_error().map(Errno::from_raw) {
            Some(
                Errno::ENOENT
                | Errno::ENOTDIR
                | Errno::EISDIR
                | Errno::EACCES
                | Errno::EPERM
                | Errno::ELOOP
                | Errno::ENAMETOOLONG
                | Errno::ENOEXEC
                | Errno::ELIBBAD
                | Errno::E2BIG,
            ) => true,
            // Not ETXTBSY: somebody writes the file at this moment.
            _ => false,
        };
        if lasts {
            StartError::Program(why)
        } else {
            StartError::Other(why)
        }
    }

    /// Returns the reason in words.
    pub fn why(&self) -> &str {
        match self {
            StartError::Program(why) | StartError::Other(why) => why,
        }
    }

    pub fn into_outcome(self) -> RunOutcome {
        // A text that is escaped here stays as it is later.
        let shown = |why: String| escape::escape_truncated(why.as_bytes(), MAX_TEXT).into();
        match self {
            StartError::Program(why) => RunOutcome::Unusable(shown(why)),
            StartError::Other(why) => RunOutcome::NotStarted(shown(why)),
        }
    }
}

impl From<String> for StartError {
    fn from(why: String) -> StartError {
        StartError::Other(why)
    }
}

/// Checks that a program is a file that this process may execute, and not below the
/// site's `root`. For a script it checks the interpreter as well.
///
/// # Errors
///
/// Returns why the program must not or cannot start.
pub fn check_program(program: &Path, root: &Path) -> Result<(), StartError> {
    check_outside_root(program, root)?;
    let cannot = |error: io::Error| StartError::of(program, &error);
    let executable = |path: &Path| -> io::Result<()> {
        // As execve(2) answers, and open(2) must not block on a fifo.
        if !fs::metadata(path)?.is_file() {
            return Err(Errno::EACCES.into());
        }
        Ok(access(path, AccessFlags::X_OK)?)
    };
    executable(program).map_err(cannot)?;
    let Some(interpreter) = interpreter(program) else {
        return Ok(());
    };
    executable(&interpreter).map_err(|error| {
        let (program, interpreter) = (program.display(), interpreter.display());
        let why = describe(&error);
        StartError::Program(format!(
            "'{program}' cannot be started: its interpreter '{interpreter}': {why}"
        ))
    })
}

/// Returns the interpreter that a script names by its absolute path; none for any other
/// file, and for one that this process may execute but not read.
fn interpreter(program: &Path) -> Option<PathBuf> {
    let mut head = Vec::new();
    let file = File::open(program).ok()?;
    file.take(MAX_SCRIPT_HEAD).read_to_end(&mut head).ok()?;
    let line = head
        .strip_prefix(b"#!")?
        .split(|byte| *byte == b'\n')
        .next()?;
    let mut words = line.split(|byte| matches!(byte, b' ' | b'\t'));
    let path = words.find(|word| !word.is_empty())?;
    path.starts_with(b"/")
        .then(|| PathBuf::from(std::ffi::OsStr::from_bytes(path)))
}

/// Refuses a program that is below the site's root once its symlinks are
/// resolved: clients send the files there. The configuration's own check
/// only sees the path. Symlinks outside of the root belong to the operator,
/// so they do not change between this check and the start.
///
/// # Errors
///
/// Returns why the program must not start. If the program or the root cannot
/// be resolved, the check cannot tell where the program is, and refuses it.
fn check_outside_root(program: &Path, root: &Path) -> Result<(), StartError> {
    let resolved_program =
        fs::canonicalize(program).map_err(|error| StartError::of(program, &error))?;
    let resolved_root = fs::canonicalize(root).map_err(|error| {
        let (root, why) = (root.display(), describe(&error));
        format!("'{root}' cannot be resolved: {why}")
    })?;
    if resolved_program.starts_with(resolved_root) {
        let (program, resolved) = (program.display(), resolved_program.display());
        return Err(StartError::Program(format!(
            "'{program}' leads into the site's own root, to '{resolved}'"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn checked(program: &Path) -> Result<(), StartError> {
        check_program(program, Path::new("/usr/share"))
    }

    #[test]
    fn a_script_needs_its_interpreter() {
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("script");
        for (text, missing) in [
            ("#!/bin/sh\nexit 0\n", None),
            ("#! \t/bin/sh -e\n", None),
            ("#!/bin/sh", None),
            ("#!\n", None),
            ("#!bin/sh\n", None),
            ("no script", None),
            ("", None),
            ("#!/nonexistent/node\n", Some("/nonexistent/node")),
            ("#!  /nonexistent/node --flag\n", Some("/nonexistent/node")),
            ("#!/etc/passwd\n", Some("/etc/passwd")),
            ("#!/etc\n", Some("/etc")),
        ] {
            fs::write(&script, text).unwrap();
            fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
            let result = checked(&script);
            match missing {
                None => assert_eq!(result, Ok(()), "{text}"),
                Some(missing) => {
                    let Err(StartError::Program(why)) = result else {
                        panic!("{text}: {result:?}");
                    };
                    assert!(
                        why.contains(&format!("its interpreter '{missing}': ")),
                        "{why}"
                    );
                }
            }
        }
    }

    #[test]
    fn only_errors_that_last_are_of_the_program() {
        let of = |errno: Errno| StartError::of(Path::new("/x"), &errno.into());
        for errno in [Errno::ENOENT, Errno::EACCES, Errno::ENOEXEC] {
            assert!(matches!(of(errno), StartError::Program(_)), "{errno}");
        }
        for errno in [Errno::EAGAIN, Errno::ENOMEM, Errno::ETXTBSY, Errno::EMFILE] {
            assert!(matches!(of(errno), StartError::Other(_)), "{errno}");
        }
    }
}
