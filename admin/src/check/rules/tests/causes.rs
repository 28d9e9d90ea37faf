//! One cause gives one finding, and no remedy widens access or takes the site offline.

use super::requests::{journal, release, releases, set_current, unusable};
use super::*;
use crate::check::findings::Finding;
use deploy_shell::shell_word::Word;

fn remedies(facts: &Facts) -> Vec<String> {
    let findings = all_findings(facts).into_iter();
    findings.map(|finding| finding.remedy).collect()
}

pub fn only(facts: &Facts) -> Finding {
    let mut findings = all_findings(facts);
    assert_eq!(findings.len(), 1, "{findings:?}");
    findings.remove(0)
}

#[test]
fn a_key_without_a_command_is_one_finding() {
    let mut facts = sound();
    facts.keys_files[0].lines[0].key = Ok(key_of_line(KEY));
    let finding = only(&facts);
    assert_eq!(finding.code, FindingCode::KeyWithoutCommand);
    assert!(finding.remedy.contains("authorize"), "{finding:?}");
}

#[test]
fn a_site_of_root_has_one_finding_about_the_account() {
    let mut facts = sound();
    account(&mut facts).uid = 0;
    facts.sshd = Some(SshdSettings::default());
    passwd(&mut facts).shell = PathBuf::from("/bin/bash");
    only_key(&mut facts, "");
    facts.probe.layout = error("'/srv/blog/releases' belongs to user 998");
    let finding = only(&facts);
    assert_eq!(finding.code, FindingCode::AccountIsRoot);
    for word in ["init --site blog", "--owner ACCOUNT"] {
        assert!(finding.remedy.contains(word), "{finding:?}");
    }
    // Other findings about the site stay.
    facts.paths.hooks[0].resolution = Resolution::Missing;
    let expected = [FindingCode::HookMissing, FindingCode::AccountIsRoot];
    assert_eq!(codes(&facts), expected);
}

#[test]
fn a_missing_drop_in_is_one_finding_without_a_key_too() {
    let mut facts = sound();
    facts.sshd = Some(SshdSettings::default());
    for keyword in ["allowtcpforwarding", "permittty", "strictmodes"] {
        set_setting(&mut facts, keyword, "yes");
    }
    facts.keys_files[0].lines.clear();
    let finding = only(&facts);
    assert_eq!(finding.code, FindingCode::DropInMissing);
    assert!(
        finding.text.contains("tcp-forwarding, terminal"),
        "{finding:?}"
    );
    assert!(
        finding.remedy.contains("'Match User deploy'"),
        "{finding:?}"
    );
    assert!(
        finding.remedy.contains("other accounts") && finding.remedy.contains("keep them"),
        "{finding:?}"
    );
    // With the drop-in, single settings have their own findings.
    set_setting(&mut facts, "acceptenv", "DEPLOY_SHELL_ACCEPTS_NOTHING");
    assert!(codes(&facts).contains(&FindingCode::Terminal));
}

#[test]
fn the_error_of_the_library_does_not_repeat_a_directory() {
    let causes: [fn(&mut Facts); 3] = [
        |facts| facts.paths.directories[0].resolution = Resolution::Missing,
        |facts| unusable(facts, "/srv/blog/.deploy-shell", 998),
        |facts| {
            facts
                .filesystem
                .other_filesystems
                .push("/srv/blog/releases".into())
        },
    ];
    for cause in causes {
        let mut facts = sound();
        facts.probe.layout = error("'/srv/blog/releases' is odd");
        cause(&mut facts);
        assert_ne!(only(&facts).code, FindingCode::Layout);
    }
}

