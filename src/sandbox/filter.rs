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

/// From here on are the numbers of x32, which some kernels for x86-64 take
/// beside their own: they would pass by a list of what is denied.
const X32: u32 = 0x4000_0000;

/// A list, and what is answered to its calls and to all others.
pub struct List {
    pub rules: Rules,
    pub listed: SeccompAction,
    pub others: SeccompAction,
    /// A call that is answered as by a kernel that does not have it.
    pub absent: Option<libc::c_long>,
}

impl List {
    /// The whole program. Whoever calls as on another machine, or by foreign
    /// numbers, is killed.
    ///
    /// One program, and no longer than it must be: each costs every request that
    /// it is made, checked and translated.
    pub fn program(self) -> Result<BpfProgram, BackendError> {
        // The library's program for no calls at all is the check of the machine and
        // one answer. In the place of that answer comes all the rest.
        let mut program = self.asked(Rules::new())?;
        program.pop();
        program.extend([
            load(NUMBER),
            jump(libc::BPF_JGE, X32, 0, 1),
            answer(SeccompAction::KillProcess),
        ]);
        if let Some(call) = self.absent {
            let absent = SeccompAction::Errno(libc::ENOSYS as u32);
            program.extend([jump(libc::BPF_JEQ, call as u32, 0, 1), answer(absent)]);
        }
        let rules: Vec<_> = self.rules.iter().collect();
        program.extend(self.search(&rules)?);
        Ok(program)
    }

    /// The search for a call among `rules`, which are in order. It begins with
    /// the call's number loaded, and always ends with an answer.
    ///
    /// A longer list is searched by halves. The kernel runs a new program for every
    /// number there is, to learn about which it need never ask again: a hundred
    /// comparisons for each of them took a third of a millisecond of every request.
    fn search(
        &self,
        rules: &[(&libc::c_long, &Vec<SeccompRule>)],
    ) -> Result<BpfProgram, BackendError> {
        if rules.len() > SHORT {
            let (below, above) = rules.split_at(rules.len() / 2);
            let middle = *above[0].0 as u32;
            let (below, above) = (self.search(below)?, self.search(above)?);
            // The second half is reached only by jumping over the first.
            let halves = [
                jump(libc::BPF_JGE, middle, 0, 1),
                jump(libc::BPF_JA, below.len() as u32, 0, 0),
            ];
            return Ok([&halves[..], &below, &above].concat());
        }
        let mut program = BpfProgram::new();
        for (call, rules) in rules {
            let number = **call as u32;
            if rules.is_empty() {
                let listed = answer(self.listed.clone());
                program.extend([jump(libc::BPF_JEQ, number, 0, 1), listed]);
                continue;
            }
            // A whole program, which ends with an answer as well.
            let asked = self.asked([(**call, rules.to_vec())].into())?;
            program.extend([
                jump(libc::BPF_JEQ, number, 1, 0),
                jump(libc::BPF_JA, asked.len() as u32, 0, 0),
            ]);
            program.extend(asked);
        }
        program.push(answer(self.others.clone()));
        Ok(program)
    }

    /// The library's own program, which asks about arguments.
    fn asked(&self, rules: Rules) -> Result<BpfProgram, BackendError> {
        let arch: TargetArch = std::env::consts::ARCH.try_into()?;
        SeccompFilter::new(rules, self.others.clone(), self.listed.clone(), arch)?.try_into()
    }
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

fn answer(action: SeccompAction) -> sock_filter {
    step(libc::BPF_RET | libc::BPF_K, action.into(), 0, 0)
}

fn step(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    let code = code as u16;
    sock_filter { code, jt, jf, k }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// AUDIT_ARCH_X86_64 and AUDIT_ARCH_AARCH64 of linux/audit.h.
    const ARCH: u32 = if cfg!(target_arch = "x86_64") {
        0xc000_003e
    } else {
        0xc000_00b7
    };

    fn run(program: &[sock_filter], number: i64, first_argument: u32) -> (u32, usize) {
        run_as(ARCH, program, number, first_argument)
    }

    /// What a program answers to a call, run as the kernel runs it, and in how
    /// many steps.
    fn run_as(
        arch: u32,
        program: &[sock_filter],
        number: i64,
        first_argument: u32,
    ) -> (u32, usize) {
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

    const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
    const KILL: u32 = libc::SECCOMP_RET_KILL_PROCESS;

    fn denying(rules: Rules) -> BpfProgram {
        let list = List {
            rules,
            listed: SeccompAction::Errno(libc::EPERM as u32),
            others: SeccompAction::Allow,
            absent: Some(ABSENT),
        };
        list.program().unwrap()
    }

    /// Between the numbers of the tests' lists, and none of them.
    const ABSENT: i64 = 600;

    #[test]
    fn a_list_of_any_length_answers_for_its_calls_and_for_no_others() {
        for length in [1, SHORT, SHORT + 1, 2 * SHORT, 2 * SHORT + 1, 20, 100] {
            // The first number there is, neighbours, gaps, and a last one.
            let calls: Vec<i64> = (0..length as i64).map(|call| call * call / 7).collect();
            let denied = denying(calls.iter().map(|call| (*call, Vec::new())).collect());
            for number in (0..2000).chain([0x3fff_ffff]) {
                let expected = match number {
                    ABSENT => ENOSYS,
                    number if calls.contains(&number) => EPERM,
                    _ => ALLOW,
                };
                let (answer, steps) = run(&denied, number, 0);
                assert_eq!(answer, expected, "{number} of {length}");
                assert!(steps < 40, "{number} of {length}: {steps} steps");
            }
            // Foreign numbers, and one below all.
            for number in [0x4000_0000, 0x4000_003b, i64::from(u32::MAX), -1] {
                assert_eq!(run(&denied, number, 0).0, KILL, "{number:#x} of {length}");
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
    fn calls_of_another_machine_are_killed() {
        let denied = denying([(1, Vec::new())].into());
        assert_eq!(run_as(0, &denied, 0, 0).0, KILL);
        assert_eq!(run_as(ARCH, &denied, 0, 0).0, ALLOW);
    }
}
