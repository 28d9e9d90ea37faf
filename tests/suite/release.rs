//! The release workflow: what has passed before a release, and what it consists of. Nothing
//! runs the workflow itself.

use std::fs;
use std::process::Command;

use crate::ci::parse_yaml;
use crate::site::sha256;

const RELEASE: &str = include_str!("../../.github/workflows/release.yml");

/// The workflow publishes only the files it built after all tests have passed.
#[test]
fn nothing_is_released_untested() {
    let jobs = &parse_yaml(RELEASE)["jobs"];
    let runs = |job: &str, line: &str| {
        let steps = jobs[job]["steps"].as_array().expect("steps");
        let step = steps.iter().find(|step| {
            let script = step["run"].as_str().unwrap_or_default();
            script.lines().any(|said| said == line)
        });
        let step = step.unwrap_or_else(|| panic!("'{job}' does not run '{line}'"));
        // A failure of the step fails the job.
        for part in [&jobs[job], step] {
            assert!(part["continue-on-error"].is_null() && part["if"].is_null());
        }
    };
    runs("tests", "tests/run");
    runs("libraries", "cargo deny --locked check");
    assert_eq!(
        jobs["build"]["needs"],
        serde_json::json!(["tests", "libraries"])
    );
    assert_eq!(jobs["publish"]["needs"], "build");
    for job in ["build", "publish"] {
        assert!(jobs[job]["if"].is_null(), "{job} may run after a failure");
    }
}

/// The workflow builds for both architectures, and publishes the files of both with one
/// list of checksums.
#[test]
fn a_release_has_the_files_of_both_architectures() {
    let jobs = &parse_yaml(RELEASE)["jobs"];
    let build = &jobs["build"];
    assert_eq!(
        build["strategy"]["matrix"]["runner"],
        serde_json::json!(["ubuntu-24.04", "ubuntu-24.04-arm"])
    );
    assert_eq!(build["runs-on"], "${{ matrix.runner }}");
    let directory = tempfile::tempdir().expect("a directory");
    let files = directory.path().join("files");
    fs::create_dir(&files).expect("a directory");
    for machine in ["x86_64", "aarch64"] {
        fs::write(files.join(machine), machine).expect("a file");
        let sums = format!("{}  {machine}\n", sha256(machine.as_bytes()));
        fs::write(files.join(format!("SHA256SUMS-{machine}")), sums).expect("a file");
    }
    let steps = jobs["publish"]["steps"].as_array().expect("steps");
    let step = steps.iter().find(|step| step["name"] == "checksums");
    let script = step.expect("a step of that name")["run"]
        .as_str()
        .expect("a script");
    let check = || {
        let mut command = Command::new("sh");
        command.args(["-ec", script]).current_dir(directory.path());
        command.output().expect("sh starts").status.success()
    };
    assert!(check());
    let sums = fs::read_to_string(files.join("SHA256SUMS")).expect("the list");
    assert_eq!(sums.lines().count(), 2, "{sums}");
    // A file that does not have its checksum is not published.
    fs::write(files.join("SHA256SUMS-aarch64"), sums).expect("a file");
    fs::write(files.join("aarch64"), "another").expect("a file");
    assert!(!check());
}
