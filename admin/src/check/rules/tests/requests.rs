//! Provokes the findings about the way of a request, and about what is on disk.

use super::{Provoke, account, directory, set_setting};
use crate::bridge::BridgeState;
use crate::check::facts::*;
use crate::check::findings::FindingCode;
use deploy_shell::config::Config;
use deploy_shell::error::{Code, Error};
use deploy_shell::names::ReleaseId;

pub fn release(id: &str) -> ReleaseId {
    ReleaseId::try_from(id).unwrap()
}

/// Returns what is in `releases/` of a site with these two releases, of which `r1` is live.
pub fn releases() -> Releases {
    Releases {
        current: Current::Release {
            release: release("r1"),
            has_directory: true,
            has_manifest: true,
        },
        not_received: Vec::new(),
        without_manifest: Vec::new(),
        other_links: Vec::new(),
        had_swaps: false,
        journal_missing: false,
        fallback: Some(release("r0")),
    }
}

pub fn set_current(facts: &mut Facts, current: Current) {
    let releases = releases();
    facts.probe.releases = Some(Releases {
        current,
        ..releases
    });
}

fn live(facts: &mut Facts, has_directory: bool, has_manifest: bool) {
    let release = release("r1");
    let current = Current::Release {
        release,
        has_directory,
        has_manifest,
    };
    set_current(facts, current);
}

pub fn block(facts: &mut Facts, path: &str, at: &str) {
    facts.probe.blocked.push(Blocked {
        path: path.into(),
        at: directory(at, None),
        directory: path != at,
    });
}

pub fn unusable(facts: &mut Facts, path: &str, uid: u32) {
    facts.probe.unusable.push(Unusable {
        path: path.into(),
        uid,
        fault: UnusableFault::Denied,
    });
}

pub fn journal(facts: &mut Facts, is_newer: bool) {
    let error = Error::new(Code::BadLayout, "the journal is odd");
    facts.probe.journal = Some(JournalFault { is_newer, error });
}

fn configure_bridge(facts: &mut Facts, hooks: &str) {
    let text = format!("root = \"/srv/blog\"\n[bridge]\npaths = [\"assets\"]\n{hooks}\n");
    let config: Config = toml::from_str(&text).unwrap();
    (facts.config.bridge, facts.config.hooks) = (config.bridge, config.hooks);
}

/// Makes a directory of the site a symlink.
fn make_symlink(path: &mut ResolvedPath) {
    path.components.last_mut().unwrap().kind = ComponentKind::Symlink;
}

/// Returns the change that provokes this code.
pub fn provocation(code: FindingCode) -> Provoke {
    match code {
        FindingCode::LoginRefused => |facts| set_setting(facts, "allowusers", "root"),
        FindingCode::AccountLocked => {
            |facts| account(facts).password = Some(PasswordState::AccountLocked)
        }
        FindingCode::AccountExpired => |facts| {
            account(facts).aging = Some(Aging {
                today: 20_001,
                expires: Some(20_000),
                ..Aging::default()
            });
        },
        FindingCode::NoKey => |facts| facts.keys_files[0].lines.clear(),
        FindingCode::KeysUnreadable => |facts| {
            let path = "/etc/deploy-shell/authorized_keys/deploy";
            block(facts, path, path);
        },
        FindingCode::ProgramBlocked => |facts| {
            let path = "/usr/local/bin/deploy-shell";
            block(facts, path, path);
        },
        FindingCode::HomeMissing => |facts| {
            account(facts).home = HomeDirectory {
                is_missing: true,
                ..HomeDirectory::default()
            };
        },
        FindingCode::HomeBlocked => |facts| block(facts, "/var/lib/deploy-shell", "/var/lib"),
        FindingCode::DropInMissing => |facts| {
            for (keyword, value) in [
                ("acceptenv", "LANG"),
                ("permittty", "yes"),
                ("permituserrc", "yes"),
                ("x11forwarding", "yes"),
            ] {
                set_setting(facts, keyword, value);
            }
        },
        FindingCode::RootMissing => |facts| {
            facts.account = None;
            facts.keys_files.clear();
            facts.paths.root.resolution = Resolution::Missing;
        },
        FindingCode::SiteIncomplete => {
            |facts| facts.paths.directories[1].resolution = Resolution::Missing
        }
        FindingCode::LayoutSymlink => |facts| make_symlink(&mut facts.paths.directories[0]),
        FindingCode::NotOwned => |facts| {
            let releases = &mut facts.paths.directories[0];
            releases.components.last_mut().unwrap().uid = 0;
        },
        FindingCode::RootNotWritable => |facts| unusable(facts, "/srv/blog", 0),
        FindingCode::StateUnusable => {
            |facts| unusable(facts, "/srv/blog/.deploy-shell/journal.jsonl", 0)
        }
        FindingCode::CurrentNotSymlink => |facts| set_current(facts, Current::Directory),
        FindingCode::CurrentElsewhere => |facts| {
            let target = "/srv/blog/releases/5".to_owned();
            let current = Current::Elsewhere {
                target,
                leads_somewhere: true,
                leads_to_release: Some((release("5"), false)),
            };
            set_current(facts, current);
        },
        FindingCode::LiveMissing => |facts| live(facts, false, false),
        FindingCode::LiveWithoutManifest => |facts| live(facts, true, false),
        FindingCode::NotReceived => |facts| {
            let not_received = vec!["hand1".to_owned()];
            facts.probe.releases = Some(Releases {
                not_received,
                ..releases()
            });
        },
        FindingCode::ManifestMissing => |facts| {
            let without_manifest = vec![release("r2")];
            facts.probe.releases = Some(Releases {
                without_manifest,
                ..releases()
            });
        },
        FindingCode::OtherSymlink => |facts| {
            let other_links = vec![("old".into(), release("r0"))];
            facts.probe.releases = Some(Releases {
                other_links,
                ..releases()
            });
        },
        FindingCode::JournalNewer => |facts| journal(facts, true),
        FindingCode::JournalDamaged => |facts| journal(facts, false),
        FindingCode::JournalMissing => |facts| {
            facts.probe.releases = Some(Releases {
                journal_missing: true,
                ..releases()
            });
        },
        FindingCode::BelowReserve => |facts| {
            let error = Error::new(Code::DiskFull, "not enough space");
            facts.probe.room = Some(Err(error));
        },
        FindingCode::BridgeNotBuilt => |facts| {
            configure_bridge(facts, "");
            facts.probe.bridge = Some(BridgeState::Stale);
        },
        FindingCode::BridgeStale => |facts| {
            let program = "/usr/bin/deploy-shell-admin";
            let command = format!("command = [\"{program}\", \"bridge\", \"--site\", \"blog\"]");
            configure_bridge(facts, &format!("[[hooks.after_swap]]\n{command}"));
            facts.probe.bridge = Some(BridgeState::Stale);
        },
        FindingCode::BridgeForeign => |facts| {
            let error = Error::new(Code::BadLayout, "'/srv/blog/bridge' is not a symlink");
            let error = error.remedy("move it away: deploy-shell-admin run --site blog -- mv a b");
            facts.probe.bridge = Some(BridgeState::Foreign(error));
        },
        code => panic!("no provocation of {code}"),
    }
}
