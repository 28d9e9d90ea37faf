//! The verbs, and the function that allows or denies a request. Pure: it knows
//! neither files nor the environment.

use std::fmt;

use crate::request::{List, Receive, Request, Rollback, Swap};

/// The verbs of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Receive,
    Swap,
    Rollback,
    List,
}

/// Every verb: its name, and whether it changes anything. The audit log must be
/// reachable before a change.
const VERBS: [(Verb, &str, bool); 4] = [
    (Verb::Receive, "receive", true),
    (Verb::Swap, "swap", true),
    (Verb::Rollback, "rollback", true),
    (Verb::List, "list", false),
];

impl Verb {
    /// Every verb, in the order of `--allow` and of the messages.
    pub const ALL: [Verb; 4] = [Verb::Receive, Verb::Swap, Verb::Rollback, Verb::List];

    fn row(self) -> &'static (Verb, &'static str, bool) {
        &VERBS[self as usize]
    }

    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// Returns whether the verb can change anything on disk.
    pub fn writes(self) -> bool {
        self.row().2
    }

    pub fn of(request: &Request) -> Verb {
        match request {
            Request::Receive(_) => Verb::Receive,
            Request::Swap(_) => Verb::Swap,
            Request::Rollback(_) => Verb::Rollback,
            Request::List(_) => Verb::List,
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The word of `--allow` for `list --files`, in addition to `list`.
const FILES: &str = "files";

/// What a key may do, as `--allow` lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grants {
    verbs: [bool; VERBS.len()],
    /// Whether `list` may show the paths, sizes and digests of the files of a release.
    files: bool,
}

impl Grants {
    /// Every verb, for a key without `--allow`. `files` is not among them: it is the one
    /// grant that reads something out of a release, so an operator names it.
    pub const ALL: Grants = Grants {
        verbs: [true; VERBS.len()],
        files: false,
    };

    pub fn allows(self, verb: Verb) -> bool {
        self.verbs[verb as usize]
    }

    /// Returns whether the key may list the files of a release.
    pub fn allows_files(self) -> bool {
        self.files && self.allows(Verb::List)
    }

    /// Returns the words of `--allow` with their values, in the order of `--allow`.
    pub fn words(self) -> impl Iterator<Item = (&'static str, bool)> {
        let verbs = VERBS
            .iter()
            .map(move |(verb, word, _)| (*word, self.allows(*verb)));
        verbs.chain([(FILES, self.files)])
    }
}

impl std::str::FromStr for Grants {
    type Err = String;

    /// Parses `receive,swap,…`: known words, each once, at least one.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut grants = Grants {
            verbs: [false; VERBS.len()],
            files: false,
        };
        for word in text.split(',') {
            let verb = VERBS.iter().find(|(_, known, _)| *known == word);
            let grant = match verb {
                Some((verb, ..)) => &mut grants.verbs[*verb as usize],
                None if word == FILES => &mut grants.files,
                None => {
                    let words = "receive, swap, rollback, list, files";
                    return Err(format!("'{word}' is not a verb ({words})"));
                }
            };
            if std::mem::replace(grant, true) {
                return Err(format!("'{word}' appears twice"));
            }
        }
        Ok(grants)
    }
}

impl fmt::Display for Grants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let granted = self.words().filter(|(_, granted)| *granted);
        let words: Vec<_> = granted.map(|(word, _)| word).collect();
        f.write_str(&words.join(","))
    }
}

/// A request that [`decide`] has allowed. The field is private, so no other
/// module can make one: a `Granted<Swap>` proves that the policy allowed it.
#[derive(Debug)]
pub struct Granted<T>(T);

impl<T> std::ops::Deref for Granted<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// An allowed request. A denial carries no request.
#[derive(Debug)]
pub enum Permit {
    Receive(Granted<Receive>),
    Swap(Granted<Swap>),
    Rollback(Granted<Rollback>),
    List(Granted<List>),
}

/// A denial, with what the key may not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denied(pub &'static str);

/// Allows `request` for a key with `grants`, or denies it.
///
/// # Errors
///
/// [`Denied`] if `grants` does not include the request's verb, and for `list --files` also
/// if it does not include `files`.
pub fn decide(request: Request, grants: Grants) -> Result<Permit, Denied> {
    let verb = Verb::of(&request);
    if !grants.allows(verb) {
        return Err(Denied(verb.name()));
    }
    if matches!(request, Request::List(List::Files(_))) && !grants.allows_files() {
        return Err(Denied("list files"));
    }
    Ok(match request {
        Request::Receive(receive) => Permit::Receive(Granted(receive)),
        Request::Swap(swap) => Permit::Swap(Granted(swap)),
        Request::Rollback(rollback) => Permit::Rollback(Granted(rollback)),
        Request::List(list) => Permit::List(Granted(list)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_indexed_by_its_verbs() {
        for (index, (verb, word, _)) in VERBS.iter().enumerate() {
            assert_eq!((*verb as usize, verb.name()), (index, *word));
        }
    }

    #[test]
    fn only_list_changes_nothing() {
        let writes = Verb::ALL.map(|verb| (verb.to_string(), verb.writes()));
        let expected = [
            ("receive", true),
            ("swap", true),
            ("rollback", true),
            ("list", false),
        ];
        assert_eq!(
            writes,
            expected.map(|(word, writes)| (word.to_owned(), writes))
        );
    }

    #[test]
    fn grants_are_parsed_exactly() {
        let some: Grants = "swap,list".parse().unwrap();
        assert!(some.allows(Verb::Swap) && some.allows(Verb::List));
        assert!(!some.allows(Verb::Receive) && !some.allows(Verb::Rollback));
        assert_eq!(some.to_string(), "swap,list");
        let files: Grants = "files,list".parse().unwrap();
        assert!(files.allows_files() && !some.allows_files());
        assert_eq!(files.to_string(), "list,files");
        assert!(!Grants::ALL.allows_files(), "an operator names this word");
        assert_eq!(Grants::ALL.to_string(), "receive,swap,rollback,list");
        for bad in [
            "",
            "swap,",
            "Swap",
            "swap swap",
            "swap,swap",
            "list,files,files",
            "all",
        ] {
            assert!(bad.parse::<Grants>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn decide_follows_the_table() {
        for (verb, word, _) in VERBS {
            let request = || {
                let text = match verb {
                    Verb::Receive => format!("receive a --sha256 {}", "0".repeat(64)),
                    Verb::Swap => "swap a".to_owned(),
                    _ => word.to_owned(),
                };
                Request::parse(text.as_bytes()).unwrap()
            };
            for (granted, text, _) in VERBS {
                let decision = decide(request(), text.parse().unwrap());
                assert_eq!(decision.is_ok(), granted == verb, "{word} with {text}");
            }
            assert!(decide(request(), Grants::ALL).is_ok());
        }
    }

    #[test]
    fn the_files_of_a_release_need_both_words() {
        let request = || Request::parse(b"list --files a").unwrap();
        let denied = |allow: &str| decide(request(), allow.parse().unwrap()).err();
        assert_eq!(denied("list,files"), None);
        assert_eq!(
            denied("receive,swap,rollback,list"),
            Some(Denied("list files"))
        );
        assert_eq!(denied("receive,swap,rollback,files"), Some(Denied("list")));
        assert!(decide(request(), Grants::ALL).is_err());
    }
}
