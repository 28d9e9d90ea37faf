//! What the monitor and the runner say to each other, line by line.
//!
//! A line has one spelling: what was read is written back and compared.

use std::fmt;
use std::time::Duration;

use super::{Ended, LONGEST, Stage, Task};
use crate::escape;
use crate::names::ReleaseId;

/// The longest line that is read, in bytes, with its end.
pub const MAX: u64 = 640;

/// The longest text in an answer, in bytes.
pub const MAX_TEXT: usize = 500;

const STAGES: [(Stage, &str); 5] = [
    (Stage::BeforeSwap, "before_swap"),
    (Stage::AfterSwap, "after_swap"),
    (Stage::BeforeRollback, "before_rollback"),
    (Stage::Smoke, "smoke"),
    (Stage::Health, "health"),
];

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = STAGES.iter().find(|(stage, _)| stage == self);
        f.write_str(found.map_or("", |(_, word)| word))
    }
}

impl fmt::Display for Task<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let previous = self.previous.map_or("-", ReleaseId::as_str);
        let millis = self.within.min(LONGEST).as_millis();
        let (stage, index, release) = (self.stage, self.index, self.release);
        write!(f, "run {stage} {index} {release} {previous} {millis}")
    }
}

/// A [`Task`] as the runner has read it.
#[derive(Debug)]
pub struct Order {
    pub stage: Stage,
    pub index: usize,
    pub release: ReleaseId,
    pub previous: Option<ReleaseId>,
    pub within: Duration,
}

impl Order {
    /// Reads one line, with its end.
    pub fn parse(line: &[u8]) -> Option<Order> {
        let text = std::str::from_utf8(line.strip_suffix(b"\n")?).ok()?;
        let words: Vec<&str> = text.split(' ').collect();
        let ["run", stage, index, release, previous, millis] = words[..] else {
            return None;
        };
        let order = Order {
            stage: STAGES.iter().find(|(_, word)| *word == stage)?.0,
            index: index.parse().ok()?,
            release: ReleaseId::try_from(release).ok()?,
            // No release begins with '-'.
            previous: match previous {
                "-" => None,
                id => Some(ReleaseId::try_from(id).ok()?),
            },
            within: Duration::from_millis(millis.parse().ok()?),
        };
        (order.task().to_string() == text).then_some(order)
    }

    pub fn task(&self) -> Task<'_> {
        Task {
            stage: self.stage,
            index: self.index,
            release: &self.release,
            previous: self.previous.as_ref(),
            within: self.within,
        }
    }
}

/// What the runner answers: lines of the command, and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Line(String),
    End(Ended),
}

impl Answer {
    /// Reads one line, with its end. The text in it is held to printable ASCII
    /// and its length, whatever was sent.
    pub fn parse(line: &[u8]) -> Option<Answer> {
        let line = line.strip_suffix(b"\n")?;
        let text = |bytes| escape::truncate(&escape::escape_if_needed(bytes), MAX_TEXT);
        if let Some(said) = line.strip_prefix(b"out ") {
            return Some(Answer::Line(text(said)));
        }
        if let Some(why) = line.strip_prefix(b"failed ") {
            return Some(Answer::End(Ended::NotStarted(text(why))));
        }
        let words = std::str::from_utf8(line).ok()?;
        let ended = match words.split_once(' ') {
            None if words == "timeout" => Ended::TimedOut,
            Some(("exit", code)) => Ended::Exit(i32::from(code.parse::<u8>().ok()?)),
            Some(("signal", signal)) => Ended::Signal(i32::from(signal.parse::<u8>().ok()?)),
            _ => return None,
        };
        let answer = Answer::End(ended);
        (answer.to_string() == words).then_some(answer)
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Answer::Line(text) => write!(f, "out {text}"),
            Answer::End(Ended::Exit(code)) => write!(f, "exit {code}"),
            Answer::End(Ended::Signal(signal)) => write!(f, "signal {signal}"),
            Answer::End(Ended::TimedOut) => f.write_str("timeout"),
            Answer::End(Ended::NotStarted(why)) => write!(f, "failed {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_has_one_spelling() {
        let release = ReleaseId::try_from("r2").unwrap();
        let previous = ReleaseId::try_from("r1").unwrap();
        for (stage, word) in STAGES {
            let task = Task {
                stage,
                index: 1,
                release: &release,
                previous: Some(&previous),
                within: Duration::from_secs(2),
            };
            assert_eq!(task.to_string(), format!("run {word} 1 r2 r1 2000"));
            let order = Order::parse(format!("{task}\n").as_bytes()).unwrap();
            assert_eq!((order.stage, order.index), (stage, 1));
            assert_eq!(order.previous.as_ref(), Some(&previous));
            assert_eq!(order.within, task.within);
        }
        assert!(Order::parse(b"run smoke 0 r2 - 1\n").is_some());
        for bad in [
            "",
            "\n",
            "run smoke 0 r2 - 1",
            "run smoke 0 r2 - 1\n\n",
            "run smoke 00 r2 - 1\n",
            "run smoke +0 r2 - 1\n",
            "run smoke -1 r2 - 1\n",
            "run smoke 0 ../r2 - 1\n",
            "run smoke 0 r2 . 1\n",
            "run smoke 0 r2  1\n",
            "run smoke 0 r2 - 1 \n",
            "run smoke 0 r2 - 1 x\n",
            "run smoke 0 r2 - 99999999999\n",
            "run Smoke 0 r2 - 1\n",
            "stop smoke 0 r2 - 1\n",
        ] {
            assert!(Order::parse(bad.as_bytes()).is_none(), "{bad:?}");
        }
        assert!(Order::parse(b"run smoke 0 r\xc3\xa9 - 1\n").is_none());
    }

    #[test]
    fn answers_are_held_to_their_form() {
        for answer in [
            Answer::Line(String::new()),
            Answer::Line("a \\x1b b".to_owned()),
            Answer::End(Ended::Exit(0)),
            Answer::End(Ended::Exit(255)),
            Answer::End(Ended::Signal(15)),
            Answer::End(Ended::TimedOut),
            Answer::End(Ended::NotStarted("no such file".to_owned())),
        ] {
            let line = format!("{answer}\n");
            assert_eq!(Answer::parse(line.as_bytes()), Some(answer), "{line}");
        }
        for bad in [
            "",
            "\n",
            "exit\n",
            "exit 256\n",
            "exit -1\n",
            "exit 01\n",
            "exit 0",
            "signal\n",
            "timeout 1\n",
            "out\n",
            "Out x\n",
            "exit 0\n\n",
        ] {
            assert_eq!(Answer::parse(bad.as_bytes()), None, "{bad:?}");
        }
        let hostile = Answer::parse(b"out \x1b[31m\xff\n");
        assert_eq!(hostile, Some(Answer::Line("\\x1b[31m\\xff".to_owned())));
        let mut long = b"out ".to_vec();
        long.extend([b'\x1b'; 600]);
        long.push(b'\n');
        let Some(Answer::Line(text)) = Answer::parse(&long) else {
            panic!("a line");
        };
        assert!(text.len() <= MAX_TEXT && text.ends_with("..."), "{text}");
    }
}
