//! Provokes each finding of the table on a site that is otherwise sound.

mod causes;
mod login;
mod requests;

use std::path::PathBuf;

use super::all_findings;
use crate::check::authorized_keys::AuthorizedKey;
use crate::check::facts::*;
use crate::check::findings::FindingCode;
use crate::check::fixture::{
    KEY, OTHER_KEY, SERVE, directory, key, key_of_line, resolved, set_setting, sound,
};
use deploy_shell::error::{Code, Error};
use deploy_shell::names::ReleaseId;
use deploy_shell::sandbox::Mechanism;
use deploy_shell::store::shared_dir::Fault;

fn account(facts: &mut Facts) -> &mut Account {
    facts.account.as_mut().unwrap()
}

fn passwd(facts: &mut Facts) -> &mut PasswdEntry {
    account(facts).passwd.as_mut().unwrap()
}

fn only_key(facts: &mut Facts, options: &str) {
    facts.keys_files[0].lines[0].key = Ok(key(options));
}

fn only_entry(facts: &mut Facts) -> &mut AuthorizedKey {
    let key = facts.keys_files[0].lines[0].key.as_mut();
    &mut key.unwrap().entry
}

/// Adds a line after the first.
fn add_line(facts: &mut Facts, line: &str) {
    let key = Ok(key_of_line(line));
    let line = KeysFileLine { number: 4, key };
    facts.keys_files[0].lines.push(line);
}

/// Replaces the forced command's arguments after "serve".
fn only_serve(facts: &mut Facts, arguments: &str) {
    let serve = SERVE.replace("--site blog --key ci", arguments);
    only_key(facts, &format!("restrict,{serve}"));
}

fn make_writable(path: &mut ResolvedPath) {
    path.components.last_mut().unwrap().mode |= 0o002;
}

fn give_to_account(path: &mut ResolvedPath) {
    path.components.last_mut().unwrap().uid = 998;
}

fn error(problem: &str) -> Option<Error> {
    Some(Error::new(Code::BadLayout, problem).remedy("repair it"))
}

fn fault(missing: bool) -> Vec<Fault> {
    let error = error("'/srv/blog/shared/.env' is odd").unwrap();
    vec![Fault { missing, error }]
}

fn add_principal(facts: &mut Facts, options: Result<&str, &'static str>) {
    facts.certificates.principals.push(Principal {
        file: "/etc/ssh/principals".into(),
        line: 2,
        entry: options.map(|options| {
            let Key { entry, command } = key(options);
            ("anna".to_owned(), entry.options, command)
        }),
    });
}

fn set_reader(facts: &mut Facts, access: ReaderAccess) {
    let name = "www-data".to_owned();
    facts.reader = Some(Reader { name, access });
}

type Provoke = fn(&mut Facts);

