//! A tar stream, wrapped into a zstd frame here and unpacked as `receive`
//! unpacks it. `staged::unpack` holds what must be true of any input; this
//! target adds how an accepted stream must end.

#![no_main]

use deploy_shell_fuzz::{headers, staged};
use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};

fuzz_target!(|tar: &[u8]| {
    let payload = zstd::bulk::compress(tar, 1).expect("zstd takes anything");
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
