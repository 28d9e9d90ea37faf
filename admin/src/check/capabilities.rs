//! Describes in a sentence what someone with a key can do: two tables of
//! capabilities, one of the site and one of sshd.

use super::facts::{Facts, ForcedCommand, Key, KeyPosition, ServeCommand, ServedSite};
use super::key_options::KeyOptions;
use super::rules;
use deploy_shell::policy::{Grants, Verb};

/// A row of a table: whether the key has the capability, and what that is.
type Capability = (bool, String);

/// What a key runs.
struct Effect {
    text: String,
    /// Whether someone with the key can run nothing else.
    bounded: bool,
}

fn bounded(text: impl Into<String>) -> Effect {
    let text = text.into();
    Effect {
        text,
        bounded: true,
    }
}

fn unbounded(text: String) -> Effect {
    Effect {
        text,
        bounded: false,
    }
}

/// Returns the line of the report about one key.
pub fn describe_key(facts: &Facts, position: KeyPosition<'_>, key: &Key) -> String {
    let name = match &key.command {
        ForcedCommand::Serve(ServeCommand {
            label: Some(label), ..
        }) => format!("key {label}"),
        _ => "key without a label".to_owned(),
    };
    let options = &key.entry.options;
    let authority = if options.cert_authority {
        "each key that it certifies: "
    } else {
        ""
    };
    let what = access(facts, options, &key.command);
    let fingerprint = key.entry.fingerprint;
    let limits = limits(options);
    format!("{name} ({fingerprint}, {position}{limits}): {authority}{what}")
}

/// Returns the lines of the report about certificates: one for each authority, and one
/// for each principal that check can read.
pub fn describe_certificates(facts: &Facts) -> Vec<String> {
    let certificates = &facts.certificates;
    let account = facts.account_name();
    let settings = facts.sshd.as_ref();
    let on = |keyword| settings.is_some_and(|settings| settings.is_on(keyword));
    let who = match (
        on("authorizedprincipalsfile"),
        on("authorizedprincipalscommand"),
    ) {
        (true, true) | (false, true) => "a principal that AuthorizedPrincipalsCommand prints",
        (true, false) => "a principal of AuthorizedPrincipalsFile",
        (false, false) => "the account itself; each runs the command that it forces",
    };
    let authorities = certificates.authorities.iter().map(|authority| {
        let (file, line) = (authority.file.display(), authority.line);
        format!(
            "authority ({}, {file} line {line}): its certificates log in as '{account}' if they \
             name {who}",
            authority.fingerprint
        )
    });
    let principals = certificates.principals.iter().filter_map(|principal| {
        let (name, options, command) = principal.entry.as_ref().ok()?;
        let what = access(facts, options, command);
        let (position, limits) = (principal.position(), limits(options));
        Some(format!(
            "principal {name} ({position}{limits}): each certificate for it: {what}"
        ))
    });
    authorities.chain(principals).collect()
}

/// Returns what someone can do with these options and this command.
fn access(facts: &Facts, options: &KeyOptions, command: &ForcedCommand) -> String {
    let effect = effect_of(facts, options, command);
    let extras = granted(sshd_capabilities(facts, options));
    let end = match (extras.is_empty(), effect.bounded, facts.sshd.is_some()) {
        (false, ..) => format!("; in addition, sshd lets it {}", enumerate(&extras)),
        (true, true, true) => "; nothing else".to_owned(),
        (true, true, false) => "; nothing else that check can see".to_owned(),
        (true, false, _) => String::new(),
    };
    effect.text + &end
}

/// Returns from where and until when sshd accepts the key.
fn limits(options: &KeyOptions) -> String {
    let from = options.from.iter();
    let until = options.expiry.iter();
    from.map(|from| format!(", only from {from}"))
        .chain(until.map(|until| format!(", until {until}")))
        .collect()
}

