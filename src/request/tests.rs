use super::*;
use proptest::prelude::*;

const HEX: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

fn release() -> impl Strategy<Value = ReleaseId> {
    "[0-9A-Za-z]([0-9A-Za-z_-]|[.][0-9A-Za-z_-]){0,31}"
        .prop_map(|text| ReleaseId::try_from(text.as_str()).unwrap())
}

fn request() -> impl Strategy<Value = Request> {
    let signature =
        "([0-9A-Za-z+/]{4}){1,40}".prop_map(|text| SignatureText::try_from(text.as_str()).unwrap());
    let commit = "[0-9a-f]{7,64}".prop_map(|text| CommitId::try_from(text.as_str()).unwrap());
    let guard = || proptest::option::of(release());
    let payload = || {
        let digest = any::<[u8; 32]>();
        proptest::option::of(digest.prop_map(Sha256Digest))
    };
    prop_oneof![
        (
            release(),
            any::<[u8; 32]>(),
            payload(),
            guard(),
            proptest::option::of(commit),
            proptest::collection::vec(signature, 0..3)
        )
            .prop_map(|(release, digest, tree, base, commit, signatures)| {
                Request::Receive(Receive {
                    release,
                    sha256: Sha256Digest(digest),
                    tree,
                    base: tree.and(base),
                    commit,
                    signatures,
                })
            }),
        (release(), payload(), guard()).prop_map(|(release, sha256, if_current)| {
            Request::Swap(Swap {
                release,
                sha256,
                if_current,
            })
        }),
        (guard(), payload(), guard()).prop_map(|(release, sha256, if_current)| {
            Request::Rollback(Rollback {
                release,
                sha256,
                if_current,
            })
        }),
        prop_oneof![
            Just(List::Table),
            Just(List::Json),
            release().prop_map(List::Files)
        ]
        .prop_map(Request::List),
    ]
}

proptest! {
    #[test]
    fn every_request_parses_from_its_own_text(request in request()) {
        prop_assert_eq!(Request::parse(request.to_string().as_bytes()), Ok(request));
    }

    #[test]
    fn an_accepted_request_is_written_back_exactly(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        if let Ok(request) = Request::parse(&bytes) {
            prop_assert_eq!(request.to_string().into_bytes(), bytes);
        }
    }

    #[test]
    fn one_changed_byte_never_gives_the_same_request(
        request in request(), at in any::<proptest::sample::Index>(), byte in any::<u8>()
    ) {
        let mut bytes = request.to_string().into_bytes();
        let at = at.index(bytes.len());
        prop_assume!(bytes[at] != byte);
        bytes[at] = byte;
        prop_assert_ne!(Request::parse(&bytes), Ok(request));
    }
}