#[test]
fn an_accepted_kernel_has_no_finding_and_no_remedy_that_refuses_everything() {
    let mut facts = sound();
    facts.config.sandbox.required = false;
    assert_eq!(codes(&facts), [FindingCode::SandboxOptional]);
    let missing = || Some([Mechanism::Landlock].into_iter().collect());
    facts.probe.monitor = missing();
    facts.probe.unpacker = missing();
    assert_eq!(all_findings(&facts), []);
    facts.config.sandbox.required = true;
    let finding = only(&facts);
    assert!(finding.text.contains("without landlock"), "{finding:?}");
    assert!(finding.remedy.contains("required = false"), "{finding:?}");
    // Linux 6.1 only lacks what a monitor may lack.
    let mut facts = sound();
    facts.probe.monitor = Some([Mechanism::Truncation].into_iter().collect());
    assert_eq!(all_findings(&facts), []);
    // An audit that cannot be reached must not become required.
    let mut facts = sound();
    facts.config.audit.required = false;
    facts.probe.socket = Some("no such file".to_owned());
    assert_eq!(codes(&facts), [FindingCode::AuditUnreachable]);
}

/// A file that the account reads as its owner stays readable when root becomes its owner.
#[test]
fn a_remedy_that_changes_an_owner_keeps_what_the_account_reads() {
    let mut facts = sound();
    let location = &mut facts.keys_files[0].location;
    give_to_account(location);
    location.components.last_mut().unwrap().mode = 0o600;
    let file = "/etc/deploy-shell/authorized_keys/deploy";
    let expected = format!("chown -h root:998 '{file}' && chmod g=r,o-w '{file}'");
    assert_eq!(only(&facts).remedy, expected);
    // A file that everybody reads needs no group.
    let location = &mut facts.keys_files[0].location;
    location.components.last_mut().unwrap().mode = 0o664;
    let expected = format!("chown -h root '{file}' && chmod go-w '{file}'");
    assert_eq!(only(&facts).remedy, expected);
}

/// With root as the owner of the site's root, every swap would fail.
#[test]
fn no_remedy_gives_the_site_to_root() {
    let mut facts = sound();
    make_writable(&mut facts.paths.root);
    assert_eq!(only(&facts).remedy, "chmod go-w '/srv/blog'");

    let mut facts = sound();
    facts.paths.root.components[1].mode = 0o777;
    assert_eq!(
        only(&facts).remedy,
        "chown -h 'root' '/srv' && chmod go-w '/srv'"
    );

    let mut facts = sound();
    passwd(&mut facts).home = PathBuf::from("/srv/blog");
    account(&mut facts).home.location = Some(resolved("/srv/blog", Some("/srv/blog")));
    let finding = only(&facts);
    assert_eq!(finding.code, FindingCode::HomeWritable);
    assert!(finding.remedy.contains("usermod --home"), "{finding:?}");
    assert!(!finding.remedy.contains("'/srv/blog'"), "{finding:?}");

    let mut facts = sound();
    facts.paths.config = resolved("/srv/blog/blog.toml", Some("/srv/blog"));
    for remedy in remedies(&facts) {
        assert_eq!(
            remedy,
            "move '/srv/blog/blog.toml' out of the site's root '/srv/blog'"
        );
    }
}

/// What the web server serves stays where it is.
#[test]
fn no_remedy_takes_the_site_offline() {
    let served = [
        Current::Directory,
        Current::Elsewhere {
            target: "/srv/blog/releases/5".to_owned(),
            leads_somewhere: true,
            leads_to_release: Some((release("5"), false)),
        },
        Current::Release {
            release: release("r1"),
            has_directory: true,
            has_manifest: false,
        },
    ];
    for current in served {
        let mut facts = sound();
        set_current(&mut facts, current);
        let remedy = only(&facts).remedy;
        assert!(
            remedy.contains("deploy-shell-admin adopt --site blog"),
            "{remedy}"
        );
        assert!(
            !remedy.contains("rm ") && !remedy.contains("mv "),
            "{remedy}"
        );
    }
    // After a swap, adopt takes no release over.
    let received = Current::Elsewhere {
        target: "./releases/r0".to_owned(),
        leads_somewhere: true,
        leads_to_release: Some((release("r0"), true)),
    };
    let step = Word::new(
        "ln -sT 'releases/r0' '/srv/blog/current.new' && mv -T '/srv/blog/current.new' \
         '/srv/blog/current'",
    );
    let step = format!("in one step: deploy-shell-admin run --site blog -- sh -c {step}");
    let exchange = ": deploy-shell-admin adopt --site blog --yes";
    for (current, command) in [(received, step.as_str()), (Current::Directory, exchange)] {
        let mut facts = sound();
        facts.probe.releases = Some(Releases {
            current,
            had_swaps: true,
            ..releases()
        });
        let remedy = only(&facts).remedy;
        assert!(remedy.contains(command), "{remedy}");
    }
    for (leads_somewhere, remedy) in [
        (true, "docs/adopting.md has "),
        (false, "it serves nothing"),
    ] {
        let mut facts = sound();
        let target = "/var/www/old".to_owned();
        let current = Current::Elsewhere {
            target,
            leads_somewhere,
            leads_to_release: None,
        };
        set_current(&mut facts, current);
        assert!(only(&facts).remedy.starts_with(remedy), "{facts:?}");
    }
    let mut facts = sound();
    let missing = || Current::Release {
        release: release("r1"),
        has_directory: false,
        has_manifest: true,
    };
    set_current(&mut facts, missing());
    assert_eq!(only(&facts).remedy, "make another release live: swap r0");
    facts.probe.releases = Some(Releases {
        current: missing(),
        fallback: None,
        ..releases()
    });
    assert_eq!(only(&facts).remedy, "receive a release and swap to it");
}

