//! The outermost layer: zstd frames, complete and undamaged, each with a window of at
//! most 128 MiB, and after them nothing but zeros.

use super::{Case, payload, valid_file};
use crate::archive::{Frame, zstd};

const NOT_ZSTD: &str = "not a zstd frame";
const DICTIONARY: &str = "zstd frame needs a dictionary";
const NO_CONTENT: &str = "zstd frame without content";
const WINDOW: &str = "zstd window over 128 MiB";
const DAMAGED: &str = "zstd data is damaged or cut short";
const SKIPPED: &str = "more than 16777216 bytes in skippable zstd frames";
const AFTER: &str = "data after the last zstd frame";

/// A skippable frame of four bytes: valid zstd, which most readers do not show.
pub const SKIPPABLE: &[u8] = b"\x50\x2a\x4d\x18\x04\x00\x00\x00skip";

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
        payload(
            "no bytes at all",
            "not a zstd frame: the payload is empty",
            Vec::new,
        ),
        payload(
            "a tar without compression",
            "not a zstd frame, but tar without compression",
            || valid_file().end(),
        ),
        payload("gzip", "not a zstd frame, but gzip", || {
            b"\x1f\x8b\x08\0\0\0\0\0\0\x03\x03\0\0\0\0\0\0\0\0\0".to_vec()
        }),
        payload("bzip2", "not a zstd frame, but bzip2", || {
            b"BZh9\x17\x72\x45\x38\x50\x90\0\0\0\0".to_vec()
        }),
        payload("lz4", "not a zstd frame, but lz4", || {
            b"\x04\x22\x4d\x18\x64\x40\xa7\0\0\0\0\x05\x5d\xcc\x02".to_vec()
        }),
        payload("a 7z archive", "not a zstd frame, but a 7z archive", || {
            b"7z\xbc\xaf\x27\x1c\0\x04".to_vec()
        }),
        payload("three bytes", NOT_ZSTD, || b"\x28\xb5\x2f".to_vec()),
        payload("zeros", NOT_ZSTD, || vec![0; 10240]),
        payload("xz", "not a zstd frame, but xz", || {
            b"\xfd7zXZ\0\0\x04\xe6\xd6\xb4F".to_vec()
        }),
        payload(
            "a zip archive",
            "not a zstd frame, but a zip archive",
            || b"PK\x05\x06\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec(),
        ),
        payload(
            "zstd in zstd",
            "payload is compressed twice: the zstd frame has no tar archive, but zstd",
            || zstd(&whole()),
        ),
        payload(
            "a large zstd frame in zstd",
            "payload is compressed twice: the zstd frame has no tar archive, but zstd",
            || zstd(&Frame::window(20, 0).raw(&valid_file().end()).end()),
        ),
        payload(
            "gzip in zstd",
            "payload is compressed twice: the zstd frame has no tar archive, but gzip",
            || zstd(b"\x1f\x8b\x08\0\0\0\0\0\0\x03\x03\0\0\0\0\0\0\0\0\0"),
        ),
        payload("a zstd 0.7 frame", NOT_ZSTD, || {
            let mut frame = whole();
            frame[0] = 0x27;
            frame
        }),
        payload("only a skippable frame", NO_CONTENT, || SKIPPABLE.to_vec()),
        payload("only an empty frame", NO_CONTENT, || zstd(b"")),
        payload("text after a skippable frame", AFTER, || {
            joined(&[SKIPPABLE, b"<?php"])
        }),
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
        payload("a window of 256 MiB in the second frame", WINDOW, || {
            joined(&[&whole(), &Frame::window(28, 0).raw(b"\0").end()])
        }),
        // zstd decodes a small frame at once, without a window.
        payload("a window of 256 MiB for a few bytes", WINDOW, || {
            let small = Frame::with_header(&[0x40, 18 << 3, 0, 0]).last(&[0; 256]);
            joined(&[&whole(), &small])
        }),
        payload("a window of 256 MiB for no bytes", WINDOW, || {
            let empty = Frame::with_header(&[0x80, 18 << 3, 0, 0, 0, 0]).last(&[]);
            joined(&[&whole(), &empty])
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
        payload("a frame that needs a dictionary", DICTIONARY, || {
            Frame::with_header(&[0x01, 10 << 3, 77])
                .raw(&valid_file().end())
                .end()
        }),
        payload("a content size below the content", DAMAGED, || {
            Frame::with_header(&[0x20, 100])
                .raw(&valid_file().end())
                .end()
        }),
        payload("a second frame cut short", DAMAGED, || {
            let frame = zstd(&[0; 1000]);
            joined(&[&whole(), &frame[..frame.len() - 5]])
        }),
        payload("a wrong checksum of the second frame", DAMAGED, || {
            let mut frame = zstd(&[0; 1000]);
            *frame.last_mut().expect("a byte") ^= 1;
            joined(&[&whole(), &frame])
        }),
        payload("a skippable frame cut short", DAMAGED, || {
            joined(&[&whole(), &SKIPPABLE[..11]])
        }),
        payload("a skippable frame without its length", DAMAGED, || {
            joined(&[&whole(), &SKIPPABLE[..6]])
        }),
        payload("a skippable frame that claims 4 GiB", SKIPPED, || {
            joined(&[&whole(), b"\x50\x2a\x4d\x18\xff\xff\xff\xff"])
        }),
        payload("a content size over the content", DAMAGED, || {
            Frame::with_header(&[0xa0, 0, 0, 1, 0]).last(&valid_file().end())
        }),
    ]
}

