//! Makes the files of `packaging/` that follow from the program and the documents:
//!
//! ```text
//! cargo run -p xtask -- pages            writes the man pages and the completions
//! cargo run -p xtask -- pages --check    fails if a committed file is not up to date
//! ```

#![forbid(unsafe_code)]

mod completions;
mod man;
mod markdown;
#[cfg(test)]
mod tests;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// A file below `packaging/` and its text.
struct Page {
    path: &'static str,
    text: String,
}

fn packaging() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging")
}

fn pages() -> Vec<Page> {
    let mut pages = man::pages();
    pages.extend(completions::pages());
    pages
}

fn write_pages() -> io::Result<()> {
    for page in pages() {
        fs::write(packaging().join(page.path), page.text)?;
    }
    Ok(())
}

/// Returns the paths of the committed files that differ from what this program makes.
fn outdated() -> Vec<&'static str> {
    let differs = |page: &Page| {
        fs::read_to_string(packaging().join(page.path))
            .ok()
            .as_ref()
            != Some(&page.text)
    };
    let differing = pages().into_iter().filter(differs);
    differing.map(|page| page.path).collect()
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let problem = match words.as_slice() {
        ["pages"] => write_pages().err().map(|error| error.to_string()),
        ["pages", "--check"] => match outdated().as_slice() {
            [] => None,
            paths => Some(format!(
                "not up to date below packaging: {}; run 'cargo run -p xtask -- pages'",
                paths.join(", ")
            )),
        },
        _ => Some("usage: xtask pages [--check]".to_owned()),
    };
    match problem {
        None => ExitCode::SUCCESS,
        Some(problem) => {
            _ = writeln!(io::stderr(), "xtask: {problem}");
            ExitCode::FAILURE
        }
    }
}
