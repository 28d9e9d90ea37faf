//! The two ways in which a site takes a payload. Tests of `receive` run in both.

use crate::signing::{Key, key, one_line, tree_statement};
use crate::site::{Reply, Site, write_file};

/// How the unpacker gets the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// While it arrives: no signature covers it.
    Arriving,
    /// From a file, once its digest is right: a signer has signed it.
    Spooled,
}

impl Mode {
    pub const BOTH: [Mode; 2] = [Mode::Arriving, Mode::Spooled];

    /// Returns a site of this mode; `config` is as in [`Site::with_config`].
    pub fn site(self, config: &str) -> Site {
        if self == Mode::Arriving {
            return Site::with_config(config);
        }
        let signatures = "[signatures]\nallowed_signers = \"{dir}/signers\"\n";
        let site = Site::with_config(&format!("{config}\n{signatures}"));
        let signers = format!("blog {}\n", signer().public);
        write_file(&site.dir().join("signers"), 0o644, signers.as_bytes());
        site
    }

    /// As [`Site::receive_command`].
    pub fn command(self, release: &str, payload: &[u8]) -> String {
        let command = Site::receive_command(release, payload);
        match self {
            Mode::Arriving => command,
            Mode::Spooled => {
                let signature = signer().signature("blog", release, payload);
                format!("{command} --signature {signature}")
            }
        }
    }

    /// As [`Site::receive`].
    pub fn receive(self, site: &Site, release: &str, payload: &[u8]) -> Reply {
        site.ssh_with_input("ci", &self.command(release, payload), payload)
    }
}

/// Returns a request whose signature covers the tree, and not the payload.
pub fn with_signed_tree(release: &str, payload: &[u8], tree: &str) -> String {
    let statement = tree_statement("blog", release, tree);
    let signature = one_line(&signer().sign("deploy-shell", &statement));
    let command = Site::receive_command(release, payload);
    format!("{command} --tree {tree} --signature {signature}")
}

fn signer() -> Key {
    key("ed25519/payloads")
}
