//! The table of `history`.

use std::time::Duration;

use super::rows::{GateResult, Row};
use crate::table::{self, cell};
use deploy_shell::store::journal::Event;

const HEAD: [&str; 9] = [
    "TIME", "EVENT", "RELEASE", "PREVIOUS", "KEY", "CLIENT", "COMMIT", "TOOK", "GATE",
];

/// Returns the head and a line for each row.
pub fn lines(rows: &[Row<'_>]) -> Vec<String> {
    let mut cells = vec![HEAD.map(str::to_owned)];
    cells.extend(rows.iter().map(row_cells));
    table::lines(&cells)
}

fn row_cells(row: &Row<'_>) -> [String; HEAD.len()] {
    [
        row.time.to_string(),
        word(row.event),
        cell(row.release),
        cell(row.previous),
        cell(row.key),
        cell(row.client),
        cell(row.commit.map(table::abbreviated)),
        cell(row.ms.map(took)),
        cell(row.gate.map(GateResult::name)),
    ]
}

/// Returns the word that the journal has for an event.
fn word(event: Event) -> String {
    let word = serde_json::to_value(event).ok();
    let word = word.as_ref().and_then(serde_json::Value::as_str);
    word.expect("an event is a word").to_owned()
}

/// Writes a duration with one decimal place: `0.2s`, `12.4s`, `3m04s`.
fn took(ms: u64) -> String {
    let seconds = Duration::from_millis(ms).as_secs();
    match seconds {
        0..60 => format!("{seconds}.{}s", ms % 1000 / 100),
        _ => format!("{}m{:02}s", seconds / 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::took;

    #[test]
    fn durations_are_short() {
        for (ms, text) in [
            (0, "0.0s"),
            (249, "0.2s"),
            (12_400, "12.4s"),
            (59_999, "59.9s"),
            (184_000, "3m04s"),
            (u64::MAX, "307445734561825m51s"),
        ] {
            assert_eq!(took(ms), text);
        }
    }
}
