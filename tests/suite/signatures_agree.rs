//! Compares our decision on signatures with that of `ssh-keygen -Y verify`.

mod lists;
mod trees;

use jiff::Timestamp;

use deploy_shell::names::{ReleaseId, Sha256Digest, SignatureText, SiteName};
use deploy_shell::signature::{AllowedSigners, Requirement, Signable, TimeZone};

use crate::signing::{
    Key, armor, armor_line, dearmor, key, one_line, ssh_keygen_accepts, sshsig, statement, string,
};

const RELEASE: &str = "20260412-142033";
const HEX: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

/// POSIX rules, which both parse without a time zone database.
const ZONES: [&str; 2] = ["UTC0", "EST5EDT,M3.2.0,M11.1.0"];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Verdict {
    Good,
    Bad,
    /// ssh-keygen accepts it and we do not, as documented.
    Stricter,
}
use Verdict::{Bad, Good, Stricter};

struct Case {
    name: String,
    signers: String,
    armored: String,
    verdict: Verdict,
}

fn ours(zone: &str, signers: &str, armored: &str, threshold: usize) -> Result<String, String> {
    ours_at(zone, signers, armored, threshold, Timestamp::now())
}

fn ours_at(
    zone: &str,
    signers: &str,
    armored: &str,
    threshold: usize,
    now: Timestamp,
) -> Result<String, String> {
    let zone = TimeZone::posix(zone).expect("a zone");
    let signers = AllowedSigners::parse(signers, &zone)
        .map_err(|(line, why)| format!("line {line}: {why}"))?;
    let signatures: Vec<SignatureText> = armored
        .split_inclusive("-----END SSH SIGNATURE-----\n")
        .map(|armored| SignatureText::try_from(one_line(armored).as_str()))
        .collect::<Result<_, _>>()?;
    let site = SiteName::try_from("blog").unwrap();
    let release = ReleaseId::try_from(RELEASE).unwrap();
    let payload = Sha256Digest::try_from(HEX).unwrap();
    let signable = Signable::of_request(payload, None, None);
    Requirement::new(signers, threshold)
        .check_at(&site, &release, signable, &signatures, now)
        .map(|signed| signed.to_string())
}

#[track_caller]
fn compare(cases: &[Case]) {
    let dir = tempfile::tempdir().unwrap();
    let text = statement("blog", RELEASE, HEX);
    for case in cases {
        for zone in ZONES {
            let theirs = ssh_keygen_accepts(dir.path(), zone, &case.signers, &case.armored, &text);
            let ours = ours(zone, &case.signers, &case.armored, 1);
            let expected = (case.verdict != Bad, case.verdict == Good);
            assert_eq!(
                (theirs, ours.is_ok()),
                expected,
                "{} in {zone}: {ours:?}",
                case.name
            );
        }
    }
}

fn case(
    name: impl Into<String>,
    signers: impl Into<String>,
    armored: &str,
    verdict: Verdict,
) -> Case {
    Case {
        name: name.into(),
        signers: signers.into(),
        armored: armored.to_owned(),
        verdict,
    }
}

fn good(key: &Key) -> String {
    key.sign("deploy-shell", &statement("blog", RELEASE, HEX))
}

#[test]
fn we_agree_on_signed_statements() {
    let alice = key("ed25519/alice");
    let signers = format!("blog {}\n", alice.public);
    let sign = |site: &str, release: &str, hex: &str| {
        alice.sign("deploy-shell", &statement(site, release, hex))
    };
    let with = |text: &str| alice.sign("deploy-shell", text);
    let right = statement("blog", RELEASE, HEX);
    let mut cases = vec![
        case("as it should be", &signers, &good(&alice), Good),
        case("another site", &signers, &sign("shop", RELEASE, HEX), Bad),
        case(
            "another release",
            &signers,
            &sign("blog", "20260412-142034", HEX),
            Bad,
        ),
        case(
            "another digest",
            &signers,
            &sign("blog", RELEASE, &HEX.replace('9', "8")),
            Bad,
        ),
        case(
            "a digest in capitals",
            &signers,
            &sign("blog", RELEASE, &HEX.to_uppercase()),
            Bad,
        ),
        case("no last line feed", &signers, &with(right.trim_end()), Bad),
        case(
            "lines of Windows",
            &signers,
            &with(&right.replace('\n', "\r\n")),
            Bad,
        ),
        case("one more line", &signers, &with(&format!("{right}\n")), Bad),
        case(
            "another version",
            &signers,
            &with(&right.replace("v1", "v2")),
            Bad,
        ),
        case("nothing", &signers, &with(""), Bad),
    ];
    for namespace in ["git", "file", "deploy-shell2", "Deploy-Shell", "deploy"] {
        let signature = alice.sign(namespace, &right);
        cases.push(case(
            format!("namespace {namespace}"),
            &signers,
            &signature,
            Bad,
        ));
    }
    for hash in ["sha256", "sha512"] {
        let signature =
            alice.sign_with("deploy-shell", &right, &["-O", &format!("hashalg={hash}")]);
        cases.push(case(hash, &signers, &signature, Good));
    }
    compare(&cases);
}

