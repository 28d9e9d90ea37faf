//! Unpacks the payload itself. An accepted payload must be zstd frames and skippable
//! frames, as the zstd library measures them, and then only zeros. A second reader of
//! the frame headers (RFC 8878, section 3.1.1.1) must find windows of at most 128 MiB.
//! The `zstd` crate, which reads all frames by itself, must read the same tree.

#![no_main]

use std::io::Read;

use deploy_shell_fuzz::staged;
use libfuzzer_sys::fuzz_target;

const MAX_WINDOW: u64 = 128 << 20;

fuzz_target!(|payload: &[u8]| {
    let Some(tree) = staged::unpack(payload) else {
        return;
    };
    let mut rest = payload;
    while rest.len() >= 4 && rest[..4] != [0; 4] {
        let len = zstd::zstd_safe::find_frame_compressed_size(rest).expect("a frame");
        if rest.starts_with(b"\x28\xb5\x2f\xfd") {
            let (window, content) = window(rest).expect("a frame header");
            // zstd gives an empty frame no window.
            assert!(
                window <= MAX_WINDOW || content == Some(0),
                "a window of {window} bytes"
            );
        } else {
            assert_eq!(rest[0] & 0xf0, 0x50, "a skippable frame");
            assert_eq!(rest[1..4], *b"\x2a\x4d\x18", "a skippable frame");
        }
        rest = &rest[len..];
    }
    assert!(rest.iter().all(|byte| *byte == 0), "zeros after the frames");
    // All content in one frame is the same archive.
    let frames = &payload[..payload.len() - rest.len()];
    let mut content = Vec::new();
    let mut decoder = zstd::Decoder::new(frames).expect("a decoder");
    decoder.read_to_end(&mut content).expect("valid frames");
    let one = zstd::bulk::compress(&content, 1).expect("zstd accepts any bytes");
    assert_eq!(staged::unpack(&one), Some(tree), "the same tree");
});

/// Returns the window size that the frame header states, and the content size if it
/// states one.
fn window(frame: &[u8]) -> Option<(u64, Option<u64>)> {
    let (magic, rest) = frame.split_at_checked(4)?;
    assert_eq!(magic, b"\x28\xb5\x2f\xfd", "another magic number");
    let (descriptor, rest) = rest.split_first()?;
    let single_segment = descriptor & 0x20 != 0;
    let window = if single_segment { 0 } else { 1 };
    let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let (len, add) = match (descriptor >> 6, single_segment) {
        (0, false) => (0, 0),
        (0, true) => (1, 0),
        (1, _) => (2, 256),
        (2, _) => (4, 0),
        _ => (8, 0),
    };
    let at = window + dictionary;
    let size = rest.get(at..at + len)?;
    let value = size
        .iter()
        .rev()
        .fold(0, |value, byte| value << 8 | u64::from(*byte));
    let content = (len > 0).then_some(value + add);
    if single_segment {
        // The window is the content.
        return Some((value + add, content));
    }
    let byte = *rest.first()?;
    let base = 1_u64 << (10 + (byte >> 3));
    Some((base + base / 8 * u64::from(byte & 7), content))
}
