//! Each finding of the table, provoked on a site that is otherwise sound.

use std::path::PathBuf;

use super::judge;
use crate::check::facts::*;
use crate::check::findings::Word;
use crate::check::fixture::{KEY, OTHER_KEY, SERVE, key, line_key, sound, way};
use deploy_shell::error::{Code, Error};
use deploy_shell::sandbox::Mechanism;
use deploy_shell::store::shared_dir::Fault;

fn set(facts: &mut Facts, keyword: &str, value: &str) {
    let settings = facts.server.as_mut().unwrap();
    settings
        .0
        .insert(keyword.to_owned(), vec![value.to_owned()]);
}

fn account(facts: &mut Facts) -> &mut Account {
    facts.account.as_mut().unwrap()
}

fn entry(facts: &mut Facts) -> &mut Entry {
    account(facts).entry.as_mut().unwrap()
}

fn only_key(facts: &mut Facts, options: &str) {
    facts.sources[0].lines[0].key = Ok(key(options));
}

/// Another line behind the first.
fn more(facts: &mut Facts, line: &str) {
    let key = Ok(line_key(line));
    facts.sources[0].lines.push(Line { number: 4, key });
}

fn open(way: &mut Way) {
    way.steps.last_mut().unwrap().mode |= 0o002;
}

fn give(way: &mut Way) {
    way.steps.last_mut().unwrap().uid = 998;
}

fn error(problem: &str) -> Option<Error> {
    Some(Error::new(Code::BadLayout, problem).remedy("make it so"))
}

fn fault(missing: bool) -> Vec<Fault> {
    let error = error("'/srv/blog/shared/.env' is odd").unwrap();
    vec![Fault { missing, error }]
}

type Provoke = fn(&mut Facts);

