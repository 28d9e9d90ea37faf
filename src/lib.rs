//! deploy-shell: the forced command and restricted shell that sshd runs for a
//! locked-down deploy user. README.md describes its use, SECURITY.md its
//! guarantees, ARCHITECTURE.md its parts.
//!
//! Start reading at `serve`, the pipeline of one request. Dependencies run
//! downward only, in the order of the module map in ARCHITECTURE.md, which
//! `tests/architecture.rs` checks.

#![forbid(unsafe_code)]

mod activate;
pub mod archive;
pub mod assemble;
pub mod audit;
pub mod child;
pub mod children;
pub mod cli;
mod compressor;
pub mod config;
mod deadline;
pub mod dir;
pub mod error;
pub mod escape;
pub mod event;
pub mod hash;
pub mod hooks;
mod http_values;
mod list;
pub mod look_up;
pub mod manifest;
pub mod message;
pub mod names;
pub mod policy;
pub mod privileges;
mod probe;
pub mod receive;
pub mod reply;
pub mod request;
pub mod sandbox;
mod serve;
mod session;
pub mod shared_paths;
pub mod shell_word;
pub mod signature;
pub mod store;
mod success;
mod syslog;
pub mod threads;
mod url;
mod validators;
pub mod verify;
