//! The requests that the fault tests run, and their sites.

use std::fs;
use std::os::unix::fs::symlink;

use crate::fixture::{Fixture, Site};
use crate::payloads::{BASE, NEW, receive_command, receive_delta_command, receive_signed_command};
use crate::tracer::{self, Fault, Point, Run};

pub struct Scenario {
    pub name: &'static str,
    pub request: String,
    /// Whether the site has debris of killed processes.
    pub has_debris: bool,
    /// Whether the journal is so long that the request makes a checkpoint first.
    pub has_long_journal: bool,
    /// The release that `current` names once the request has had its effect.
    pub live: &'static str,
    /// The site's hooks and health checks. With any, faults are tried in the hook runner
    /// too.
    pub gate: &'static str,
    /// Whether `live` fails that gate.
    pub fails_gate: bool,
    /// The table with `reuse`, where the request is a delta.
    pub delta: &'static str,
    /// Whether the payload is signed, so that it is spooled.
    pub signed: bool,
    /// The number of releases that stay besides the live and the previous one. 0 prunes, and
    /// the sync of that record makes up for a missing sync of the record of the swap.
    pub keep: usize,
    /// In the short form, every nth of the calls that change nothing is tried: to kill the
    /// process there, and to let the call fail.
    pub kill_step: usize,
    pub error_step: usize,
}

/// A gate that every release passes.
const GATE: &str = r#"
[[hooks.before_swap]]
command = ["/bin/true"]
[[hooks.after_swap]]
command = ["/bin/true"]
[[hooks.before_rollback]]
command = ["/bin/true"]
[health]
command = ["/bin/true"]
"#;

/// A gate that b and d fail after the swap. A hook fails, because a hook fails at once.
const FAILING_GATE: &str = r#"
[[hooks.after_swap]]
command = ["/bin/grep", "-qv", "[bd]", "index.html"]
"#;

pub fn scenarios() -> [Scenario; 14] {
    let of = |name, request: &str, live, (kill_step, error_step)| Scenario {
        name,
        request: request.to_owned(),
        has_debris: false,
        has_long_journal: false,
        live,
        gate: "",
        fails_gate: false,
        delta: "",
        signed: false,
        keep: 0,
        kill_step,
        error_step,
    };
    let gated = |name, request, live, gate, steps| Scenario {
        gate,
        fails_gate: gate == FAILING_GATE,
        ..of(name, request, live, steps)
    };
    let delta = |name, delta| Scenario {
        delta,
        ..of(name, &receive_delta_command(), "c", (60, 60))
    };
    [
        of("swap", "swap d", "d", (8, 8)),
        Scenario {
            keep: 9,
            ..of("swap without pruning", "swap d", "d", (16, 16))
        },
        // A rollback chooses its target from what it reads.
        of("rollback", "rollback", "b", (16, 3)),
        of("receive", &receive_command(NEW), "c", (24, 24)),
        Scenario {
            signed: true,
            ..of(
                "receive a signed one",
                &receive_signed_command(),
                "c",
                (40, 40),
            )
        },
        Scenario {
            has_debris: true,
            ..of("swap after a crash", "swap d", "d", (16, 16))
        },
        Scenario {
            has_long_journal: true,
            ..of("swap with a checkpoint", "swap d", "d", (16, 8))
        },
        Scenario {
            has_long_journal: true,
            ..of(
                "receive with a checkpoint",
                &receive_command(NEW),
                "c",
                (40, 40),
            )
        },
        Scenario {
            keep: 9,
            ..gated("swap with a gate", "swap d", "d", GATE, (40, 40))
        },
        gated("rollback with a gate", "rollback", "b", GATE, (60, 60)),
        gated("swap and back", "swap d", "d", FAILING_GATE, (40, 40)),
        gated("rollback and back", "rollback", "b", FAILING_GATE, (60, 60)),
        delta("receive a delta", "[delta]\nreuse = \"clone\"\n"),
        delta("receive a delta with links", "[delta]\nreuse = \"link\"\n"),
    ]
}

/// Makes a site where a, b and c were live one after the other, and d and z are pending.
pub fn template(fixture: &Fixture) -> Site {
    let site = fixture.make("template", 100);
    for release in ["a", "b", "c", "d", "z"] {
        site.ok(&receive_command(release)).expect("received");
        if release < "d" {
            site.ok(&format!("swap {release}")).expect("swapped");
        }
    }
    site.check_tidy().expect("an undamaged site");
    site
}

/// Leaves what killed receives, prunes and swaps leave.
fn leave_debris(site: &Site) {
    let own = site.root().join(".deploy-shell");
    for directory in ["incoming/x.1.0/tree/deep", "trash/x.1/deep"] {
        fs::create_dir_all(own.join(directory)).expect("a directory");
        fs::write(own.join(directory).join("file"), "half").expect("a file");
    }
    fs::write(own.join("incoming/x.1.0/manifest"), "#mtr").expect("a file");
    fs::write(own.join("manifests/x"), "#mtree\n").expect("a file");
    for link in ["next", "back"] {
        symlink("releases/a", own.join(link)).expect("a symlink");
    }
    let journal = own.join("journal.jsonl");
    let text = fs::read_to_string(&journal).expect("a journal");
    fs::write(&journal, text + "{\"seq\":").expect("the journal");
}

impl Scenario {
    /// Returns whether the environment does not name other scenarios.
    pub fn is_chosen(&self) -> bool {
        let only = std::env::var("DEPLOY_SHELL_CRASH_ONLY");
        !only.is_ok_and(|names| names.split(',').all(|name| name != self.name))
    }

    pub fn run(&self, site: &Site, fault: Option<(Point, Fault)>) -> Result<Run, String> {
        site.require_signatures(self.signed);
        let run = self.run_as_configured(site, fault);
        // The other releases of the site are not signed.
        site.require_signatures(false);
        run
    }

    /// Runs the request, and does not change the configuration.
    pub fn run_as_configured(
        &self,
        site: &Site,
        fault: Option<(Point, Fault)>,
    ) -> Result<Run, String> {
        tracer::run(
            site.command(&self.request),
            site.stdin(&self.request),
            fault,
        )
    }

    pub fn receives(&self) -> bool {
        self.request.starts_with("receive")
    }

    /// Returns whether the request has had its effect.
    pub fn done(&self, site: &Site) -> Result<bool, String> {
        Ok(if self.receives() {
            site.releases().contains(NEW)
        } else {
            site.current()?.as_deref() == Some(self.live)
        })
    }

    /// Returns the event of the journal that says that it is done.
    pub fn event(&self) -> &'static str {
        match self.request.split(' ').next() {
            Some("receive") => "received",
            Some("rollback") => "rolled-back",
            _ => "swapped",
        }
    }

    pub fn prepare(&self, fixture: &Fixture, template: &Site, name: &str) -> Site {
        let tables = [self.gate, self.delta].concat();
        let site = fixture.copy(template, name, self.keep, &tables);
        if !self.delta.is_empty() {
            site.set_times(BASE);
        }
        if self.has_debris {
            leave_debris(&site);
        }
        if self.has_long_journal {
            // The second checkpoint has a part, and a list of used ids, to go on with.
            site.lengthen();
            site.ok("swap c").expect("a checkpoint");
            site.lengthen();
        }
        site
    }
}