/// Returns a change of the facts that provokes this code.
fn provocation(code: FindingCode) -> Provoke {
    match code {
        FindingCode::ConfigWritable => |facts| make_writable(&mut facts.paths.config),
        FindingCode::ConfigOfAccount => |facts| give_to_account(&mut facts.paths.config),
        FindingCode::ProgramWritable => |facts| make_writable(&mut facts.programs[0].location),
        FindingCode::ProgramOfAccount => |facts| give_to_account(&mut facts.programs[0].location),
        FindingCode::ProgramDiffers => |facts| facts.programs[0].differs = true,
        FindingCode::ProgramMissing => {
            |facts| facts.programs[0].location.resolution = Resolution::Missing
        }
        FindingCode::HookWritable => |facts| make_writable(&mut facts.paths.hooks[0]),
        FindingCode::HookOfAccount => |facts| give_to_account(&mut facts.paths.hooks[0]),
        FindingCode::HookUnusable => |facts| {
            facts.probe.hooks = vec![("/opt/hook".into(), "'/opt/hook' cannot be started".into())];
        },
        FindingCode::HookMissing => |facts| facts.paths.hooks[0].resolution = Resolution::Missing,
        FindingCode::RootWritable => |facts| make_writable(&mut facts.paths.directories[0]),
        FindingCode::SharedWritable => |facts| make_writable(&mut facts.paths.shared[0]),
        FindingCode::KeysWritable => |facts| give_to_account(&mut facts.keys_files[0].location),
        FindingCode::SshdConfigWritable => |facts| make_writable(&mut facts.paths.sshd_config[0]),
        FindingCode::AccountIsRoot => |facts| account(facts).uid = 0,
        FindingCode::AccountUnknown => |facts| account(facts).passwd = None,
        FindingCode::SharedUid => |facts| account(facts).uid_aliases.push("web".to_owned()),
        FindingCode::LoginShell => |facts| passwd(facts).shell = PathBuf::from("/bin/bash"),
        FindingCode::PasswordSet => |facts| account(facts).password = Some(PasswordState::Set),
        FindingCode::PasswordEmpty => |facts| account(facts).password = Some(PasswordState::Empty),
        FindingCode::PowerfulGroup => |facts| account(facts).groups.push("docker".to_owned()),
        FindingCode::HomeWritable => {
            |facts| give_to_account(account(facts).home.location.as_mut().unwrap())
        }
        FindingCode::SshDirectoryWritable => |facts| {
            let directory = "/var/lib/deploy-shell/.ssh";
            account(facts).home.ssh = Some(resolved(directory, Some(directory)));
        },
        FindingCode::SshRc => |facts| account(facts).home.has_rc = true,
        FindingCode::SystemRc => |facts| facts.system_rc = Some("/etc/ssh/sshrc".into()),
        FindingCode::SshEnvironment => |facts| account(facts).home.has_environment = true,
        FindingCode::StrayKeys => |facts| {
            let path = PathBuf::from("/var/lib/deploy-shell/.ssh/authorized_keys");
            account(facts).home.keys_files.push(path);
        },
        FindingCode::TcpForwarding => |facts| {
            set_setting(facts, "disableforwarding", "no");
            set_setting(facts, "allowtcpforwarding", "local");
        },
        FindingCode::SocketForwarding => |facts| {
            set_setting(facts, "disableforwarding", "no");
            set_setting(facts, "allowstreamlocalforwarding", "yes");
        },
        FindingCode::AgentForwarding => |facts| set_setting(facts, "allowagentforwarding", "yes"),
        FindingCode::X11Forwarding => |facts| set_setting(facts, "x11forwarding", "yes"),
        FindingCode::Tunnel => |facts| set_setting(facts, "permittunnel", "point-to-point"),
        FindingCode::GatewayPorts => |facts| set_setting(facts, "gatewayports", "clientspecified"),
        FindingCode::UserRc => |facts| set_setting(facts, "permituserrc", "yes"),
        FindingCode::UserEnvironment => |facts| set_setting(facts, "permituserenvironment", "LANG"),
        FindingCode::Terminal => |facts| set_setting(facts, "permittty", "yes"),
        FindingCode::PasswordLogin => |facts| {
            set_setting(facts, "authenticationmethods", "publickey password");
            set_setting(facts, "passwordauthentication", "yes");
        },
        FindingCode::KeyboardInteractive => |facts| {
            set_setting(facts, "authenticationmethods", "any");
            set_setting(facts, "kbdinteractiveauthentication", "yes");
        },
        FindingCode::EmptyPasswords => |facts| {
            set_setting(facts, "authenticationmethods", "any");
            set_setting(facts, "permitemptypasswords", "yes");
        },
        FindingCode::HostBased => |facts| {
            set_setting(facts, "authenticationmethods", "any");
            set_setting(facts, "hostbasedauthentication", "yes");
        },
        FindingCode::Gssapi => |facts| {
            set_setting(facts, "authenticationmethods", "any");
            set_setting(facts, "gssapiauthentication", "yes");
        },
        FindingCode::Kerberos => |facts| {
            set_setting(facts, "authenticationmethods", "any");
            set_setting(facts, "kerberosauthentication", "yes");
        },
        FindingCode::UserCa => |facts| set_setting(facts, "trustedusercakeys", "/etc/ssh/ca.pub"),
        FindingCode::KeysCommand => {
            |facts| set_setting(facts, "authorizedkeyscommand", "/usr/bin/keys")
        }
        FindingCode::KeysCommandUser => |facts| {
            set_setting(facts, "authorizedkeyscommand", "/usr/bin/keys");
            set_setting(facts, "authorizedkeyscommanduser", "deploy");
        },
        FindingCode::Chroot => |facts| set_setting(facts, "chrootdirectory", "/srv/%u"),
        FindingCode::LoginsClosed => |facts| facts.nologin_files.push("/etc/nologin".into()),
        FindingCode::PrincipalsFile => {
            |facts| set_setting(facts, "authorizedprincipalsfile", "/etc/ssh/%u")
        }
        FindingCode::PrincipalsCommand => {
            |facts| set_setting(facts, "authorizedprincipalscommand", "/usr/bin/principals")
        }
        FindingCode::AcceptEnv => |facts| set_setting(facts, "acceptenv", "LC_*"),
        FindingCode::ForceCommand => |facts| set_setting(facts, "forcecommand", "/usr/bin/true"),
        FindingCode::AuthInfo => |facts| set_setting(facts, "exposeauthinfo", "no"),
        FindingCode::StrictModes => |facts| set_setting(facts, "strictmodes", "no"),
        FindingCode::SshdSilent => |facts| {
            facts.sshd = None;
            facts.sshd_failure = Some("sshd is not there".to_owned());
        },
        FindingCode::ChannelTimeout => |facts| set_setting(facts, "channeltimeout", "*=2s"),
        FindingCode::PrincipalUnread => |facts| add_principal(facts, Err("is odd")),
        FindingCode::PrincipalWithoutCommand => |facts| add_principal(facts, Ok("restrict")),
        FindingCode::PrincipalPermissions => {
            |facts| add_principal(facts, Ok(&format!("restrict,pty,{SERVE}")))
        }
        FindingCode::SftpReachable => |facts| {
            only_key(facts, "restrict");
            set_setting(facts, "subsystem", "sftp internal-sftp");
        },
        FindingCode::KeyUnread => |facts| facts.keys_files[0].lines[0].key = Err("is odd"),
        FindingCode::KeyWithoutRestrict => |facts| {
            let nothing =
                "no-port-forwarding,no-agent-forwarding,no-x11-forwarding,no-pty,no-user-rc";
            only_key(facts, &format!("{nothing},{SERVE}"));
        },
        FindingCode::KeyWithoutCommand => |facts| only_key(facts, "restrict"),
        FindingCode::OtherProgram => {
            |facts| only_key(facts, "restrict,command=\"/usr/bin/rrsync /srv\"")
        }
        FindingCode::NotServe => |facts| only_serve(facts, "--site blog --verify"),
        FindingCode::NotPlain => |facts| only_serve(facts, "--site blog $X"),
        FindingCode::CommandWithoutPath => |facts| {
            let serve = SERVE.replace("/usr/local/bin/", "");
            only_key(facts, &format!("restrict,{serve}"));
            passwd(facts).shell = PathBuf::from("/bin/sh");
        },
        FindingCode::KeyWithoutLabel => |facts| only_serve(facts, "--site blog"),
        FindingCode::KeyPortForwarding => {
            |facts| only_key(facts, &format!("restrict,port-forwarding,{SERVE}"))
        }
        FindingCode::KeyAgentForwarding => {
            |facts| only_key(facts, &format!("restrict,agent-forwarding,{SERVE}"))
        }
        FindingCode::KeyX11Forwarding => {
            |facts| only_key(facts, &format!("restrict,X11-forwarding,{SERVE}"))
        }
        FindingCode::KeyTerminal => |facts| only_key(facts, &format!("restrict,pty,{SERVE}")),
        FindingCode::KeyUserRc => |facts| only_key(facts, &format!("restrict,user-rc,{SERVE}")),
        FindingCode::KeyPermitOpen => {
            |facts| only_key(facts, &format!("restrict,permitopen=\"h:1\",{SERVE}"))
        }
        FindingCode::KeyPermitListen => {
            |facts| only_key(facts, &format!("restrict,permitlisten=\"1\",{SERVE}"))
        }
        FindingCode::KeyTunnel => {
            |facts| only_key(facts, &format!("restrict,tunnel=\"0\",{SERVE}"))
        }
        FindingCode::KeyEnvironment => {
            |facts| only_key(facts, &format!("restrict,environment=\"A=1\",{SERVE}"))
        }
        FindingCode::KeyCertAuthority => {
            |facts| only_key(facts, &format!("restrict,cert-authority,{SERVE}"))
        }
        FindingCode::KeyNoTouch => {
            |facts| only_key(facts, &format!("restrict,no-touch-required,{SERVE}"))
        }
        FindingCode::WeakRsa => |facts| {
            let entry = only_entry(facts);
            (entry.key_type, entry.bits) = ("ssh-rsa", Some(2048));
        },
        FindingCode::DsaKey => |facts| {
            let entry = only_entry(facts);
            (entry.key_type, entry.bits) = ("ssh-dss", Some(1024));
        },
        FindingCode::KeyTwice => |facts| add_line(facts, &format!("restrict,{SERVE} {KEY}")),
        FindingCode::KeyTwiceDiffering => |facts| {
            let serve = SERVE.replace("--key ci", "--key ci --allow list");
            add_line(facts, &format!("restrict,{serve} {KEY}"));
        },
        FindingCode::LabelShared => {
            |facts| add_line(facts, &format!("restrict,{SERVE} {OTHER_KEY}"))
        }
        FindingCode::AuditOptional => |facts| facts.config.audit.required = false,
        FindingCode::AuditUnreachable => {
            |facts| facts.probe.socket = Some("no such file".to_owned())
        }
        FindingCode::AuditReplaceable => |facts| {
            let path = &mut facts.paths.socket;
            let directory = path.components.len() - 2;
            path.components[directory].mode = 0o777;
        },
        FindingCode::SandboxOptional => |facts| facts.config.sandbox.required = false,
        FindingCode::MonitorUnconfined => {
            |facts| facts.probe.monitor = Some([Mechanism::Landlock].into_iter().collect())
        }
        FindingCode::UnpackerUnconfined => |facts| {
            let missing = [Mechanism::ResourceLimits, Mechanism::Seccomp];
            facts.probe.unpacker = Some(missing.into_iter().collect());
        },
        FindingCode::NoReserve => |facts| {
            facts.config.limits.reserve = String::from("0%").try_into().unwrap();
        },
        FindingCode::SharesOfKeys => |facts| {
            let serve = SERVE.replace("--key ci", "--key cd");
            add_line(facts, &format!("restrict,{serve} {OTHER_KEY}"));
            facts.config.limits.uploads_per_key = facts.config.limits.uploads;
        },
        FindingCode::NetworkFileSystem => |facts| facts.filesystem.network = Some("nfs"),
        FindingCode::SeveralFileSystems => |facts| {
            facts
                .filesystem
                .other_filesystems
                .push("/srv/blog/releases".into())
        },
        FindingCode::CaseFolding => |facts| {
            facts
                .filesystem
                .case_insensitive
                .push("/srv/blog/releases".into())
        },
        FindingCode::NoUnnamedFiles => {
            |facts| facts.probe.unnamed_file = Some("not supported".to_owned())
        }
        FindingCode::FutureRecord => {
            |facts| facts.probe.future_record = Some("2027-12-01T00:00:00Z".to_owned())
        }
        FindingCode::ConfigUnreadable => |facts| facts.probe.config = error("cannot be read"),
        FindingCode::Layout => |facts| facts.probe.layout = error("'/srv/blog' is odd"),
        FindingCode::ReaderUnknown => |facts| set_reader(facts, ReaderAccess::Unknown),
        FindingCode::ReaderBlocked => {
            |facts| set_reader(facts, ReaderAccess::Blocked(directory("/srv", None)))
        }
        FindingCode::ReaderDenied => |facts| {
            let first = PathBuf::from("/srv/blog/releases/r1/page");
            set_reader(facts, ReaderAccess::Denied { first, more: 2 });
        },
        FindingCode::RemovalPending => {
            |facts| facts.probe.removing = vec![ReleaseId::try_from("r1").unwrap()]
        }
        FindingCode::SharedMissing => |facts| facts.probe.shared = fault(true),
        FindingCode::SharedUnsafe => |facts| facts.probe.shared = fault(false),
        code => requests::provocation(code),
    }
}

