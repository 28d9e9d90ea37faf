//! Valid and hostile responses, in pieces of any size.

use super::*;

/// A reader that returns at most `size` bytes at a time.
struct Pieces<'a> {
    bytes: &'a [u8],
    size: usize,
}

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let size = self.size.min(buffer.len()).min(self.bytes.len());
        let (now, later) = self.bytes.split_at(size);
        buffer[..size].copy_from_slice(now);
        self.bytes = later;
        Ok(size)
    }
}

/// Returns the judgement, which must not depend on the size of the pieces.
#[track_caller]
fn judged(bytes: &[u8], contains: Option<&str>) -> Judgement {
    let contains = contains.map(str::as_bytes);
    let accepted = Statuses::default();
    let judge = |size| judge_response(&mut Pieces { bytes, size }, &accepted, contains);
    let whole = judge(bytes.len().max(1));
    for size in [1, 2, 3, 7, 4096] {
        assert_eq!(judge(size), whole, "in pieces of {size}");
    }
    whole
}

#[track_caller]
fn verdict(text: &str, contains: Option<&str>) -> Verdict {
    judged(text.as_bytes(), contains).0
}

const OK: &str = "HTTP/1.1 200 OK\r\n";
const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

#[test]
fn the_accepted_statuses_pass() {
    let statuses = Statuses::try_from(vec![204, 301, 401]).unwrap();
    let judged = |status: u16, contains: Option<&str>| {
        let response = format!("HTTP/1.1 {status} X\r\n\r\nR2");
        let contains = contains.map(str::as_bytes);
        judge_response(&mut response.as_bytes(), &statuses, contains)
    };
    for status in [204, 301, 401] {
        let expected = (Verdict::Passes, format!("answers {status}"));
        assert_eq!(judged(status, None), expected);
    }
    // The text must be there all the same, and a 204 has no body.
    assert_eq!(judged(301, Some("R2")).0, Verdict::Passes);
    assert_eq!(judged(301, Some("R3")).0, Verdict::NotYet);
    assert_eq!(judged(204, Some("R2")).0, Verdict::NotYet);
    // No other status passes: not even 200.
    assert_eq!(
        judged(200, None),
        (Verdict::NotYet, "answers 200".to_owned())
    );
    assert_eq!(judged(302, None).0, Verdict::Never);
}

#[test]
fn only_the_status_counts_without_a_text() {
    assert_eq!(judged(b"HTTP/1.1 200 OK\r\n\r\n", None).1, "answers 200");
    assert_eq!(verdict("HTTP/1.0 200 OK\r\n\r\n", None), Verdict::Passes);
    for status in [
        101, 201, 204, 206, 400, 403, 404, 418, 429, 500, 502, 503, 504,
    ] {
        let response = format!("HTTP/1.1 {status} X\r\n\r\nR2");
        let (verdict, detail) = judged(response.as_bytes(), Some("R2"));
        assert_eq!(verdict, Verdict::NotYet, "{status}");
        assert_eq!(detail, format!("answers {status}"));
    }
    for status in [301, 302, 304, 308, 401, 405, 407, 426, 501, 505] {
        let response = format!("HTTP/1.1 {status} X\r\nLocation: /\r\n\r\n");
        assert_eq!(verdict(&response, None), Verdict::Never, "{status}");
    }
    let early = "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n";
    let both = format!("{early}{OK}Content-Length: 2\r\n\r\nR2");
    assert_eq!(verdict(&both, Some("R2")), Verdict::Passes);
}

#[test]
fn a_text_is_found_however_the_body_is_framed() {
    for body in [
        "Content-Length: 9\r\n\r\nrelease:2",
        "content-length:  9 \r\nContent-Length: 9\r\n\r\nrelease:2",
        "\r\nrelease:2",
        "Transfer-Encoding: chunked\r\n\r\n9\r\nrelease:2\r\n0\r\n\r\n",
        "Transfer-Encoding: Chunked\r\n\r\n3;a=b\r\nrel\r\n1\r\ne\r\n05\r\nase:2\r\n0\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n9\r\nrelease:2\r\n0\r\n\r\n",
        // After a match, the rest of the body does not matter.
        "Transfer-Encoding: chunked\r\n\r\n9\r\nrelease:2garbage",
        "Content-Length: 900\r\n\r\nrelease:2",
    ] {
        let response = format!("{OK}{body}");
        assert_eq!(
            verdict(&response, Some("release:2")),
            Verdict::Passes,
            "{body}"
        );
    }
}

