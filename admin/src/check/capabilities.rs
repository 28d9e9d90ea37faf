//! What a thief of one key could do, in plain words.

use super::facts::{Facts, Key, Place, Runs, Serve, Site};
use super::key_options::Options;
use super::rules;
use deploy_shell::policy::{Grants, Verb};

/// What holds for every release where the site asks for no signatures.
const UNSIGNED: &str = "no signatures are required";

/// What holds where the site has hooks: which of a release's files they
/// execute, cannot be told from here.
const RUNS: &str = "have {} of its hooks and health check run, as the account and in the \
                    release's folder, with whatever of the release they execute";

/// What a thief of one key could do.
pub fn tell(facts: &Facts, place: Place<'_>, key: &Key) -> String {
    let name = match &key.runs {
        Runs::Serve(Serve {
            key: Some(label), ..
        }) => format!("key {label}"),
        _ => "key without a label".to_owned(),
    };
    let options = &key.line.options;
    let (what, bounded) = runs(facts, key);
    let authority = match options.cert_authority {
        true => "whoever it certifies: ",
        false => "",
    };
    let extras = extras(facts, options);
    let end = match (extras.is_empty(), bounded, facts.server.is_some()) {
        (false, ..) => format!("; and beside that {}", and(&extras)),
        (true, true, true) => "; nothing else".to_owned(),
        (true, true, false) => "; nothing else that could be seen".to_owned(),
        (true, false, _) => String::new(),
    };
    let print = key.line.fingerprint;
    format!(
        "{name} ({print}, {place}{}): {authority}{what}{end}",
        only(options)
    )
}

/// Where and until when the key is good.
fn only(options: &Options) -> String {
    let from = options
        .from
        .iter()
        .map(|from| format!(", only from {from}"));
    let until = options
        .expiry
        .iter()
        .map(|until| format!(", until {until}"));
    from.chain(until).collect()
}

/// What the key runs, and whether that is a bound.
fn runs(facts: &Facts, key: &Key) -> (String, bool) {
    let account = facts.account_name();
    if let Some(command) = rules::forced(facts.server.as_ref()) {
        let text =
            format!("runs sshd's own '{command}' as '{account}', in place of its own command");
        return (text, false);
    }
    let command = key.line.options.command.as_deref().unwrap_or_default();
    match &key.runs {
        Runs::Serve(serve) => served(facts, serve),
        Runs::NotServe => (
            format!("runs '{command}', which serves nothing; a thief could see what that prints"),
            false,
        ),
        Runs::Other => (
            format!(
                "runs '{command}' as '{account}'; a thief could do whatever that program lets a client do"
            ),
            false,
        ),
        Runs::Obscure => (
            format!(
                "runs '{command}' as '{account}'; what that is depends on the shell that reads it"
            ),
            false,
        ),
        Runs::Anything => anything(facts, &account),
    }
}

fn served(facts: &Facts, serve: &Serve) -> (String, bool) {
    let text = match &serve.site {
        Site::This => format!(
            "may {} on site {}; a thief could {}",
            verbs(serve.allow),
            facts.config.site(),
            and(&could(facts, serve.allow))
        ),
        Site::Other(other) => format!(
            "may {} on another site, '{other}', and nothing on this one; check that site as well",
            verbs(serve.allow)
        ),
        Site::None(path) => format!(
            "serves '{}', which does not exist; a thief could do nothing",
            path.display()
        ),
        Site::Unread(path) => {
            let shown = path.display();
            let text = format!(
                "serves '{shown}', which does not load here; what a thief could do cannot be said"
            );
            return (text, false);
        }
    };
    (text, true)
}

