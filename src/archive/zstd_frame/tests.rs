use std::io::{Seek, Write};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use super::*;
use crate::threads;

/// RFC 8878, section 3.1.1.1.2: an exponent in five bits, and eighths in three.
#[test]
fn the_window_of_a_header_is_read() {
    let window = |descriptor, byte| stated_window(&[0x28, 0xb5, 0x2f, 0xfd, descriptor, byte]);
    assert_eq!(window(0, 0), Some(1024));
    assert_eq!(window(0, 7), Some(1024 + 7 * 128));
    assert_eq!(window(0, 17 << 3), Some(128 << 20));
    assert_eq!(window(0x84, (17 << 3) | 1), Some(144 << 20));
    assert_eq!(window(0, 0xff), Some((1 << 41) + 7 * (1 << 38)));
    // A single segment has no such byte.
    assert_eq!(window(0x20, 0xff), None);
    assert_eq!(stated_window(&[0x28, 0xb5, 0x2f, 0xfd, 0]), None);
}

/// The largest block (RFC 8878, section 3.1.1.2.4).
const ZSTD_BLOCK: usize = 128 << 10;

/// A window of 128 KiB, and the largest one that is accepted.
const SMALL: u8 = 7 << 3;
const LARGEST: u8 = 17 << 3;

/// Returns a frame of `len` times the same byte, in blocks of one byte (RLE).
fn frame(window: u8, byte: u8, len: usize) -> Vec<u8> {
    let mut frame = [&MAGIC[..], &[0, window]].concat();
    let mut left = len;
    loop {
        let size = left.min(ZSTD_BLOCK);
        left -= size;
        let kind = if size == 0 { 0 } else { 1 };
        let header = (size as u32) << 3 | kind << 1 | u32::from(left == 0);
        frame.extend(&header.to_le_bytes()[..3]);
        frame.extend(if size == 0 { None } else { Some(byte) });
        if left == 0 {
            return frame;
        }
    }
}

/// Returns a skippable frame of `len` bytes with its header.
fn skippable(len: u64) -> Vec<u8> {
    let content = len as usize - 8;
    let mut frame = [&[0x5f], &SKIPPABLE[..], &(content as u32).to_le_bytes()].concat();
    frame.resize(len as usize, 1);
    frame
}

/// Returns a file with these bytes, at its start.
fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(bytes).expect("written");
    file.rewind().expect("a file has a start");
    file
}

/// Reads `content` bytes of a payload, and then to its end.
fn read_all(payload: &[u8], max: u64, content: usize) -> Result<(), UnpackError> {
    let mut frames = Frames::open(file(payload), max, 77)?;
    let mut buffer = vec![0; content];
    frames.fill(&mut buffer)?;
    assert!(buffer.iter().all(|byte| *byte == b'x'));
    frames.finish()
}

