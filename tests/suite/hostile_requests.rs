//! Hostile command lines. Each goes through a real `sshd` with a payload on a
//! stdin that stays open, and gets the same answer: exit 64, no byte read, an
//! empty stdout, no change, one audit line.

use std::ffi::OsStr;
use std::io::{Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::process::Stdio;

use crate::direct::{everything, held_open, live, put, record, serve};
use crate::fields::Fields;
use crate::site::Site;

/// The command line as the client sends it, and its fault.
pub type Case = (&'static [u8], &'static str);

const PAYLOAD: &[u8] = b"an unwanted payload";

/// Returns a site on which every verb would have an effect.
pub fn busy_site() -> Site {
    let site = Site::new();
    live(&site, &["a", "b"]);
    put(&site, "c");
    site
}

pub fn all_refused<'a>(site: &Site, cases: impl IntoIterator<Item = (&'a [u8], &'a str)>) {
    let before = everything(site);
    let mut heard = record(site).len();
    for (request, why) in cases {
        let shown = request[..request.len().min(200)].escape_ascii();
        let case = format!("{why}: {shown}");

        let mut ssh = site.ssh_command("ci");
        ssh.arg("--").arg(OsStr::from_bytes(request));
        let reply = held_open(ssh, PAYLOAD);
        assert_eq!(reply.code, 64, "{case}: {reply:?}");
        reply.refused(64, "bad-request");

        let lines = record(site);
        assert_eq!(lines.len(), heard + 1, "{case}: {:?}", &lines[heard..]);
        check_audit_line(&lines[heard], request);
        heard = lines.len();

        // The program shares the file's offset, which shows how much it has read.
        let mut stdin = tempfile::tempfile().expect("a file");
        stdin.write_all(PAYLOAD).expect("filled");
        stdin.rewind().expect("rewound");
        let theirs = stdin.try_clone().expect("a second handle");
        let output = serve(site, "ci", request)
            .stdin(Stdio::from(theirs))
            .output()
            .expect("it starts");
        assert_eq!(output.status.code(), Some(64), "{case}: {output:?}");
        let read = stdin.stream_position().expect("an offset");
        assert_eq!(read, 0, "{case}: stdin was read");
        heard += 1;

        assert!(everything(site) == before, "{case}: something changed");
    }
    assert_eq!(record(site).len(), heard);
}

/// Checks the audit line of a refused request.
fn check_audit_line(line: &str, request: &[u8]) {
    let fields = Fields::read(line);
    fields.has(&[
        ("event", "request"),
        ("site", "blog"),
        ("key", "ci"),
        ("decision", "refused"),
        ("code", "bad-request"),
        ("exit", "64"),
    ]);
    let logged = fields.get("request").expect("the request");
    let unescaped = |byte: &u8| byte.is_ascii_alphanumeric() || b" .-".contains(byte);
    if (1..=100).contains(&request.len()) && request.iter().all(unescaped) {
        assert_eq!(logged.as_bytes(), request, "{line}");
    }
}

fn refused_in(cases: &[Case]) {
    all_refused(&busy_site(), cases.iter().copied());
}

const SHELL: &[Case] = &[
    (b"list;id", "a second command"),
    (b"list ; id", "a second command, spaced"),
    (b"list && id", "a conjunction"),
    (b"list || id", "a disjunction"),
    (b"list | cat", "a pipe"),
    (b"list &", "a background job"),
    (b"list `id`", "a command in backquotes"),
    (b"list $(id)", "a command substitution"),
    (b"swap $HOME", "a variable"),
    (b"list${IFS}--json", "a variable as a space"),
    (b"swap $((1+1))", "arithmetic"),
    (b"list > /tmp/out", "output to a file"),
    (b"list >> /tmp/out", "output appended to a file"),
    (b"list < /etc/passwd", "input from a file"),
    (b"list 2>&1", "a joined descriptor"),
    (b"list <(id)", "process substitution"),
    (b"list <<< a", "a here-string"),
    (b"swap *", "a star"),
    (b"swap ?", "a question mark"),
    (b"swap [a-c]", "a bracket expression"),
    (b"swap {a,b}", "braces"),
    (b"swap ~", "a tilde"),
    (b"swap ~root", "another's home"),
    (b"(list)", "a subshell"),
    (b"{ list; }", "a group"),
    (b"! list", "a negation"),
    (b"list !!", "history"),
    (b"list # table", "a comment"),
    (b"swap a#b", "a hash inside a word"),
    (b"swap 'a'", "single quotes"),
    (b"swap \"a\"", "double quotes"),
    (b"'list'", "a quoted verb"),
    (b"\"swap a\"", "a whole request in quotes"),
    (b"swap 'a", "an open single quote"),
    (b"swap \"a", "an open double quote"),
    (b"swap a''", "empty quotes at a word's end"),
    (b"swap $'a'", "ANSI-C quotes"),
    (b"swap a\\ b", "an escaped space"),
    (b"l\\ist", "an escaped letter"),
    (b"swap a\\", "a backslash at the end"),
    (b"swap a\\\nlist", "a continued line"),
    (b"PATH=/tmp list", "an assignment"),
    (b"LD_PRELOAD=/tmp/x.so list", "a preloaded library"),
    (b"env list", "a program before the verb"),
    (b"exec list", "a builtin"),
    (b"eval list", "another builtin"),
    (b"%s%n%s%n", "a format string"),
    (b"swap %n%n%n%n", "a format string for a release"),
];

