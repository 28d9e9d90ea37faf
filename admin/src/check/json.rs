//! The document of `check --json`. docs/operating.md describes it.

use std::path::Path;

use serde::Serialize;

use super::capabilities::{describe_certificates, describe_key};
use super::facts::{Facts, ForcedCommand, Key, KeyPosition, ServedSite};
use super::findings::Finding;
use crate::output::json_line;
use deploy_shell::error::{Error, Result};
use deploy_shell::names::{KeyLabel, SiteName};

#[derive(Serialize)]
struct Document<'a> {
    site: &'a SiteName,
    config: &'a Path,
    root: &'a Path,
    /// Null where the owner of the site is not known.
    account: Option<AccountRow<'a>>,
    /// The most urgent first.
    findings: Vec<FindingRow<'a>>,
    keys: Vec<KeyRow<'a>>,
    /// One sentence for each authority and each principal whose certificates log in.
    certificates: Vec<String>,
    not_checked: &'a [String],
}

/// The document of a site that cannot be checked.
#[derive(Serialize)]
struct Failure<'a> {
    error: ErrorRow<'a>,
}

#[derive(Serialize)]
struct ErrorRow<'a> {
    id: &'static str,
    problem: &'a str,
    remedy: Option<&'a str>,
}

#[derive(Serialize)]
struct AccountRow<'a> {
    uid: u32,
    /// Null where the uid has no entry in the user database.
    name: Option<&'a str>,
    shell: Option<&'a Path>,
}

#[derive(Serialize)]
struct FindingRow<'a> {
    id: &'static str,
    severity: &'static str,
    subject: &'a str,
    problem: &'a str,
    remedy: &'a str,
}

#[derive(Serialize)]
struct KeyRow<'a> {
    label: Option<&'a KeyLabel>,
    fingerprint: String,
    file: &'a Path,
    line: usize,
    /// Whether its command serves this site.
    serves: bool,
    /// The words of `--allow` that its command grants; empty if it does not serve this site.
    verbs: Vec<&'static str>,
    /// All that someone with the key can do, as the report says it.
    may: String,
}

/// Returns the document as one line of ASCII.
///
/// # Errors
///
/// As [`json_line`].
pub fn document(facts: &Facts, findings: &[Finding]) -> Result<String> {
    let document = Document {
        site: facts.config.site(),
        config: &facts.config_path,
        root: &facts.config.root,
        account: facts.account.as_ref().map(|account| AccountRow {
            uid: account.uid,
            name: account.passwd.as_ref().map(|entry| &*entry.name),
            shell: account.passwd.as_ref().map(|entry| &*entry.shell),
        }),
        findings: (findings.iter())
            .map(|finding| FindingRow {
                id: finding.code.name(),
                severity: finding.code.severity().name(),
                subject: &finding.subject,
                problem: &finding.text,
                remedy: &finding.remedy,
            })
            .collect(),
        keys: (facts.keys())
            .map(|(position, key)| key_row(facts, position, key))
            .collect(),
        certificates: describe_certificates(facts),
        not_checked: &facts.not_checked,
    };
    json_line(&document)
}

/// Returns the document of an error, so that a script finds one on stdout in every case.
///
/// # Errors
///
/// As [`json_line`].
pub fn failure(error: &Error) -> Result<String> {
    let error = ErrorRow {
        id: error.code.name(),
        problem: &error.problem,
        remedy: error.remedy.as_deref(),
    };
    json_line(&Failure { error })
}

fn key_row<'a>(facts: &'a Facts, position: KeyPosition<'a>, key: &'a Key) -> KeyRow<'a> {
    let serve = match &key.command {
        ForcedCommand::Serve(serve) => Some(serve),
        _ => None,
    };
    let this = serve.filter(|serve| serve.site == ServedSite::This);
    let verbs = this.map(|serve| {
        let words = serve.allow.words().filter(|(_, granted)| *granted);
        words.map(|(word, _)| word).collect()
    });
    KeyRow {
        label: serve.and_then(|serve| serve.label.as_ref()),
        fingerprint: key.entry.fingerprint.to_string(),
        file: position.file,
        line: position.line,
        serves: this.is_some(),
        verbs: verbs.unwrap_or_default(),
        may: describe_key(facts, position, key),
    }
}

#[cfg(test)]
mod tests {
    use super::super::findings::FindingCode;
    use super::super::fixture::sound;
    use super::*;

    #[test]
    fn every_finding_and_every_key_is_in_the_document() {
        let facts = sound();
        let code = FindingCode::PasswordSet;
        let finding = Finding::of_word(code, "/x/\u{fc}\u{1f600}", "odd \"\u{7f}\"");
        let text = document(&facts, &[finding]).unwrap();
        assert!(
            text.bytes().all(|byte| (b' '..=b'~').contains(&byte)),
            "{text}"
        );
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let expected = serde_json::json!({
            "id": "password-not-locked",
            "severity": "security",
            "subject": "/x/\u{fc}\u{1f600}",
            "problem": "odd \"\u{7f}\"",
            "remedy": "usermod --password '*' \"$(printf '/x/\\303\\274\\360\\237\\230\\200')\"",
        });
        assert_eq!(value["findings"], serde_json::json!([expected]));
        let key = &value["keys"][0];
        assert_eq!(key["label"], "ci");
        assert_eq!((&key["line"], &key["serves"]), (&3.into(), &true.into()));
        let verbs = serde_json::json!(["receive", "swap", "rollback", "list"]);
        assert_eq!(key["verbs"], verbs);
        assert!(key["may"].as_str().unwrap().ends_with("; nothing else"));
        assert_eq!(value["account"]["name"], "deploy");
        assert_eq!(
            (&value["site"], &value["root"]),
            (&"blog".into(), &"/srv/blog".into())
        );
    }
}
