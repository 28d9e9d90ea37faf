//! Command lines of allowed bytes that are not requests: wrong words, wrong
//! order, wrong spacing, the commands of other clients. Border cases that are
//! requests come last; each gets the answer of a valid request.

use crate::archive::zstd;
use crate::direct::{everything, held_open, record};
use crate::fields::Fields;
use crate::hostile_requests::{Case, all_refused, busy_site};
use crate::site::{Site, sha256};

fn refused_in(cases: &[Case]) {
    all_refused(&busy_site(), cases.iter().copied());
}

const VERBS: &[Case] = &[
    (b"", "nothing"),
    (b" ", "a space"),
    (b"-", "a dash"),
    (b"--", "two dashes"),
    (b"help", "help"),
    (b"--help", "a long option for help"),
    (b"-h", "a short option for help"),
    (b"list --help", "help on a verb"),
    (b"swap -h", "short help on a verb"),
    (b"--version", "the version"),
    (b"-V", "the version, short"),
    (b"version", "the version as a verb"),
    (b"-c list", "the login-shell form"),
    (b"-c", "the login-shell form without its string"),
    (b"serve --site blog", "an operator's verb"),
    (
        b"serve --config /etc/deploy-shell/blog.toml --key root",
        "another key",
    ),
    (b"deploy-shell list", "the program's own name"),
    (
        b"deploy-shell serve --site blog",
        "the whole forced command",
    ),
    (b"init --root /srv", "init"),
    (b"authorize --site blog --key x", "authorize"),
    (b"check", "check"),
    (b"verify a", "verify"),
    (b"unpack", "an inner step"),
    (b"list --key root", "a key of the client's choosing"),
    (
        b"list --allow receive,swap,rollback,list",
        "a grant of its choosing",
    ),
    (b"--site other list", "a site of its choosing"),
    (
        b"list --config /tmp/x.toml",
        "a configuration of its choosing",
    ),
    (b"LIST", "a verb in capitals"),
    (b"List", "a verb with a capital"),
    (b"SWAP a", "swap in capitals"),
    (b"rec", "an abbreviated verb"),
    (b"lis", "another"),
    (b"roll", "another still"),
    (b"lists", "a verb and a letter"),
    (b"list --js", "an abbreviated option"),
    (b"delete a", "a verb there never was"),
    (b"list swap a", "two requests"),
    (b"list  --json", "two spaces"),
    (b"swap  a", "two spaces before a release"),
    (b" list", "a space first"),
    (b"list ", "a space last"),
    (b"swap a ", "a space after a release"),
];

#[test]
fn unknown_verbs_and_other_spacing_are_refused() {
    refused_in(VERBS);
}

const ARITY: &[Case] = &[
    (b"list extra", "a word list does not take"),
    (b"list a", "a release list does not take"),
    (b"list --json --json", "an option twice"),
    (b"list --json a", "a word after the option"),
    (b"list -json", "one dash"),
    (b"list --JSON", "an option in capitals"),
    (b"list --json=true", "a value for a switch"),
    (b"list -- --json", "the end of options"),
    (b"list --files", "an option without a release"),
    (b"list --files a b", "two releases for a list"),
    (b"list --files ../a", "a path for a list"),
    (b"list --files=a", "a release behind an equals sign"),
    (b"list --files a --json", "two forms of a list"),
    (b"list --json --files a", "two forms of a list, turned round"),
    (b"list --files --json", "an option for the release of a list"),
    (b"--json list", "an option before the verb"),
    (b"swap", "no release"),
    (b"swap a b", "two releases"),
    (b"swap --if-current", "an option for a release"),
    (b"swap a --if-current", "an option without its value"),
    (b"swap --if-current a", "no release, but a condition"),
    (b"swap --if-current b a", "the condition first"),
    (b"swap a --if-current b --if-current b", "a condition twice"),
    (b"swap a --if-current b c", "a word too many"),
    (b"swap a --if-current=b", "a value behind an equals sign"),
    (b"swap a --if", "an abbreviated condition"),
    (b"swap a -if-current b", "a condition with one dash"),
    (b"swap a b --if-current b", "two releases and a condition"),
    (b"swap -- a", "the end of options"),
    (b"swap a --force", "an option there never was"),
    (b"swap a --json", "another verb's option"),
    (b"rollback --if-current", "a condition without its value"),
    (b"rollback a b", "two releases"),
    (b"rollback --if-current b a", "the condition first"),
    (b"rollback a --if-current", "a release, no value"),
    (
        b"rollback --if-current a --if-current a",
        "a condition twice",
    ),
    (b"swap a --sha256", "an option without a digest"),
    (b"rollback --sha256", "an option without a digest, back"),
    (b"swap a --sha256 b", "a release as digest"),
    (
        b"swap --sha256 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "a digest for a release",
    ),
    (
        b"swap --sha256 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 a",
        "the digest first",
    ),
    (
        b"swap a --sha256 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 b",
        "a word after the digest",
    ),
    (
        b"swap a --if-current b --sha256 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "the digest after the condition",
    ),
    (
        b"rollback --sha256 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 a",
        "the digest first, back",
    ),
    (
        b"rollback --if-current b --sha256 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "the digest after the condition, back",
    ),
    (
        b"swap a --sha256 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 --sha256 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "a digest twice",
    ),
    (
        b"swap a --sha256 9F86D081884C7D659A2FEAA0C55AD015A3BF4F1B2B0B822CD15D6C15B0F00A08",
        "a digest in capitals",
    ),
    (b"rollback --last", "an option there never was"),
    (b"rollback -1", "a number of steps"),
];