#[test]
fn shell_syntax_is_refused() {
    refused_in(SHELL);
}

const BYTES: &[Case] = &[
    (b"list\n", "a newline at the end"),
    (b"\nlist", "a newline at the start"),
    (b"list\nswap a", "two lines"),
    (b"list\r", "a carriage return"),
    (b"list\r\n", "a DOS line"),
    (b"list\t--json", "a tab for a space"),
    (b"list\t", "a tab at the end"),
    (b"list\x0b--json", "a vertical tab"),
    (b"list\x0c", "a form feed"),
    (b"\x01list", "start of heading"),
    (b"list\x04", "end of transmission"),
    (b"swap a\x07", "a bell"),
    (b"swap ab\x08", "a backspace"),
    (b"\x1b[2Jlist", "a clear-screen sequence"),
    (b"swap \x1b]0;title\x07a", "a window title"),
    (b"swap a\x1bP1$r", "a device control string"),
    (b"list\x7f", "delete"),
    (b"list\x80", "a lone continuation byte"),
    (b"list\x85", "next line, in Latin-1"),
    (b"list\x9b2J", "an eight-bit control sequence"),
    (b"swap \xff\xfe", "bytes no UTF-8 has"),
    (b"swap \xc0\xae\xc0\xae", "dots in overlong UTF-8"),
    (b"swap a\xc0\xafb", "a slash in overlong UTF-8"),
    (b"swap \xed\xa0\x80", "a surrogate"),
    (b"\xef\xbb\xbflist", "a byte order mark"),
    ("swap café".as_bytes(), "an accent"),
    ("list\u{a0}--json".as_bytes(), "a no-break space"),
    ("list \u{2013}json".as_bytes(), "a dash that is not ASCII"),
    ("ｌｉｓｔ".as_bytes(), "full-width letters"),
    ("swap \u{430}".as_bytes(), "a Cyrillic letter"),
    ("swap \u{202e}a".as_bytes(), "text turned right to left"),
    ("swap a\u{200d}".as_bytes(), "a joiner of no width"),
    ("list\u{2028}swap a".as_bytes(), "a line separator"),
    ("swap \u{1f680}".as_bytes(), "a rocket"),
    ("swap \u{0661}".as_bytes(), "a digit that is not ASCII"),
];

#[test]
fn bytes_outside_printable_ascii_are_refused() {
    refused_in(BYTES);
}

const FORGERIES: &[Case] = &[
    (br#"list" decision="allowed"#, "a field"),
    (br#"list\" decision=\"allowed"#, "a field, escaped"),
    (br#"list\\" decision="allowed"#, "a field, escaped twice"),
    (br#"list" exit="0" key="root"#, "another key and exit"),
    (br#"list"] [x@1 decision="allowed"#, "structured data"),
    (br#"list\"#, "an escape for the closing quote"),
    (b"list\"", "the closing quote"),
    (b"swap a=b", "a pair without quotes"),
    (
        b"list\n<86>1 - - deploy-shell 1 request - event=\"request\" decision=\"allowed\"",
        "a line",
    ),
    (
        b"list\r<86>1 - - deploy-shell 1 request - decision=\"allowed\"",
        "a line over this one",
    ),
    (b"<86>list", "a priority"),
    (b"list\\n<86>1", "a newline, spelled out"),
    (b"list\\x22 decision=\\x22allowed", "a quote, spelled out"),
    (b"list#012<86>1", "a newline as rsyslog writes it"),
    (b"list&quot; decision=", "a quote as HTML has it"),
];

#[test]
fn audit_lines_cannot_be_forged() {
    refused_in(FORGERIES);
}

#[test]
fn an_escaped_request_fits_the_audit_line() {
    // Every byte here needs a longer escape, and the cut must not split one.
    let mut cases: Vec<(Vec<u8>, &str)> = Vec::new();
    for byte in [b'"', b'\\', b']', b'\n', 0x01, 0x1b, 0x7f, 0xff] {
        for length in [150, 500, 1024, 4096] {
            cases.push((vec![byte; length], "one byte repeated"));
        }
    }
    // Shifted by one each time, so that the limit falls on each byte of an escape.
    for shift in 0..4 {
        let text = ["a".repeat(shift).into_bytes(), vec![b'"'; 2000]].concat();
        cases.push((text, "quotes behind a shift"));
    }
    cases.push(("é".repeat(2000).into_bytes(), "two-byte letters"));
    let cases = cases
        .iter()
        .map(|(request, why)| (request.as_slice(), *why));
    all_refused(&busy_site(), cases);
}