fn trailing() -> Vec<Case> {
    const ARCHIVES: &str = "data after the end of the archive";
    vec![
        payload("a skippable frame of 16 MiB", SKIPPED, || {
            let head = b"\x50\x2a\x4d\x18\0\0\0\x01";
            joined(&[&whole(), head, &vec![7; 16 << 20]])
        }),
        payload("skippable frames of 16 MiB together", SKIPPED, || {
            let head = b"\x50\x2a\x4d\x18\0\0\x80\0";
            let frame = joined(&[head, &vec![7; 8 << 20]]);
            joined(&[&frame, &whole(), &frame])
        }),
        payload(
            "over 16 MiB of zeros after the frame",
            "more than 16777216 zeros after the end of the archive",
            || joined(&[&whole(), &vec![0; (16 << 20) + 1]]),
        ),
        payload("a second frame with a second archive", ARCHIVES, || {
            joined(&[&whole(), &whole()])
        }),
        payload("a second archive after a skippable frame", ARCHIVES, || {
            joined(&[&whole(), SKIPPABLE, &whole()])
        }),
        payload("text after the frame", AFTER, || {
            joined(&[&whole(), b"<?php"])
        }),
        payload("text after zeros", AFTER, || {
            joined(&[&whole(), &[0; 10240], b"<?php"])
        }),
        payload("a frame after zeros", AFTER, || {
            joined(&[&whole(), &[0; 512], &zstd(b"")])
        }),
        payload("a zero and text", AFTER, || joined(&[&whole(), b"\0<?php"])),
        payload("a zstd 0.7 frame after", AFTER, || {
            let mut frame = whole();
            frame[0] = 0x27;
            joined(&[&whole(), &frame])
        }),
        payload(
            "more frames than any tool writes",
            "more than 1048576 zstd frames",
            || {
                let empty = Frame::window(10, 0).end();
                joined(&[&empty.repeat(1 << 20), &whole()])
            },
        ),
        payload(
            "more skippable frames than any tool writes",
            "more than 1048576 zstd frames",
            || {
                let empty = b"\x5f\x2a\x4d\x18\0\0\0\0";
                joined(&[&whole(), &empty.repeat(1 << 20)])
            },
        ),
    ]
}