#[test]
fn wrong_numbers_of_words_and_options_are_refused() {
    refused_in(ARITY);
}

const RELEASES: &[Case] = &[
    (b"swap ..", "the parent directory"),
    (b"swap .", "the directory itself"),
    (b"swap ...", "three dots"),
    (b"swap a..b", "two dots inside"),
    (b"swap a..", "two dots at the end"),
    (b"swap ../../etc", "a way out"),
    (b"swap ../incoming/x", "a way into staging"),
    (b"swap /etc", "an absolute path"),
    (b"swap a/b", "a slash"),
    (b"swap a/", "a slash at the end"),
    (b"swap releases/a", "a path from the root"),
    (b"swap .a", "a dot first"),
    (b"swap .deploy-shell", "our own directory"),
    (b"swap -a", "a dash first"),
    (b"swap _a", "an underscore first"),
    (b"swap a+b", "a plus"),
    (b"swap a:b", "a colon"),
    (b"swap a,b", "a comma"),
    (b"swap a@b", "an at sign"),
    (b"swap a%2e%2e", "dots as a browser sends them"),
    (b"swap a^", "a caret"),
    (
        b"swap a --if-current ..",
        "the parent directory as condition",
    ),
    (b"swap a --if-current -b", "a dash first in the condition"),
    (b"rollback ..", "the parent directory, back"),
    (b"rollback /etc", "an absolute path, back"),
    (b"rollback --if-current a/b", "a path as condition"),
    (
        b"swap aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "a release of 65 characters",
    ),
    (
        b"swap a --if-current bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb",
        "a condition of 65 characters",
    ),
];

#[test]
fn invalid_release_names_are_refused() {
    refused_in(RELEASES);
}

const CLIENTS: &[Case] = &[
    (b"/usr/lib/openssh/sftp-server", "sftp"),
    (b"internal-sftp", "sftp inside sshd"),
    (b"sftp-server -R", "sftp, reading only"),
    (b"scp", "scp"),
    (
        b"rsync --server -vlogDtprze.iLsfxCIvu . /tmp",
        "rsync to here",
    ),
    (
        b"rsync --server --sender -e.LsfxC . /etc",
        "rsync from here",
    ),
    (b"git-upload-pack 'x'", "git fetch"),
    (b"git-receive-pack 'x'", "git push"),
    (b"git-upload-pack --help", "git-shell's old pager"),
    (b"borg serve --append-only", "a backup"),
    (b"mosh-server new -s", "mosh"),
    (b"/bin/sh", "a shell"),
    (b"sh -c id", "a shell's command"),
    (b"bash -i", "an interactive shell"),
    (b"exec /bin/sh", "a shell by exec"),
    (b"id", "a program"),
    (b"cat /etc/passwd", "a program with an argument"),
    (b"sudo -n true", "another user"),
    (b"GET / HTTP/1.1", "a browser"),
    (b"EHLO node", "a mail server"),
];

#[test]
fn commands_of_other_clients_are_refused() {
    refused_in(CLIENTS);
}

