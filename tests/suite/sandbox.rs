//! The audit log states the sandbox truthfully. On a kernel that lacks a mechanism
//! a request fails and the message names the mechanism. If the configuration does
//! not require the sandbox, the request succeeds and the audit log names it.
//!
//! A seccomp filter on the thread that starts the program hides the mechanisms: the
//! program sees a kernel without them.

use std::collections::BTreeMap;
use std::thread;

use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

use crate::direct::{ask, payload, put, serve};
use crate::fields::Fields;
use crate::site::{Reply, Site};

/// prctl(2)'s PR_SET_SECCOMP and PR_SET_NO_NEW_PRIVS.
const SET_SECCOMP: u64 = 22;
const SET_NO_NEW_PRIVS: u64 = 38;

/// A system call, and the value of its first argument if the filter hides only that.
pub type Call = (libc::c_long, Option<u64>);

/// Runs a request on a kernel that seems to lack these calls.
fn without(calls: &[Call], site: &Site, request: &str, input: &[u8]) -> Reply {
    on_a_kernel_without(calls, || site.run(serve(site, "ci", request), input))
}

/// Runs `run` on a thread for which these calls do not exist. They do not exist for
/// its child processes either.
pub fn on_a_kernel_without<T: Send>(calls: &[Call], run: impl FnOnce() -> T + Send) -> T {
    let filter = filter(calls);
    thread::scope(|scope| {
        let run = || {
            seccompiler::apply_filter(&filter).expect("a filter");
            run()
        };
        scope.spawn(run).join().expect("the request")
    })
}

fn filter(calls: &[Call]) -> BpfProgram {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for (call, argument) in calls {
        let rules = rules.entry(*call).or_default();
        if let Some(value) = argument {
            let same = (SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, *value);
            let same = SeccompCondition::new(0, same.0, same.1, same.2).unwrap();
            rules.push(SeccompRule::new(vec![same]).unwrap());
        }
    }
    let missing = SeccompAction::Errno(libc::ENOSYS as u32);
    let arch = std::env::consts::ARCH.try_into().unwrap();
    SeccompFilter::new(rules, SeccompAction::Allow, missing, arch)
        .unwrap()
        .try_into()
        .unwrap()
}

pub const LANDLOCK: &[Call] = &[(libc::SYS_landlock_create_ruleset, None)];
pub const SECCOMP: &[Call] = &[
    (libc::SYS_seccomp, None),
    (libc::SYS_prctl, Some(SET_SECCOMP)),
];
pub const NO_NEW_PRIVS: &[Call] = &[(libc::SYS_prctl, Some(SET_NO_NEW_PRIVS))];

#[track_caller]
fn result_line(site: &Site) -> Fields {
    let lines = site.audit_lines();
    let line = lines.iter().rfind(|line| line.contains("event=\"result\""));
    Fields::read(line.expect("a result in the audit log"))
}

#[test]
fn a_full_sandbox_is_in_the_audit_log() {
    let site = Site::new();
    put(&site, "a");
    result_line(&site).has(&[("sandbox", "full"), ("unpacker", "full")]);
    for request in ["swap a", "list"] {
        ask(&site, request).ok();
        result_line(&site).has(&[("sandbox", "full"), ("outcome", "ok")]);
    }
}

#[test]
fn a_missing_mechanism_is_named_and_refused() {
    let site = Site::new();
    put(&site, "a");
    let before = site.snapshot();
    for (calls, mechanism) in [
        (LANDLOCK, "landlock"),
        (SECCOMP, "seccomp"),
        (NO_NEW_PRIVS, "no_new_privs"),
    ] {
        let payload = payload("b");
        let receive = Site::receive_command("b", &payload);
        for request in ["list", "swap a", "rollback", &receive] {
            let reply = without(calls, &site, request, &payload);
            reply.refused(78, "no-sandbox");
            assert!(
                reply.stderr.contains(mechanism),
                "{mechanism}: {}",
                reply.stderr
            );
            let said = result_line(&site);
            let sandbox = said.get("sandbox").unwrap_or_default();
            assert!(
                sandbox.starts_with("without ") && sandbox.contains(mechanism),
                "{sandbox}"
            );
            said.has(&[("outcome", "failed"), ("code", "no-sandbox")]);
        }
        assert_eq!(site.snapshot(), before, "without {mechanism}");
        assert!(site.leftovers().is_empty(), "without {mechanism}");
    }
}

#[test]
fn an_optional_sandbox_names_what_is_missing_in_the_audit_log() {
    let site = Site::with_config("[sandbox]\nrequired = false\n");
    for (index, (calls, mechanism)) in [(LANDLOCK, "landlock"), (SECCOMP, "seccomp")]
        .into_iter()
        .enumerate()
    {
        let release = format!("r{index}");
        let payload = payload(&release);
        let receive = Site::receive_command(&release, &payload);
        without(calls, &site, &receive, &payload).ok();
        let said = result_line(&site);
        let without_mechanism = format!("without {mechanism}");
        said.has(&[
            ("sandbox", &without_mechanism),
            ("unpacker", &without_mechanism),
        ]);
        without(calls, &site, &format!("swap {release}"), b"").ok();
        result_line(&site).has(&[("sandbox", &without_mechanism)]);
        assert_eq!(site.current(), Some(release));
    }
    // On the unrestricted kernel nothing is missing, required or not.
    ask(&site, "list").ok();
    result_line(&site).has(&[("sandbox", "full")]);
}
