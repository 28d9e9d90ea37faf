//! Tables of text: aligned cells, `-` for a value that is not known.

use std::fmt::Display;

use deploy_shell::names::CommitId;

/// The length of a commit in a table, in digits.
const ABBREVIATED: usize = 12;

/// Returns a line for each row, with two spaces between cells.
pub fn lines<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) -> Vec<String> {
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..COLUMNS).map(width).collect();
    let line = |row: &[String; COLUMNS]| {
        let cells = row.iter().zip(&widths);
        let padded: Vec<String> = cells
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        padded.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

/// Returns the text of a cell.
pub fn cell(value: Option<impl Display>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// Returns the first digits of a commit.
pub fn abbreviated(commit: &CommitId) -> &str {
    let digits = commit.as_str();
    &digits[..digits.len().min(ABBREVIATED)]
}
