//! A fault at every system call of every thread: the process is killed there, or the call
//! fails. After each fault the site is whole, and the next request works.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use nix::errno::Errno;
use nix::libc;

use crate::fixture::{Fixture, Site, Verdict};
use crate::payloads::{NEW, receive_command};
use crate::scenarios::{Scenario, scenarios, template};
use crate::tracer::{self, Fault, Point, Run};

/// The documented exit statuses.
const EXITS: [i32; 11] = [0, 64, 65, 66, 69, 70, 73, 74, 75, 77, 78];

const ERRORS: [Errno; 5] = [
    Errno::EIO,
    Errno::ENOSPC,
    Errno::EDQUOT,
    Errno::EINTR,
    Errno::EMFILE,
];

/// Calls that change the disk, make a change durable, or give another process its job.
const CHANGES: [i64; 15] = [
    libc::SYS_write,
    libc::SYS_ftruncate,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_syncfs,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_unlinkat,
    libc::SYS_mkdirat,
    libc::SYS_symlinkat,
    libc::SYS_linkat,
    libc::SYS_copy_file_range,
    libc::SYS_flock,
    libc::SYS_execve,
    libc::SYS_sendto,
];

/// Returns whether the fault is a failed write of the monitor.
fn is_failed_write(fault: Option<(Point, Fault)>) -> bool {
    let write = |point: Point| (point.thread, point.call) == (0, libc::SYS_write);
    matches!(fault, Some((point, Fault::Fail(_))) if write(point))
}

