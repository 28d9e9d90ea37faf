//! What sshd allows the account, whatever a key's own options say.

use crate::check::facts::Settings;
use crate::check::findings::{Finding, Word};

/// Variables that change what a program does by being there; beside these, all
/// that start with one of [`PREFIXES`].
const VARIABLES: [&str; 12] = [
    "ENV",
    "IFS",
    "PATH",
    "HOME",
    "SHELL",
    "GCONV_PATH",
    "LOCPATH",
    "NLSPATH",
    "TZDIR",
    "TMPDIR",
    "HOSTALIASES",
    "RES_OPTIONS",
];
const PREFIXES: [&str; 5] = ["LD_", "SSH_", "BASH", "GLIBC_", "MALLOC_"];

/// Keywords that must be off: (keyword, whether DisableForwarding covers it,
/// word, what it gives a key that its options do not keep from it).
///
/// DisableForwarding left out agents and X11 before OpenSSH 10.0
/// (CVE-2025-32728), and says nothing of tunnels.
const OFF: [(&str, bool, Word, &str); 17] = [
    (
        "allowtcpforwarding",
        true,
        Word::TcpForwarding,
        "ports may be forwarded into and out of its network",
    ),
    (
        "allowstreamlocalforwarding",
        true,
        Word::SocketForwarding,
        "the sockets of databases and daemons may be reached",
    ),
    (
        "allowagentforwarding",
        false,
        Word::AgentForwarding,
        "agents may be forwarded",
    ),
    (
        "x11forwarding",
        false,
        Word::X11Forwarding,
        "X11 may be forwarded",
    ),
    (
        "permittunnel",
        false,
        Word::Tunnel,
        "network interfaces may be joined, even by a key with 'restrict'",
    ),
    (
        "gatewayports",
        false,
        Word::GatewayPorts,
        "forwarded ports may be open to other hosts",
    ),
    (
        "permituserrc",
        false,
        Word::UserRc,
        "~/.ssh/rc is run before a key's command",
    ),
    (
        "permituserenvironment",
        false,
        Word::UserEnvironment,
        "~/.ssh/environment and environment= of a key set variables",
    ),
    (
        "permittty",
        false,
        Word::Terminal,
        "terminals may be asked for",
    ),
    (
        "trustedusercakeys",
        false,
        Word::UserCa,
        "a certificate of that authority logs in without any line of ours, and so without command=",
    ),
    (
        "authorizedkeyscommand",
        false,
        Word::KeysCommand,
        "a program names more keys, and what they may do cannot be seen",
    ),
    (
        "authorizedprincipalsfile",
        false,
        Word::PrincipalsFile,
        "it names certificates that log in",
    ),
    (
        "authorizedprincipalscommand",
        false,
        Word::PrincipalsCommand,
        "a program names certificates that log in",
    ),
    (
        "permitemptypasswords",
        false,
        Word::EmptyPasswords,
        "an empty password would do",
    ),
    (
        "forcecommand",
        false,
        Word::ForceCommand,
        "it runs in place of every key's own command, so labels and --allow mean nothing",
    ),
    (
        "gssapiauthentication",
        false,
        Word::Gssapi,
        "a Kerberos ticket logs in without a key",
    ),
    (
        "kerberosauthentication",
        false,
        Word::Kerberos,
        "a Kerberos password logs in without a key",
    ),
];

/// Other ways in than a key: (keyword, the method's name, word).
const METHODS: [(&str, &str, Word); 3] = [
    ("passwordauthentication", "password", Word::PasswordLogin),
    (
        "kbdinteractiveauthentication",
        "keyboard-interactive",
        Word::KeyboardInteractive,
    ),
    ("hostbasedauthentication", "hostbased", Word::HostBased),
];