const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

#[test]
fn malformed_receives_are_refused() {
    let cases: Vec<(String, &str)> = [
        ("receive", "nothing but the verb"),
        ("receive x", "no digest"),
        ("receive --sha256 HEX", "no release"),
        ("receive x --sha256", "no value"),
        ("receive x HEX", "no option before the digest"),
        ("receive x --sha HEX", "an abbreviated option"),
        ("receive x --sha256=HEX", "a value behind an equals sign"),
        ("receive x -sha256 HEX", "one dash"),
        ("receive x --SHA256 HEX", "an option in capitals"),
        ("receive --sha256 HEX x", "the option first"),
        ("receive x --sha256 HEX --sha256 HEX", "a digest twice"),
        ("receive x y --sha256 HEX", "two releases"),
        ("receive x --sha256 HEX y", "a word at the end"),
        ("receive x  --sha256 HEX", "two spaces"),
        ("receive x --sha256 HEX ", "a space at the end"),
        ("receive x --sha256 HEX0", "65 digits"),
        ("receive x --sha256 0xHEX", "a prefix"),
        ("receive x --sha256 sha256:HEX", "another prefix"),
        ("receive x --sha512 HEX", "another digest"),
        ("receive x --md5 HEX", "a weaker digest"),
        ("receive ../x --sha256 HEX", "a way out"),
        ("receive .x --sha256 HEX", "a dot first"),
        ("receive x/y --sha256 HEX", "a slash"),
        ("receive x --sha256 HEX --signature", "no signature"),
        ("receive x --signature YQ== --sha256 HEX", "signature first"),
        ("receive x --sha256 HEX --sig YQ==", "an abbreviation"),
        ("receive x --sha256 HEX --signature=YQ==", "an equals sign"),
        ("receive x --sha256 HEX --signature =", "only padding"),
        ("receive x --sha256 HEX --signature a", "one character"),
        (
            "receive x --sha256 HEX --signature a===",
            "too much padding",
        ),
        ("receive x --sha256 HEX --signature YQ", "no padding"),
        ("receive x --sha256 HEX --signature YQ=", "half the padding"),
        ("receive x --sha256 HEX --signature Y=Q=", "padding inside"),
        (
            "receive x --sha256 HEX --signature a_-b",
            "the URL alphabet",
        ),
        ("receive x --sha256 HEX --signature YWJj.", "a dot"),
        ("receive x --sha256 HEX --signature YQ== YQ==", "two values"),
        ("receive x --sha256 HEX --if-current a", "a condition"),
        (
            "receive x --sha256 HEX --force",
            "an option there never was",
        ),
    ]
    .into_iter()
    .map(|(request, why)| (request.replace("HEX", HEX), why))
    .chain([
        (receive("x", &HEX.to_uppercase()), "capital digits"),
        (receive("x", &HEX[1..]), "63 digits"),
        (receive("x", &format!("g{}", &HEX[1..])), "a letter too far"),
        (receive("x", &format!("-{}", &HEX[1..])), "a sign"),
        (receive(&"r".repeat(65), HEX), "a release of 65 characters"),
    ])
    .collect();
    let cases = cases
        .iter()
        .map(|(request, why)| (request.as_bytes(), *why));
    all_refused(&busy_site(), cases);
}

fn receive(release: &str, hex: &str) -> String {
    format!("receive {release} --sha256 {hex}")
}

/// Returns a well-formed `receive` of exactly `length` bytes, filled with
/// signatures.
fn long_receive(length: usize) -> String {
    // Base64 has a length of four times n, so the release's length adds the rest.
    let fits = |name: &usize| (length - receive(&"r".repeat(*name), HEX).len()) % 4 == 1;
    let name = (1..=4).find(fits).expect("one of four");
    let mut request = receive(&"r".repeat(name), HEX);
    for signature in 1..=9 {
        request += " --signature ";
        let room = if signature < 9 {
            400
        } else {
            length - request.len()
        };
        request += &"AAAA".repeat(room / 4);
    }
    assert_eq!(request.len(), length);
    request
}

