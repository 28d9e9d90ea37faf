//! For the tests: a site installed as the README says, as facts.

use std::path::{Path, PathBuf};

use super::authorized_keys;
use super::facts::*;
use super::forced_command::{self, Forced};
use deploy_shell::policy::Grants;
use deploy_shell::sandbox::Enforcement;

pub const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";
pub const OTHER_KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHNhbXBsZS1rZXktMS1vZi0zLXJlcGxhY2UtYnktb3du";
pub const SERVE: &str = "command=\"/usr/local/bin/deploy-shell serve blog ci\"";

/// Stands in for clap: `deploy-shell serve SITE [LABEL [VERBS]]`.
fn read(words: &[String]) -> Option<Forced> {
    Some(Forced {
        config: PathBuf::from(words.get(2)?),
        key: words.get(3).map(|label| label.parse().unwrap()),
        allow: words
            .get(4)
            .map_or(Grants::ALL, |verbs| verbs.parse().unwrap()),
    })
}

fn site(config: &Path) -> Site {
    match config.to_str() {
        Some("blog") => Site::This,
        Some("shop") => Site::Other("shop".parse().unwrap()),
        Some("odd") => Site::Unread(config.to_owned()),
        _ => Site::None(config.to_owned()),
    }
}

/// A key with these options.
pub fn key(options: &str) -> Key {
    line_key(&format!("{options} {KEY}"))
}

pub fn line_key(line: &str) -> Key {
    let line = authorized_keys::read(line).unwrap().unwrap();
    let runs = forced_command::runs(line.options.command.as_deref(), read, site);
    Key { line, runs }
}

/// A path of which every component is root's, but for those from `own` on.
pub fn way(path: &str, own: Option<&str>) -> Way {
    let path = PathBuf::from(path);
    let mut parts: Vec<&Path> = path.ancestors().collect();
    parts.reverse();
    let last = parts.len() - 1;
    let steps = parts.iter().enumerate().map(|(at, part)| Step {
        path: part.to_path_buf(),
        uid: match own.is_some_and(|own| part.starts_with(own)) {
            true => 998,
            false => 0,
        },
        mode: if at == last { 0o644 } else { 0o755 },
        kind: if at == last {
            StepKind::Other
        } else {
            StepKind::Folder
        },
    });
    Way {
        steps: steps.collect(),
        path: path.clone(),
        end: End::Reached,
    }
}

/// The drop-in of `sshd/`, as `sshd -T` prints it.
fn settings() -> Settings {
    let mut settings = Settings::default();
    for (keyword, value) in [
        ("authenticationmethods", "publickey"),
        ("authorizedkeysfile", "/etc/deploy-shell/authorized_keys/%u"),
        ("acceptenv", "DEPLOY_SHELL_ACCEPTS_NOTHING"),
        ("disableforwarding", "yes"),
        ("exposeauthinfo", "yes"),
        ("strictmodes", "yes"),
        ("subsystem", "sftp /usr/lib/openssh/sftp-server"),
        ("allowtcpforwarding", "no"),
        ("permittty", "no"),
        ("permituserrc", "no"),
        ("passwordauthentication", "no"),
        ("allowagentforwarding", "no"),
        ("x11forwarding", "no"),
        ("permittunnel", "no"),
        ("forcecommand", "none"),
    ] {
        settings
            .0
            .insert(keyword.to_owned(), vec![value.to_owned()]);
    }
    settings
}

/// A site installed as the README says, seen by root.
pub fn sound() -> Facts {
    let mut config: deploy_shell::config::Config = toml::from_str("root = \"/srv/blog\"").unwrap();
    config.site = Some("blog".parse().unwrap());
    let own = |path: &str| way(path, Some("/srv/blog"));
    Facts {
        path: PathBuf::from("/etc/deploy-shell/blog.toml"),
        config,
        places: Places {
            config: way("/etc/deploy-shell/blog.toml", None),
            signers: Some(way("/etc/deploy-shell/blog.allowed_signers", None)),
            hooks: vec![way("/usr/bin/systemctl", None)],
            root: own("/srv/blog"),
            below: vec![own("/srv/blog/releases"), own("/srv/blog/.deploy-shell")],
            shared: vec![way("/srv/blog/shared/public/uploads", Some("/srv"))],
            socket: way("/dev/log", None),
            sshd_config: vec![way("/etc/ssh/sshd_config", None)],
        },
        programs: vec![Program {
            way: way("/usr/local/bin/deploy-shell", None),
            same: true,
        }],
        account: Some(Account {
            uid: 998,
            entry: Some(Entry {
                name: "deploy".to_owned(),
                shell: PathBuf::from("/usr/local/bin/deploy-shell"),
                home: PathBuf::from("/var/lib/deploy-shell"),
            }),
            twins: Vec::new(),
            groups: vec!["deploy".to_owned()],
            password: Some(Password::Locked),
            home: HomeFolder {
                way: Some(way("/var/lib/deploy-shell", None)),
                ..HomeFolder::default()
            },
        }),
        server: Some(settings()),
        sources: vec![Source {
            way: way("/etc/deploy-shell/authorized_keys/deploy", None),
            lines: vec![Line {
                number: 3,
                key: Ok(key(&format!("restrict,{SERVE}"))),
            }],
        }],
        disk: Disk::default(),
        probe: Probe {
            unpacker: Some(Enforcement::default()),
            monitor: Some(Enforcement::default()),
            ..Probe::default()
        },
        unseen: Vec::new(),
    }
}
