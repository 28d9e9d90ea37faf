//! Markdown of our own documents as man(7) input. It panics at what it does not
//! know, so that no text gets lost.

use pulldown_cmark::{CodeBlockKind, Event, HeadingLevel, Options, Parser, Tag, TagEnd};

/// Turns a document into man(7) input.
///
/// The title of the document (its first heading) is left out: the page names the
/// section itself. A heading of the second level that is in capitals becomes a
/// section, every other one a subsection. A table becomes a list: the last cell of
/// a row is the text, the cells before it are what the text is about. A row whose
/// first cell is bold begins a subsection.
pub fn to_roff(text: &str) -> String {
    let mut roff = Roff::default();
    for event in Parser::new_ext(text, Options::ENABLE_TABLES) {
        roff.event(event);
    }
    roff.page
}

#[derive(Default)]
struct Roff {
    page: String,
    /// The inline text of the present paragraph, cell, heading or item.
    line: String,
    /// The finished cells of the present row, and whether the first one is bold.
    cells: Vec<String>,
    bold_row: bool,
    in_code: bool,
    /// The next number of each open list; none for a list with bullets.
    lists: Vec<Option<u64>>,
    /// The next paragraph follows its heading, item or tag directly.
    joined: bool,
}

impl Roff {
    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Start(tag) => self.start(tag),
            Event::End(tag) => self.end(tag),
            Event::Text(text) if self.in_code => {
                for line in text.lines() {
                    self.page += &guarded(&escape(line));
                }
            }
            Event::Text(text) => self.line += &escape(&text),
            Event::Code(code) => self.line += &format!("\\fB{}\\fR", escape(&code)),
            Event::SoftBreak => self.line.push(' '),
            Event::Html(html) if html.starts_with("<!--") => {}
            other => panic!("no form in a man page yet: {other:?}"),
        }
    }

    fn start(&mut self, tag: Tag<'_>) {
        match tag {
            Tag::Paragraph => {
                if !self.joined {
                    self.page += ".PP\n";
                }
            }
            Tag::CodeBlock(CodeBlockKind::Indented | CodeBlockKind::Fenced(_)) => {
                self.in_code = true;
                if !self.joined {
                    self.page += ".PP\n";
                }
                self.page += ".RS 4\n.nf\n";
            }
            Tag::List(first) => {
                // The text of an outer item ends where a list begins inside it.
                self.flush_item();
                self.lists.push(first);
            }
            Tag::Item => {
                let mark = match self.lists.last_mut().expect("an item is in a list") {
                    None => ".IP \\(bu 2\n".to_owned(),
                    Some(number) => {
                        *number += 1;
                        format!(".IP {}. 4\n", *number - 1)
                    }
                };
                self.page += &mark;
                self.joined = true;
            }
            Tag::TableRow => self.bold_row = false,
            Tag::Strong => {
                if self.cells.is_empty() && self.line.is_empty() {
                    self.bold_row = true;
                }
                self.line += "\\fI";
            }
            Tag::Emphasis => self.line += "\\fI",
            Tag::Heading { .. }
            | Tag::Table(_)
            | Tag::TableHead
            | Tag::TableCell
            | Tag::Link { .. }
            | Tag::HtmlBlock
            | Tag::Image { .. } => {}
            other => panic!("no form in a man page yet: {other:?}"),
        }
    }

    fn end(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::Heading(level) => {
                let title = std::mem::take(&mut self.line);
                self.joined = true;
                if level == HeadingLevel::H2 && title == title.to_uppercase() {
                    self.page += &format!(".SH {title}\n");
                } else if level != HeadingLevel::H1 {
                    self.page += &format!(".SS {title}\n");
                }
            }
            TagEnd::Paragraph => {
                let line = std::mem::take(&mut self.line);
                self.page += &guarded(line.trim());
                self.joined = false;
            }
            TagEnd::CodeBlock => {
                self.in_code = false;
                self.page += ".fi\n.RE\n";
                self.joined = false;
            }
            TagEnd::Item => {
                self.flush_item();
                self.joined = false;
            }
            TagEnd::List(_) => {
                self.lists.pop();
                self.joined = false;
            }
            TagEnd::TableCell => self.cells.push(std::mem::take(&mut self.line)),
            TagEnd::TableHead => self.cells.clear(),
            TagEnd::TableRow => self.row(),
            TagEnd::Strong | TagEnd::Emphasis => self.line += "\\fR",
            TagEnd::Table => self.joined = false,
            TagEnd::Link | TagEnd::HtmlBlock | TagEnd::Image => {}
            other => panic!("no form in a man page yet: {other:?}"),
        }
    }

    /// Writes the text of an item that has no paragraph of its own.
    fn flush_item(&mut self) {
        if !self.line.is_empty() {
            let line = std::mem::take(&mut self.line);
            self.page += &guarded(line.trim());
        }
    }

    fn row(&mut self) {
        let mut cells = std::mem::take(&mut self.cells);
        let text = cells.pop().expect("a row has cells");
        if self.bold_row {
            let title = cells.first().map_or("", String::as_str);
            let title = title
                .replace("\\fI", "")
                .replace("\\fR", "")
                .replace("\\fB", "");
            self.page += &format!(".SS {title}\n");
            if !text.is_empty() {
                self.page += &guarded(&text);
            }
            return;
        }
        cells.retain(|cell| !cell.is_empty());
        let text = if text.is_empty() { "\\&" } else { &text };
        self.page += &format!(".TP\n{}{}", guarded(&cells.join("  ")), guarded(text));
    }
}

/// Escapes what roff gives a meaning to. Letters outside of ASCII are few and named
/// here, because not every formatter knows all of them.
fn escape(text: &str) -> String {
    let mut roff = String::new();
    for letter in text.chars() {
        match letter {
            '\\' => roff += "\\e",
            '-' | '—' => roff += "\\-",
            '…' => roff += "...",
            '→' => roff += "\\->",
            '×' => roff += "x",
            ' '..='~' => roff.push(letter),
            _ => panic!("'{letter}' has no form in a man page yet: {text}"),
        }
    }
    roff
}

/// Ends a line, and keeps roff from taking its beginning for a request.
fn guarded(line: &str) -> String {
    let guard = if line.starts_with(['.', '\'']) {
        "\\&"
    } else {
        ""
    };
    format!("{guard}{line}\n")
}