#[test]
fn an_unreadable_journal_is_never_cut() {
    for code in [FindingCode::JournalNewer, FindingCode::JournalDamaged] {
        let mut facts = sound();
        provocation(code)(&mut facts);
        let remedy = only(&facts).remedy;
        assert!(
            !remedy.contains("cut") && !remedy.contains("rm "),
            "{remedy}"
        );
        assert!(
            remedy.starts_with("install") || remedy.starts_with("restore"),
            "{remedy}"
        );
    }
    // The account cannot open it: that is the cause.
    let mut facts = sound();
    journal(&mut facts, false);
    unusable(&mut facts, "/srv/blog/.deploy-shell/journal.jsonl", 0);
    let finding = only(&facts);
    assert_eq!(finding.code, FindingCode::StateUnusable);
    assert_eq!(finding.remedy, "deploy-shell-admin repair --site blog");
}

/// The account chooses the names in its directories, and root copies the remedy.
#[test]
fn a_name_that_a_shell_interprets_is_one_word_of_a_remedy() {
    let mut facts = sound();
    facts.config.root = PathBuf::from("/srv/x'$(id)'");
    let current = Current::OtherFile;
    facts.probe.releases = Some(Releases {
        current,
        ..releases()
    });
    let path = facts.config.root.join("current");
    let (word, old) = (Word::new(&path), Word::with_suffix(&path, ".old"));
    let command = format!("deploy-shell-admin run --site blog -- mv -nT {word} {old}");
    let remedy = remedies(&facts).remove(0);
    assert!(remedy.ends_with(&command), "{remedy}");
    let mut facts = sound();
    let not_received = vec!["x'$(id)'".to_owned()];
    facts.probe.releases = Some(Releases {
        not_received,
        ..releases()
    });
    assert!(!only(&facts).remedy.contains('$'));
}

#[test]
fn the_owner_of_the_root_is_repaired_by_the_smallest_change() {
    let mut facts = sound();
    unusable(&mut facts, "/srv/blog", 0);
    assert_eq!(remedies(&facts), ["chown -h 'deploy' '/srv/blog'"]);
    facts.probe.unusable[0].uid = 998;
    assert_eq!(remedies(&facts), ["chmod u+rwx '/srv/blog'"]);
    facts.probe.unusable[0].fault = UnusableFault::ReadOnly;
    unusable(&mut facts, "/srv/blog/releases", 998);
    facts.probe.unusable[1].fault = UnusableFault::ReadOnly;
    assert_eq!(
        remedies(&facts),
        ["mount the file system of '/srv/blog' read-write"]
    );
}

/// A command takes a number, and not the words of a message.
#[test]
fn an_account_without_a_name_is_its_number_in_a_command() {
    let mut facts = sound();
    account(&mut facts).passwd = None;
    unusable(&mut facts, "/srv/blog/releases", 0);
    unusable(&mut facts, "/srv/blog", 0);
    let remedies = remedies(&facts);
    let command = "chown -h '998' '/srv/blog'".to_owned();
    assert!(remedies.contains(&command), "{remedies:?}");
}
