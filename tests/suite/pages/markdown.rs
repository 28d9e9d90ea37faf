//! A page of docs/, as man(7) input. It knows the Markdown that docs/ uses
//! and panics at what it does not know, so that no text gets lost.

/// The text below `heading` (`## Requests`), up to the next heading of its level
/// or above.
pub fn section(readme: &str, heading: &str) -> String {
    let level = heading.bytes().take_while(|byte| *byte == b'#').count();
    let mut found = String::new();
    let mut lines = readme.lines();
    assert!(
        lines.by_ref().any(|line| line == heading),
        "the page has no '{heading}'"
    );
    for line in lines {
        let hashes = line.bytes().take_while(|byte| *byte == b'#').count();
        if (1..=level).contains(&hashes) && line.as_bytes().get(hashes) == Some(&b' ') {
            break;
        }
        found += line;
        found.push('\n');
    }
    found
}

/// `text`, which is a section without its heading.
pub fn to_man(text: &str) -> String {
    let mut man = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if line.is_empty() {
            continue;
        }
        if let Some(title) = line
            .strip_prefix("## ")
            .or_else(|| line.strip_prefix("### "))
        {
            man += &format!(".SS {}\n", inline(title));
        } else if line.starts_with("    ") || line.starts_with("```") {
            let fenced = line.starts_with("```");
            if !man.is_empty() && !below_heading(&man) {
                man += ".PP\n";
            }
            man += ".nf\n.RS 4\n";
            if !fenced {
                man += &literal(&line[4..]);
            }
            while let Some(next) = lines.peek() {
                let inside = match fenced {
                    true => !next.starts_with("```"),
                    false => next.starts_with("    ") || next.is_empty(),
                };
                if !inside {
                    break;
                }
                man += &literal(next.strip_prefix("    ").unwrap_or(next));
                lines.next();
            }
            if fenced {
                lines.next();
            }
            while man.ends_with("\n\n") {
                man.pop();
            }
            man += ".RE\n.fi\n";
        } else if line.starts_with('|') {
            let mut rows = vec![cells(line)];
            while let Some(next) = lines.next_if(|next| next.starts_with('|')) {
                rows.push(cells(next));
            }
            man += &table(&rows[2..]);
        } else {
            let (item, first) = item(line);
            let mut paragraph = first.to_owned();
            while let Some(next) = lines.next_if(|next| {
                let plain = if item.is_some() {
                    next.trim_start()
                } else {
                    next
                };
                !plain.is_empty() && !plain.starts_with(['|', '#']) && self::item(next).0.is_none()
            }) {
                assert!(
                    item.is_some() || !next.starts_with("    "),
                    "a block that no empty line announces: {next}"
                );
                paragraph += " ";
                paragraph += next.trim_start();
            }
            man += &match item {
                Some(mark) => mark,
                None if man.is_empty() || below_heading(&man) => String::new(),
                None => ".PP\n".to_owned(),
            };
            man += &guarded(&inline(&paragraph));
        }
    }
    man
}

/// Where a paragraph has begun already.
fn below_heading(man: &str) -> bool {
    let last = man.lines().last();
    last.is_some_and(|line| line.starts_with(".SS "))
}

/// What begins an item of a list, if `line` does, and the text behind it.
fn item(line: &str) -> (Option<String>, &str) {
    if let Some(rest) = line.strip_prefix("- ") {
        return (Some(".IP \\(bu 2\n".to_owned()), rest);
    }
    match line.split_once(". ") {
        Some((number, rest))
            if !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()) =>
        {
            (Some(format!(".IP {number}. 4\n")), rest)
        }
        _ => (None, line),
    }
}

fn cells(row: &str) -> Vec<&str> {
    assert!(!row.contains("\\|"), "a cell with a bar in it: {row}");
    let row = row.trim_start_matches('|').trim_end_matches('|');
    row.split('|').map(str::trim).collect()
}

/// A table becomes a list of what the rows are about; the last cell is the text.
/// A row of which the first cell is bold begins a part.
fn table(rows: &[Vec<&str>]) -> String {
    let mut man = String::new();
    for row in rows {
        let (last, tags) = row.split_last().expect("a row has cells");
        if let Some(part) = row[0].strip_prefix("**") {
            let part = part.trim_end_matches("**").replace("** **", " ");
            man += &format!(".SS {}\n", inline(&part));
            if !last.is_empty() {
                man += &guarded(&inline(last));
            }
            continue;
        }
        let tags: Vec<String> = tags
            .iter()
            .filter(|tag| !tag.is_empty())
            .map(|tag| inline(tag))
            .collect();
        let text = if last.is_empty() {
            "\\&".to_owned()
        } else {
            inline(last)
        };
        man += &format!(".TP\n{}{}", guarded(&tags.join("  ")), guarded(&text));
    }
    man
}

/// Text with `code`, **bold** and [links](…).
pub fn inline(text: &str) -> String {
    let mut man = String::new();
    // Outlives the code in the middle of what is bold.
    let mut bold = false;
    for (number, part) in text.split('`').enumerate() {
        if number % 2 == 1 {
            man += &in_font('B', part);
            continue;
        }
        // A link is its text.
        let mut plain = String::new();
        let mut rest = part;
        while let Some((before, after)) = rest.split_once("](") {
            plain += &before.replacen('[', "", usize::from(before.contains('[')));
            rest = after.split_once(')').expect("a link ends").1;
        }
        plain += rest;
        for (number, part) in plain.split("**").enumerate() {
            bold ^= number > 0;
            man += &match bold {
                true => in_font('I', part),
                false => escaped(part),
            };
        }
    }
    assert!(!bold, "bold without an end: {text}");
    // A link around code leaves its bracket behind.
    man.replace("[\\fB", "\\fB")
}

fn in_font(font: char, text: &str) -> String {
    match text {
        "" => String::new(),
        _ => format!("\\f{font}{}\\fR", escaped(text)),
    }
}

fn escaped(text: &str) -> String {
    let mut man = String::new();
    for letter in text.chars() {
        match letter {
            '\\' => man += "\\e",
            '-' => man += "\\-",
            '…' => man += "...",
            '—' => man += "\\-",
            ' '..='~' => man.push(letter),
            _ => panic!("'{letter}' has no form in a man page yet: {text}"),
        }
    }
    man
}

fn literal(line: &str) -> String {
    guarded(&escaped(line))
}

/// A line that does not begin with what roff takes for a request.
fn guarded(line: &str) -> String {
    let guard = if line.starts_with(['.', '\'']) {
        "\\&"
    } else {
        ""
    };
    format!("{guard}{line}\n")
}
