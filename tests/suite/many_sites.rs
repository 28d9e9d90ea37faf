//! Eight sites on one host: one program, one account, one configuration for each
//! site, and keys that are limited to their site.

use std::fs;
use std::thread;

use serde_json::Value;

use crate::archive::tarball;
use crate::direct::record;
use crate::fields::Fields;
use crate::gating::{appears, gate_failed, touch};
use crate::operator::{init, take_back};
use crate::site::{Reply, Site, admin, generate_key, write_file};

const COUNT: usize = 8;

/// A host that uses the sshd, the keys and the audit socket of one [`Site`].
struct Host {
    site: Site,
}

fn name(number: usize) -> String {
    format!("site{number}")
}

impl Host {
    fn new(count: usize) -> Host {
        let host = Host { site: Site::new() };
        let dir = host.site.dir().to_str().expect("a plain path");
        let mut keys = String::new();
        for number in 0..count {
            let name = name(number);
            // As an operator does it: `init` creates the directories, and `authorize`
            // prints the line for the key.
            fs::create_dir(host.root(number)).expect("a directory");
            let config = format!("{dir}/{name}.toml");
            host.site
                .run(init(config.as_ref(), &host.root(number)), b"")
                .ok();
            take_back(&host.root(number));
            let text = format!(
                "root = \"{dir}/{name}\"\n\
                 [[hooks.before_swap]]\n\
                 command = [\"/bin/sh\", \"-c\", \"echo $DEPLOY_SITE $DEPLOY_RELEASE >> {dir}/{name}.log\"]\n\
                 [[hooks.after_swap]]\n\
                 command = [\"/bin/grep\", \"-qx\", \"{name}\", \"index.html\"]\n\
                 [health]\ncommand = [\"/usr/bin/test\", \"-e\", \"id\"]\n\
                 [audit]\nsocket = \"{dir}/audit.socket\"\n"
            );
            write_file(config.as_ref(), 0o644, text.as_bytes());
            let public = host.site.dir().join(format!("key-{name}.pub"));
            generate_key(&public.with_extension(""));
            let public = public.to_str().expect("a plain path");
            keys += &host.operator(&["authorize", "--config", &config, "--key", &name, public]);
        }
        write_file(
            &host.site.dir().join("authorized_keys"),
            0o644,
            keys.as_bytes(),
        );
        host
    }

    fn root(&self, number: usize) -> std::path::PathBuf {
        self.site.dir().join(name(number))
    }

    fn operator(&self, arguments: &[&str]) -> String {
        let mut command = std::process::Command::new(admin());
        command.args(arguments);
        self.site.run(command, b"").ok()
    }

    fn request(&self, key: usize, request: &str) -> Reply {
        self.site.ssh(&name(key), request)
    }

    /// Sends a release whose page names `site`, with the key of site `key`.
    fn receive(&self, key: usize, release: &str, site: usize) -> Reply {
        let page = format!("{}\n", name(site));
        let payload = tarball(&[("index.html", page.as_bytes()), ("id", release.as_bytes())]);
        let request = Site::receive_command(release, &payload);
        self.site.ssh_with_input(&name(key), &request, &payload)
    }

    fn listing(&self, number: usize) -> Value {
        let text = self.request(number, "list --json").ok();
        serde_json::from_str(&text).expect("JSON")
    }

    fn current(&self, number: usize) -> Option<String> {
        let target = fs::read_link(self.root(number).join("current")).ok()?;
        Some(target.to_str().expect("a plain symlink").to_owned())
    }

