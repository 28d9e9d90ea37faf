//! The records of a site, as its journal and the old parts of the journal have them.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};

use serde::Deserialize;

use deploy_shell::error::{Code, Error, Result};
use deploy_shell::store::journal::{self, Entry, Record};
use deploy_shell::store::{Store, checkpoint};

/// Returns the records of the journal and of its newest `parts` old parts, by their
/// numbers.
///
/// The journal comes first. If a checkpoint replaces it meanwhile, its records are also
/// in a part, and a record that is read twice counts once.
///
/// # Errors
///
/// [`Code::BadLayout`] for a record that this version does not know, and
/// [`Code::IoError`].
pub fn read_records(store: &Store, parts: usize) -> Result<BTreeMap<u64, Record>> {
    let mut records = BTreeMap::new();
    journal::read_journal(store, |entry| {
        if let Entry::Record(record) = entry {
            records.insert(record.seq, record.clone());
        }
    })?;
    let cannot = |errno| store.io("cannot open the old parts of the journal", errno);
    let all = checkpoint::open_parts(store).map_err(cannot)?;
    let older = all.len().saturating_sub(parts);
    for part in all.into_iter().skip(older) {
        read_part(store, part, &mut records)?;
    }
    Ok(records)
}

/// Reads one part: zstd frames of journals, which have format lines and checkpoints
/// besides the records.
fn read_part(
    store: &Store,
    part: std::fs::File,
    records: &mut BTreeMap<u64, Record>,
) -> Result<()> {
    let cannot = |error| store.io("cannot read an old part of the journal", error);
    let part = zstd::Decoder::new(part).map_err(cannot)?;
    for line in BufReader::new(part).split(b'\n') {
        let line = line.map_err(cannot)?;
        let is_record = serde_json::from_slice::<Kind>(&line).is_ok_and(|kind| kind.seq.is_some());
        if !is_record {
            continue;
        }
        let record: Record = serde_json::from_slice(&line).map_err(|error| {
            let problem = format!("an old part of the journal has an unknown record: {error}");
            Error::new(Code::BadLayout, problem)
                .remedy("use the version of deploy-shell that wrote it, or a newer one")
        })?;
        records.insert(record.seq, record);
    }
    Ok(())
}

/// Distinguishes a record from a format line and a checkpoint.
#[derive(Deserialize)]
struct Kind {
    seq: Option<u64>,
}