#[test]
fn a_request_over_4096_bytes_is_refused() {
    let words = "a ".repeat(2000);
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (vec![b'a'; 4096], "one word of 4,096 bytes"),
        (vec![b'a'; 4097], "one word of 4,097 bytes"),
        (vec![b' '; 4096], "spaces"),
        (words.trim_end().into(), "very many words"),
        (
            format!("swap {}", "a".repeat(4091)).into(),
            "a long release",
        ),
        (format!("list{}", " ".repeat(4093)).into(), "a long end"),
        (long_receive(4097).into(), "well-formed but for its length"),
        (vec![b'a'; 100_000], "a hundred thousand bytes"),
        ("swap a ".repeat(15_000).into(), "a hundred thousand words"),
        (vec![b'\n'; 65_536], "nothing but newlines"),
    ];
    let cases = cases
        .iter()
        .map(|(request, why)| (request.as_slice(), *why));
    all_refused(&busy_site(), cases);
}

#[test]
fn a_session_without_a_command_is_refused() {
    let site = busy_site();
    let before = everything(&site);
    let heard = record(&site).len();
    held_open(site.ssh_command("ci"), b"id\n").refused(64, "bad-request");
    let mut sftp = site.ssh_command("ci");
    sftp.args(["-s", "sftp"]);
    // sshd does not forward the stderr of a subsystem.
    let reply = held_open(sftp, b"\0\0\0\x05\x01\0\0\0\x03");
    assert_eq!((reply.code, reply.stdout.as_str()), (64, ""), "{reply:?}");
    let lines = record(&site);
    assert_eq!(lines.len(), heard + 2, "{lines:?}");
    for line in &lines[heard..] {
        Fields::read(line).has(&[("decision", "refused"), ("exit", "64")]);
    }
    assert!(everything(&site) == before);
}

/// The parser and its limits must accept all that the grammar allows.
#[test]
fn border_cases_are_valid_requests() {
    let site = Site::new();
    let long = "r".repeat(64);
    let empty = sha256(b"");
    let cases: [(String, i32, &str); 17] = [
        (format!("swap {long}"), 66, "no-such-release"),
        (format!("rollback {long}"), 66, "no-such-release"),
        (format!("swap a --if-current {long}"), 75, "not-current"),
        ("swap 0".into(), 66, "no-such-release"),
        ("swap a.".into(), 66, "no-such-release"),
        ("swap a-".into(), 66, "no-such-release"),
        ("swap a._-.-_b".into(), 66, "no-such-release"),
        ("swap swap".into(), 66, "no-such-release"),
        ("swap list".into(), 66, "no-such-release"),
        ("rollback rollback".into(), 66, "no-such-release"),
        ("rollback".into(), 66, "no-such-release"),
        ("swap 20260412-142033".into(), 66, "no-such-release"),
        (receive(&long, HEX), 65, "digest-mismatch"),
        (receive("receive", HEX), 65, "digest-mismatch"),
        (receive("x", &"0".repeat(64)), 65, "digest-mismatch"),
        (receive("x", &"f".repeat(64)), 65, "digest-mismatch"),
        (receive("x", &empty), 65, "bad-archive"),
    ];
    for (request, code, word) in cases {
        let reply = site.ssh("ci", &request);
        assert_eq!(reply.code, code, "{request}: {reply:?}");
        reply.refused(code, word);
    }
    site.ssh("ci", "list").ok();
    site.ssh("ci", "list --json").ok();
    assert_eq!(site.releases(), [] as [&str; 0]);
}

#[test]
fn a_request_of_4096_bytes_is_parsed() {
    let site = Site::new();
    for request in [
        long_receive(4096),
        format!("{} --signature YQ==", receive("x", HEX)),
        format!("{} --signature a+/b --signature YWI=", receive("x", HEX)),
    ] {
        // A site without [signatures] may ignore or refuse these, but the request
        // itself is valid.
        let reply = site.ssh("ci", &request);
        assert_eq!(reply.code, 65, "{request}: {reply:?}");
    }
}

#[test]
fn a_release_of_64_characters_is_received_and_swapped() {
    let site = Site::new();
    let long = format!("0{}", "Z9a._-".repeat(11));
    let long = &long[..64];
    let payload = crate::direct::payload(long);
    site.receive(long, &payload).ok();
    site.ssh("ci", &format!("swap {long}")).ok();
    assert_eq!(site.current().as_deref(), Some(long));
    let not_a_tar = zstd(b"");
    let reply = site.receive("y", &not_a_tar);
    reply.refused(65, "bad-archive");
}
