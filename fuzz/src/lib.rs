//! What the targets share: a folder to unpack into and the look at what came
//! of it, and mutations that keep a tar archive worth reading.

#![forbid(unsafe_code)]

pub mod headers;
pub mod staged;