fn codes(facts: &Facts) -> Vec<FindingCode> {
    let findings = all_findings(facts);
    findings.iter().map(|finding| finding.code).collect()
}

#[test]
fn a_site_installed_as_the_readme_says_has_no_findings() {
    assert_eq!(all_findings(&sound()), []);
}

#[test]
fn each_finding_is_provoked_by_its_cause() {
    for code in FindingCode::ALL {
        let mut facts = sound();
        provocation(*code)(&mut facts);
        // The causes of these are findings themselves.
        let expected = match code {
            FindingCode::SftpReachable => vec![FindingCode::KeyWithoutCommand, *code],
            FindingCode::KeysCommandUser => vec![FindingCode::KeysCommand, *code],
            FindingCode::CommandWithoutPath => vec![*code, FindingCode::LoginShell],
            code => vec![*code],
        };
        assert_eq!(codes(&facts), expected, "{code}");
        // A place of the table that no rule has filled in.
        let is_filled =
            |finding: &crate::check::findings::Finding| !finding.remedy.contains(['{', '}']);
        assert!(all_findings(&facts).iter().all(is_filled), "{code}");
    }
}

#[test]
fn the_list_of_signers_counts_as_configuration() {
    let found = |change: fn(&mut ResolvedPath)| {
        let mut facts = sound();
        change(facts.paths.signers.as_mut().unwrap());
        for finding in all_findings(&facts) {
            assert!(finding.text.contains("allowed_signers'"), "{finding:?}");
        }
        codes(&facts)
    };
    assert_eq!(found(make_writable), [FindingCode::ConfigWritable]);
    assert_eq!(found(give_to_account), [FindingCode::ConfigOfAccount]);
}

