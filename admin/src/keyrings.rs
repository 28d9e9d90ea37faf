//! The keyrings of root (keyrings(7)).
//!
//! A process keeps its session keyring when it becomes another user, and possesses the keys in
//! it: of Kerberos, of CIFS, or a passphrase that systemd-ask-password(1) keeps for minutes. A
//! process of the account that traces a command of root's, which has become the account, could
//! read them.
//!
//! `keyctl(KEYCTL_JOIN_SESSION_KEYRING)` would be simpler. No crate has a safe function for it,
//! and this program has no unsafe code. So a seccomp filter refuses the three calls of keyrings.
//! It holds for a traced process too (seccomp(2), since Linux 4.8).

use std::collections::BTreeMap;

use nix::libc;
use seccompiler::{BackendError, BpfProgram, SeccompAction, SeccompFilter, TargetArch};

/// The bit of the numbers of system calls of the x32 ABI. A 64-bit process can make these calls too.
const X32: libc::c_long = 0x4000_0000;

/// Refuses the calls of keyrings to the calling thread, and to the threads and programs that it
/// starts later, with ENOSYS. No executed program gains a privilege from then on
/// (`no_new_privs`), and none can make calls of another architecture. Returns whether the filter
/// is in place.
pub fn give_up() -> bool {
    filter().is_ok_and(|program| seccompiler::apply_filter(&program).is_ok())
}

fn filter() -> Result<BpfProgram, BackendError> {
    let calls = [libc::SYS_add_key, libc::SYS_request_key, libc::SYS_keyctl];
    let numbers = calls.iter().flat_map(|call| [*call, call | X32]);
    let rules: BTreeMap<_, _> = numbers.map(|number| (number, Vec::new())).collect();
    let refused = SeccompAction::Errno(libc::ENOSYS as u32);
    let arch: TargetArch = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(rules, SeccompAction::Allow, refused, arch)?.try_into()
}