/// What provokes each word, and nothing but it.
fn provocation(word: Word) -> Provoke {
    match word {
        Word::ConfigWritable => |facts| open(&mut facts.places.config),
        Word::ConfigOfAccount => |facts| give(&mut facts.places.config),
        Word::ProgramWritable => |facts| open(&mut facts.programs[0].way),
        Word::ProgramOfAccount => |facts| give(&mut facts.programs[0].way),
        Word::ProgramDiffers => |facts| facts.programs[0].same = false,
        Word::HookWritable => |facts| open(&mut facts.places.hooks[0]),
        Word::HookOfAccount => |facts| give(&mut facts.places.hooks[0]),
        Word::HookMissing => |facts| facts.places.hooks[0].end = End::Missing,
        Word::RootWritable => |facts| open(&mut facts.places.below[0]),
        Word::SharedWritable => |facts| open(&mut facts.places.shared[0]),
        Word::KeysWritable => |facts| give(&mut facts.sources[0].way),
        Word::SshdConfigWritable => |facts| open(&mut facts.places.sshd_config[0]),
        Word::AccountIsRoot => |facts| {
            account(facts).uid = 0;
            for way in &mut facts.places.below {
                way.steps.iter_mut().for_each(|step| step.uid = 0);
            }
            facts
                .places
                .root
                .steps
                .iter_mut()
                .for_each(|step| step.uid = 0);
        },
        Word::AccountUnknown => |facts| account(facts).entry = None,
        Word::SharedUid => |facts| account(facts).twins.push("web".to_owned()),
        Word::LoginShell => |facts| entry(facts).shell = PathBuf::from("/bin/bash"),
        Word::PasswordSet => |facts| account(facts).password = Some(Password::Set),
        Word::PasswordEmpty => |facts| account(facts).password = Some(Password::Empty),
        Word::PowerfulGroup => |facts| account(facts).groups.push("docker".to_owned()),
        Word::HomeWritable => |facts| give(account(facts).home.way.as_mut().unwrap()),
        Word::SshFolderWritable => |facts| {
            let folder = "/var/lib/deploy-shell/.ssh";
            account(facts).home.ssh = Some(way(folder, Some(folder)));
        },
        Word::SshRc => |facts| account(facts).home.rc = true,
        Word::SshEnvironment => |facts| account(facts).home.environment = true,
        Word::StrayKeys => |facts| {
            let path = PathBuf::from("/var/lib/deploy-shell/.ssh/authorized_keys");
            account(facts).home.keys.push(path);
        },
        Word::TcpForwarding => |facts| {
            set(facts, "disableforwarding", "no");
            set(facts, "allowtcpforwarding", "local");
        },
        Word::SocketForwarding => |facts| {
            set(facts, "disableforwarding", "no");
            set(facts, "allowstreamlocalforwarding", "yes");
        },
        Word::AgentForwarding => |facts| set(facts, "allowagentforwarding", "yes"),
        Word::X11Forwarding => |facts| set(facts, "x11forwarding", "yes"),
        Word::Tunnel => |facts| set(facts, "permittunnel", "point-to-point"),
        Word::GatewayPorts => |facts| set(facts, "gatewayports", "clientspecified"),
        Word::UserRc => |facts| set(facts, "permituserrc", "yes"),
        Word::UserEnvironment => |facts| set(facts, "permituserenvironment", "LANG"),
        Word::Terminal => |facts| set(facts, "permittty", "yes"),
        Word::PasswordLogin => |facts| {
            set(facts, "authenticationmethods", "publickey password");
            set(facts, "passwordauthentication", "yes");
        },
        Word::KeyboardInteractive => |facts| {
            set(facts, "authenticationmethods", "any");
            set(facts, "kbdinteractiveauthentication", "yes");
        },
        Word::EmptyPasswords => |facts| {
            set(facts, "authenticationmethods", "any");
            set(facts, "permitemptypasswords", "yes");
        },
        Word::HostBased => |facts| {
            set(facts, "authenticationmethods", "any");
            set(facts, "hostbasedauthentication", "yes");
        },
        Word::Gssapi => |facts| {
            set(facts, "authenticationmethods", "any");
            set(facts, "gssapiauthentication", "yes");
        },
        Word::Kerberos => |facts| {
            set(facts, "authenticationmethods", "any");
            set(facts, "kerberosauthentication", "yes");
        },
        Word::UserCa => |facts| set(facts, "trustedusercakeys", "/etc/ssh/ca.pub"),
        Word::KeysCommand => |facts| set(facts, "authorizedkeyscommand", "/usr/bin/keys"),
        Word::PrincipalsFile => |facts| set(facts, "authorizedprincipalsfile", "/etc/ssh/%u"),
        Word::PrincipalsCommand => {
            |facts| set(facts, "authorizedprincipalscommand", "/usr/bin/principals")
        }
        Word::AcceptEnv => |facts| set(facts, "acceptenv", "LC_*"),
        Word::ForceCommand => |facts| set(facts, "forcecommand", "/usr/bin/true"),
        Word::AuthInfo => |facts| set(facts, "exposeauthinfo", "no"),
        Word::StrictModes => |facts| set(facts, "strictmodes", "no"),
        Word::SftpReachable => |facts| {
            only_key(facts, "restrict");
            set(facts, "subsystem", "sftp internal-sftp");
        },
        Word::KeyUnread => |facts| facts.sources[0].lines[0].key = Err("is odd"),
        Word::KeyWithoutRestrict => |facts| {
            let nothing =
                "no-port-forwarding,no-agent-forwarding,no-x11-forwarding,no-pty,no-user-rc";
            only_key(facts, &format!("{nothing},{SERVE}"));
        },
        Word::KeyWithoutCommand => |facts| only_key(facts, "restrict"),
        Word::OtherProgram => |facts| only_key(facts, "restrict,command=\"/usr/bin/rrsync /srv\""),
        Word::NotServe => |facts| {
            only_key(
                facts,
                "restrict,command=\"/usr/local/bin/deploy-shell verify blog\"",
            )
        },
        Word::Obscure => |facts| {
            only_key(
                facts,
                "restrict,command=\"/usr/local/bin/deploy-shell serve blog $X\"",
            );
        },
        Word::CommandWithoutPath => |facts| {
            only_key(facts, "restrict,command=\"deploy-shell serve blog ci\"");
            entry(facts).shell = PathBuf::from("/bin/sh");
        },
        Word::KeyWithoutLabel => |facts| {
            only_key(
                facts,
                "restrict,command=\"/usr/local/bin/deploy-shell serve blog\"",
            )
        },
        Word::KeyPortForwarding => {
            |facts| only_key(facts, &format!("restrict,port-forwarding,{SERVE}"))
        }
        Word::KeyAgentForwarding => {
            |facts| only_key(facts, &format!("restrict,agent-forwarding,{SERVE}"))
        }
        Word::KeyX11Forwarding => {
            |facts| only_key(facts, &format!("restrict,X11-forwarding,{SERVE}"))
        }
        Word::KeyTerminal => |facts| only_key(facts, &format!("restrict,pty,{SERVE}")),
        Word::KeyUserRc => |facts| only_key(facts, &format!("restrict,user-rc,{SERVE}")),
        Word::KeyPermitOpen => {
            |facts| only_key(facts, &format!("restrict,permitopen=\"h:1\",{SERVE}"))
        }
        Word::KeyPermitListen => {
            |facts| only_key(facts, &format!("restrict,permitlisten=\"1\",{SERVE}"))
        }
        Word::KeyTunnel => |facts| only_key(facts, &format!("restrict,tunnel=\"0\",{SERVE}")),
        Word::KeyEnvironment => {
            |facts| only_key(facts, &format!("restrict,environment=\"A=1\",{SERVE}"))
        }
        Word::KeyCertAuthority => {
            |facts| only_key(facts, &format!("restrict,cert-authority,{SERVE}"))
        }
        Word::KeyNoTouch => |facts| only_key(facts, &format!("restrict,no-touch-required,{SERVE}")),
        Word::WeakRsa => |facts| {
            let key = facts.sources[0].lines[0].key.as_mut().unwrap();
            (key.line.kind, key.line.bits) = ("ssh-rsa", Some(2048));
        },
        Word::DsaKey => |facts| {
            let key = facts.sources[0].lines[0].key.as_mut().unwrap();
            (key.line.kind, key.line.bits) = ("ssh-dss", Some(1024));
        },
        Word::KeyTwice => |facts| more(facts, &format!("restrict,{SERVE} {KEY}")),
        Word::KeyTwiceOtherwise => |facts| {
            more(
                facts,
                &format!("restrict,{} {KEY}", SERVE.replace("ci", "ci list")),
            )
        },
        Word::LabelShared => |facts| more(facts, &format!("restrict,{SERVE} {OTHER_KEY}")),
        Word::AuditOptional => |facts| facts.config.audit.required = false,
        Word::AuditUnreachable => |facts| facts.probe.socket = Some("no such file".to_owned()),
        Word::AuditReplaceable => |facts| {
            let way = &mut facts.places.socket;
            let folder = way.steps.len() - 2;
            way.steps[folder].mode = 0o777;
        },
        Word::SandboxOptional => |facts| facts.config.sandbox.required = false,
        Word::MonitorUnconfined => {
            |facts| facts.probe.monitor = Some([Mechanism::Landlock].into_iter().collect())
        }
        Word::UnpackerUnconfined => |facts| {
            facts.probe.unpacker = Some(
                [Mechanism::ResourceLimits, Mechanism::Seccomp]
                    .into_iter()
                    .collect(),
            )
        },
        Word::NoReserve => |facts| {
            facts.config.limits.reserve = String::from("0%").try_into().unwrap();
        },
        Word::NetworkFileSystem => |facts| facts.disk.network = Some("nfs"),
        Word::SeveralFileSystems => |facts| facts.disk.elsewhere.push("/srv/blog/releases".into()),
        Word::CaseFolding => |facts| facts.disk.folding.push("/srv/blog/releases".into()),
        Word::NoUnnamedFiles => |facts| facts.probe.unnamed = Some("not supported".to_owned()),
        Word::ConfigUnreadable => |facts| facts.probe.config = error("cannot be read"),
        Word::Layout => |facts| facts.probe.layout = error("'/srv/blog' is odd"),
        Word::SharedMissing => |facts| facts.probe.shared = fault(true),
        Word::SharedUnsafe => |facts| facts.probe.shared = fault(false),
    }
}

