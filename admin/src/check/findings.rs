//! Everything that `check` may find: one table of words and remedies.

use std::fmt;

/// One thing that widens what a key, an account or a stranger can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub word: Word,
    /// Lower case, the problem, the subject in single quotes.
    pub problem: String,
    /// What the remedy is about: it stands where the table has `{}`.
    pub subject: String,
}

impl Finding {
    pub fn new(word: Word, subject: impl fmt::Display, problem: impl fmt::Display) -> Finding {
        Finding {
            word,
            problem: problem.to_string(),
            subject: subject.to_string(),
        }
    }

    pub fn remedy(&self) -> String {
        self.word.remedy().replace("{}", &self.subject)
    }
}

/// Defines the words, and the table of all of them.
macro_rules! words {
    ($($name:ident $word:literal $remedy:literal,)*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Word {
            $($name,)*
        }

        impl Word {
            /// Every word, in the order of the table.
            #[cfg(test)]
            pub const ALL: &[Word] = &[$(Word::$name,)*];

            /// The stable word that scripts may rely on.
            pub fn word(self) -> &'static str {
                match self {
                    $(Word::$name => $word,)*
                }
            }

            fn remedy(self) -> &'static str {
                match self {
                    $(Word::$name => $remedy,)*
                }
            }
        }
    };
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

