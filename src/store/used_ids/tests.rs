//! Lists of used ids: written in several steps, looked up, and damaged.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::*;
use crate::config::Config;

fn id(text: &str) -> ReleaseId {
    ReleaseId::try_from(text).unwrap()
}

fn id_use(first_seq: u64) -> IdUse {
    let content = match first_seq % 3 {
        0 => Content::Nothing,
        1 => Content::Several,
        _ => Content::One(Sha256Digest([first_seq as u8; 32])),
    };
    IdUse { first_seq, content }
}

/// Makes a site in a temporary directory.
fn site() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    for (name, mode) in [
        ("", 0o755),
        ("releases", 0o755),
        (".deploy-shell", 0o700),
        (".deploy-shell/manifests", 0o700),
        (".deploy-shell/incoming", 0o700),
        (".deploy-shell/trash", 0o700),
    ] {
        let path = dir.path().join(name);
        fs::create_dir_all(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let config = format!("root = \"{}\"\n", dir.path().display());
    let config = Config::parse(Path::new("/etc/blog.toml"), &config).unwrap();
    let store = Store::open(&config).unwrap();
    (dir, store)
}

fn look_up(store: &Store, files: &[UsedIds], name: &str) -> Result<Option<IdUse>> {
    let mut history = History::default();
    history.used_ids = files.to_vec();
    recall(store, &mut history, &id(name))?;
    Ok(history.id_use(&id(name)))
}

#[test]
fn every_id_is_found_and_no_other() {
    let (_dir, store) = site();
    let mut files = Vec::new();
    let mut known = BTreeMap::new();
    for step in 1..=40u64 {
        // Some ids come again: those with a number that several steps divide.
        let removed: BTreeMap<ReleaseId, IdUse> = (0..step % 7)
            .map(|number| (id(&format!("r{}", step * number % 97)), id_use(step)))
            .collect();
        for (id, id_use) in &removed {
            known
                .entry(id.clone())
                .and_modify(|known: &mut IdUse| *known = known.merge(*id_use))
                .or_insert(*id_use);
        }
        files = write(&store, &files, &removed, step).unwrap();
        for pair in files.windows(2) {
            assert!(pair[0].ids > 2 * pair[1].ids, "{files:?}");
        }
        for number in 0..100 {
            let name = format!("r{number}");
            let found = look_up(&store, &files, &name).unwrap();
            assert_eq!(
                found,
                known.get(&id(&name)).copied(),
                "{name} in step {step}"
            );
        }
    }
    for other in ["r", "r00", "r1x", "0", "z", &"r".repeat(64)] {
        assert_eq!(look_up(&store, &files, other).unwrap(), None, "{other}");
    }
}

#[test]
fn the_longest_id_has_its_line() {
    let (_dir, store) = site();
    let removed = BTreeMap::from([(id(&"x".repeat(64)), id_use(u64::MAX))]);
    let files = write(&store, &[], &removed, 7).unwrap();
    assert_eq!(files, [UsedIds { seq: 7, ids: 1 }]);
    let found = look_up(&store, &files, &"x".repeat(64)).unwrap();
    assert_eq!(found, Some(id_use(u64::MAX)));
    assert_eq!(write(&store, &files, &BTreeMap::new(), 8).unwrap(), files);
}

#[test]
fn a_damaged_list_is_refused() {
    let (dir, store) = site();
    let removed = (0..9).map(|number| (id(&format!("r{number}")), id_use(number)));
    let files = write(&store, &[], &removed.collect(), 7).unwrap();
    let path = dir.path().join(".deploy-shell/used-ids-7");
    let whole = fs::read(&path).unwrap();
    let unsorted = {
        let mut bytes = whole.clone();
        bytes.copy_within(4 * LINE..5 * LINE, 8 * LINE);
        bytes
    };
    let edited = |at: usize, byte: u8| {
        let mut bytes = whole.clone();
        bytes[at] = byte;
        bytes
    };
    for (what, content) in [
        ("empty", Vec::new()),
        ("cut", whole[..whole.len() - 1].to_vec()),
        ("longer", [&whole[..], b"\n"].concat()),
        ("without its head", edited(3, b'x')),
        // The binary search reads the line in the middle first.
        ("with an id of another form", edited(5 * LINE, b'/')),
        ("with a digest of another form", edited(5 * LINE + 66, b'G')),
        ("with a number of another form", edited(6 * LINE - 2, b' ')),
        ("not sorted", unsorted),
    ] {
        fs::write(&path, content).unwrap();
        let error = look_up(&store, &files, "r5").unwrap_err();
        assert_eq!(error.code, Code::BadLayout, "{what}");
        assert!(error.problem.contains("'used-ids-7' is damaged"), "{error}");
        // As many as the list has, so they are merged.
        let more = (0..9).map(|number| (id(&format!("s{number}")), id_use(number)));
        assert!(write(&store, &files, &more.collect(), 8).is_err(), "{what}");
    }
    fs::remove_file(&path).unwrap();
    let error = look_up(&store, &files, "r5").unwrap_err();
    assert!(error.problem.contains("it does not exist"), "{error}");
    fs::write(&path, &whole).unwrap();
    assert_eq!(look_up(&store, &files, "r5").unwrap(), Some(id_use(5)));
}
