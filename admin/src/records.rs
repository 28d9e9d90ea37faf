//! The records of a site, as its journal and the old parts of the journal have them.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};

use serde::Deserialize;

use deploy_shell::error::{Code, Error, Result};
use deploy_shell::store::journal::{self, Entry, Record};
use deploy_shell::store::{Store, checkpoint};

/// The maximum length of a line with a record, in bytes: more than every field needs. A
/// longer line is a checkpoint.
const MAX_LINE: u64 = 64 << 10;

/// The maximum length of a part, decompressed, in bytes. A part gets no more journals once
/// it has 1 MiB, compressed, so a real one is far shorter.
const MAX_PART: u64 = 2 * journal::MAX_LEN;

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
    let mut lines = BufReader::new(part.take(MAX_PART + 1));
    let (mut line, mut read) = (Vec::new(), 0);
    // Terminates: each turn reads a line, and the part has an end.
    loop {
        line.clear();
        let limited = (&mut lines).take(MAX_LINE).read_until(b'\n', &mut line);
        read += limited.map_err(cannot)? as u64;
        if line.is_empty() {
            return Ok(());
        }
        if !line.ends_with(b"\n") {
            read += lines.skip_until(b'\n').map_err(cannot)? as u64;
        }
        if read > MAX_PART {
            let problem = format!(
                "an old part of the journal has more than {} MiB",
                MAX_PART >> 20
            );
            return Err(Error::new(Code::BadLayout, problem)
                .remedy("no version of deploy-shell wrote it: move it away"));
        }
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
}

/// Distinguishes a record from a format line and a checkpoint.
#[derive(Deserialize)]
struct Kind {
    seq: Option<u64>,
}
