//! The outermost layer: exactly one zstd frame, complete and undamaged, with a window
//! of at most 128 MiB and nothing after it.

use super::{Case, payload, valid_file};
use crate::archive::{Frame, zstd};

const NOT_ZSTD: &str = "not a zstd frame";
const WINDOW: &str = "zstd window over 128 MiB";
const DAMAGED: &str = "zstd data is damaged or cut short";
const AFTER: &str = "data after the zstd frame";

/// A skippable frame of four bytes: valid zstd, which most readers do not show.
const SKIPPABLE: &[u8] = b"\x50\x2a\x4d\x18\x04\x00\x00\x00skip";

fn whole() -> Vec<u8> {
    zstd(&valid_file().end())
}

fn joined(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

/// Returns the frame without its last `count` bytes.
fn short_by(count: usize) -> Vec<u8> {
    let mut frame = whole();
    frame.truncate(frame.len() - count);
    frame
}

fn flipped(offset_from_end: usize) -> Vec<u8> {
    let mut frame = whole();
    let at = frame.len() - offset_from_end;
    frame[at] ^= 0x40;
    frame
}

pub fn cases() -> Vec<Case> {
    let mut cases = other_formats();
    cases.extend(windows());
    cases.extend(damaged());
    cases.extend(trailing());
    cases
}

fn other_formats() -> Vec<Case> {
    vec![
        payload("no bytes at all", NOT_ZSTD, Vec::new),
        payload("a tar without compression", NOT_ZSTD, || valid_file().end()),
        payload("gzip", NOT_ZSTD, || {
            b"\x1f\x8b\x08\0\0\0\0\0\0\x03\x03\0\0\0\0\0\0\0\0\0".to_vec()
        }),
        payload("xz", NOT_ZSTD, || b"\xfd7zXZ\0\0\x04\xe6\xd6\xb4F".to_vec()),
        payload("a zip archive", NOT_ZSTD, || {
            b"PK\x05\x06\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec()
        }),
        payload("a zstd 0.7 frame", NOT_ZSTD, || {
            let mut frame = whole();
            frame[0] = 0x27;
            frame
        }),
        payload("a skippable frame before the frame", NOT_ZSTD, || {
            joined(&[SKIPPABLE, &whole()])
        }),
        payload("only a skippable frame", NOT_ZSTD, || SKIPPABLE.to_vec()),
    ]
}

fn windows() -> Vec<Case> {
    vec![
        payload("a window of 256 MiB", WINDOW, || {
            Frame::window(28, 0).raw(&valid_file().end()).end()
        }),
        payload("a window an eighth over 128 MiB", WINDOW, || {
            Frame::window(27, 1).raw(&valid_file().end()).end()
        }),
        payload("the largest window of the format", WINDOW, || {
            Frame::window(41, 7).raw(&valid_file().end()).end()
        }),
        // A single-segment frame has no window field: its content is the window.
        payload("a single segment of 1 GiB", WINDOW, || {
            Frame::with_header(&[0xa0, 0, 0, 0, 0x40])
                .zeros(1 << 30)
                .end()
        }),
    ]
}

fn damaged() -> Vec<Case> {
    vec![
        payload("the magic number and nothing else", DAMAGED, || {
            Frame::with_header(&[]).cut()
        }),
        payload("a frame cut in the middle", DAMAGED, || {
            short_by(whole().len() / 2)
        }),
        payload("a frame without its last byte", DAMAGED, || short_by(1)),
        payload("a frame without its checksum", DAMAGED, || short_by(4)),
        payload("a frame without a last block", DAMAGED, || {
            Frame::window(20, 0).raw(&valid_file().end()).cut()
        }),
        payload("a wrong content checksum", DAMAGED, || flipped(1)),
        payload("a flipped bit in the data", DAMAGED, || flipped(12)),
        payload("a block of the reserved type", DAMAGED, || {
            joined(&[
                &Frame::window(20, 0).raw(&valid_file().end()).cut(),
                &[7, 0, 0],
            ])
        }),
        payload("a reserved bit in the frame header", DAMAGED, || {
            Frame::with_header(&[0x08, 10 << 3])
                .raw(&valid_file().end())
                .end()
        }),
        payload("a frame that needs a dictionary", DAMAGED, || {
            Frame::with_header(&[0x01, 10 << 3, 77])
                .raw(&valid_file().end())
                .end()
        }),
        payload("a content size below the content", DAMAGED, || {
            Frame::with_header(&[0x20, 100])
                .raw(&valid_file().end())
                .end()
        }),
        payload("a content size over the content", DAMAGED, || {
            Frame::with_header(&[0xa0, 0, 0, 1, 0]).last(&valid_file().end())
        }),
    ]
}

fn trailing() -> Vec<Case> {
    vec![
        payload("a second frame with a second archive", AFTER, || {
            joined(&[&whole(), &whole()])
        }),
        payload("a second, empty frame", AFTER, || {
            joined(&[&whole(), &zstd(b"")])
        }),
        payload("a skippable frame after", AFTER, || {
            joined(&[&whole(), SKIPPABLE])
        }),
        payload("one NUL after the frame", AFTER, || {
            joined(&[&whole(), b"\0"])
        }),
        payload("text after the frame", AFTER, || {
            joined(&[&whole(), b"<?php"])
        }),
    ]
}