pub fn judge(settings: &Settings, account: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut find = |word, problem: String| findings.push(Finding::new(word, account, problem));
    let covered = settings.on("disableforwarding");
    for (keyword, coverable, word, gives) in OFF {
        let method = match word {
            Word::Gssapi => Some("gssapi-with-mic"),
            Word::Kerberos | Word::EmptyPasswords => Some("password"),
            _ => None,
        };
        let shut_out = method.is_some_and(|method| !suffices(settings, method));
        if settings.on(keyword) && !(coverable && covered) && !shut_out {
            let value = settings.get(keyword).unwrap_or_default();
            find(
                word,
                format!("sshd has '{keyword} {value}' for '{account}': {gives}"),
            );
        }
    }
    for (keyword, method, word) in METHODS {
        if settings.on(keyword) && suffices(settings, method) {
            find(
                word,
                format!("sshd has '{keyword} yes' for '{account}': that is a way in without a key"),
            );
        }
    }
    let accepted: Vec<&str> = settings
        .all("acceptenv")
        .iter()
        .map(String::as_str)
        .collect();
    for pattern in accepted.iter().filter(|pattern| sets_variable(pattern)) {
        find(
            Word::AcceptEnv,
            format!(
                "sshd has 'acceptenv {pattern}' for '{account}': a client sets variables of what its key runs"
            ),
        );
    }
    if !settings.on("exposeauthinfo") {
        find(
            Word::AuthInfo,
            format!(
                "sshd has 'exposeauthinfo no' for '{account}': the record cannot tell which key was used"
            ),
        );
    }
    if !settings.on("strictmodes") {
        let problem = "sshd has 'strictmodes no': it reads keys files that others can write";
        find(Word::StrictModes, problem.to_owned());
    }
    findings
}

/// Whether `method` is enough, or a part of what is enough, to log in without
/// any key (AuthenticationMethods, sshd_config(5)).
fn suffices(settings: &Settings, method: &str) -> bool {
    let lists = settings.get("authenticationmethods").unwrap_or("any");
    let name = |word: &str| word.split(':').next().unwrap_or_default().to_owned();
    lists.split_ascii_whitespace().any(|list| {
        let methods: Vec<String> = list.split(',').map(name).collect();
        list == "any"
            || methods.iter().any(|known| known == method)
                && methods.iter().all(|known| known != "publickey")
    })
}

/// sshd's own command, if it runs one in place of the keys'.
pub fn forced(settings: Option<&Settings>) -> Option<&str> {
    let settings = settings.filter(|settings| settings.on("forcecommand"))?;
    settings.get("forcecommand")
}

/// Whether a client may set variables that matter.
pub fn sets_variables(settings: &Settings) -> bool {
    let patterns = settings.all("acceptenv");
    patterns.iter().any(|pattern| sets_variable(pattern))
}

fn sets_variable(pattern: &str) -> bool {
    pattern.contains(['*', '?'])
        || VARIABLES.contains(&pattern)
        || PREFIXES.iter().any(|prefix| pattern.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_counts_where_no_key_is_asked_for() {
        let with = |lists: &str| {
            let mut settings = Settings::default();
            settings
                .0
                .insert("authenticationmethods".into(), vec![lists.into()]);
            settings
        };
        assert!(suffices(&Settings::default(), "password"));
        assert!(suffices(&with("any"), "password"));
        assert!(!suffices(&with("publickey"), "password"));
        assert!(!suffices(&with("publickey,password"), "password"));
        assert!(suffices(
            &with("publickey keyboard-interactive:pam"),
            "keyboard-interactive"
        ));
        assert!(!suffices(&with("publickey hostbased"), "password"));
    }

    #[test]
    fn variables_that_matter() {
        for bad in [
            "*",
            "LC_*",
            "LANG?",
            "SSH_ORIGINAL_COMMAND",
            "LD_PRELOAD",
            "BASH_ENV",
            "PATH",
        ] {
            assert!(sets_variable(bad), "{bad}");
        }
        for good in ["LANG", "DEPLOY_SHELL_ACCEPTS_NOTHING", "TERM"] {
            assert!(!sets_variable(good), "{good}");
        }
    }
}
