//! Code that the targets share: unpacking into a temporary directory, the checks of
//! the result, and mutations that keep a tar archive readable.

#![forbid(unsafe_code)]

pub mod headers;
pub mod staged;