#[track_caller]
fn refused(result: Result<(), UnpackError>, expected: Rule) {
    match result {
        Err(UnpackError::Refused { entry: None, rule }) => assert_eq!(rule, expected),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_last_value_within_each_limit_is_accepted() {
    let content = frame(SMALL, b'x', 5);
    let after = |rest: &[u8]| read_all(&[&content[..], rest].concat(), u64::MAX, 5);

    let empty = frame(SMALL, 0, 0);
    let empty = empty.repeat(MAX_FRAMES as usize);
    after(&empty[..empty.len() - empty.len() / MAX_FRAMES as usize]).expect("the last frame");
    refused(after(&empty), Rule::Frames);

    after(&skippable(MAX_SKIPPED)).expect("the last skippable byte");
    refused(after(&skippable(MAX_SKIPPED + 1)), Rule::Skippable);
    // All of them count together.
    let half = skippable(MAX_SKIPPED / 2);
    after(&[&half[..], &half].concat()).expect("the last skippable byte");
    refused(
        after(&[&half[..], &half, &skippable(8)].concat()),
        Rule::Skippable,
    );

    after(&vec![0; MAX_PADDING as usize]).expect("the last zero after the frame");
    refused(after(&vec![0; MAX_PADDING as usize + 1]), Rule::Padding);
    after(&frame(SMALL, 0, MAX_PADDING as usize)).expect("the last zero in the frame");
    refused(
        after(&frame(SMALL, 0, MAX_PADDING as usize + 1)),
        Rule::Padding,
    );

    read_all(&content, 5, 5).expect("the last byte");
    refused(read_all(&content, 4, 5), Rule::Unpacked(77));
    read_all(&frame(LARGEST, b'x', 5), 5, 5).expect("the largest window");
    refused(read_all(&frame(LARGEST + 1, b'x', 5), 5, 5), Rule::Window);
}

#[test]
fn what_follows_the_content_is_zeros_or_a_frame_without_content() {
    let content = frame(SMALL, b'x', 5);
    let after = |rest: &[u8]| read_all(&[&content[..], rest].concat(), u64::MAX, 5);
    after(b"").expect("nothing");
    after(&[0; 3]).expect("zeros");
    refused(after(b"\0\0\x01"), Rule::AfterFrame);
    // A frame begins after zeros.
    refused(after(&[&[0; 20][..], &content].concat()), Rule::AfterFrame);
    refused(after(&content), Rule::AfterEnd);
    refused(after(&frame(SMALL, 1, 1)), Rule::AfterEnd);
    // The end of a skippable frame, and of its header, is missing.
    for len in [4, 7, 8, 11] {
        refused(after(&skippable(12)[..len]), Rule::ZstdDamaged);
    }
    // Only the first half of a byte of its magic number is free.
    let mut other = skippable(12);
    other[0] = 0x4f;
    refused(after(&other), Rule::AfterFrame);
    other[0] = 0x50;
    after(&other).expect("a skippable frame");
    other[3] ^= 1;
    refused(after(&other), Rule::AfterFrame);
}

#[test]
fn content_that_ends_early_is_refused() {
    let content = frame(SMALL, b'x', 5);
    refused(read_all(&content, u64::MAX, 6), Rule::CutShort);
    for len in 6..content.len() {
        refused(read_all(&content[..len], u64::MAX, 5), Rule::ZstdDamaged);
    }
}

/// Returns a socket, and what is written to it: a read(2) returns what one write(2) wrote
/// (SOCK_SEQPACKET in unix(7)).
fn pieces(flags: SockFlag) -> (File, File) {
    let (from, to) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)
        .expect("a pair of sockets");
    (from.into(), to.into())
}

/// A read gives a byte at a time, and content of many blocks has one in each buffer.
#[test]
fn a_payload_of_single_bytes_is_read_as_one_piece_is() {
    // More blocks than the longest header of a frame has room for.
    let content = 9 * ZSTD_BLOCK + 5;
    let payload = [
        skippable(300),
        frame(SMALL, b'x', 7),
        skippable(8),
        frame(LARGEST, b'x', content - 7),
        vec![0; 2000],
    ]
    .concat();
    read_all(&payload, content as u64, content).expect("one piece");

    let (from, mut to) = pieces(SockFlag::empty());
    let write = move || {
        for byte in payload {
            to.write_all(&[byte]).expect("the reader reads on");
        }
    };
    let writer = threads::builder().spawn(write).expect("a thread");
    let mut frames = Frames::open(from, content as u64, 0).expect("a frame");
    let mut buffer = vec![0; content];
    frames.fill(&mut buffer).expect("the content");
    assert!(buffer.iter().all(|byte| *byte == b'x'));
    frames.finish().expect("the end");
    writer.join().expect("it wrote all");
}

/// A client may wait for an answer before it sends more.
#[test]
fn no_more_input_is_waited_for_than_is_needed() {
    let (from, mut to) = pieces(SockFlag::SOCK_NONBLOCK);
    let mut input = Input::new(from);
    for byte in b"abc" {
        to.write_all(&[*byte]).expect("there is room");
    }
    assert_eq!(input.at_least(2).expect("it is there"), b"ab");
    input.consume(1);
    assert_eq!(input.at_least(2).expect("it is there"), b"bc");
    // Nothing is left, and the other end is open.
    assert!(input.at_least(3).is_err());
}

/// Input that is longer than the buffer, at no multiple of its length.
#[test]
fn input_is_read_in_order() {
    let bytes: Vec<u8> = (0..INPUT * 3 + 11).map(|at| (at % 251) as u8).collect();
    let mut input = Input::new(file(&bytes));
    let mut read = Vec::new();
    loop {
        let available = input.at_least(HEADER).expect("readable");
        assert!(available.len() >= HEADER.min(bytes.len() - read.len()));
        if available.is_empty() {
            break;
        }
        // The rest of each buffer is shorter than a header.
        let count = available
            .len()
            .min(1.max(available.len().saturating_sub(7)));
        read.extend_from_slice(&available[..count]);
        input.consume(count);
    }
    assert_eq!(read, bytes);
}
