//! Unpacks a tar stream as `receive` does, after putting it into a zstd frame.
//! `staged::unpack` checks what must hold for every input; this target also checks
//! how an accepted stream ends.

#![no_main]

use deploy_shell_fuzz::{headers, staged};
use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};

fuzz_target!(|tar: &[u8]| {
    let payload = zstd::bulk::compress(tar, 1).expect("zstd accepts any bytes");
    if let Some(tree) = staged::unpack(&payload) {
        let end = tar.len().saturating_sub(1024);
        assert!(
            tar[end..].iter().all(|byte| *byte == 0),
            "no two zero blocks at the end of {}",
            staged::shown(&tree)
        );
    }
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    headers::mutate(data, size, max_size, seed, fuzzer_mutate)
});
