//! Lines and whole manifests: each has one spelling, and every other is refused.

use super::*;
use proptest::prelude::*;

const HEX: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

fn entry() -> impl Strategy<Value = Entry> {
    let bytes = || proptest::collection::vec(any::<u8>(), 1..40);
    let kind = prop_oneof![
        Just(Kind::Dir),
        (any::<bool>(), any::<u64>(), any::<[u8; 32]>()).prop_map(|(executable, size, digest)| {
            Kind::File {
                executable,
                size,
                sha256: Sha256Digest(digest),
            }
        }),
        bytes().prop_map(|target| Kind::Link { target }),
    ];
    (bytes(), kind).prop_map(|(path, kind)| Entry { path, kind })
}

proptest! {
    #[test]
    fn every_entry_is_read_back_from_its_line(entry in entry()) {
        let line = entry.to_string();
        prop_assert!(line.bytes().all(|byte| matches!(byte, b' '..=b'~')));
        prop_assert_eq!(Entry::parse(&line), Ok(entry));
    }

    #[test]
    fn every_line_that_is_read_is_written_back_exactly(line in "[ -~]{0,60}") {
        if let Ok(entry) = Entry::parse(&line) {
            prop_assert_eq!(entry.to_string(), line);
        }
    }
}

#[test]
fn only_the_exact_form_is_read() {
    for bad in [
        "",
        ".",
        "a type=dir mode=0755",
        "./a type=dir mode=0777",
        "./a  type=dir mode=0755",
        "./a type=link mode=0777 link=\\9",
        "./a type=link mode=0777 link=a b",
        "./\\141 type=dir mode=0755",
    ] {
        assert!(Entry::parse(bad).is_err(), "{bad:?}");
    }
    let file = |rest: &str| Entry::parse(&format!("./a type=file {rest} sha256digest={HEX}"));
    assert!(file("mode=0644 size=1").is_ok());
    for bad in [
        "mode=0600 size=1",
        "mode=0644 size=01",
        "mode=0644 size=-1",
        "size=1 mode=0644",
    ] {
        assert!(file(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_manifest_is_whole_or_refused() {
    let identity = Identity {
        release: ReleaseId::try_from("r1").unwrap(),
        sha256: Sha256Digest::try_from(HEX).unwrap(),
        tree: Some(Sha256Digest([7; 32])),
        base: Some(ReleaseId::try_from("r0").unwrap()),
        signatures: ["AAAA", "BBB="].map(|text| text.try_into().unwrap()).into(),
        added: vec![b"a b".to_vec(), b"a b/c".to_vec()],
        received: "2026-04-12T14:20:41Z".parse().unwrap(),
    };
    let body = format!(". type=dir mode=0755\n./a type=file mode=0644 size=3 sha256digest={HEX}\n");
    let whole = format!("{identity}{body}# files 1 bytes 3\n");
    let read = |text: &str| {
        let mut bytes = text.as_bytes();
        let head = Identity::read(&mut bytes)?;
        Ok::<_, HeadFlaw>((head, read_sums(&mut bytes)?))
    };
    let sums = Sums { files: 1, bytes: 3 };
    assert_eq!(read(&whole), Ok((identity.clone(), sums)));
    let first_format = Identity {
        tree: None,
        base: None,
        added: Vec::new(),
        ..identity
    };
    let without_tree = format!("{first_format}{body}# files 1 bytes 3\n");
    assert!(!without_tree.contains("format"));
    assert_eq!(read(&without_tree), Ok((first_format, sums)));
    for end in 0..whole.len() {
        assert!(read(&whole[..end]).is_err(), "cut at {end}");
    }
    assert!(read(&format!("{whole}x")).is_err());
    assert!(read(&whole.replace("BBB=", "B=BB")).is_err());
    assert!(read(&whole.replace(":41Z", ":41+00:00")).is_err());
    let many = "# signature AAAA\n".repeat(MAX_SIGNATURES + 1);
    assert!(read(&whole.replace("# signature AAAA\n", &many)).is_err());
    assert!(read(&whole.replace("bytes 3", "bytes 4")).is_err());
    for (old, new) in [
        ("# format 2\n", ""),
        ("# tree", "# tre"),
        ("# added ./a\\040b\n", "# added ./a\\040b/d\n"),
        ("# added ./a\\040b\n", "# added ./\n"),
    ] {
        let changed = whole.replacen(old, new, 1);
        assert_ne!(changed, whole);
        assert!(read(&changed).is_err(), "{changed}");
    }
}

#[test]
fn a_newer_format_is_refused_by_its_number() {
    let head = |format: &str| format!("#mtree\n# format {format}\nanything\n");
    let read = |format: &str| Identity::read(&mut head(format).as_bytes());
    assert_eq!(read("3"), Err(HeadFlaw::Newer(3)));
    for bad in ["1", "0", "", "x"] {
        assert!(matches!(read(bad), Err(HeadFlaw::Malformed(_))), "{bad}");
    }
    let shown = HeadFlaw::Newer(3).to_string();
    assert_eq!(
        shown,
        "it has format 3, and this version reads up to format 2"
    );
}

#[test]
fn paths_are_compared_in_the_order_of_a_manifest() {
    let sorted = ["", "a", "a/b", "a/b/c", "a/c", "a!", "a.b", "aa", "b"];
    for (number, one) in sorted.iter().enumerate().skip(1) {
        for other in &sorted[number + 1..] {
            let order = compare_paths(one.as_bytes(), other.as_bytes());
            assert_eq!(order, Ordering::Less, "{one} {other}");
        }
    }
}