#[test]
fn other_spellings_are_rejected() {
    for text in [
        " list",
        "list ",
        "list  --json",
        "LIST",
        "list --json --json",
        "list --js",
        "list --files",
        "list --files a b",
        "list --files ../a",
        "list --json --files a",
        "list --files a --json",
        "swap",
        "swap a b",
        "swap a --if-current",
        "rollback --if-current",
        "rollback a b",
        "swap a --sha256",
        "rollback --sha256",
        "rollback --sha256 a",
        "receive a",
        "receive a --sha256",
        "--help",
        "-h",
        "",
    ] {
        assert!(Request::parse(text.as_bytes()).is_err(), "{text:?}");
    }
    for text in [
        "swap --sha256 HEX",
        "swap --sha256 HEX a",
        "swap a --sha256 HEX b",
        "swap a --sha256 HEX --sha256 HEX",
        "swap a --if-current b --sha256 HEX",
        "rollback --if-current b --sha256 HEX",
        "rollback --sha256 HEX a",
    ] {
        let text = text.replace("HEX", HEX);
        assert!(Request::parse(text.as_bytes()).is_err(), "{text:?}");
    }
    for text in [
        "swap a --sha256 HEX",
        "swap a --sha256 HEX --if-current b",
        "rollback --sha256 HEX",
        "rollback a --sha256 HEX --if-current b",
    ] {
        let text = text.replace("HEX", HEX);
        assert!(Request::parse(text.as_bytes()).is_ok(), "{text:?}");
    }
    for option in [
        "",
        " --tree HEX",
        " --tree HEX --base b",
        " --tree HEX --base b --commit 0123abc --signature AAAA",
        " --tree HEX --signature AAAA",
        " --commit 0123abc",
        " --commit 0123abc --signature AAAA",
    ] {
        let text = format!("receive a --sha256 HEX{option}").replace("HEX", HEX);
        assert!(Request::parse(text.as_bytes()).is_ok(), "{text:?}");
    }
    for option in [
        " --commit",
        " --commit 012345",
        " --commit 0123ABC",
        " --commit HEAD",
        " --commit 0123abc --commit 0123abc",
        " --signature AAAA --commit 0123abc",
        " --signature",
        " --signature abc",
        " --signature a===",
        " --sha256 x",
        " --base b",
        " --base b --tree HEX",
        " --tree",
        " --tree HEX --tree HEX",
        " --tree HEX --base",
        " --tree HEX --base b --base b",
        " --tree HEX --base ../b",
        " --tree HEX b",
        " --base b --commit 0123abc",
        " --commit 0123abc --tree HEX",
        " --tree HEX --commit 0123abc --base b",
        " --signature AAAA --tree HEX",
    ] {
        let text = format!("receive a --sha256 HEX{option}").replace("HEX", HEX);
        assert!(Request::parse(text.as_bytes()).is_err(), "{text:?}");
    }
}

#[test]
fn the_length_limit_is_exact() {
    let head = format!("receive a --sha256 {HEX} --signature ");
    let fill = |len: usize| format!("{head}{}", "A".repeat(len - head.len()));
    let longest = MAX_LEN - (MAX_LEN - head.len()) % 4;
    assert!(Request::parse(fill(longest).as_bytes()).is_ok());
    let error = Request::parse(fill(longest + 4).as_bytes()).unwrap_err();
    assert_eq!(error.problem, "request over 4096 bytes");
}

#[test]
fn other_clients_are_named() {
    for (text, name) in [
        ("/usr/lib/openssh/sftp-server", "sftp"),
        ("scp -t /tmp", "scp"),
        ("rsync --server -vlogDtpre.iLsfxC . x", "rsync"),
        ("git-upload-pack 'x.git'", "git"),
    ] {
        let error = Request::parse(text.as_bytes()).unwrap_err();
        assert_eq!(error.problem, format!("{name} is not served here"));
    }
}

#[test]
fn the_protocol_of_scp_is_scp_with_t_or_f() {
    for text in ["scp -t /tmp", "scp -f /tmp/x", "/usr/bin/scp -r -p -t ."] {
        assert!(is_scp(text.as_bytes()), "{text:?}");
    }
    for text in ["", "scp", "scp -r x", "scp x-t", "rsync -t x", "swap -f"] {
        assert!(!is_scp(text.as_bytes()), "{text:?}");
    }
}

#[test]
fn the_first_wrong_character_is_named_with_its_position() {
    for (text, problem, remedy) in [
        ("swap R\r", "a carriage return (\\r) at byte 7", "Windows"),
        ("swap R\nlist", "a newline (\\n) at byte 7", "one request"),
        ("swap\tR", "a tab (\\t) at byte 5", "one space"),
        ("swap 'R'", "a single quote (') at byte 6", "no shell"),
        ("A=\"\" bash", "a double quote (\") at byte 3", "no shell"),
        ("swap R;", "';' at byte 7", "no shell"),
        ("cd x && swap R", "'&' at byte 6", "no shell"),
        ("swap R 2>&1", "'>' at byte 9", "no shell"),
        ("swap ~R", "'~' at byte 6", "letters, digits"),
        ("swap a@b", "'@' at byte 7", "letters, digits"),
        ("swap a:b", "':' at byte 7", "letters, digits"),
        ("swap \u{e9}", "the byte \\xc3 at byte 6", "ASCII"),
        ("swap \x1b[m", "the byte \\x1b at byte 6", "ASCII"),
    ] {
        let error = Request::parse(text.as_bytes()).unwrap_err();
        assert_eq!(error.problem, format!("request has {problem}"));
        assert!(error.remedy.unwrap().contains(remedy), "{error:?}");
    }
    for byte in (0..=u8::MAX).filter(|byte| !is_allowed_byte(*byte)) {
        let error = Request::parse(&[b'a', byte]).unwrap_err();
        let plain = |byte| matches!(byte, b' '..=b'~');
        assert!(error.problem.bytes().all(plain), "{error:?}");
        assert!(error.problem.ends_with(" at byte 2"), "{error:?}");
    }
}

