//! The table of `history`.

use std::fmt::Display;
use std::time::Duration;

use super::rows::{GateResult, Row};
use deploy_shell::store::journal::Event;

const HEAD: [&str; 9] = [
    "TIME", "EVENT", "RELEASE", "PREVIOUS", "KEY", "CLIENT", "COMMIT", "TOOK", "GATE",
];

/// The length of a commit in the table, in digits.
const ABBREVIATED: usize = 12;

/// Returns the head and a line for each row, with two spaces between cells.
pub fn lines(rows: &[Row<'_>]) -> Vec<String> {
    let mut cells = vec![HEAD.map(str::to_owned)];
    cells.extend(rows.iter().map(row_cells));
    let width = |column: usize| cells.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..HEAD.len()).map(width).collect();
    let line = |row: &[String; HEAD.len()]| {
        let cells = row.iter().zip(&widths);
        let padded: Vec<String> = cells
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        padded.join("  ").trim_end().to_owned()
    };
    cells.iter().map(line).collect()
}

fn row_cells(row: &Row<'_>) -> [String; HEAD.len()] {
    let commit = row.commit.map(|commit| {
        let digits = commit.as_str();
        &digits[..digits.len().min(ABBREVIATED)]
    });
    [
        row.time.to_string(),
        word(row.event),
        cell(row.release),
        cell(row.previous),
        cell(row.key),
        cell(row.client),
        cell(commit),
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

fn cell(value: Option<impl Display>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
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
