//! Findings about what sshd allows the account, whatever a key's options say.

use std::time::Duration;

use crate::check::facts::SshdSettings;
use crate::check::findings::{Finding, FindingCode};
use deploy_shell::config::Config;
use deploy_shell::signature::list_matches;

/// Variables that change what a program does when they are set. All that start
/// with one of [`PREFIXES`] count as well.
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

/// Keywords that must be off: (keyword, whether DisableForwarding covers it, code,
/// the consequence).
///
/// Before OpenSSH 10.0, DisableForwarding did not cover agents and X11
/// (CVE-2025-32728). It never covers tunnels.
const MUST_BE_OFF: [(&str, bool, FindingCode, &str); 18] = [
    (
        "allowtcpforwarding",
        true,
        FindingCode::TcpForwarding,
        "a key may forward ports into and out of its network",
    ),
    (
        "allowstreamlocalforwarding",
        true,
        FindingCode::SocketForwarding,
        "a key may reach the sockets of databases and daemons",
    ),
    (
        "allowagentforwarding",
        false,
        FindingCode::AgentForwarding,
        "a key may forward its agent",
    ),
    (
        "x11forwarding",
        false,
        FindingCode::X11Forwarding,
        "a key may forward X11",
    ),
    (
        "permittunnel",
        false,
        FindingCode::Tunnel,
        "a key may join network interfaces, even a key with 'restrict'",
    ),
    (
        "gatewayports",
        false,
        FindingCode::GatewayPorts,
        "other hosts may connect to forwarded ports",
    ),
    (
        "permituserrc",
        false,
        FindingCode::UserRc,
        "sshd runs ~/.ssh/rc before a key's command",
    ),
    (
        "permituserenvironment",
        false,
        FindingCode::UserEnvironment,
        "~/.ssh/environment and environment= of a key set variables",
    ),
    (
        "permittty",
        false,
        FindingCode::Terminal,
        "a key may get a terminal",
    ),
    (
        "trustedusercakeys",
        false,
        FindingCode::UserCa,
        "a certificate of that authority logs in without a line in a keys file",
    ),
    (
        "authorizedkeyscommand",
        false,
        FindingCode::KeysCommand,
        "a program adds keys, and check cannot see what they may do",
    ),
    (
        "authorizedprincipalsfile",
        false,
        FindingCode::PrincipalsFile,
        "certificates that name one of its principals log in",
    ),
    (
        "authorizedprincipalscommand",
        false,
        FindingCode::PrincipalsCommand,
        "a program adds certificates that log in",
    ),
    (
        "permitemptypasswords",
        false,
        FindingCode::EmptyPasswords,
        "an empty password logs in",
    ),
    (
        "forcecommand",
        false,
        FindingCode::ForceCommand,
        "it replaces every key's own command, so labels and --allow have no effect",
    ),
    (
        "chrootdirectory",
        false,
        FindingCode::Chroot,
        "it finds neither the program nor the site there, and every request fails",
    ),
    (
        "gssapiauthentication",
        false,
        FindingCode::Gssapi,
        "a Kerberos ticket logs in without a key",
    ),
    (
        "kerberosauthentication",
        false,
        FindingCode::Kerberos,
        "a Kerberos password logs in without a key",
    ),
];

/// Methods that log in without a key: (keyword, the method's name, code).
const METHODS: [(&str, &str, FindingCode); 3] = [
    (
        "passwordauthentication",
        "password",
        FindingCode::PasswordLogin,
    ),
    (
        "kbdinteractiveauthentication",
        "keyboard-interactive",
        FindingCode::KeyboardInteractive,
    ),
    (
        "hostbasedauthentication",
        "hostbased",
        FindingCode::HostBased,
    ),
];

