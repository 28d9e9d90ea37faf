//! `check --json`.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use crate::check::{arguments, check, codes, deployer, quiet_site};
use crate::operator::operator;
use crate::site::{Reply, Site, set_mode, write_file};

fn json(site: &Site) -> Reply {
    let mut words = arguments(site);
    words.push("--json".to_owned());
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    operator(site, &words, b"")
}

/// The document has the findings and the keys of the report, with the same status.
#[test]
fn the_json_document_has_what_the_report_has() {
    let site = quiet_site();
    fs::create_dir(site.root().join("releases/hand1")).expect("a directory");
    site.add_key("watch", Some("list,files"));
    let report = check(&site);
    let reply = json(&site);
    assert_eq!((reply.code, reply.stderr.as_str()), (report.code, ""));
    assert_eq!(reply.stdout.matches('\n').count(), 1);
    let document: Value = serde_json::from_str(&reply.stdout).expect("JSON");
    let findings = document["findings"].as_array().expect("findings");
    let word = |finding: &Value, field: &str| finding[field].as_str().expect(field).to_owned();
    let found: BTreeSet<String> = findings.iter().map(|it| word(it, "id")).collect();
    assert_eq!(found, codes(&report));
    let order = ["error", "security", "warning"];
    let mut last = 0;
    for finding in findings {
        let severity = word(finding, "severity");
        let rank = order
            .iter()
            .position(|it| *it == severity)
            .expect("a severity");
        assert!(rank >= last, "{findings:?}");
        last = rank;
        let line = format!(
            "finding: {}: {}",
            word(finding, "id"),
            word(finding, "problem")
        );
        assert!(report.stdout.contains(&line), "{line}: {report:?}");
        assert!(
            report.stdout.contains(&word(finding, "remedy")),
            "{finding}"
        );
        assert!(!word(finding, "subject").is_empty(), "{finding}");
    }
    let keys = document["keys"].as_array().expect("keys");
    let labels: Vec<String> = keys.iter().map(|key| word(key, "label")).collect();
    assert_eq!(labels, ["ci", "watch"]);
    assert_eq!(keys[1]["verbs"], serde_json::json!(["list", "files"]));
    assert!(report.stdout.contains(&word(&keys[1], "may")), "{keys:?}");
    assert_eq!(document["account"]["name"], deployer().name);
}

/// A script that reads stdout alone sees why there are no findings.
#[test]
fn the_document_of_a_site_that_does_not_load_is_the_error() {
    let site = quiet_site();
    write_file(site.config_path(), 0o644, b"colour = 1\n");
    let reply = json(&site);
    assert_eq!(reply.code, 78, "{reply:?}");
    let document: Value = serde_json::from_str(&reply.stdout).expect("JSON");
    let field = |name: &str| document["error"][name].as_str().expect("a string");
    assert_eq!(field("id"), "bad-config");
    assert!(
        field("problem").contains("unknown key 'colour'"),
        "{reply:?}"
    );
    let line = format!("deploy-shell: bad-config: {}\n", field("problem"));
    assert!(reply.stderr.starts_with(&line), "{reply:?}");
    assert_eq!(document.get("findings"), None);

    set_mode(site.config_path(), 0o666);
    let document: Value = serde_json::from_str(&json(&site).stdout).expect("JSON");
    let remedy = document["error"]["remedy"].as_str().expect("a remedy");
    assert!(remedy.starts_with("chmod go-w '"), "{remedy}");
}