fn effect_of(facts: &Facts, options: &KeyOptions, command: &ForcedCommand) -> Effect {
    let account = facts.account_name();
    if let Some(command) = rules::sshd_forced_command(facts.sshd.as_ref()) {
        return unbounded(format!(
            "runs sshd's ForceCommand '{command}' as '{account}' instead of its own command"
        ));
    }
    let shown = options.command.as_deref().unwrap_or_default();
    match command {
        ForcedCommand::Serve(serve) => effect_of_serve(facts, serve),
        ForcedCommand::None => effect_without_command(facts, &account),
        ForcedCommand::NotServe => unbounded(format!(
            "runs '{shown}', which serves no site; someone with this key sees its output"
        )),
        ForcedCommand::OtherProgram => unbounded(format!(
            "runs '{shown}' as '{account}'; someone with this key can do everything that this \
             program lets a client do"
        )),
        ForcedCommand::NotPlain => unbounded(format!(
            "runs '{shown}' as '{account}'; the effect depends on the shell that reads it"
        )),
    }
}

fn effect_of_serve(facts: &Facts, serve: &ServeCommand) -> Effect {
    let verbs: Vec<String> = Verb::ALL
        .into_iter()
        .filter(|verb| serve.allow.allows(*verb))
        .map(|verb| verb.to_string())
        .collect();
    let verbs = enumerate(&verbs);
    match &serve.site {
        ServedSite::This => bounded(format!(
            "may {verbs} on site {}; someone with this key can {}",
            facts.config.site(),
            enumerate(&granted(site_capabilities(facts, serve.allow)))
        )),
        ServedSite::Other(other) => bounded(format!(
            "may {verbs} on another site, '{other}', and nothing on this one; check that site as well"
        )),
        ServedSite::Missing(path) => bounded(format!(
            "serves '{}', which does not exist; someone with this key can do nothing",
            path.display()
        )),
        ServedSite::Unreadable(path) => unbounded(format!(
            "serves '{}', which does not load here; what someone with this key can do is unknown",
            path.display()
        )),
    }
}

fn effect_without_command(facts: &Facts, account: &str) -> Effect {
    let settings = facts.sshd.as_ref();
    let subsystems = settings.map_or(&[][..], |settings| settings.all("subsystem"));
    let sftp = subsystems
        .iter()
        .any(|value| value.starts_with("sftp internal-sftp"));
    match facts.passwd() {
        _ if facts.login_shell_is_deploy_shell() && sftp => unbounded(format!(
            "has no command=; the login shell refuses, but someone with this key can read and \
             write every file that '{account}' can, by sftp"
        )),
        _ if facts.login_shell_is_deploy_shell() => bounded(
            "has no command=, and the login shell refuses: someone with this key can run nothing",
        ),
        Some(entry) => unbounded(format!(
            "has no command=; someone with this key can run any command as '{account}' with the \
             login shell '{}'",
            entry.shell.display()
        )),
        None => unbounded(format!(
            "has no command=; someone with this key can do everything that the login shell of \
             '{account}' allows"
        )),
    }
}

