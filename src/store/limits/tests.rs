use super::*;

fn key(label: &str) -> KeyLabel {
    KeyLabel::try_from(label).expect("a label")
}

#[test]
fn files_of_different_keys_have_different_names() {
    let labels = [
        "ci", "ci.swaps", "site", "key", "upload-0", "ci-2", "CI", "a@b",
    ];
    let suffixes = ["attempts", "swaps", "upload-0", "upload-10"];
    let mut names = vec!["site.upload-0".to_owned(), "site.upload-10".to_owned()];
    for suffix in suffixes {
        names.push(file_name(None, suffix));
        names.extend(labels.map(|label| file_name(Some(&key(label)), suffix)));
    }
    let all = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), all);
}

#[test]
fn the_longest_label_is_part_of_a_name() {
    let name = file_name(Some(&key(&"x".repeat(64))), "upload-65535");
    assert!(Name::new(name.as_bytes()).is_some());
}

#[test]
fn times_of_the_future_and_old_ones_do_not_count() {
    let now: Timestamp = "2026-04-12T14:20:41Z".parse().unwrap();
    let hour = Duration::from_secs(3600);
    let text = b"2027-05-17T14:20:41Z\n2026-04-12T14:20:42Z\n2026-04-12T14:20:41Z\n\
                 2026-04-12T13:20:42Z\n2026-04-12T13:20:41Z\n2025-03-08T14:20:41Z\n";
    let counted = times_that_count(text, hour, now);
    let shown: Vec<String> = counted.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["2026-04-12T14:20:41Z", "2026-04-12T13:20:42Z"]);
}

#[test]
fn a_damaged_counter_counts_what_is_left_of_it() {
    let now: Timestamp = "2026-04-12T14:20:41Z".parse().unwrap();
    let minute = Duration::from_secs(60);
    for text in [&b""[..], b"\n\n", b"\xff\n\0\0\0\n", b"2026-04-12T14:2"] {
        assert_eq!(times_that_count(text, minute, now), []);
    }
    let torn = b"x\n2026-04-12T14:20:40Z\n026-04-12T14:20:41Z\n";
    assert_eq!(times_that_count(torn, minute, now).len(), 1);
}

#[test]
fn a_line_has_the_stated_length() {
    assert_eq!(format!("{}\n", journal::now()).len(), LINE);
}

#[test]
fn a_wait_is_rounded_up() {
    for (seconds, words) in [(0, "0 s"), (119, "119 s"), (121, "3 min"), (3600, "60 min")] {
        assert_eq!(in_words(Duration::from_secs(seconds)), words);
    }
}
