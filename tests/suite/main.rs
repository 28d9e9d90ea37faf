//! The whole suite, one binary: every test here drives the real program, most
//! of them through a real `sshd`.

#![forbid(unsafe_code)]
#![allow(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    reason = "the bans are for the program: a test prints, and reads PATH"
)]

mod account;
mod activation;
mod adopt;
mod adopt_faults;
mod adopt_killed;
mod adopt_layouts;
mod archive;
mod audit;
mod audit_socket;
mod authorize;
mod automatic_rollback;
mod bad_config;
mod bridge;
mod cgroup;
mod check;
mod check_hooks;
mod check_json;
mod check_keys;
mod check_login;
mod check_machine;
mod check_site;
mod checkpoint;
mod ci;
mod client_gone;
mod clock;
mod commit;
mod contention;
mod direct;
mod disk_use;
mod docs;
mod drop;
mod earned;
mod external_change;
mod fallback;
mod fields;
mod full_disk;
mod gate_killed;
mod gate_traffic;
mod gating;
mod grants;
mod health;
mod history;
mod hook_runner;
mod hooks;
mod hostile_archives;
mod hostile_requests;
mod identity;
mod inheritance;
mod journal;
mod key_limits;
mod lasting_faults;
mod layout;
mod list;
mod live_traffic;
mod login_shell;
mod malformed_requests;
mod many_sites;
mod mounted;
mod named_payload;
mod operator;
mod ordinary_archives;
mod power;
mod printed_commands;
mod probe;
mod process;
mod prune;
mod reader;
mod readme;
mod receive;
mod receive_limits;
mod receive_races;
mod recovery;
mod remedies;
mod removal;
mod rollback;
mod sandbox;
mod scp;
mod security_doc;
mod service;
mod shared;
mod signals;
mod signatures;
mod signatures_agree;
mod signing;
mod site;
mod smoke;
mod sshd_config;
mod stalled;
mod status;
mod strace;
mod syslog_daemon;
mod times;
mod two_programs;
mod unruly_hooks;
mod used_ids;
mod validators;
mod verify;
mod web;