impl Scenario {
    /// Requires what must hold after a run, with any fault.
    fn check_run(
        &self,
        site: &Site,
        run: &Run,
        fault: Option<(Point, Fault)>,
        next: &str,
    ) -> Verdict {
        // Killing the unpacker leaves the monitor alive.
        let killed = matches!(fault, Some((_, Fault::Kill))) && run.own;
        let failed = matches!(fault, Some((_, Fault::Fail(_))));
        if run.hung {
            return Err("it hung".to_owned());
        }
        match run.code {
            Some(0) | None => {}
            Some(code) if !EXITS.contains(&code) => return Err(format!("exit {code}")),
            Some(_) if !run.stdout.is_empty() => return Err("a failure with stdout".to_owned()),
            // The write of the message itself failed.
            Some(_) if run.stderr.is_empty() && is_failed_write(fault) => {}
            Some(_) if !run.stderr.starts_with("deploy-shell: ") => {
                return Err("a failure without a message".to_owned());
            }
            Some(_) => {}
        }
        // The request is correct and the release exists, so only a failure of the machine
        // may be reported. If the unpacker's pipe cannot be read, it is killed and
        // reported as dead.
        let died = run.stderr.starts_with("deploy-shell: unpacker-died: ");
        let gated = !self.gate.is_empty();
        let honest = |code: i32| match code {
            0 | 74 | 75 | 78 => true,
            69 => gated,
            code => code == 70 && died,
        };
        if let Some(code) = run.code.filter(|code| failed && !honest(*code)) {
            return Err(format!("exit {code} for a machine that failed"));
        }
        if run.code.is_none() != killed {
            return Err("it was killed, or was not".to_owned());
        }
        let live = site.current()?;
        if live.as_deref() != Some("c") && live.as_deref() != Some(self.live) {
            return Err(format!("{live:?} is live"));
        }
        let done = self.done(site)?;
        let promised = run.code == Some(0) || run.stdout.starts_with("ok ");
        if promised && !done {
            return Err("it answered ok without the effect".to_owned());
        }
        if promised && self.fails_gate {
            return Err("it answered ok for a release that fails its gate".to_owned());
        }
        // A failed automatic rollback is reported.
        let stays = run
            .stderr
            .contains("; it is still live, because the automatic rollback ");
        if !promised && !killed && done && !stays {
            return Err("it failed and has had its effect".to_owned());
        }
        site.check_sound()?;
        if !self.delta.is_empty() {
            site.check_base()?;
            if done {
                site.check_delta()?;
            }
        }

        site.ok(next)?;
        site.check_tidy()?;
        let journal = site.journal()?;
        let recorded = |event: &str, release: &str| {
            journal
                .iter()
                .any(|record| record["event"] == event && record["release"] == release)
        };
        let event = self.event();
        let release = if self.receives() { NEW } else { self.live };
        if done && !recorded(event, release) {
            return Err(format!("the journal has no record of it: {journal:?}"));
        }
        let left = run.stderr.contains("; it was live from ") || done && next.starts_with("swap ");
        if self.fails_gate && left && site.listing()?["previous"] == self.live {
            return Err("a rollback chooses a release that failed its gate".to_owned());
        }
        let live = site.current()?;
        match next.strip_prefix("swap ") {
            Some(next) if live.as_deref() != Some(next) => Err(format!("{live:?} is live")),
            None if done && live.as_deref() != Some(self.live) => {
                Err(format!("another release is live: {live:?}"))
            }
            _ if self.receives() && done && !site.releases().contains(NEW) => {
                Err("the received release is gone".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// Returns the faults to try, given the calls of a run without a fault.
    fn faults(&self, calls: &[Point], all: bool) -> Vec<(Point, Fault)> {
        let mut chosen = Vec::new();
        let (mut kills, mut errors) = (0, 0);
        // The loader runs from execve to the program's first call, umask. Failures before
        // that are the loader's to report.
        let mut loading = HashMap::from([(0, true)]);
        // The processes after the runner are the operator's commands.
        let gated = !self.gate.is_empty();
        let ours = |point: &&Point| !gated || point.thread <= 1;
        for point in calls.iter().filter(ours) {
            if point.call == libc::SYS_umask {
                loading.insert(point.thread, false);
            }
            let loads = loading.get(&point.thread) == Some(&true);
            let changes = CHANGES.contains(&point.call) && (!gated || point.thread == 0);
            // A child of a delta reads what the client and an earlier request said. If it
            // cannot, that is neither one's fault.
            let reads = !self.delta.is_empty() && point.thread > 0 && point.call == libc::SYS_read;
            // The unpacker closes a thousand descriptors that are not open.
            let skipped = loads && point.call == libc::SYS_close && point.nth > 8;
            kills += usize::from(!skipped);
            if all || changes || (!skipped && kills % self.kill_step == 0) {
                chosen.push((*point, Fault::Kill));
            }
            if !loads && tracer::may_fail(point.call) {
                errors += 1;
                if all {
                    chosen.extend(ERRORS.map(|errno| (*point, Fault::Fail(errno))));
                } else if changes || reads || errors % self.error_step == 0 {
                    let errno = ERRORS[chosen.len() % ERRORS.len()];
                    chosen.push((*point, Fault::Fail(errno)));
                    // The program makes an interrupted call again.
                    if changes && errno == Errno::EINTR {
                        chosen.push((*point, Fault::Fail(Errno::EIO)));
                    }
                }
            }
            if point.call == libc::SYS_execve {
                loading.insert(point.thread, true);
            }
        }
        chosen
    }
}

#[derive(Default)]
struct Tally {
    kills: usize,
    errors: usize,
    /// Of both: after the commit of an activation.
    pruning: usize,
    missed: usize,
    exits: BTreeMap<String, usize>,
    /// The first lines of the messages.
    messages: BTreeSet<String>,
    violations: Vec<String>,
}

/// Tries `faults` with as many threads as there are processors.
fn try_all(
    scenario: &Scenario,
    fixture: &Fixture,
    template: &Site,
    faults: &[(Point, Fault)],
    pruning: &[Point],
) -> Tally {
    let tally = Mutex::new(Tally::default());
    let turn = AtomicUsize::new(0);
    let workers = thread::available_parallelism().map_or(2, usize::from);
    thread::scope(|scope| {
        for worker in 0..workers {
            let (tally, turn) = (&tally, &turn);
            scope.spawn(move || {
                let name = format!("{}-{worker}", scenario.name);
                loop {
                    let index = turn.fetch_add(1, Ordering::Relaxed);
                    let Some((point, fault)) = faults.get(index) else {
                        return;
                    };
                    let site = scenario.prepare(fixture, template, &name);
                    let run = scenario
                        .run(&site, Some((*point, *fault)))
                        .expect("tracing works");
                    let next = match index % 2 {
                        0 => "swap z".to_owned(),
                        _ => receive_command("y"),
                    };
                    let verdict = scenario.check_run(&site, &run, Some((*point, *fault)), &next);
                    let mut tally = tally.lock().expect("no thread panics with the lock");
                    match fault {
                        Fault::Kill => tally.kills += 1,
                        Fault::Fail(_) | Fault::Skip => tally.errors += 1,
                    }
                    tally.pruning += usize::from(pruning.contains(point));
                    tally.missed += usize::from(!run.reached);
                    let end = run
                        .code
                        .map_or("killed".to_owned(), |code| code.to_string());
                    *tally.exits.entry(end).or_default() += 1;
                    let message = run.stderr.lines().next().unwrap_or_default();
                    tally.messages.insert(message.to_owned());
                    if let Err(why) = verdict {
                        tally.violations.push(format!(
                            "{}: {fault:?} at {} number {} of thread {}, then '{next}': {why}\n    \
                             exit {:?}, stdout {:?}, stderr {:?}",
                            scenario.name,
                            tracer::name(point.call),
                            point.nth,
                            point.thread,
                            run.code,
                            run.stdout,
                            run.stderr
                        ));
                    }
                }
            });
        }
    });
    tally.into_inner().expect("no thread panics with the lock")
}

/// Returns the calls after the commit of an activation and its record.
fn pruning(calls: &[Point]) -> &[Point] {
    let link = calls
        .iter()
        .position(|point| point.call == libc::SYS_renameat);
    let after = |start: usize| {
        let synced = |point: &Point| point.call == libc::SYS_fdatasync;
        calls[start..].iter().position(synced).map(|at| start + at)
    };
    match link.and_then(after) {
        Some(at) => &calls[at + 1..],
        None => &[],
    }
}

#[test]
fn no_fault_at_any_call_damages_a_site() {
    if let Err(why) = tracer::possible() {
        println!("skipped: {why}");
        return;
    }
    let fixture = Fixture::new();
    let template = template(&fixture);
    let mut violations = Vec::new();
    for scenario in scenarios() {
        if !scenario.is_chosen() {
            continue;
        }
        let site = scenario.prepare(&fixture, &template, "clean");
        let clean = scenario.run(&site, None).expect("tracing works");
        let whole = scenario.check_run(&site, &clean, None, "swap z");
        let code = if scenario.fails_gate { 69 } else { 0 };
        assert_eq!((clean.code, whole), (Some(code), Ok(())), "{clean:?}");

        let faults = scenario.faults(&clean.calls, crate::long());
        let after_commit = if scenario.receives() {
            &[]
        } else {
            pruning(&clean.calls)
        };
        let tally = try_all(&scenario, &fixture, &template, &faults, after_commit);
        println!(
            "{}: {} calls in {} threads; {} points: {} killed there, {} made to fail; {} of \
             them in the prune; {} not reached; ends {:?}; {} violations",
            scenario.name,
            clean.calls.len(),
            clean
                .calls
                .iter()
                .map(|point| point.thread)
                .max()
                .unwrap_or(0)
                + 1,
            faults.len(),
            tally.kills,
            tally.errors,
            tally.pruning,
            tally.missed,
            tally.exits,
            tally.violations.len()
        );
        // The work of each thread varies. If most points were not reached, the test would
        // show nothing.
        if tally.missed * 4 > faults.len() {
            violations.push(format!(
                "{}: {} points not reached",
                scenario.name, tally.missed
            ));
        }
        // A process that waits for its job could wait until the deadline of the request.
        for child in ["unpacker", "assembler"] {
            let unsent = format!("cannot send the {child} its job");
            if scenario.receives() && !tally.messages.iter().any(|line| line.contains(&unsent)) {
                violations.push(format!("{}: no '{unsent}'", scenario.name));
            }
        }
        violations.extend(tally.violations);
    }
    assert!(violations.is_empty(), "\n{}", violations.join("\n"));
}

/// In another order the next request would read that the release passed before it was
/// live, and not since.
#[test]
fn an_unwritten_record_is_written_before_the_next_one() {
    if let Err(why) = tracer::possible() {
        println!("skipped: {why}");
        return;
    }
    let fixture = Fixture::new();
    let template = template(&fixture);
    let known = template.journal().expect("a journal").len();
    for (name, code, events) in [
        ("swap with a gate", 0, "activating swapped proved"),
        (
            "swap and back",
            69,
            "activating swapped activating returned proved",
        ),
    ] {
        let mut all = scenarios().into_iter();
        let scenario = all.find(|it| it.name == name).expect("a scenario");
        let site = scenario.prepare(&fixture, &template, "unwritten");
        // The first one syncs the intent.
        let point = Point {
            thread: 0,
            call: libc::SYS_fdatasync,
            nth: 2,
        };
        let fault = (point, Fault::Fail(Errno::ENOSPC));
        let run = scenario.run(&site, Some(fault)).expect("tracing works");
        assert_eq!(run.code, Some(code), "{run:?}");
        assert!(run.stderr.contains("cannot append"), "{run:?}");
        let journal = site.journal().expect("a journal");
        let written = journal[known..].iter().map(|record| &record["event"]);
        let written: Vec<_> = written.filter_map(|event| event.as_str()).collect();
        assert!(written.join(" ").starts_with(events), "{written:?}");
        let listing = site.listing().expect("a listing");
        let rows = listing["releases"].as_array().expect("an array");
        let live = rows.iter().find(|row| row["state"] == "current");
        assert_eq!(live.expect("a live release")["proved"], true, "{listing}");
        site.ok("swap z").expect("swapped");
        site.check_tidy().expect("an undamaged site");
    }
}
