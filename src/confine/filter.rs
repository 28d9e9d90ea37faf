//! Lists of system calls as the programs that the kernel runs for each call
//! (seccomp(2)).

use std::collections::BTreeMap;

use nix::libc;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch, sock_filter,
};

/// System calls by number, each with the arguments that it is about: one of the
/// rules must hold, and where there is none, any will do.
pub type Rules = BTreeMap<libc::c_long, Vec<SeccompRule>>;

/// As many calls as are compared with one after the other.
const SHORT: usize = 6;

/// Where the number of the call stands in what a program sees.
const NUMBER: u32 = 0;

/// A program with one answer for the calls in `rules` and one for all others.
///
/// A longer list is searched by halves. The kernel runs a new program for every
/// number there is, to learn about which it need never ask again: a hundred
/// comparisons for each of them took a third of a millisecond of every request.
pub fn program(
    mut rules: Rules,
    listed: &SeccompAction,
    others: &SeccompAction,
) -> Result<BpfProgram, BackendError> {
    if rules.len() > SHORT
        && let Some(middle) = rules.keys().nth(rules.len() / 2).copied()
    {
        let above = rules.split_off(&middle);
        let below = program(rules, listed, others)?;
        // Each half is a whole program and ends with an answer; the second is
        // reached only by jumping over the first.
        let search = [
            load(NUMBER),
            jump(libc::BPF_JGE, middle as u32, 0, 1),
            jump(libc::BPF_JA, below.len() as u32, 0, 0),
        ];
        return Ok([&search[..], &below, &program(above, listed, others)?].concat());
    }
    let arch: TargetArch = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(rules, others.clone(), listed.clone(), arch)?.try_into()
}

/// Kills whoever makes a call by the x32 numbers, which some kernels for x86-64
/// take beside their own: they would pass by a list of what is denied.
pub fn foreign_numbers() -> BpfProgram {
    const X32: u32 = 0x4000_0000;
    vec![
        load(NUMBER),
        jump(libc::BPF_JGE, X32, 1, 0),
        answer(libc::SECCOMP_RET_ALLOW),
        answer(libc::SECCOMP_RET_KILL_PROCESS),
    ]
}

/// A condition on the low word of an argument, counted from 0.
pub fn condition(
    argument: u8,
    operator: SeccompCmpOp,
    value: u64,
) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)
}

fn load(offset: u32) -> sock_filter {
    step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, 0, 0)
}

/// Skips so many steps: `yes` where the comparison holds, else `no`.
fn jump(comparison: u32, value: u32, yes: u8, no: u8) -> sock_filter {
    step(libc::BPF_JMP | comparison | libc::BPF_K, value, yes, no)
}

fn answer(action: u32) -> sock_filter {
    step(libc::BPF_RET | libc::BPF_K, action, 0, 0)
}

fn step(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    let code = code as u16;
    sock_filter { code, jt, jf, k }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a program answers to a call, run as the kernel runs it, and in how
    /// many steps.
    fn run(program: &[sock_filter], number: i64, first_argument: u32) -> (u32, usize) {
        // AUDIT_ARCH_X86_64 and AUDIT_ARCH_AARCH64 of linux/audit.h.
        let arch = match std::env::consts::ARCH {
            "x86_64" => 0xc000_003e,
            "aarch64" => 0xc000_00b7,
            arch => panic!("not known here: {arch}"),
        };
        let (mut at, mut a) = (0, 0);
        // Ends: no step jumps back.
        for steps in 1.. {
            let sock_filter { code, jt, jf, k } = program[at];
            at += 1;
            let jump = |holds| usize::from(if holds { jt } else { jf });
            match u32::from(code) {
                0x20 => {
                    a = match k {
                        0 => number as u32,
                        4 => arch,
                        16 => first_argument,
                        // The high words, and arguments that are not asked about.
                        _ => 0,
                    }
                }
                0x05 => at += k as usize,
                0x15 => at += jump(a == k),
                0x25 => at += jump(a > k),
                0x35 => at += jump(a >= k),
                0x54 => a &= k,
                0x06 => return (k, steps),
                code => panic!("not known here: {code:#x}"),
            }
        }
        unreachable!()
    }

    const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
    const EPERM: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;

    fn denying(rules: Rules) -> BpfProgram {
        let denied = SeccompAction::Errno(libc::EPERM as u32);
        program(rules, &denied, &SeccompAction::Allow).unwrap()
    }

    #[test]
    fn a_list_of_any_length_answers_for_its_calls_and_for_no_others() {
        for length in [1, SHORT, SHORT + 1, 2 * SHORT, 2 * SHORT + 1, 20, 100] {
            // The first number there is, neighbours, gaps, and a last one.
            let calls: Vec<i64> = (0..length as i64).map(|call| call * call / 7).collect();
            let denied = denying(calls.iter().map(|call| (*call, Vec::new())).collect());
            for number in (-2..2000).chain([0x3fff_ffff, 0x4000_0000, i64::from(u32::MAX)]) {
                let expected = if calls.contains(&number) {
                    EPERM
                } else {
                    ALLOW
                };
                let (answer, steps) = run(&denied, number, 0);
                assert_eq!(answer, expected, "{number} of {length}");
                assert!(steps < 40, "{number} of {length}: {steps} steps");
            }
        }
    }

    #[test]
    fn arguments_are_asked_about_wherever_a_call_stands_in_the_list() {
        for asked in 0..30 {
            let mut rules: Rules = (0..30).map(|call| (call, Vec::new())).collect();
            let one = condition(0, SeccompCmpOp::Eq, 1).unwrap();
            rules.insert(asked, vec![SeccompRule::new(vec![one]).unwrap()]);
            let denied = denying(rules);
            for number in 0..31 {
                let any = number != asked;
                let listed = if number < 30 { EPERM } else { ALLOW };
                assert_eq!(run(&denied, number, 1).0, listed, "{number}, {asked}");
                let expected = if any { listed } else { ALLOW };
                assert_eq!(run(&denied, number, 0).0, expected, "{number}, {asked}");
            }
        }
    }

    #[test]
    fn only_numbers_of_another_kind_are_foreign() {
        let program = foreign_numbers();
        for (number, expected) in [
            (0, ALLOW),
            (0x3fff_ffff, ALLOW),
            (0x4000_0000, libc::SECCOMP_RET_KILL_PROCESS),
            (0x4000_003b, libc::SECCOMP_RET_KILL_PROCESS),
            (-1, libc::SECCOMP_RET_KILL_PROCESS),
        ] {
            assert_eq!(run(&program, number, 0).0, expected, "{number:#x}");
        }
    }
}