fn anything(facts: &Facts, account: &str) -> (String, bool) {
    let settings = facts.server.as_ref();
    let subsystems = settings.map_or(&[][..], |settings| settings.all("subsystem"));
    let sftp = subsystems
        .iter()
        .any(|value| value.starts_with("sftp internal-sftp"));
    let entry = facts
        .account
        .as_ref()
        .and_then(|account| account.entry.as_ref());
    let text = match entry {
        _ if facts.shell_is_ours() && sftp => format!(
            "has no command=; the login shell refuses, but a thief could read and write every file that '{account}' can, by sftp"
        ),
        _ if facts.shell_is_ours() => {
            return (
                "has no command=, and the login shell refuses: a thief could run nothing"
                    .to_owned(),
                true,
            );
        }
        Some(entry) => format!(
            "has no command=; a thief could run any command as '{account}' with the login shell '{}'",
            entry.shell.display()
        ),
        None => format!(
            "has no command=; a thief could do as '{account}' whatever its login shell lets anyone do"
        ),
    };
    (text, false)
}

fn verbs(allow: Grants) -> String {
    let all = [Verb::Receive, Verb::Swap, Verb::Rollback, Verb::List];
    let words: Vec<String> = all
        .into_iter()
        .filter(|verb| allow.allows(*verb))
        .map(|verb| verb.to_string())
        .collect();
    and(&words)
}

fn could(facts: &Facts, allow: Grants) -> Vec<String> {
    let mut found = Vec::new();
    let config = &facts.config;
    let max = config.pending.max;
    let (content, such, which) = match &config.signatures {
        None => (format!("any content ({UNSIGNED})"), "", ""),
        Some(wanted) => {
            let signers = match wanted.threshold.get() {
                1 => "a signer has".to_owned(),
                more => format!("{more} signers have"),
            };
            let path = wanted.allowed_signers.display();
            let content = format!("only what {signers} signed for this site ('{path}')");
            (content, "such ", " whose signatures hold")
        }
    };
    // As the application: it is that which runs, or serves, what is published.
    let links = config.shared.links.iter();
    let shared: Vec<String> = links.map(|link| format!("'shared/{link}'")).collect();
    let reach = match shared.is_empty() {
        true => String::new(),
        false => format!(", which reaches {} as the application does", and(&shared)),
    };
    match (allow.allows(Verb::Receive), allow.allows(Verb::Swap)) {
        (true, true) => found.push(format!("publish {content}{reach}")),
        (true, false) => found.push(format!(
            "upload {content}, which is not live before another key swaps to it"
        )),
        _ => {}
    }
    if allow.allows(Verb::Receive) {
        found.push(format!(
            "fill the disk with up to {max} {such}releases that were never live, down to the reserve"
        ));
    }
    let floor = match &config.floor.0 {
        None => String::new(),
        Some(floor) => format!(" from '{floor}' on"),
    };
    if allow.allows(Verb::Swap) {
        found.push(format!("make any received release{floor} live{which}"));
    }
    if allow.allows(Verb::Rollback) {
        found.push(format!(
            "go back to any release{floor} that was live and good{which}"
        ));
    }
    let moves = allow.allows(Verb::Swap) || allow.allows(Verb::Rollback);
    match config.commands().count() {
        0 => {}
        _ if !moves => {}
        1 => found.push(RUNS.replace("{}", "the command")),
        many => found.push(RUNS.replace("{}", &format!("the {many} commands"))),
    }
    if allow.allows(Verb::List) {
        found.push("see which releases there are".to_owned());
    }
    found
}

/// What sshd gives the key beside its command, where both its options and the
/// server's settings do; a setting that could not be seen counts as on.
fn extras(facts: &Facts, options: &Options) -> Vec<String> {
    let settings = facts.server.as_ref();
    let on = |keyword: &str| settings.is_none_or(|settings| settings.on(keyword));
    let covered = settings.is_some_and(|settings| settings.on("disableforwarding"));
    let rc = facts
        .account
        .as_ref()
        .is_some_and(|account| account.home.rc);
    let forwards = options.port_forwarding && !covered;
    let tunnel = match settings {
        Some(settings) => settings.on("permittunnel"),
        None => options.tunnel.is_some(),
    };
    let targets = match options.permit_open.as_slice() {
        [] => "any host and port that the node reaches".to_owned(),
        some => and(some),
    };
    [
        (
            forwards && on("allowtcpforwarding"),
            format!("connect to {targets}"),
        ),
        (
            forwards && on("allowstreamlocalforwarding"),
            "connect to the node's own sockets".to_owned(),
        ),
        (
            options.agent_forwarding && on("allowagentforwarding"),
            "use an agent of its own on the node".to_owned(),
        ),
        (
            options.x11_forwarding && on("x11forwarding"),
            "forward X11".to_owned(),
        ),
        (options.pty && on("permittty"), "have a terminal".to_owned()),
        (
            options.user_rc && on("permituserrc") && rc,
            "have ~/.ssh/rc run".to_owned(),
        ),
        (tunnel, "join networks by a tunnel device".to_owned()),
        (
            settings.is_some_and(rules::sets_variables),
            "set variables of what it runs".to_owned(),
        ),
    ]
    .into_iter()
    .filter(|(has, _)| *has)
    .map(|(_, what)| what)
    .collect()
}

