//! The commands that follow `init`, for this site: they can be copied as they are.

use std::path::Path;

use deploy_shell::config::{Config, DIRECTORY};
use deploy_shell::shell_word::Word;
use deploy_shell::store::journal;
use ssh_key::PublicKey;

/// Where the packages and the README put the drop-in for sshd.
const DROP_IN: &str = "/etc/ssh/sshd_config.d/00-deploy-shell.conf";

/// The key that the server proves itself with.
const HOST_KEY: &str = "/etc/ssh/ssh_host_ed25519_key.pub";

/// Returns the steps from a new site to its first deploy.
pub fn of_a_new_site(config: &Config, account: &str) -> Vec<String> {
    let option = config.site_option();
    let keys = format!("{DIRECTORY}/authorized_keys");
    let keys_file = Word::plain(format!("{keys}/{account}"));
    let mut lines = vec!["next, here as root (ci.pub is the public key of the client):".to_owned()];
    let mut step = |line: String| lines.push(format!("    {line}"));
    if !Path::new(&keys).is_dir() {
        step(format!("install -d -m 0755 {keys}"));
    }
    step(format!(
        "deploy-shell-admin authorize {option} --key ci ci.pub >> {keys_file}"
    ));
    step(format!("chmod 0644 {keys_file}"));
    let drop_in = std::fs::read_to_string(DROP_IN);
    if let Some(command) = drop_in_command(drop_in.ok().as_deref(), account) {
        step(command);
        step("sshd -t && { systemctl reload ssh || systemctl reload sshd; }".to_owned());
    }
    step(format!("deploy-shell-admin check {option}"));
    lines.extend(first_deploy(account));
    lines
}

/// Returns the command after which the drop-in names `account`, if it does not yet.
/// `text` is the drop-in that is installed. It may name other accounts, and they must
/// keep it: without it, their keys do not log in and sshd restricts nothing. A file with
/// another Match line is the operator's own, and `check` says what it lacks.
fn drop_in_command(text: Option<&str>, account: &str) -> Option<String> {
    let Some(text) = text else {
        // The file of the source tree, or of the package's documents.
        let script = Word::new(format!("s/^Match User deploy$/Match User {account}/"));
        return Some(format!(
            "sed {script} sshd/50-deploy-shell.conf > {DROP_IN}"
        ));
    };
    let accounts: Vec<&str> = (text.lines())
        .filter_map(|line| line.strip_prefix("Match User "))
        .flat_map(|names| names.split(',').map(str::trim))
        .collect();
    let script = Word::new(format!("s/^Match User /&{account},/"));
    (!accounts.is_empty() && !accounts.contains(&account))
        .then(|| format!("sed -i {script} {DROP_IN}"))
}

/// Returns the step after a repair.
pub fn of_a_repair(config: &Config) -> Vec<String> {
    let option = config.site_option();
    vec![format!("next: deploy-shell-admin check {option}")]
}

fn first_deploy(account: &str) -> Vec<String> {
    let node = host_name();
    let login = Word::plain(format!("{account}@{node}"));
    let release = journal::now().strftime("%Y%m%d-%H%M%S");
    let mut lines =
        vec!["then, on the client, beside its private key ci and the directory dist:".to_owned()];
    let mut step = |line: String| lines.push(format!("    {line}"));
    if let Some(key) = host_key() {
        step(format!("echo '{node} {key}' >> ~/.ssh/known_hosts"));
    }
    step("tar -C dist -c . | zstd -T0 > site.tar.zst".to_owned());
    step("sum=$(sha256sum < site.tar.zst | cut -c1-64)".to_owned());
    step(format!(
        "ssh -T -i ci {login} receive {release} --sha256 \"$sum\" < site.tar.zst"
    ));
    step(format!(
        "ssh -T -i ci {login} swap {release} --sha256 \"$sum\""
    ));
    lines
}

/// Returns the name of this machine, if it is a plain one.
fn host_name() -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-".contains(&byte);
    nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .filter(|name| !name.is_empty() && name.bytes().all(is_plain))
        .unwrap_or_else(|| "node".to_owned())
}

/// Returns the host key as known_hosts has it, without its comment.
fn host_key() -> Option<String> {
    let text = std::fs::read_to_string(HOST_KEY).ok()?;
    let mut key = PublicKey::from_openssh(text.trim()).ok()?;
    key.set_comment("");
    key.to_openssh().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_drop_in_keeps_its_other_accounts() {
        let shipped = include_str!("../../../sshd/50-deploy-shell.conf");
        assert_eq!(drop_in_command(Some(shipped), "deploy"), None);
        let command = drop_in_command(Some(shipped), "shop").expect("a command");
        assert_eq!(
            command,
            format!("sed -i 's/^Match User /&shop,/' {DROP_IN}")
        );
        let two = shipped.replace("Match User deploy", "Match User shop,deploy");
        assert_eq!(drop_in_command(Some(&two), "deploy"), None);
        assert_eq!(drop_in_command(Some(&two), "shop"), None);
        let command = drop_in_command(Some(&two), "sho").expect("a command");
        assert!(command.starts_with("sed -i "), "{command}");
    }

    #[test]
    fn a_file_of_the_operator_is_not_replaced() {
        for text in ["", "# nothing\n", "match user=deploy\n"] {
            assert_eq!(drop_in_command(Some(text), "shop"), None);
        }
        let command = drop_in_command(None, "shop").expect("a command");
        assert_eq!(
            command,
            format!(
                "sed 's/^Match User deploy$/Match User shop/' sshd/50-deploy-shell.conf > {DROP_IN}"
            )
        );
    }
}