    fn hooks(&self, number: usize) -> Vec<String> {
        let path = self.site.dir().join(format!("{}.log", name(number)));
        let text = fs::read_to_string(path).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

#[test]
fn each_key_reaches_its_site_and_no_other() {
    let host = Host::new(COUNT);
    // All eight deploy twice at the same time, and one rolls back.
    thread::scope(|scope| {
        for number in 0..COUNT {
            let host = &host;
            scope.spawn(move || {
                for release in ["r1", "r2"] {
                    host.receive(number, release, number).ok();
                    host.request(number, &format!("swap {release}")).ok();
                }
            });
        }
    });
    for number in 0..COUNT {
        assert_eq!(host.current(number).as_deref(), Some("releases/r2"));
        let name = name(number);
        let ran = host.hooks(number);
        assert_eq!(ran, [format!("{name} r1"), format!("{name} r2")]);
        let listing = host.listing(number);
        assert_eq!(listing["site"], name.as_str());
        assert_eq!(listing["releases"].as_array().map(Vec::len), Some(2));
    }
    host.request(3, "rollback").ok();
    for number in 0..COUNT {
        let expected = if number == 3 {
            "releases/r1"
        } else {
            "releases/r2"
        };
        assert_eq!(host.current(number).as_deref(), Some(expected), "{number}");
    }

    // The page of another site fails this site's hook, and changes nothing there.
    host.receive(5, "r3", 4).ok();
    host.request(4, "swap r3").refused(66, "no-such-release");
    gate_failed(&host.request(5, "swap r3"));
    for number in [4, 5] {
        assert_eq!(host.current(number).as_deref(), Some("releases/r2"));
    }

    // The audit has the name and the key of each site.
    for line in record(&host.site) {
        let fields = Fields::read(&line);
        let site = fields.get("site").expect("a site");
        fields.has(&[("key", site)]);
        assert!(site.starts_with("site"), "{line}");
    }
}

#[test]
fn no_request_reaches_another_site() {
    let host = Host::new(2);
    for number in [0, 1] {
        host.receive(number, "r1", number).ok();
        host.request(number, "swap r1").ok();
    }
    host.receive(1, "r2", 1).ok();
    let journal = |number: usize| {
        let path = host.root(number).join(".deploy-shell/journal.jsonl");
        fs::read(path).expect("a journal")
    };
    let before = journal(1);
    // A release that only the other site has.
    host.request(0, "swap r2").refused(66, "no-such-release");
    host.request(0, "rollback r2")
        .refused(66, "no-such-release");
    for request in [
        "swap ../site1/releases/r2",
        "swap r2 --site site1",
        "serve --config site1.toml",
        "list --site site1",
        "list site1",
    ] {
        host.request(0, request).refused(64, "bad-request");
    }
    // The client cannot name the site in the environment either.
    let mut command = host.site.ssh_command(&name(0));
    let spoof = "SetEnv=DEPLOY_SITE=site1 SSH_ORIGINAL_COMMAND=rollback";
    command.args(["-o", spoof, "--", "list --json"]);
    let text = host.site.run(command, b"").ok();
    let listing: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(listing["site"], "site0");
    assert!(journal(1) == before);
    assert_eq!(host.current(1).as_deref(), Some("releases/r1"));
}

/// A hook that runs under the lock of one site delays no other site.
#[test]
fn a_hook_of_one_site_delays_no_other_site() {
    let host = Host::new(2);
    let dir = host.site.dir().to_str().expect("a plain path");
    let script = format!("touch {dir}/begun; until [ -e {dir}/go ]; do sleep 0.05; done");
    let text = format!(
        "root = \"{dir}/site0\"\n[[hooks.before_swap]]\n\
         command = [\"/bin/sh\", \"-c\", \"{script}\"]\n\
         [audit]\nsocket = \"{dir}/audit.socket\"\n"
    );
    write_file(&host.site.dir().join("site0.toml"), 0o644, text.as_bytes());
    host.receive(0, "r1", 0).ok();
    thread::scope(|scope| {
        let slow = scope.spawn(|| host.request(0, "swap r1"));
        appears(&host.site, "begun");
        host.receive(1, "r1", 1).ok();
        host.request(1, "swap r1").ok();
        assert!(!slow.is_finished());
        touch(&host.site, "go");
        slow.join().expect("it ends").ok();
    });
}
