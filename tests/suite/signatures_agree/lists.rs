//! Lists of signers, and the times in them.

use jiff::Timestamp;

use super::Verdict::{Bad, Good, Stricter};
use super::{HEX, RELEASE, ZONES, case, compare, good, ours_at};
use crate::signing::{key, ssh_keygen_accepts_at, statement};

#[test]
fn we_agree_on_lists_of_signers() {
    let (alice, bob) = (key("ed25519/alice"), key("ed25519/bob"));
    let a = &alice.public;
    let signature = good(&alice);
    let mut cases = Vec::new();
    for (principals, verdict) in [
        ("blog", Good),
        ("shop", Bad),
        ("Blog", Bad),
        ("BLOG", Bad),
        ("*", Good),
        ("b*", Good),
        ("*g", Good),
        ("b*o?", Good),
        ("????", Good),
        ("???", Bad),
        ("shop,blog", Good),
        ("shop,b*,wiki", Good),
        ("!blog", Bad),
        ("!blog,*", Bad),
        ("*,!blog", Bad),
        ("*,!shop", Good),
        ("!shop", Bad),
        ("*,!b*", Bad),
        ("blog*", Good),
        ("blog?", Bad),
        ("blog@example.com", Bad),
        ("\"blog\"", Good),
        (",blog", Good),
        ("[b]log", Bad),
    ] {
        cases.push(case(
            principals,
            format!("{principals} {a}\n"),
            &signature,
            verdict,
        ));
    }
    for (options, verdict) in [
        ("namespaces=\"deploy-shell\"", Good),
        ("namespaces=\"git,deploy-*\"", Good),
        ("namespaces=\"git\"", Bad),
        ("namespaces=\"*,!deploy-shell\"", Bad),
        ("namespaces=\"\"", Bad),
        ("Namespaces=\"deploy-shell\"", Good),
        ("valid-after=\"20200101\"", Good),
        ("valid-after=\"20200101Z\"", Good),
        ("valid-after=\"202001011200Z\"", Good),
        ("valid-after=\"20200101120030\"", Good),
        ("valid-after=\"20990101\"", Bad),
        ("valid-after=\"20990101Z\"", Bad),
        ("valid-before=\"20990101\"", Good),
        ("valid-before=\"20990101Z\"", Good),
        ("valid-before=\"20200101\"", Bad),
        ("valid-before=\"20200101Z\"", Bad),
        ("valid-after=\"20200101\",valid-before=\"20990101\"", Good),
        ("valid-after=\"20200101\",valid-before=\"20210101\"", Bad),
        ("valid-before=\"20200101\",valid-after=\"20990101\"", Bad),
        ("valid-after=\"1999\"", Bad),
        ("valid-after=\"today\"", Bad),
        ("namespaces=\"deploy-shell\",valid-after=\"20200101\"", Good),
        ("namespaces=deploy-shell", Bad),
        ("namespaces=\"deploy-shell", Bad),
        ("cert-authority", Bad),
        ("unknown", Bad),
        ("unknown=\"x\"", Bad),
    ] {
        cases.push(case(
            options,
            format!("blog {options} {a}\n"),
            &signature,
            verdict,
        ));
    }
    let b = &bob.public;
    for (name, signers, verdict) in [
        ("nobody", String::new(), Bad),
        (
            "a comment",
            format!("# alice\n\n   # x\nblog {a} alice's key\n"),
            Good,
        ),
        ("commented out", format!("#blog {a}\n"), Bad),
        ("no last line feed", format!("blog {a}"), Good),
        (
            "lines of Windows",
            format!("# x\r\nblog {a}\r\nblog {b}\r\n"),
            Good,
        ),
        ("spaces", format!("  blog \t {a}  \n"), Good),
        ("the second line", format!("blog {b}\nblog {a}\n"), Good),
        (
            "another's line first",
            format!("shop {a}\nblog {a}\n"),
            Good,
        ),
        (
            "expired, then not",
            format!("blog valid-before=\"20200101\" {a}\nblog {a}\n"),
            Good,
        ),
        ("only bob", format!("blog {b}\n"), Bad),
        ("half a key", format!("blog {}\n", &a[..50]), Bad),
        ("no key", "blog\n".to_owned(), Bad),
        (
            "of another kind",
            format!("blog {}\n", a.replace("ssh-ed25519", "ssh-rsa")),
            Bad,
        ),
        // ssh-keygen skips a line that it cannot parse.
        (
            "a broken line before",
            format!("blog cert-authority {b}\nblog {a}\n"),
            Good,
        ),
        (
            "an unknown option before",
            format!("blog x=\"y\" {b}\nblog {a}\n"),
            Stricter,
        ),
        (
            "a broken key before",
            format!("blog {}\nblog {a}\n", &b[..50]),
            Stricter,
        ),
    ] {
        let verdict = match name {
            "a broken line before" => Stricter,
            _ => verdict,
        };
        cases.push(case(name, signers, &signature, verdict));
    }
    compare(&cases);
}

#[test]
fn we_agree_on_local_time_to_the_hour() {
    let alice = key("ed25519/alice");
    let signature = good(&alice);
    let dir = tempfile::tempdir().unwrap();
    let text = statement("blog", RELEASE, HEX);
    // In winter, in summer, and around both clock changes.
    for now in [
        "2025-01-15T12",
        "2025-07-15T12",
        "2025-03-09T08",
        "2025-11-02T06",
    ] {
        let now: Timestamp = format!("{now}:15:00Z").parse().unwrap();
        for hours in -7..=2 {
            let before = Timestamp::from_second(now.as_second() + hours * 3600 + 900).unwrap();
            let digits = |time: Timestamp| time.strftime("%Y%m%d%H%M%S").to_string();
            let signers = format!(
                "blog valid-before=\"{}\" {}\n",
                digits(before),
                alice.public
            );
            let time = format!("{}Z", digits(now));
            for zone in ZONES {
                let theirs = ssh_keygen_accepts_at(
                    dir.path(),
                    zone,
                    &signers,
                    &signature,
                    &text,
                    Some(&time),
                );
                let ours = ours_at(zone, &signers, &signature, 1, now);
                assert_eq!(
                    theirs,
                    ours.is_ok(),
                    "{before} at {now} in {zone}: {ours:?}"
                );
            }
        }
    }
}