#[test]
fn a_text_outside_of_the_body_is_not_found() {
    for body in [
        "Content-Length: 0\r\n\r\n",
        // In a field, after the end, in the framing.
        "X: R2\r\nContent-Length: 1\r\n\r\nx",
        "Content-Length: 1\r\n\r\nxR2",
        "Transfer-Encoding: chunked\r\n\r\n1;R2\r\nx\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n1\r\nR\r\n0\r\n\r\n2",
        "Transfer-Encoding: chunked\r\n\r\n0\r\nR2: R2\r\n\r\n",
        "\r\nR3",
    ] {
        let (verdict, detail) = judged(format!("{OK}{body}").as_bytes(), Some("R2"));
        assert_eq!(verdict, Verdict::NotYet, "{body}: {detail}");
        assert!(detail.contains("does not contain 'R2'"), "{detail}");
    }
}

#[test]
fn only_the_beginning_of_an_endless_body_is_searched() {
    let head: &[u8] = b"HTTP/1.1 200 OK\r\n\r\n";
    let filler = vec![b'.'; MAX_BODY as usize];
    let beyond = [head, &filler, b"R2"].concat();
    assert_eq!(
        judge_response(&mut &beyond[..], &Statuses::default(), Some(b"R2")).0,
        Verdict::NotYet
    );
    let within = [head, &filler[2..], b"R2"].concat();
    assert_eq!(
        judge_response(&mut &within[..], &Statuses::default(), Some(b"R2")).0,
        Verdict::Passes
    );
    let endless = head.chain(std::io::repeat(b'.'));
    assert_eq!(
        judge_response(&mut { endless }, &Statuses::default(), Some(b"R2")).0,
        Verdict::NotYet
    );
    // Chunks of one byte with long lines.
    let chunk = format!("1;{}\r\nx\r\n", "y".repeat(1000));
    let many = format!("{CHUNKED}{}", chunk.repeat(8192));
    assert_eq!(
        judge_response(&mut many.as_bytes(), &Statuses::default(), Some(b"R2")).0,
        Verdict::NotYet
    );
}

#[test]
fn a_truncated_response_may_be_complete_the_next_time() {
    for response in [
        "",
        "HTTP/1.1 200 OK\r\nA",
        "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx",
        &format!("{CHUNKED}9\r\nx"),
        &format!("{CHUNKED}1\r\nx\r\n"),
    ] {
        assert_eq!(
            verdict(response, Some("R2")),
            Verdict::NotYet,
            "{response:?}"
        );
    }
}

#[test]
fn a_response_that_is_not_http_never_passes() {
    let fields = "A: b\r\n".repeat(MAX_FIELDS + 1);
    for response in [
        "SSH-2.0-OpenSSH_9.9\r\n",
        "\u{15}\u{3}\u{1}\0\u{2}\u{2}\u{46}",
        "HTTP/2 200 OK\r\n\r\n",
        "HTTP/1.1 2x0 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nR2",
        "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nR2",
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nR2",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\nR2",
        &format!("{CHUNKED}x\r\n"),
        &format!("{CHUNKED}\r\n"),
        &format!("{CHUNKED};\r\n"),
        &format!("{CHUNKED}-1\r\n"),
        &format!("{CHUNKED}11111111111111111\r\n"),
        &format!("{CHUNKED}1\r\nxy\r\n0\r\n\r\n"),
        &format!("{CHUNKED}1;{}", "x".repeat(4096)),
        &format!("{OK}{fields}\r\n"),
        &format!("{OK}A: {}", "b".repeat(MAX_HEAD)),
        &"HTTP/1.1 100 Continue\r\n\r\n".repeat(MAX_HEAD / 20),
    ] {
        let (verdict, detail) = judged(response.as_bytes(), Some("R2"));
        assert_eq!(verdict, Verdict::Never, "{response:?}: {detail}");
    }
}

#[test]
fn a_description_cannot_control_a_terminal() {
    let (_, detail) = judged(b"HTTP/1.1 200 OK\r\n\r\n", Some("\u{1b}[2J"));
    assert!(detail.contains("'\\x1b[2J'"), "{detail}");
}

proptest::proptest! {
    /// Arbitrary bytes, alone or after the beginning of a response, get the same
    /// judgement in pieces of any size.
    #[test]
    fn arbitrary_responses_are_judged(
        begin in 0_usize..4,
        rest in proptest::collection::vec(
            proptest::prop_oneof![proptest::sample::select(&b"\r\n0123456789abc:; Rx2"[..]), 0_u8..],
            0..200,
        ),
    ) {
        let fixed = ["HTTP/1.1 200 OK\r\n\r\n", OK, CHUNKED, ""];
        judged(&[fixed[begin].as_bytes(), &rest].concat(), Some("R2"));
    }
}
