//! Unpacks the payload itself. An accepted payload must be exactly one frame, as the
//! zstd library measures it. A second reader of its header (RFC 8878, section
//! 3.1.1.1) must find a window of at most 128 MiB.

#![no_main]

use deploy_shell_fuzz::staged;
use libfuzzer_sys::fuzz_target;

const MAX_WINDOW: u64 = 128 << 20;

fuzz_target!(|payload: &[u8]| {
    if staged::unpack(payload).is_some() {
        let frame = zstd::zstd_safe::find_frame_compressed_size(payload);
        assert_eq!(frame, Ok(payload.len()), "not exactly one frame");
        let window = window(payload).expect("a frame header");
        assert!(window <= MAX_WINDOW, "a window of {window} bytes");
    }
});

/// Returns the window size that the frame header states.
fn window(frame: &[u8]) -> Option<u64> {
    let (magic, rest) = frame.split_at_checked(4)?;
    assert_eq!(magic, b"\x28\xb5\x2f\xfd", "another magic number");
    let (descriptor, rest) = rest.split_first()?;
    if descriptor & 0x20 == 0 {
        let byte = *rest.first()?;
        let base = 1_u64 << (10 + (byte >> 3));
        return Some(base + base / 8 * u64::from(byte & 7));
    }
    // A single segment: the window is the content.
    let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let (len, add) = [(1, 0), (2, 256), (4, 0), (8, 0)][usize::from(descriptor >> 6)];
    let size = rest.get(dictionary..dictionary + len)?;
    let value = size
        .iter()
        .rev()
        .fold(0, |value, byte| value << 8 | u64::from(*byte));
    Some(value + add)
}