pub fn sshd_findings(settings: &SshdSettings, account: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut add = |code, keyword: &str, value: &str, why: &str| {
        let text = format!("sshd has '{keyword} {value}' for '{account}': {why}");
        findings.push(Finding::new(code, account, text));
    };
    let disabled = settings.is_on("disableforwarding");
    for (keyword, covered, code, why) in MUST_BE_OFF {
        let method = match code {
            FindingCode::Gssapi => Some("gssapi-with-mic"),
            FindingCode::Kerberos | FindingCode::EmptyPasswords => Some("password"),
            _ => None,
        };
        let excluded = method.is_some_and(|method| !suffices(settings, method));
        if settings.is_on(keyword) && !(covered && disabled) && !excluded {
            let value = settings.get(keyword).unwrap_or_default();
            add(code, keyword, value, why);
        }
    }
    // sshd_config(5) recommends an account of its own. The answer of the program decides
    // who logs in, and it runs before anybody has.
    let keyword = "authorizedkeyscommanduser";
    if settings.is_on("authorizedkeyscommand")
        && let Some(user) = settings.get(keyword)
        && (user == account || user == "root")
    {
        let why = if user == account {
            "what runs as the account can change which keys the program prints"
        } else {
            "the program runs as root for clients that have not logged in"
        };
        add(FindingCode::KeysCommandUser, keyword, user, why);
    }
    for (keyword, method, code) in METHODS {
        if settings.is_on(keyword) && suffices(settings, method) {
            add(code, keyword, "yes", "a user can log in without a key");
        }
    }
    for pattern in settings.all("acceptenv") {
        if is_dangerous_variable(pattern) {
            let why = "a client can set environment variables of its key's command";
            add(FindingCode::AcceptEnv, "acceptenv", pattern, why);
        }
    }
    if !settings.is_on("exposeauthinfo") {
        let why = "the log cannot say which key was used";
        add(FindingCode::AuthInfo, "exposeauthinfo", "no", why);
    }
    if !settings.is_on("strictmodes") {
        let why = "sshd reads keys files that other users can write";
        add(FindingCode::StrictModes, "strictmodes", "no", why);
    }
    findings
}

/// The type of the channel of a forced command (channels.c of OpenSSH).
const CHANNEL: &str = "session:command";

/// A ChannelTimeout that is shorter than a silent step closes the session meanwhile:
/// the client sees 255, and the request goes on. UnusedConnectionTimeout does not
/// count while a session is open.
pub fn channel_timeout(settings: &SshdSettings, config: &Config, account: &str) -> Option<Finding> {
    let value = settings.get("channeltimeout")?;
    let words = value.split_ascii_whitespace();
    // sshd takes the first pattern that matches.
    let (_, interval) = words
        .filter_map(|word| word.split_once('='))
        .find(|(pattern, _)| list_matches(pattern, CHANNEL))?;
    let limit = sshd_interval(interval)?;
    let hooks = config.hooks.all().map(|hook| hook.timeout);
    let health = &config.health;
    let checks = health.command.is_some() || health.url.is_some() || health.has_smoke_test();
    let longest = hooks
        .chain([config.limits.idle_timeout])
        .chain(checks.then_some(health.timeout))
        .max()?;
    (!limit.is_zero() && limit < longest).then(|| {
        let (limit, longest) = (limit.as_secs(), longest.as_secs());
        let text = format!(
            "sshd has 'channeltimeout {value}' for '{account}': it closes a session that is \
             silent for {limit} s, and a hook, a health check or an upload may be silent for \
             {longest} s; the client then sees exit status 255 whatever the result is"
        );
        Finding::new(FindingCode::ChannelTimeout, account, text)
    })
}

/// Parses a time of sshd_config(5), such as `90`, `5m` or `1h30m`.
fn sshd_interval(text: &str) -> Option<Duration> {
    let mut total = 0_u64;
    let mut rest = text;
    // Terminates: each turn removes a digit at least.
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest[..digits].parse().ok()?;
        let unit = rest[digits..].bytes().next();
        let seconds = match unit.map(|unit| unit.to_ascii_lowercase()) {
            None | Some(b's') => 1,
            Some(b'm') => 60,
            Some(b'h') => 3600,
            Some(b'd') => 86_400,
            Some(b'w') => 604_800,
            Some(_) => return None,
        };
        total = total.checked_add(number.checked_mul(seconds)?)?;
        rest = &rest[digits + usize::from(unit.is_some())..];
    }
    Some(Duration::from_secs(total))
}

