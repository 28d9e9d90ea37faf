//! Everything that `check` may find: one table of words and remedies.

use std::fmt;

/// One thing that widens what a key, an account or a stranger can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub word: Word,
    /// Lower case, the problem, the subject in single quotes.
    pub problem: String,
    /// What the remedy is about: it stands where the table has `{}`.
    pub subject: String,
}

impl Finding {
    pub fn new(word: Word, subject: impl fmt::Display, problem: impl fmt::Display) -> Finding {
        Finding {
            word,
            problem: problem.to_string(),
            subject: subject.to_string(),
        }
    }

    pub fn remedy(&self) -> String {
        self.word.remedy().replace("{}", &self.subject)
    }
}

/// Defines the words, and the table of all of them.
macro_rules! findings {
    ($($name:ident $word:literal $remedy:literal,)*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Word {
            $($name,)*
        }

        impl Word {
            /// Every word, in the order of the table.
            #[cfg(test)]
            pub const ALL: &[Word] = &[$(Word::$name,)*];

            /// The stable word that scripts may rely on.
            pub fn word(self) -> &'static str {
                match self {
                    $(Word::$name => $word,)*
                }
            }

            fn remedy(self) -> &'static str {
                match self {
                    $(Word::$name => $remedy,)*
                }
            }
        }
    };
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

include!("findings_table.rs");

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn words_are_distinct_and_every_remedy_names_its_subject() {
        let words: BTreeSet<&str> = Word::ALL.iter().map(|word| word.word()).collect();
        assert_eq!(words.len(), Word::ALL.len());
        assert!(words.len() >= 30, "{}", words.len());
        for word in Word::ALL {
            let text = word.word();
            let kebab =
                |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            assert!(text.bytes().all(kebab), "{text}");
            let finding = Finding::new(*word, "SUBJECT", "problem");
            assert!(finding.remedy().contains("SUBJECT"), "{text}");
            assert!(!finding.remedy().contains("{}"), "{text}");
        }
    }
}