/// The capabilities that deploy-shell grants on the site.
fn site_capabilities(facts: &Facts, allow: Grants) -> Vec<Capability> {
    let config = &facts.config;
    let [receive, swap, rollback, list] = Verb::ALL.map(|verb| allow.allows(verb));
    let (content, such) = match &config.signatures {
        None => ("any content (no signatures are required)".to_owned(), ""),
        Some(required) => {
            let signers = match required.threshold.get() {
                1 => "a signer has".to_owned(),
                more => format!("{more} signers have"),
            };
            let path = required.allowed_signers.display();
            let content = format!("only what {signers} signed for this site ('{path}')");
            (content, "such ")
        }
    };
    // The application serves or runs what is published.
    let shared = config.shared.links.iter();
    let shared: Vec<String> = shared.map(|link| format!("'shared/{link}'")).collect();
    let access = if shared.is_empty() {
        String::new()
    } else {
        let shared = enumerate(&shared);
        format!(", with the application's access to {shared}")
    };
    let max = config.pending.max_per_key.min(config.pending.max);
    let floor = config
        .floor
        .iter()
        .map(|floor| format!("from '{floor}' on"));
    let signed = config
        .signatures
        .iter()
        .map(|_| "with valid signatures".to_owned());
    let conditions: Vec<String> = floor.chain(signed).collect();
    let conditions = if conditions.is_empty() {
        String::new()
    } else {
        format!(" ({})", conditions.join(", "))
    };
    let commands = config.commands().count();
    let run = match commands {
        1 => "the command".to_owned(),
        many => format!("the {many} commands"),
    };
    vec![
        (receive && swap, format!("publish {content}{access}")),
        (
            receive && !swap,
            format!("upload {content}, which is not live until another key swaps to it"),
        ),
        (
            receive,
            format!(
                "use half of the disk above the reserve for up to {max} {such}releases that were \
                 never live"
            ),
        ),
        (swap, format!("make any received release{conditions} live")),
        (
            rollback,
            format!("go back to any release{conditions} that was live and good"),
        ),
        // check cannot know which files of a release the commands execute.
        (
            commands > 0 && (swap || rollback),
            format!(
                "run {run} of the hooks and the checks, as the account, in the release's \
                 directory, with all code of the release that they execute"
            ),
        ),
        (list, "see which releases exist".to_owned()),
        (
            allow.allows_files(),
            "read the paths, sizes and digests of all files of every release".to_owned(),
        ),
    ]
}

/// The capabilities that sshd grants in addition to the command: those that both
/// the key's options and sshd's settings allow. An unknown setting counts as on.
fn sshd_capabilities(facts: &Facts, options: &KeyOptions) -> Vec<Capability> {
    let settings = facts.sshd.as_ref();
    let on = |keyword: &str| settings.is_none_or(|settings| settings.is_on(keyword));
    let disabled = settings.is_some_and(|settings| settings.is_on("disableforwarding"));
    let forwards = options.port_forwarding && !disabled;
    let has_rc = (facts.account.as_ref()).is_some_and(|account| account.home.has_rc);
    let tunnel = match settings {
        Some(settings) => settings.is_on("permittunnel"),
        None => options.tunnel.is_some(),
    };
    let targets = match options.permit_open.as_slice() {
        [] => "any host and port that the node reaches".to_owned(),
        some => enumerate(some),
    };
    let rows = [
        (
            forwards && on("allowtcpforwarding"),
            &*format!("connect to {targets}"),
        ),
        (
            forwards && on("allowstreamlocalforwarding"),
            "connect to the node's Unix sockets",
        ),
        (
            options.agent_forwarding && on("allowagentforwarding"),
            "forward its agent to the node",
        ),
        (options.x11_forwarding && on("x11forwarding"), "forward X11"),
        (options.pty && on("permittty"), "get a terminal"),
        (
            options.user_rc && on("permituserrc") && has_rc,
            "run ~/.ssh/rc",
        ),
        (tunnel, "join networks through a tunnel device"),
        (
            settings.is_some_and(rules::accepts_dangerous_variables),
            "set environment variables of its command",
        ),
    ];
    rows.map(|(has, what)| (has, what.to_owned())).into()
}

/// Returns the capabilities of a table that the key has.
fn granted(table: Vec<Capability>) -> Vec<String> {
    let rows = table.into_iter().filter(|(has, _)| *has);
    rows.map(|(_, what)| what).collect()
}

/// Returns `a`, `a and b`, or `a, b and c`.
pub fn enumerate(words: &[String]) -> String {
    match words {
        [] => String::new(),
        [one] => one.clone(),
        [init @ .., last] => format!("{} and {last}", init.join(", ")),
    }
}

#[cfg(test)]
mod tests;
