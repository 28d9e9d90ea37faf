//! Histories for the tables of tests: a word for each event.

use jiff::Timestamp;

use super::History;
use crate::names::ReleaseId;
use crate::store::journal::{Event, Record};

/// Returns a history in which one event happens each second, and the second of the last.
///
/// `+a` receives a, `a` swaps to it, `~a` rolls back to it, `!a` marks it bad, `*a` gives
/// it a place, and a number lets that many seconds pass.
pub fn history_of(words: &str) -> (History, i64) {
    let mut history = History::default();
    let mut seconds = 0;
    for word in words.split_whitespace() {
        if let Ok(pause) = word.parse::<i64>() {
            seconds += pause;
            continue;
        }
        let event = match word.as_bytes()[0] {
            b'+' => Event::Received,
            b'~' => Event::RolledBack,
            b'!' => Event::Failed,
            b'*' => Event::Earned,
            _ => Event::Swapped,
        };
        seconds += 1;
        let release = word.trim_start_matches(['+', '~', '!', '*']);
        let release = ReleaseId::try_from(release).unwrap();
        history.apply(&Record {
            seq: history.generation + 1,
            time: Timestamp::from_second(seconds).unwrap(),
            previous: history.live.clone(),
            // As a request records it.
            ms: Some(1),
            ..Record::unattended(event, Some(&release))
        });
    }
    (history, seconds)
}