#[test]
fn a_remedy_for_a_group_names_the_account_and_the_group() {
    let mut facts = sound();
    provocation(FindingCode::PowerfulGroup)(&mut facts);
    let remedy = "remove the account from the group: gpasswd --delete 'deploy' 'docker'";
    assert_eq!(all_findings(&facts)[0].remedy, remedy);
}

#[test]
fn a_finding_has_one_line_and_no_placeholder() {
    for code in FindingCode::ALL {
        let mut facts = sound();
        provocation(*code)(&mut facts);
        for finding in all_findings(&facts) {
            for text in [&finding.text, &finding.remedy] {
                assert!(!text.is_empty(), "{code}");
                assert!(!text.contains(['\n', '{', '}']), "{text}");
                assert!(!text.ends_with('.'), "{text}");
            }
        }
    }
}

/// Requires that no remedy has a command of root's with a path that contains one of `paths`.
fn require_no_command_of_root(facts: &Facts, paths: &[&str]) {
    const PROGRAMS: [&str; 13] = [
        "chgrp", "chmod", "chown", "cp", "find", "install", "ln", "mkdir", "mv", "rm", "setfacl",
        "tar", "touch",
    ];
    for finding in all_findings(facts) {
        let as_root = finding.remedy.split("deploy-shell-admin run ").next();
        for words in as_root.unwrap_or_default().split([';', ':', '&']) {
            let program = words.split_whitespace().next().unwrap_or_default();
            // "install" is also a word of a sentence.
            let is_command = PROGRAMS.contains(&program) && !words.starts_with("install '")
                || words.contains(">>");
            let path = paths.iter().find(|path| words.contains(**path));
            assert!(!is_command || path.is_none(), "{}: {words}", finding.code);
        }
    }
}

