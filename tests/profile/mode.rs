//! In this process there is one way to take a payload.

use crate::site::{Reply, Site};

#[derive(Clone, Copy, Debug)]
pub enum Mode {
    InProcess,
}

impl Mode {
    pub const BOTH: [Mode; 1] = [Mode::InProcess];

    pub fn site(self, config: &str) -> Site {
        Site::with_config(config)
    }

    pub fn receive(self, site: &Site, release: &str, payload: &[u8]) -> Reply {
        site.receive(release, payload)
    }
}
