//! The requests that faults are tried at, and the sites they are made to.

use std::fs;
use std::os::unix::fs::symlink;

use crate::ground::{Ground, NEW, Site, receive_command};

pub struct Scenario {
    pub name: &'static str,
    pub request: String,
    /// Whether a process has died in the site before.
    pub strewn: bool,
    /// What the link says once the request has done its work.
    pub live: &'static str,
    /// The site's hooks and health; with any, the runner of those is a process
    /// to be hit as well.
    pub gate: &'static str,
    /// Whether `live` fails that gate.
    pub sick: bool,
    /// Every so-manyth of the calls that change nothing is one to die at, or
    /// to fail, in the short form.
    pub kill_step: usize,
    pub error_step: usize,
}

/// A gate that all pass.
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

/// A gate that neither b nor d passes once it is live. A hook is what fails,
/// because it fails at once.
const SICK: &str = r#"
[[hooks.after_swap]]
command = ["/bin/grep", "-qv", "[bd]", "index.html"]
"#;

pub fn scenarios() -> [Scenario; 8] {
    let of = |name, request: &str, live, (kill_step, error_step)| Scenario {
        name,
        request: request.to_owned(),
        strewn: false,
        live,
        gate: "",
        sick: false,
        kill_step,
        error_step,
    };
    let gated = |name, request, live, gate, steps| Scenario {
        gate,
        sick: gate == SICK,
        ..of(name, request, live, steps)
    };
    [
        of("swap", "swap d", "d", (4, 4)),
        // Of what a rollback reads, it chooses where to go.
        of("rollback", "rollback", "b", (8, 1)),
        of("receive", &receive_command(NEW), "c", (12, 12)),
        Scenario {
            strewn: true,
            ..of("swap after a crash", "swap d", "d", (16, 16))
        },
        gated("swap with a gate", "swap d", "d", GATE, (40, 40)),
        gated("rollback with a gate", "rollback", "b", GATE, (60, 60)),
        gated("swap and back", "swap d", "d", SICK, (40, 40)),
        gated("rollback and back", "rollback", "b", SICK, (60, 60)),
    ]
}

/// A site where a, b and c have been live one after the other, and d and z are
/// pending.
pub fn template(ground: &Ground) -> Site {
    let site = ground.make("template", 100);
    for release in ["a", "b", "c", "d", "z"] {
        site.ok(&receive_command(release)).expect("received");
        if release < "d" {
            site.ok(&format!("swap {release}")).expect("swapped");
        }
    }
    site.tidy().expect("a site that nothing happened to");
    site
}

/// As processes leave it that died receiving, pruning and swapping.
fn strew(site: &Site) {
    let own = site.root().join(".deploy-shell");
    for folder in ["incoming/x.1.0/tree/deep", "trash/x.1/deep"] {
        fs::create_dir_all(own.join(folder)).expect("a folder");
        fs::write(own.join(folder).join("file"), "half").expect("a file");
    }
    fs::write(own.join("incoming/x.1.0/manifest"), "#mtr").expect("a file");
    fs::write(own.join("manifests/x"), "#mtree\n").expect("a file");
    for link in ["next", "back"] {
        symlink("releases/a", own.join(link)).expect("a link");
    }
    let journal = own.join("journal.jsonl");
    let text = fs::read_to_string(&journal).expect("a journal");
    fs::write(&journal, text + "{\"seq\":").expect("the journal");
}

impl Scenario {
    pub fn prepare(&self, ground: &Ground, template: &Site, name: &str) -> Site {
        // Nothing is kept, so that an activation prunes.
        let site = ground.copy(template, name, 0, self.gate);
        if self.strewn {
            strew(&site);
        }
        site
    }
}
