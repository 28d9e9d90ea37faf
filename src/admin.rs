//! The operator's commands. They run on the operator's own authority, on
//! trusted argv, and give the lines to print.

pub mod authorize;
pub mod check;
pub mod init;
pub mod verify;