/// Returns whether `method` is enough, or a part of what is enough, to log in
/// without any key (AuthenticationMethods, sshd_config(5)).
fn suffices(settings: &SshdSettings, method: &str) -> bool {
    let lists = settings.get("authenticationmethods").unwrap_or("any");
    let name = |word: &str| word.split(':').next().unwrap_or_default().to_owned();
    lists.split_ascii_whitespace().any(|list| {
        let methods: Vec<String> = list.split(',').map(name).collect();
        list == "any"
            || methods.iter().any(|known| known == method)
                && methods.iter().all(|known| known != "publickey")
    })
}

/// Returns sshd's ForceCommand, which replaces the commands of all keys.
pub fn sshd_forced_command(settings: Option<&SshdSettings>) -> Option<&str> {
    let settings = settings.filter(|settings| settings.is_on("forcecommand"))?;
    settings.get("forcecommand")
}

/// Returns whether a client may set variables that change what a program does.
pub fn accepts_dangerous_variables(settings: &SshdSettings) -> bool {
    let patterns = settings.all("acceptenv");
    patterns
        .iter()
        .any(|pattern| is_dangerous_variable(pattern))
}

fn is_dangerous_variable(pattern: &str) -> bool {
    pattern.contains(['*', '?'])
        || VARIABLES.contains(&pattern)
        || PREFIXES.iter().any(|prefix| pattern.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_suffices_where_no_key_is_required() {
        let with = |lists: &str| {
            let mut settings = SshdSettings::default();
            settings
                .0
                .insert("authenticationmethods".into(), vec![lists.into()]);
            settings
        };
        assert!(suffices(&SshdSettings::default(), "password"));
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
    fn a_channel_timeout_is_compared_with_the_longest_silent_step() {
        let found = |value: &str, config: &str| {
            let mut settings = SshdSettings::default();
            let values = vec![value.to_owned()];
            settings.0.insert("channeltimeout".to_owned(), values);
            let config: Config = toml::from_str(&format!("root = \"/srv/x\"\n{config}")).unwrap();
            channel_timeout(&settings, &config, "deploy").map(|finding| finding.text)
        };
        let hook = "[[hooks.after_swap]]\ncommand = [\"/bin/true\"]\ntimeout = \"5m\"";
        for (value, config, expected) in [
            ("none", hook, None),
            ("session:*=2s", "", Some("for 2 s, and")),
            ("session:*=30s", "", None),
            ("session:*=1m", hook, Some("silent for 300 s")),
            ("*=4m59s", hook, Some("silent for 300 s")),
            ("session:*=5m", hook, None),
            ("session:*=0", hook, None),
            ("session:shell=1s x11-connection=1s", hook, None),
            ("session:command=1h session:*=1s", hook, None),
            (
                "session:*=1h",
                "[health]\nurl = \"http://127.0.0.1/\"",
                None,
            ),
            (
                "session:*=1m",
                "[health]\nurl = \"http://127.0.0.1/\"",
                Some("120 s"),
            ),
        ] {
            let text = found(value, config);
            match expected {
                None => assert_eq!(text, None, "{value}"),
                Some(words) => assert!(text.unwrap().contains(words), "{value}"),
            }
        }
        assert_eq!(sshd_interval("1w2d"), Some(Duration::from_secs(777_600)));
        for bad in ["x", "1x", "s", "99999999999999999999"] {
            assert_eq!(sshd_interval(bad), None, "{bad}");
        }
    }

    #[test]
    fn variables_that_change_programs_are_dangerous() {
        for bad in [
            "*",
            "LC_*",
            "LANG?",
            "SSH_ORIGINAL_COMMAND",
            "LD_PRELOAD",
            "BASH_ENV",
            "PATH",
        ] {
            assert!(is_dangerous_variable(bad), "{bad}");
        }
        for good in ["LANG", "DEPLOY_SHELL_ACCEPTS_NOTHING", "TERM"] {
            assert!(!is_dangerous_variable(good), "{good}");
        }
    }
}