/// The account can put anything at each name below the root, before root runs the command.
#[test]
fn no_remedy_has_a_path_below_the_root_for_root() {
    for code in FindingCode::ALL {
        let mut facts = sound();
        provocation(*code)(&mut facts);
        require_no_command_of_root(&facts, &["/srv/blog/"]);
    }
}

/// The account can put a symlink at each name in its own directories.
#[test]
fn no_remedy_has_a_path_below_a_directory_of_the_account_for_root() {
    let (own, keys) = (Some("/home/deploy"), "/home/deploy/.ssh/authorized_keys");
    for code in FindingCode::ALL {
        let mut facts = sound();
        facts.paths.root = directory("/srv/blog", Some("/srv"));
        facts.paths.directories = ["releases", ".deploy-shell"]
            .map(|name| directory(&format!("/srv/blog/{name}"), Some("/srv")))
            .to_vec();
        facts.paths.hooks = vec![resolved("/home/deploy/hooks/hook", own)];
        facts.keys_files[0].location = resolved(keys, own);
        provocation(*code)(&mut facts);
        if facts.account.as_ref().is_none_or(|it| it.passwd.is_none()) {
            continue;
        }
        passwd(&mut facts).home = PathBuf::from("/home/deploy");
        let home = &mut account(&mut facts).home;
        home.location = Some(directory("/home/deploy", own));
        home.ssh = Some(directory("/home/deploy/.ssh", own));
        (home.has_rc, home.has_environment) = (true, true);
        home.keys_files = vec![
            PathBuf::from(keys),
            "/home/deploy/.ssh/authorized_keys2".into(),
        ];
        for (at, own) in [
            (keys, own),
            ("/home/deploy/.ssh", own),
            ("/home/deploy/hooks/hook", own),
            ("/srv/blog", Some("/srv")),
        ] {
            facts.probe.blocked.push(Blocked {
                path: keys.into(),
                at: directory(at, own),
                directory: at != keys,
            });
        }
        requests::unusable(&mut facts, "/srv/blog", 1000);
        set_reader(
            &mut facts,
            ReaderAccess::Blocked(directory("/srv/blog", Some("/srv"))),
        );
        require_no_command_of_root(&facts, &["/home/deploy/", "/srv/"]);
        // A symlink in a directory that became root's still leads where the account said.
        let mut link = directory("/home/deploy/.ssh", Some("/home/deploy/.ssh"));
        link.components.last_mut().unwrap().kind = ComponentKind::Symlink;
        account(&mut facts).home.location = Some(directory("/home/deploy", None));
        account(&mut facts).home.ssh = Some(link);
        facts.keys_files[0].location = resolved(keys, Some("/home/deploy/.ssh"));
        facts.probe.blocked.clear();
        require_no_command_of_root(&facts, &["/home/deploy/.ssh/", "/srv/"]);
    }
}

