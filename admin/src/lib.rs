//! `deploy-shell-admin`: the operator's program. It sets up a site, authorizes
//! keys, checks a server and verifies releases.
//!
//! It is a separate program so that `deploy-shell` contains nothing of it:
//! `deploy-shell` is the login shell of an account whose keys other people hold.
//! This library exists for `xtask`, which makes the man page and the completions
//! from [`cli::command`].

#![forbid(unsafe_code)]

mod adopt;
mod authorize;
mod bridge;
mod check;
pub mod cli;
mod drop_releases;
mod fallback;
mod history;
mod init;
mod keyrings;
mod output;
mod own_session;
mod program;
mod record;
mod records;
mod repair;
mod run;
mod site_account;
mod status;
mod table;
mod user_mounts;
mod verify;
