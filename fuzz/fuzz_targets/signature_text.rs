//! Reads each line of the input as a word of `--signature`. A request with them is
//! accepted exactly if every word is padded base64 and all of them fit. No word that
//! a fuzzer can make is a valid signature. The same input is also read as a list of
//! allowed signers.

#![no_main]

use deploy_shell::names::SiteName;
use deploy_shell::request::{MAX_LEN, Receive, Request};
use deploy_shell::signature::{AllowedSigners, Requirement, Signable, TimeZone};
use libfuzzer_sys::fuzz_target;

const HEAD: &str =
    "receive r --sha256 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

/// The only signer. Its private key is not known here.
const SIGNERS: &str =
    "* ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti\n";

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes) {
        _ = AllowedSigners::parse(text, &TimeZone::UTC);
    }
    let mut line = HEAD.as_bytes().to_vec();
    let words: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    for word in &words {
        line.extend_from_slice(b" --signature ");
        line.extend_from_slice(word);
    }
    let read = Request::parse(&line);
    if words.iter().any(|word| word.contains(&b' ')) {
        // The word can be the beginning of another option.
        if let Ok(request) = read {
            assert_eq!(request.to_string().as_bytes(), line, "written back");
        }
        return;
    }
    let expected = line.len() <= MAX_LEN && words.iter().all(|word| base64(word));
    assert_eq!(read.is_ok(), expected, "{read:?}: {}", line.escape_ascii());
    if let Ok(Request::Receive(receive)) = read {
        assert_eq!(receive.signatures.len(), words.len());
        let signers = AllowedSigners::parse(SIGNERS, &TimeZone::UTC).expect("a list");
        let site = SiteName::try_from("blog").expect("a site");
        let Receive {
            release,
            sha256,
            signatures,
            ..
        } = &receive;
        // A signature may be of either statement.
        let signable = Signable::of_request(*sha256, Some(*sha256), None);
        let now = std::time::SystemTime::UNIX_EPOCH
            .try_into()
            .expect("a time");
        let required = Requirement::new(signers, 1);
        let checked = required.check_at(&site, release, signable, signatures, now);
        assert!(checked.is_err(), "forged: {}", line.escape_ascii());
        let written = Request::Receive(receive).to_string();
        assert_eq!(written.as_bytes(), line, "written back");
    }
});

fn base64(word: &[u8]) -> bool {
    let letter = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/".contains(byte);
    let (groups, rest) = word.as_chunks::<4>();
    let Some((last, groups)) = groups.split_last() else {
        return false;
    };
    rest.is_empty()
        && groups.iter().flatten().all(letter)
        && last[..2].iter().all(letter)
        && match (last[2], last[3]) {
            (b'=', b'=') => true,
            (third, b'=') => letter(&third),
            (third, fourth) => letter(&third) && letter(&fourth),
        }
}