#[test]
fn we_agree_on_kinds_of_keys() {
    let mut cases = Vec::new();
    for (name, verdict) in [
        ("ed25519/alice", Good),
        ("ecdsa-256/alice", Good),
        ("ecdsa-384/alice", Good),
        ("ecdsa-521/alice", Good),
        ("rsa-2048/alice", Stricter),
    ] {
        let key = key(name);
        let signers = format!("blog {}\n", key.public);
        cases.push(case(name, signers, &good(&key), verdict));
        let other = self::key("ed25519/bob");
        let signers = format!("blog {}\n", other.public);
        cases.push(case(
            format!("{name} is not bob"),
            signers,
            &good(&key),
            Bad,
        ));
    }
    // A list may contain an RSA key, for other programs.
    let (alice, rsa) = (key("ed25519/alice"), key("rsa-2048/alice"));
    let both = format!("blog {}\nblog {}\n", rsa.public, alice.public);
    cases.push(case("beside an RSA key", both, &good(&alice), Good));
    for (name, flags, verdict) in [
        ("touched", 0x01, Good),
        ("touched and verified", 0x05, Good),
        ("not touched", 0x00, Stricter),
        ("verified and not touched", 0x04, Stricter),
    ] {
        for kind in ["ed25519/alice", "ecdsa-256/alice"] {
            let text = statement("blog", RELEASE, HEX);
            let (public, armored) = key(kind).as_security_key(flags, &text);
            let signers = format!("blog {public}\n");
            cases.push(case(
                format!("sk {kind} {name}"),
                &signers,
                &armored,
                verdict,
            ));
            let mut forged = dearmor(&armored);
            // The flags are before the counter, which is the end of the blob.
            let at = forged.len() - 5;
            forged[at] ^= 0x01;
            let armored = armor(&forged);
            cases.push(case(
                format!("sk {kind} {name}, then changed"),
                signers,
                &armored,
                Bad,
            ));
        }
    }
    compare(&cases);
}

