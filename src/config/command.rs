//! The operator's commands, as argv arrays.

use std::path::{Component, Path};

use serde::{Deserialize, Serialize};

/// The maximum number of arguments, and of bytes in one.
const MAX_ARGUMENTS: usize = 64;
const MAX_ARGUMENT: usize = 4096;

/// A program by its absolute path, and its arguments. No shell reads them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>")]
pub struct Argv(Vec<String>);

impl Argv {
    pub fn program(&self) -> &Path {
        Path::new(&self.0[0])
    }

    pub fn arguments(&self) -> &[String] {
        &self.0[1..]
    }
}

impl TryFrom<Vec<String>> for Argv {
    type Error = String;

    fn try_from(words: Vec<String>) -> Result<Self, String> {
        let Some(program) = words.first() else {
            return Err("a command needs a program".to_owned());
        };
        // Not looked up in PATH: the program that runs is the one that the
        // operator has named.
        let path = Path::new(program);
        if !is_absolute(path) {
            return Err(format!("the program '{program}' is not an absolute path"));
        }
        if words.len() > MAX_ARGUMENTS || words.iter().any(|word| word.len() > MAX_ARGUMENT) {
            return Err(format!("the command of '{program}' is too long"));
        }
        if words.iter().any(|word| word.contains('\0')) {
            return Err(format!("the command of '{program}' has a zero byte"));
        }
        Ok(Argv(words))
    }
}

/// Returns whether the path is absolute and has no `..`.
pub fn is_absolute(path: &Path) -> bool {
    path.is_absolute() && path.components().all(|part| part != Component::ParentDir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_needs_an_absolute_path() {
        let argv = |words: &[&str]| {
            Argv::try_from(words.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        let good = argv(&["/usr/bin/php", "artisan", "migrate"]).unwrap();
        assert_eq!(good.program(), Path::new("/usr/bin/php"));
        assert_eq!(good.arguments(), ["artisan", "migrate"]);
        for bad in [
            &[][..],
            &["php"],
            &["./php"],
            &["/srv/../bin/php"],
            &["/bin/x", "a\0b"],
        ] {
            assert!(argv(bad).is_err(), "{bad:?}");
        }
    }
}
