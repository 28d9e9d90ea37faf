//! What a key can do, of the sound site and of changed ones.

use super::*;
use crate::check::fixture::{SERVE, key, set_setting, sound};

/// Returns the line about the only key.
fn described(change: impl Fn(&mut Facts)) -> String {
    let mut facts = sound();
    change(&mut facts);
    let (position, key) = facts.keys().next().unwrap();
    describe_key(&facts, position, key)
}

fn set_options(facts: &mut Facts, text: &str) {
    facts.keys_files[0].lines[0].key = Ok(key(text));
}

/// Gives the site the configuration of this text.
fn configure(facts: &mut Facts, text: &str) {
    let site = facts.config.site.take();
    facts.config = toml::from_str(&format!("root = \"/srv/blog\"\n{text}")).unwrap();
    facts.config.site = site;
}

#[test]
fn a_sound_key_is_described_in_one_sentence() {
    let line = described(|_| {});
    assert!(line.starts_with("key ci (SHA256:"), "{line}");
    assert!(
        line.ends_with(
            ", /etc/deploy-shell/authorized_keys/deploy line 3): may receive, swap, rollback \
             and list on site blog; someone with this key can publish any content (no \
             signatures are required), use half of the disk above the reserve for up to 5 \
             releases that were never live, make any received release live, go back to any \
             release that was live and good and see which releases exist; nothing else"
        ),
        "{line}"
    );
}

#[test]
fn each_verb_has_its_capabilities() {
    for (allow, words) in [
        ("receive", "which is not live until another key swaps to it"),
        (
            "swap",
            "may swap on site blog; someone with this key can make any received release live; \
             nothing else",
        ),
        (
            "rollback",
            "can go back to any release that was live and good; nothing else",
        ),
        ("list", "can see which releases exist; nothing else"),
    ] {
        let allowed = SERVE.replace("--key ci", &format!("--key ci --allow {allow}"));
        let line = described(|facts| set_options(facts, &format!("restrict,{allowed}")));
        assert!(line.contains(words), "{line}");
        assert!(!line.contains("publish"), "{line}");
    }
}

#[test]
fn signatures_and_a_floor_are_conditions() {
    let line = described(|facts| {
        let text = "floor = \"r1\"\n[signatures]\nthreshold = 2\nallowed_signers = \"/etc/s\"";
        configure(facts, text);
    });
    assert!(!line.contains("no signatures are required"), "{line}");
    for words in [
        "can publish only what 2 signers have signed for this site ('/etc/s'), ",
        "make any received release (from 'r1' on, with valid signatures) live, ",
        "go back to any release (from 'r1' on, with valid signatures) that was live and good",
    ] {
        assert!(line.contains(words), "{line}");
    }
}

#[test]
fn hooks_belong_to_keys_that_can_run_them() {
    let hooked = |facts: &mut Facts| {
        let text = "[[hooks.before_swap]]\ncommand = [\"/usr/bin/php\", \"artisan\"]\n\
                    [health]\ncommand = [\"/usr/local/bin/healthy\"]";
        configure(facts, text);
    };
    let line = described(hooked);
    let words = "run the 2 commands of the hooks and the checks, as the account";
    assert!(line.contains(words), "{line}");
    let line = described(|facts| {
        hooked(facts);
        let lists = SERVE.replace("--key ci", "--key ci --allow list");
        set_options(facts, &format!("restrict,{lists}"));
    });
    assert!(!line.contains("hooks"), "{line}");
}

#[test]
fn the_files_of_releases_belong_to_keys_with_both_words() {
    let with = |allow: &str| {
        described(|facts| {
            let serve = SERVE.replace("--key ci", &format!("--key ci --allow {allow}"));
            set_options(facts, &format!("restrict,{serve}"));
        })
    };
    let words = "read the paths, sizes and digests of all files of every release";
    assert!(with("list,files").contains(words));
    for allow in ["receive,swap,rollback,list", "receive,files"] {
        let line = with(allow);
        assert!(!line.contains(words), "{line}");
    }
}

#[test]
fn shared_paths_belong_to_keys_that_publish() {
    let share = |facts: &mut Facts| {
        configure(facts, "[shared]\nlinks = [\".env\", \"up\"]");
    };
    let line = described(share);
    let access = ", with the application's access to 'shared/.env' and 'shared/up', ";
    assert!(line.contains(access), "{line}");
    // A key that cannot make a release live gets no access through one.
    let line = described(|facts| {
        share(facts);
        let uploads = SERVE.replace("--key ci", "--key ci --allow receive");
        set_options(facts, &format!("restrict,{uploads}"));
    });
    assert!(line.contains("upload"), "{line}");
    assert!(!line.contains("shared/"), "{line}");
}

#[test]
fn capabilities_of_sshd_come_last() {
    // sshd denies what the options of a bare key allow.
    assert!(described(|facts| set_options(facts, SERVE)).ends_with("; nothing else"));
    let line = described(|facts| {
        set_options(facts, SERVE);
        facts.sshd = None;
    });
    let words = "; in addition, sshd lets it connect to any host and port";
    assert!(line.contains(words), "{line}");
    assert!(line.contains("get a terminal"), "{line}");
    let line = described(|facts| {
        set_setting(facts, "permittunnel", "yes");
        set_setting(facts, "acceptenv", "LD_*");
    });
    assert!(
        line.ends_with(
            "; in addition, sshd lets it join networks through a tunnel device and set \
             environment variables of its command"
        ),
        "{line}"
    );
}

#[test]
fn without_a_forced_command_the_login_shell_decides() {
    let line = described(|facts| set_options(facts, "restrict"));
    assert!(line.ends_with("can run nothing; nothing else"), "{line}");
    let line = described(|facts| {
        set_options(facts, "restrict");
        set_setting(facts, "subsystem", "sftp internal-sftp");
    });
    assert!(line.contains("read and write every file"), "{line}");
    assert!(!line.contains("nothing else"), "{line}");
    let line = described(|facts| {
        set_options(facts, "restrict");
        let account = facts.account.as_mut().unwrap();
        account.passwd.as_mut().unwrap().shell = "/bin/bash".into();
    });
    let words = "run any command as 'deploy' with the login shell '/bin/bash'";
    assert!(line.contains(words), "{line}");
}

#[test]
fn other_missing_and_unreadable_sites_differ() {
    let served = |site: &str| {
        let serve = SERVE.replace("--site blog", &format!("--site {site}"));
        described(|facts| set_options(facts, &format!("restrict,{serve}")))
    };
    let line = served("shop");
    assert!(line.contains("on another site, 'shop'"), "{line}");
    let line = served("none");
    assert!(line.ends_with("can do nothing; nothing else"), "{line}");
    let line = served("odd");
    assert!(line.ends_with("can do is unknown"), "{line}");
    let line = described(|facts| set_setting(facts, "forcecommand", "/bin/x"));
    assert!(line.contains("runs sshd's ForceCommand '/bin/x'"), "{line}");
}

#[test]
fn limits_of_address_and_time_are_named() {
    let options = "restrict,from=\"192.0.2.0/24\",expiry-time=\"20270101\"";
    let line = described(|facts| set_options(facts, &format!("{options},{SERVE}")));
    let words = " line 3, only from 192.0.2.0/24, until 20270101): may";
    assert!(line.contains(words), "{line}");
}