words! {
    // Files and folders.
    ConfigWritable "config-writable" "chown root '{}' && chmod go-w '{}'",
    ConfigOfAccount "config-owned-by-account" "chown root '{}'",
    ProgramWritable "program-writable" "chown root '{}' && chmod go-w '{}'",
    ProgramOfAccount "program-owned-by-account" "chown root '{}'",
    ProgramDiffers "program-differs" "install this program there, or check with that one: '{}' check",
    HookWritable "hook-writable" "chown root '{}' && chmod go-w '{}'",
    HookOfAccount "hook-owned-by-account" "chown root '{}'",
    HookMissing "hook-missing" "install it, or name the program that is meant in the place of '{}'",
    RootWritable "root-writable" "chmod go-w '{}', and give it to root or the account",
    SharedWritable "shared-writable" "chmod o-w '{}'",
    KeysWritable "keys-file-writable" "chown root '{}' && chmod go-w '{}'",
    SshdConfigWritable "sshd-config-writable" "chown root '{}' && chmod go-w '{}'",

    // The account.
    AccountIsRoot "account-is-root" "give '{}' to an account of its own",
    AccountUnknown "account-unknown" "make an account with uid {}, or give the site to the one that there is",
    SharedUid "shared-uid" "give the account a uid that '{}' does not have",
    LoginShell "login-shell" "usermod --shell /usr/local/bin/deploy-shell '{}'",
    PasswordSet "password-not-locked" "usermod --password '*' '{}'",
    PasswordEmpty "password-empty" "usermod --password '*' '{}'",
    PowerfulGroup "powerful-group" "take the account out of the group: gpasswd --delete '{}'",
    HomeWritable "home-writable" "chown root '{}' && chmod go-w '{}'",
    SshFolderWritable "ssh-folder-writable" "chown root '{}' && chmod go-w '{}', or remove it",
    SshRc "ssh-rc" "rm '{}'",
    SshEnvironment "ssh-environment" "rm '{}'",
    StrayKeys "stray-keys" "rm '{}'",

    // What sshd allows the account.
    TcpForwarding "tcp-forwarding" "set AllowTcpForwarding no for '{}'",
    SocketForwarding "socket-forwarding" "set AllowStreamLocalForwarding no for '{}'",
    AgentForwarding "agent-forwarding" "set AllowAgentForwarding no for '{}'",
    X11Forwarding "x11-forwarding" "set X11Forwarding no for '{}'",
    Tunnel "tunnel" "set PermitTunnel no for '{}'",
    GatewayPorts "gateway-ports" "set GatewayPorts no for '{}'",
    UserRc "user-rc" "set PermitUserRC no for '{}'",
    UserEnvironment "user-environment" "set PermitUserEnvironment no; it cannot be set for '{}' alone",
    Terminal "terminal" "set PermitTTY no for '{}'",
    PasswordLogin "password-login" "set AuthenticationMethods publickey for '{}'",
    KeyboardInteractive "keyboard-interactive" "set AuthenticationMethods publickey for '{}'",
    EmptyPasswords "empty-passwords" "set PermitEmptyPasswords no for '{}'",
    HostBased "host-based" "set AuthenticationMethods publickey for '{}'",
    Gssapi "gssapi" "set AuthenticationMethods publickey for '{}'",
    Kerberos "kerberos" "set AuthenticationMethods publickey for '{}'",
    UserCa "user-ca" "set TrustedUserCAKeys none for '{}'",
    KeysCommand "keys-command" "set AuthorizedKeysCommand none for '{}'",
    PrincipalsFile "principals-file" "set AuthorizedPrincipalsFile none for '{}'",
    PrincipalsCommand "principals-command" "set AuthorizedPrincipalsCommand none for '{}'",
    AcceptEnv "accept-env" "set AcceptEnv for '{}' to a name that nothing reads, see sshd/50-deploy-shell.conf",
    ForceCommand "force-command" "set ForceCommand none for '{}', and command= for each key",
    AuthInfo "auth-info" "set ExposeAuthInfo yes for '{}'",
    StrictModes "strict-modes" "set StrictModes yes; it cannot be set for '{}' alone",
    SftpReachable "sftp-reachable" "put restrict,command=\"...\" before the key at {}",

    // Keys, one by one.
    KeyUnread "key-line-unread" "remove it, or print it anew with 'deploy-shell-admin authorize', at {}",
    KeyWithoutRestrict "key-without-restrict" "put 'restrict,' first, at {}",
    KeyWithoutCommand "key-without-command" "print the line with 'deploy-shell-admin authorize', at {}",
    OtherProgram "command-is-another-program" "print the line with 'deploy-shell-admin authorize', at {}",
    NotServe "command-is-not-serve" "print the line with 'deploy-shell-admin authorize', at {}",
    Obscure "command-is-not-plain" "print the line with 'deploy-shell-admin authorize', at {}",
    CommandWithoutPath "command-without-path" "write the program's absolute path, at {}",
    KeyWithoutLabel "key-without-label" "add --key LABEL to the command, at {}",
    KeyPortForwarding "key-port-forwarding" "put 'restrict,' first and remove 'port-forwarding', at {}",
    KeyAgentForwarding "key-agent-forwarding" "put 'restrict,' first and remove 'agent-forwarding', at {}",
    KeyX11Forwarding "key-x11-forwarding" "put 'restrict,' first and remove 'x11-forwarding', at {}",
    KeyTerminal "key-terminal" "put 'restrict,' first and remove 'pty', at {}",
    KeyUserRc "key-user-rc" "put 'restrict,' first and remove 'user-rc', at {}",
    KeyPermitOpen "key-permitopen" "remove permitopen=, at {}",
    KeyPermitListen "key-permitlisten" "remove permitlisten=, at {}",
    KeyTunnel "key-tunnel" "remove tunnel=, at {}",
    KeyEnvironment "key-environment" "remove environment=, at {}",
    KeyCertAuthority "key-cert-authority" "remove the line, and authorize each key by itself, at {}",
    KeyNoTouch "key-no-touch" "remove 'no-touch-required', at {}",
    WeakRsa "weak-rsa-key" "replace it by an ed25519 key, at {}",
    DsaKey "dsa-key" "replace it by an ed25519 key, at {}",
    KeyTwice "key-twice" "remove one of the lines, at {}",
    KeyTwiceOtherwise "key-twice-differing" "keep the line that is meant, and remove the other, at {}",
    LabelShared "label-shared" "give each key a label of its own: '{}' has several",

    // The site.
    AuditOptional "audit-not-required" "set required = true in [audit] of '{}'",
    AuditUnreachable "audit-unreachable" "start the syslog daemon that listens on '{}', or set another socket",
    AuditReplaceable "audit-socket-replaceable" "chown root '{}' && chmod go-w '{}'",
    SandboxOptional "sandbox-not-required" "set required = true in [sandbox] of '{}'",
    MonitorUnconfined "monitor-not-confined" "run Linux 6.2 or later, with what is missing switched on: {}",
    UnpackerUnconfined "unpacker-not-confined" "run Linux 6.2 or later, with what is missing switched on: {}",
    NoReserve "no-reserve" "set reserve = \"3%\" in [limits] of '{}'",
    NetworkFileSystem "network-file-system" "keep the site on a local file system, not on {}",
    SeveralFileSystems "several-file-systems" "umount '{}', or move the whole site there",
    CaseFolding "case-folding" "make '{}' anew without case folding",
    NoUnnamedFiles "no-unnamed-files" "keep '{}' on ext4, xfs, btrfs or tmpfs, with room left",
    ConfigUnreadable "config-unreadable" "make the configuration acceptable to the account: chown root '{}' && chmod 0644 '{}'",
    Layout "layout" "{}",
    SharedMissing "shared-missing" "{}",
    SharedUnsafe "shared-unsafe" "{}",
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn words_are_distinct_and_every_remedy_names_its_subject() {
        let words: BTreeSet<&str> = Word::ALL.iter().map(|word| word.word()).collect();
        assert_eq!(words.len(), Word::ALL.len());
        assert!(words.len() >= 30, "{}", words.len());
        for word in Word::ALL {
            let text = word.word();
            let kebab =
                |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            assert!(text.bytes().all(kebab), "{text}");
            let finding = Finding::new(*word, "SUBJECT", "problem");
            assert!(finding.remedy().contains("SUBJECT"), "{text}");
            assert!(!finding.remedy().contains("{}"), "{text}");
        }
    }
}
