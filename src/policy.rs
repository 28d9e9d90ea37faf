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

/// The verbs that a key may use, as `--allow` lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grants([bool; VERBS.len()]);

impl Grants {
    pub const ALL: Grants = Grants([true; VERBS.len()]);

    pub fn allows(self, verb: Verb) -> bool {
        self.0[verb as usize]
    }
}

impl std::str::FromStr for Grants {
    type Err = String;

    /// Parses `receive,swap,…`: known verbs, each once, at least one.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut grants = Grants([false; VERBS.len()]);
        for word in text.split(',') {
            let (verb, ..) = VERBS
                .iter()
                .find(|(_, known, _)| *known == word)
                .ok_or_else(|| format!("'{word}' is not a verb (receive, swap, rollback, list)"))?;
            if std::mem::replace(&mut grants.0[*verb as usize], true) {
                return Err(format!("'{word}' appears twice"));
            }
        }
        Ok(grants)
    }
}

impl fmt::Display for Grants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<_> = VERBS
            .iter()
            .filter(|(verb, ..)| self.allows(*verb))
            .map(|(_, word, _)| *word)
            .collect();
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denied;

/// Allows `request` for a key with `grants`, or denies it.
///
/// # Errors
///
/// [`Denied`] if `grants` does not include the request's verb.
pub fn decide(request: Request, grants: Grants) -> Result<Permit, Denied> {
    if !grants.allows(Verb::of(&request)) {
        return Err(Denied);
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
    fn grants_are_parsed_exactly() {
        let some: Grants = "swap,list".parse().unwrap();
        assert!(some.allows(Verb::Swap) && some.allows(Verb::List));
        assert!(!some.allows(Verb::Receive) && !some.allows(Verb::Rollback));
        assert_eq!(some.to_string(), "swap,list");
        for bad in ["", "swap,", "Swap", "swap swap", "swap,swap", "all"] {
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
}