#[test]
fn a_site_as_the_readme_makes_it_has_no_findings() {
    assert_eq!(judge(&sound()), []);
}

#[test]
fn each_finding_is_provoked_by_what_it_is_about() {
    for word in Word::ALL {
        let mut facts = sound();
        provocation(*word)(&mut facts);
        let found: Vec<Word> = judge(&facts).iter().map(|finding| finding.word).collect();
        // These do not come alone: what provokes them is a finding in itself.
        let with = match word {
            Word::SftpReachable => vec![Word::KeyWithoutCommand, Word::SftpReachable],
            Word::CommandWithoutPath => vec![Word::LoginShell, Word::CommandWithoutPath],
            word => vec![*word],
        };
        assert_eq!(found, with, "{word}");
    }
}

#[test]
fn the_list_of_signers_counts_as_configuration() {
    let found = |change: fn(&mut Way)| {
        let mut facts = sound();
        change(facts.places.signers.as_mut().unwrap());
        let found = judge(&facts);
        assert!(
            found
                .iter()
                .all(|finding| finding.subject.ends_with("allowed_signers"))
        );
        found.iter().map(|finding| finding.word).collect::<Vec<_>>()
    };
    assert_eq!(found(open), [Word::ConfigWritable]);
    assert_eq!(found(give), [Word::ConfigOfAccount]);
}

#[test]
fn a_finding_is_one_line_and_names_no_placeholder() {
    for word in Word::ALL {
        let mut facts = sound();
        provocation(*word)(&mut facts);
        for finding in judge(&facts) {
            for text in [finding.problem.clone(), finding.remedy()] {
                assert!(
                    !text.is_empty() && !text.contains(['\n', '{', '}']),
                    "{text}"
                );
                assert!(!text.ends_with('.'), "{text}");
            }
        }
    }
}

#[test]
fn a_key_of_another_site_is_no_finding() {
    for site in ["shop", "none", "odd"] {
        let mut facts = sound();
        only_key(
            &mut facts,
            &format!("restrict,{}", SERVE.replace("blog", site)),
        );
        assert_eq!(judge(&facts), [], "{site}");
    }
}

#[test]
fn what_is_unseen_is_no_finding() {
    let mut facts = sound();
    facts.server = None;
    facts.probe = Probe::default();
    account(&mut facts).password = None;
    facts.unseen.push("a thing".to_owned());
    assert_eq!(judge(&facts), []);
    facts.account = None;
    facts.sources.clear();
    assert_eq!(judge(&facts), []);
}

#[test]
fn every_allowance_of_a_bare_key_is_named() {
    let mut facts = sound();
    only_key(&mut facts, SERVE);
    let found: Vec<Word> = judge(&facts).iter().map(|finding| finding.word).collect();
    let expected = [
        Word::KeyWithoutRestrict,
        Word::KeyPortForwarding,
        Word::KeyAgentForwarding,
        Word::KeyX11Forwarding,
        Word::KeyTerminal,
        Word::KeyUserRc,
    ];
    assert_eq!(found, expected);
}
