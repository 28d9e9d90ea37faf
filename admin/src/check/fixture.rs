//! For the tests: the facts of a site installed as the README says.

use std::path::{Path, PathBuf};

use super::authorized_keys::parse_key_line;
use super::facts::*;
use super::forced_command::classify_command;
use deploy_shell::config::Config;
use deploy_shell::sandbox::Enforcement;

pub const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";
pub const OTHER_KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHNhbXBsZS1rZXktMS1vZi0zLXJlcGxhY2UtYnktb3du";
pub const SERVE: &str = "command=\"/usr/local/bin/deploy-shell serve --site blog --key ci\"";

/// Replaces the configurations in /etc/deploy-shell.
fn site_of(config: &Path) -> ServedSite {
    match config.file_stem().and_then(|name| name.to_str()) {
        Some("blog") => ServedSite::This,
        Some("shop") => ServedSite::Other("shop".parse().unwrap()),
        Some("odd") => ServedSite::Unreadable(config.to_owned()),
        _ => ServedSite::Missing(config.to_owned()),
    }
}

/// Returns [`KEY`] with these options.
pub fn key(options: &str) -> Key {
    key_of_line(&format!("{options} {KEY}"))
}

pub fn key_of_line(line: &str) -> Key {
    let entry = parse_key_line(line).unwrap().unwrap();
    let command = classify_command(entry.options.command.as_deref(), site_of);
    Key { entry, command }
}

/// Returns a path whose components belong to root, up to `own`, and to the account
/// from there on.
pub fn resolved(path: &str, own: Option<&str>) -> ResolvedPath {
    let path = PathBuf::from(path);
    let mut parts: Vec<&Path> = path.ancestors().collect();
    parts.reverse();
    let component = |part: &&Path| {
        let last = *part == path;
        PathComponent {
            path: part.to_path_buf(),
            uid: if own.is_some_and(|own| part.starts_with(own)) {
                998
            } else {
                0
            },
            mode: if last { 0o644 } else { 0o755 },
            kind: if last {
                ComponentKind::Other
            } else {
                ComponentKind::Directory
            },
        }
    };
    ResolvedPath {
        components: parts.iter().map(component).collect(),
        path: path.clone(),
        resolution: Resolution::Complete,
    }
}

/// Returns the path of a directory, as [`resolved`] does that of a file.
pub fn directory(path: &str, own: Option<&str>) -> ResolvedPath {
    let mut found = resolved(path, own);
    if let Some(last) = found.components.last_mut() {
        (last.kind, last.mode) = (ComponentKind::Directory, 0o755);
    }
    found
}

pub fn set_setting(facts: &mut Facts, keyword: &str, value: &str) {
    let settings = facts.sshd.as_mut().unwrap();
    settings
        .0
        .insert(keyword.to_owned(), vec![value.to_owned()]);
}

/// The drop-in of `sshd/`, as `sshd -T` prints it.
const DROP_IN: [(&str, &str); 15] = [
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
];

/// Returns the facts of a sound site, as root sees them.
pub fn sound() -> Facts {
    let mut config: Config = toml::from_str("root = \"/srv/blog\"").unwrap();
    config.site = Some("blog".parse().unwrap());
    config.file = PathBuf::from("/etc/deploy-shell/blog.toml");
    let root = |path: &str| resolved(path, None);
    let own = |path: &str| directory(path, Some("/srv/blog"));
    let mut facts = Facts {
        config_path: PathBuf::from("/etc/deploy-shell/blog.toml"),
        config,
        paths: SitePaths {
            config: root("/etc/deploy-shell/blog.toml"),
            signers: Some(root("/etc/deploy-shell/blog.allowed_signers")),
            hooks: vec![root("/usr/bin/systemctl")],
            root: own("/srv/blog"),
            current: own("/srv/blog/current"),
            directories: vec![own("/srv/blog/releases"), own("/srv/blog/.deploy-shell")],
            shared: vec![resolved("/srv/blog/shared/public/uploads", Some("/srv"))],
            socket: root("/dev/log"),
            sshd_config: vec![root("/etc/ssh/sshd_config")],
        },
        program: PathBuf::from("/usr/local/bin/deploy-shell"),
        programs: vec![InstalledProgram {
            location: root("/usr/local/bin/deploy-shell"),
            differs: false,
        }],
        account: Some(Account {
            uid: 998,
            passwd: Some(PasswdEntry {
                name: "deploy".to_owned(),
                gid: 998,
                shell: PathBuf::from("/usr/local/bin/deploy-shell"),
                home: PathBuf::from("/var/lib/deploy-shell"),
            }),
            uid_aliases: Vec::new(),
            groups: vec!["deploy".to_owned()],
            password: Some(PasswordState::Locked),
            aging: Some(Aging::default()),
            home: HomeDirectory {
                location: Some(directory("/var/lib/deploy-shell", None)),
                ..HomeDirectory::default()
            },
        }),
        sshd: Some(SshdSettings::default()),
        sshd_failure: None,
        certificates: Certificates::default(),
        keys_files: vec![KeysFile {
            location: root("/etc/deploy-shell/authorized_keys/deploy"),
            was_read: true,
            lines: vec![KeysFileLine {
                number: 3,
                key: Ok(key(&format!("restrict,{SERVE}"))),
            }],
        }],
        nologin_files: Vec::new(),
        system_rc: None,
        filesystem: Filesystem::default(),
        reader: None,
        delegated_cgroup: false,
        probe: AccountProbe {
            unpacker: Some(Enforcement::from_iter([])),
            monitor: Some(Enforcement::from_iter([])),
            ..AccountProbe::default()
        },
        not_checked: Vec::new(),
    };
    for (keyword, value) in DROP_IN {
        set_setting(&mut facts, keyword, value);
    }
    facts
}