/// `a`, `a and b`, `a, b and c`.
fn and(words: &[String]) -> String {
    match words {
        [] => String::new(),
        [one] => one.clone(),
        [init @ .., last] => format!("{} and {last}", init.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{SERVE, key, sound};
    use super::*;

    /// What is told of the only key.
    fn told(change: impl Fn(&mut Facts)) -> String {
        let mut facts = sound();
        change(&mut facts);
        let (place, key) = facts.keys().next().unwrap();
        tell(&facts, place, key)
    }

    fn options(facts: &mut Facts, text: &str) {
        facts.sources[0].lines[0].key = Ok(key(text));
    }

    #[test]
    fn a_sound_key_is_told_in_one_sentence() {
        let line = told(|_| {});
        assert!(line.starts_with("key ci (SHA256:"), "{line}");
        assert!(
            line.ends_with(
                ", /etc/deploy-shell/authorized_keys/deploy line 3): may receive, swap, rollback \
                 and list on site blog; a thief could publish any content (no signatures are \
                 required), fill the disk with up to 10 releases that were never live, down to \
                 the reserve, make any received release live, go back to any release that was \
                 live and good and see which releases there are; nothing else"
            ),
            "{line}"
        );
    }

    #[test]
    fn each_grant_has_its_words() {
        for (allow, words) in [
            (
                "receive",
                "which is not live before another key swaps to it",
            ),
            (
                "swap",
                "may swap on site blog; a thief could make any received release live; nothing else",
            ),
            (
                "rollback",
                "a thief could go back to any release that was live and good; nothing else",
            ),
            (
                "list",
                "a thief could see which releases there are; nothing else",
            ),
        ] {
            let command =
                format!("restrict,command=\"/usr/local/bin/deploy-shell serve blog ci {allow}\"");
            let line = told(|facts| options(facts, &command));
            assert!(line.contains(words), "{line}");
            assert!(!line.contains("publish"), "{line}");
        }
    }

    #[test]
    fn signatures_and_a_floor_are_told() {
        let line = told(|facts| {
            let text = "root = \"/srv/blog\"\nfloor = \"r1\"\n[signatures]\nthreshold = 2\n\
                        allowed_signers = \"/etc/s\"";
            let site = facts.config.site.take();
            facts.config = toml::from_str(text).unwrap();
            facts.config.site = site;
        });
        assert!(!line.contains(UNSIGNED), "{line}");
        for words in [
            "could publish only what 2 signers have signed for this site ('/etc/s'), ",
            "make any received release from 'r1' on live whose signatures hold, ",
            "go back to any release from 'r1' on that was live and good whose signatures hold",
        ] {
            assert!(line.contains(words), "{line}");
        }
    }

    #[test]
    fn hooks_are_told_of_keys_that_run_them() {
        let hooked = |facts: &mut Facts| {
            let text = "root = \"/srv/blog\"\n[[hooks.before_swap]]\n\
                        command = [\"/usr/bin/php\", \"artisan\"]\n\
                        [health]\ncommand = [\"/usr/local/bin/healthy\"]";
            let site = facts.config.site.take();
            facts.config = toml::from_str(text).unwrap();
            facts.config.site = site;
        };
        let words = "have the 2 commands of its hooks and health check run, as the account";
        assert!(told(hooked).contains(words), "{}", told(hooked));
        let lists = told(|facts| {
            hooked(facts);
            let command = "restrict,command=\"/usr/local/bin/deploy-shell serve blog ci list\"";
            options(facts, command);
        });
        assert!(!lists.contains("hooks"), "{lists}");
    }

    #[test]
    fn what_a_published_release_shares_is_told() {
        let share = |facts: &mut Facts| {
            let site = facts.config.site.take();
            let text = "root = \"/srv/blog\"\n[shared]\nlinks = [\".env\", \"up\"]";
            facts.config = toml::from_str(text).unwrap();
            facts.config.site = site;
        };
        let reach = ", which reaches 'shared/.env' and 'shared/up' as the application does, ";
        assert!(told(share).contains(reach), "{}", told(share));
        // Who cannot make it live reaches nothing by it.
        let upload = format!("restrict,{}", SERVE.replace("blog ci", "blog ci receive"));
        let line = told(|facts| {
            share(facts);
            options(facts, &upload);
        });
        assert!(
            line.contains("upload") && !line.contains("shared/"),
            "{line}"
        );
    }

    #[test]
    fn what_comes_beside_the_command_is_told() {
        let bare = "command=\"/usr/local/bin/deploy-shell serve blog ci\"";
        // sshd keeps it from a key that its options let have it.
        assert!(told(|facts| options(facts, bare)).ends_with("; nothing else"));
        let line = told(|facts| {
            options(facts, bare);
            facts.server = None;
        });
        assert!(
            line.contains("; and beside that connect to any host and port"),
            "{line}"
        );
        assert!(line.contains("have a terminal"), "{line}");
        let line = told(|facts| {
            let settings = facts.server.as_mut().unwrap();
            settings.0.insert("permittunnel".into(), vec!["yes".into()]);
            settings.0.insert("acceptenv".into(), vec!["LD_*".into()]);
        });
        assert!(
            line.ends_with("; and beside that join networks by a tunnel device and set variables of what it runs"),
            "{line}"
        );
    }

    #[test]
    fn without_a_forced_command_the_shell_is_the_bound() {
        let line = told(|facts| options(facts, "restrict"));
        assert!(
            line.ends_with("a thief could run nothing; nothing else"),
            "{line}"
        );
        let line = told(|facts| {
            options(facts, "restrict");
            let settings = facts.server.as_mut().unwrap();
            settings
                .0
                .insert("subsystem".into(), vec!["sftp internal-sftp".into()]);
        });
        assert!(line.contains("read and write every file"), "{line}");
        assert!(!line.contains("nothing else"), "{line}");
        let line = told(|facts| {
            options(facts, "restrict");
            let entry = facts.account.as_mut().unwrap().entry.as_mut().unwrap();
            entry.shell = "/bin/bash".into();
        });
        assert!(
            line.contains("run any command as 'deploy' with the login shell '/bin/bash'"),
            "{line}"
        );
    }

    #[test]
    fn other_sites_and_no_sites_are_told_apart() {
        let serve = |config: &str| {
            format!("restrict,command=\"/usr/local/bin/deploy-shell serve {config} ci\"")
        };
        let line = told(|facts| options(facts, &serve("shop")));
        assert!(line.contains("on another site, 'shop'"), "{line}");
        let line = told(|facts| options(facts, &serve("none")));
        assert!(
            line.ends_with("a thief could do nothing; nothing else"),
            "{line}"
        );
        let line = told(|facts| options(facts, &serve("odd")));
        assert!(
            line.ends_with("what a thief could do cannot be said"),
            "{line}"
        );
        let line = told(|facts| {
            let settings = facts.server.as_mut().unwrap();
            settings
                .0
                .insert("forcecommand".into(), vec!["/bin/x".into()]);
        });
        assert!(line.contains("runs sshd's own '/bin/x'"), "{line}");
    }

    #[test]
    fn bounds_of_place_and_time_are_told() {
        let line = told(|facts| {
            options(
                facts,
                "restrict,from=\"192.0.2.0/24\",expiry-time=\"20270101\",command=\"/usr/local/bin/deploy-shell serve blog ci\"",
            );
        });
        assert!(
            line.contains(" line 3, only from 192.0.2.0/24, until 20270101): may"),
            "{line}"
        );
    }
}
