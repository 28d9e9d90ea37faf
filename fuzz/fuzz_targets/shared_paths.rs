//! Unpacks a tar stream on a site without shared paths, and on sites that share
//! some of the names that fuzzing often produces. `staged::unpack_sharing` checks
//! what must hold for every tree. This target also checks that sharing changes
//! nothing else: the tree is the same as without it, except for the entries that
//! were not unpacked.

#![no_main]

use deploy_shell::manifest::Kind;
use deploy_shell::shared_paths::{Existing, Shared, SharedPath};
use deploy_shell_fuzz::headers;
use deploy_shell_fuzz::staged::{self, LIMITS, Tree};
use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};

const SITES: [&[&str]; 4] = [
    &["index.html"],
    &["a/b", "e"],
    &["a/l", "d/e/f", ".env"],
    &["a", "b", "n/n"],
];

fuzz_target!(|tar: &[u8]| {
    let payload = zstd::bulk::compress(tar, 1).expect("zstd accepts any bytes");
    let plain = staged::unpack(&payload);
    let site: usize = tar.iter().map(|byte| usize::from(*byte)).sum();
    for existing in [Existing::Refuse, Existing::Replace] {
        let links = SITES[site % SITES.len()].iter();
        let shared = Shared {
            links: links
                .map(|link| SharedPath::try_from((*link).to_owned()).expect("a path"))
                .collect(),
            existing,
        };
        let found = staged::unpack_sharing(&payload, &shared);
        if let Some(plain) = &plain {
            compare(plain, found.as_ref(), &shared);
        }
    }
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    headers::mutate(data, size, max_size, seed, fuzzer_mutate)
});

/// Returns whether `path` is `upper` or below it, compared by components.
fn within(path: &[u8], upper: &[u8]) -> bool {
    let mut parts = path.split(|byte| *byte == b'/');
    upper
        .split(|byte| *byte == b'/')
        .all(|part| parts.next() == Some(part))
}

fn compare(plain: &Tree, found: Option<&Tree>, shared: &Shared) {
    let links: Tree = staged::shared_links(shared).collect();
    let is_shared = |path: &[u8]| links.keys().any(|link| within(path, link));
    let has_shared = plain.keys().any(|path| is_shared(path));
    let mut expected: Tree = plain.clone();
    expected.retain(|path, _| !is_shared(path));
    let mut obstructed = false;
    let mut more = 0;
    for (link, kind) in &links {
        for (end, _) in link.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            match plain.get(&link[..end]) {
                Some(Kind::Dir) => {}
                Some(_) => obstructed = true,
                None => {
                    more += usize::from(expected.insert(link[..end].to_vec(), Kind::Dir).is_none())
                }
            }
        }
        expected.insert(link.clone(), kind.clone());
        more += 1;
    }
    let refused = obstructed || has_shared && shared.existing == Existing::Refuse;
    match found {
        Some(found) => {
            assert!(!refused, "{} was accepted", staged::shown(plain));
            assert!(
                *found == expected,
                "{} for {}",
                staged::shown(found),
                staged::shown(&expected)
            );
        }
        // A symlink of the archive can lead through a shared path, and a hard link can
        // name a file that is not unpacked: then two files are equal. Without any
        // link, the only other reason is a limit.
        None => {
            let symlinked = plain.values().any(|kind| matches!(kind, Kind::Link { .. }));
            let (left_out, kept): (Vec<_>, Vec<_>) =
                plain.iter().partition(|(path, _)| is_shared(path));
            let hard_linked = left_out.iter().any(|(_, file)| {
                let is_file = matches!(file, Kind::File { .. });
                is_file && kept.iter().any(|(_, other)| other == file)
            });
            let linked = symlinked || hard_linked;
            let full = plain.len() - 1 + more > LIMITS.max_entries as usize;
            assert!(
                refused || linked || full,
                "{} was refused",
                staged::shown(plain)
            );
        }
    }
}