#[test]
fn spaces_that_separate_no_words_are_named() {
    for (text, problem) in [
        (" list", "request begins with a space"),
        ("swap ", "request ends with a space"),
        ("receive  --sha256 x", "request has two spaces at byte 8"),
        // An option, or a third space, after the digest is not a line of sha256sum.
        (
            "receive R --sha256 HEX  --tree HEX",
            "request has two spaces at byte 84",
        ),
        (
            "receive R --sha256 HEX   x",
            "request has two spaces at byte 84",
        ),
    ] {
        let text = text.replace("HEX", HEX);
        let error = Request::parse(text.as_bytes()).unwrap_err();
        assert_eq!(error.problem, problem);
        assert!(error.remedy.unwrap().contains("may be empty"), "{error:?}");
    }
}

#[test]
fn mistakes_of_a_digest_and_of_a_release_are_named() {
    let upper = HEX.to_uppercase();
    let receive = |rest: &str| format!("receive R {rest}");
    for (text, problem, remedy) in [
        (receive(&format!("--sha256={HEX}")), "after '='", "a space"),
        ("swap a --if-current=b".to_owned(), "after '='", "a space"),
        (
            receive(&format!("--sha256 {HEX} -")),
            "'-' follows",
            "cut -c1-64",
        ),
        (
            receive(&format!("--sha256 {HEX}  -")),
            "'-' follows",
            "cut -c1-64",
        ),
        (
            receive(&format!("--sha256 {HEX}  site.tar.zst")),
            "'site.tar.zst' follows the sha256, as in an uncut line of sha256sum",
            "cut -c1-64",
        ),
        (
            format!("rollback --sha256 {HEX} r1"),
            "'r1' follows the sha256: a release comes before the options",
            "rollback RELEASE --sha256 HEX",
        ),
        (
            receive(&format!("--sha256 {upper}")),
            "upper-case",
            "cut -c1-64",
        ),
        (
            receive(&format!("--sha256 {}", &HEX[1..])),
            "63 digits, not 64",
            "cut",
        ),
        (receive("--sha256 site"), "'site' is not a sha256", "cut"),
        (
            receive(&format!("--sha256 {HEX} --tree {}", &HEX[1..])),
            "63 digits, not 64",
            "sha256sum < tree.list",
        ),
        (
            receive(&format!("--sha256 {HEX} --tree={HEX}")),
            "'--tree=' has its value after '='",
            "a space",
        ),
        (
            receive(&format!("--sha256 {HEX} --commit main")),
            "'main' is not a commit",
            "git rev-parse HEAD",
        ),
    ] {
        let error = Request::parse(text.as_bytes()).unwrap_err();
        assert!(error.problem.contains(problem), "{text}: {error:?}");
        assert!(error.remedy.unwrap().contains(remedy), "{text}: {error:?}");
    }
    let long = "a".repeat(65);
    let longest = format!("_{}", "a".repeat(63));
    for (id, why) in [
        ("v1+x", "it has '+' at character 3"),
        ("../../etc", "it has '/' at character 3"),
        ("a..b", "it has '..'"),
        ("_a", "it begins with '_'"),
        (&long, "it has 65 characters, more than 64"),
        (&longest, "it begins with '_'"),
    ] {
        for text in [format!("swap {id}"), format!("swap a --if-current {id}")] {
            let error = Request::parse(text.as_bytes()).unwrap_err();
            assert!(
                error
                    .problem
                    .starts_with(&format!("'{id}' is not a release "))
            );
            assert!(error.problem.ends_with(why), "{error:?}");
        }
    }
}