#[test]
fn we_agree_on_damaged_signatures() {
    let alice = key("ed25519/alice");
    let signers = format!("blog {}\n", alice.public);
    let whole = good(&alice);
    let blob = dearmor(&whole);
    assert_eq!(armor(&blob), whole, "our own base64");
    let mut cases = vec![
        case(
            "trailing byte",
            &signers,
            &armor(&[&blob[..], b"\0"].concat()),
            Bad,
        ),
        case("trailing blob", &signers, &armor(&blob.repeat(2)), Bad),
        case("empty blob", &signers, &armor_line("AAAA"), Bad),
    ];
    for cut in [
        1,
        2,
        3,
        4,
        64,
        65,
        blob.len() / 2,
        blob.len() - 1,
        blob.len() - 6,
    ] {
        let cutted = armor(&blob[..blob.len() - cut]);
        cases.push(case(format!("{cut} bytes less"), &signers, &cutted, Bad));
    }
    // The magic, the version, the key, the namespace, the hash, the signature.
    for at in [
        0,
        5,
        9,
        13,
        30,
        60,
        70,
        80,
        95,
        110,
        blob.len() - 64,
        blob.len() - 1,
    ] {
        let mut changed = blob.clone();
        changed[at] ^= 0x01;
        // ssh-keygen accepts versions below the current one.
        let verdict = if at == 9 { Stricter } else { Bad };
        cases.push(case(
            format!("byte {at} changed"),
            &signers,
            &armor(&changed),
            verdict,
        ));
    }
    // A signature of the same key after other fields.
    let public = &blob[14..14 + 51];
    let signature = &blob[blob.len() - 83..];
    assert_eq!(sshsig(public, "deploy-shell", b"", signature), blob);
    let with = |namespace: &str, reserved: &[u8], signature: &[u8]| {
        armor(&sshsig(public, namespace, reserved, signature))
    };
    cases.extend([
        case("no namespace", &signers, &with("", b"", signature), Bad),
        case(
            "another namespace",
            &signers,
            &with("git", b"", signature),
            Bad,
        ),
        case(
            "reserved",
            &signers,
            &with("deploy-shell", b"x", signature),
            Stricter,
        ),
        case(
            "no signature",
            &signers,
            &with("deploy-shell", b"", b""),
            Bad,
        ),
        case(
            "of no kind",
            &signers,
            &with("deploy-shell", b"", &string(b"ssh-ed25519")),
            Bad,
        ),
        case(
            "of another kind",
            &signers,
            &with(
                "deploy-shell",
                b"",
                &[string(b"ecdsa-sha2-nistp256"), string(&signature[19..])].concat(),
            ),
            Bad,
        ),
        case(
            "of a security key's kind",
            &signers,
            &with(
                "deploy-shell",
                b"",
                &[
                    string(b"sk-ssh-ed25519@openssh.com"),
                    signature[15..].to_vec(),
                    vec![1, 0, 0, 0, 0],
                ]
                .concat(),
            ),
            Bad,
        ),
    ]);
    compare(&cases);
}

/// ssh-keygen ignores some bits. We accept exactly one form.
#[test]
fn no_signature_with_a_changed_bit_is_accepted() {
    let text = statement("blog", RELEASE, HEX);
    let (ed25519, ecdsa) = (key("ed25519/alice"), key("ecdsa-256/alice"));
    for (public, armored) in [
        (ed25519.public.clone(), good(&ed25519)),
        (ecdsa.public.clone(), good(&ecdsa)),
        ed25519.as_security_key(1, &text),
        ecdsa.as_security_key(1, &text),
    ] {
        let signers = format!("blog {public}\n");
        ours("UTC0", &signers, &armored, 1).unwrap();
        let blob = dearmor(&armored);
        for at in 0..blob.len() {
            for bit in [0x01, 0x80] {
                let mut changed = blob.clone();
                changed[at] ^= bit;
                let verdict = ours("UTC0", &signers, &armor(&changed), 1);
                assert!(verdict.is_err(), "byte {at} of {public}");
            }
        }
    }
}

/// ssh-keygen does not count signers. We do.
#[test]
fn a_signer_counts_once() {
    let (alice, bob, carol) = (
        key("ed25519/alice"),
        key("ecdsa-256/bob"),
        key("ed25519/carol"),
    );
    let signers = format!(
        "blog {}\nblog {}\nb* {}\n",
        alice.public, bob.public, alice.public
    );
    let judge = |signatures: &[&Key], threshold| {
        let armored: String = signatures.iter().map(|key| good(key)).collect();
        ours("UTC0", &signers, &armored, threshold)
    };
    assert!(judge(&[&alice, &bob], 2).unwrap().contains(','));
    judge(&[&carol, &alice, &alice, &bob], 2).unwrap();
    for (signatures, reason) in [
        (&[&alice][..], "1 of 2"),
        (&[&alice, &alice], "second one by the same key"),
        // The signatures differ, but the key is the same.
        (&[&bob, &bob], "second one by the same key"),
        (&[&alice, &carol], "not an allowed signer"),
        (&[&carol, &carol], "0 of 2"),
        (&[], "0 of 2"),
    ] {
        let why = judge(signatures, 2).unwrap_err();
        assert!(why.contains(reason), "{why}");
    }
    assert!(
        judge(&[&alice; 17], 1)
            .unwrap_err()
            .contains("more than 16")
    );
}
