//! A finding of `check`, and the table of all of them.

use std::ffi::OsStr;
use std::fmt;

use deploy_shell::error::Error;
use deploy_shell::shell_word::Word;

/// A problem, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub code: FindingCode,
    /// What the problem is with: a path, an account or the position of a key.
    pub subject: String,
    /// Lower case, the problem first, the subject in single quotes.
    pub text: String,
    pub remedy: String,
}

/// How urgent a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Requests fail, or the site is not served, until it is repaired.
    Error,
    /// Someone can do more than the README promises.
    Security,
    /// It works today; a protection is off, or something is lost at the next mistake.
    Warning,
}

impl Finding {
    /// Makes a finding with the remedy of the table, filled in with `subject`.
    pub fn new(code: FindingCode, subject: impl fmt::Display, text: impl fmt::Display) -> Finding {
        let subject = subject.to_string();
        let remedy = subject.clone();
        Finding::with_remedy(code, subject, text, &remedy)
    }

    /// Makes a finding whose remedy in the table is a command, filled in with `subject`: a
    /// path or a name, as a word.
    pub fn of_word(
        code: FindingCode,
        subject: impl AsRef<OsStr>,
        text: impl fmt::Display,
    ) -> Finding {
        let subject = subject.as_ref();
        Finding {
            code,
            subject: subject.to_string_lossy().into_owned(),
            text: text.to_string(),
            remedy: code
                .remedy()
                .replace("{word}", &Word::new(subject).to_string()),
        }
    }

    /// Makes a finding with the remedy of the table, filled in with `remedy`.
    pub fn with_remedy(
        code: FindingCode,
        subject: impl fmt::Display,
        text: impl fmt::Display,
        remedy: &str,
    ) -> Finding {
        Finding {
            code,
            subject: subject.to_string(),
            text: text.to_string(),
            remedy: code.remedy().replace("{}", remedy),
        }
    }

    /// Makes a finding from an error of the library. The error's own remedy is put
    /// into the table's remedy; `otherwise` is, where the error has none.
    pub fn of_error(
        code: FindingCode,
        subject: impl fmt::Display,
        what: &str,
        error: &Error,
        otherwise: &str,
    ) -> Finding {
        let remedy = error.remedy.as_deref().unwrap_or(otherwise);
        Finding::with_remedy(code, subject, format!("{what}: {error}"), remedy)
    }
}

impl Severity {
    pub fn name(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Security => "security",
            Severity::Warning => "warning",
        }
    }
}

/// Defines the codes from the table.
macro_rules! findings {
    ($($variant:ident $severity:ident $code:literal $remedy:literal,)*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum FindingCode {
            $($variant,)*
        }

        impl FindingCode {
            /// Every code, in the order of the table.
            #[cfg(test)]
            pub const ALL: &[FindingCode] = &[$(FindingCode::$variant,)*];

            /// Returns the word that scripts may rely on.
            pub fn name(self) -> &'static str {
                match self {
                    $(FindingCode::$variant => $code,)*
                }
            }

            pub fn severity(self) -> Severity {
                match self {
                    $(FindingCode::$variant => Severity::$severity,)*
                }
            }

            fn remedy(self) -> &'static str {
                match self {
                    $(FindingCode::$variant => $remedy,)*
                }
            }
        }
    };
}

include!("findings_table.rs");

impl fmt::Display for FindingCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn codes_are_distinct_and_every_remedy_names_its_subject() {
        let names: BTreeSet<&str> = FindingCode::ALL.iter().map(|code| code.name()).collect();
        assert_eq!(names.len(), FindingCode::ALL.len());
        for code in FindingCode::ALL {
            let name = code.name();
            let kebab =
                |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            assert!(name.bytes().all(kebab), "{name}");
            // Each rule has to use the one that fits: a test of the rules finds a brace.
            let finding = if code.remedy().contains("{word}") {
                Finding::of_word(*code, "SUBJECT", "x")
            } else {
                Finding::new(*code, "SUBJECT", "x")
            };
            let remedy = finding.remedy;
            assert!(remedy.contains("SUBJECT"), "{name}");
            assert!(!remedy.contains(['{', '}']), "{name}");
        }
    }
}