#[test]
fn an_unknown_account_is_not_named() {
    let mut facts = sound();
    facts.account = None;
    facts.keys_files.clear();
    facts.probe.layout = error("'/srv/blog' is odd");
    let findings = all_findings(&facts);
    let text = "the site cannot be opened: ";
    assert!(findings[0].text.starts_with(text), "{findings:?}");
}

#[test]
fn a_key_of_another_site_is_no_finding() {
    for site in ["shop", "none", "odd"] {
        let mut facts = sound();
        let serve = SERVE.replace("--site blog", &format!("--site {site}"));
        add_line(&mut facts, &format!("restrict,{serve} {OTHER_KEY}"));
        assert_eq!(all_findings(&facts), [], "{site}");
    }
}

#[test]
fn an_unchecked_fact_is_no_finding() {
    let mut facts = sound();
    facts.sshd = None;
    facts.probe = AccountProbe::default();
    account(&mut facts).password = None;
    facts.not_checked.push("a thing".to_owned());
    assert_eq!(all_findings(&facts), []);
    facts.account = None;
    facts.keys_files.clear();
    assert_eq!(all_findings(&facts), []);
}

#[test]
fn every_permission_of_a_bare_key_is_named() {
    let mut facts = sound();
    only_key(&mut facts, SERVE);
    let expected = [
        FindingCode::KeyWithoutRestrict,
        FindingCode::KeyPortForwarding,
        FindingCode::KeyAgentForwarding,
        FindingCode::KeyX11Forwarding,
        FindingCode::KeyTerminal,
        FindingCode::KeyUserRc,
    ];
    assert_eq!(codes(&facts), expected);
}
