//! A finding of `check`, and the table of all of them.

use std::fmt;

use deploy_shell::error::Error;

/// A problem, and what to do about it: something gives a key, the account or
/// another user more than the README promises.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub code: FindingCode,
    /// Lower case, the problem first, the subject in single quotes.
    pub text: String,
    pub remedy: String,
}

impl Finding {
    /// Makes a finding with the remedy of the table, filled in with `subject`.
    pub fn new(code: FindingCode, subject: impl Subject, text: impl fmt::Display) -> Finding {
        Finding {
            code,
            text: text.to_string(),
            remedy: subject.fill(code.remedy()),
        }
    }

    /// Makes a finding from an error of the library. The error's own remedy is put
    /// into the table's remedy; `otherwise` is, where the error has none.
    pub fn of_error(code: FindingCode, what: &str, error: &Error, otherwise: &str) -> Finding {
        let remedy = error.remedy.as_deref().unwrap_or(otherwise);
        Finding::new(code, remedy, format!("{what}: {error}"))
    }
}

/// What a remedy of the table names.
pub trait Subject {
    /// Returns the remedy with the subject in its places.
    fn fill(&self, remedy: &str) -> String;
}

/// A single subject has the places `{}`.
impl<T: fmt::Display> Subject for T {
    fn fill(&self, remedy: &str) -> String {
        remedy.replace("{}", &self.to_string())
    }
}

/// An account and its group have the places `{account}` and `{group}`.
pub struct Membership<'a> {
    pub account: &'a str,
    pub group: &'a str,
}

impl Subject for Membership<'_> {
    fn fill(&self, remedy: &str) -> String {
        remedy
            .replace("{account}", self.account)
            .replace("{group}", self.group)
    }
}

/// Defines the codes from the table.
macro_rules! findings {
    ($($variant:ident $code:literal $remedy:literal,)*) => {
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
            let remedy = match code {
                FindingCode::PowerfulGroup => {
                    let (account, group) = ("SUBJECT", "GROUP");
                    let remedy = Membership { account, group }.fill(code.remedy());
                    assert!(remedy.contains(group), "{remedy}");
                    remedy
                }
                code => "SUBJECT".fill(code.remedy()),
            };
            assert!(remedy.contains("SUBJECT"), "{name}");
            assert!(!remedy.contains(['{', '}']), "{name}");
        }
    }
}
