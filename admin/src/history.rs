//! `history`: who deployed what and when, one row for each event of the journal that an
//! operator can act on.
//!
//! It works as the account, as [`crate::drop_releases`] does: the journal and its old
//! parts are the account's files, and root need not parse them. It takes no lock and
//! writes nothing.

mod rows;
mod table;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::site_account::run_as_account;
use deploy_shell::config::Config;
use deploy_shell::error::{Code, Error, Result};
use deploy_shell::names::SiteName;
use deploy_shell::store::journal::{self, Entry, Record};
use deploy_shell::store::{Store, checkpoint};
use rows::Row;

/// The document of `history --json`.
#[derive(Debug, Serialize)]
struct Document<'a> {
    site: &'a SiteName,
    /// The oldest first.
    events: Vec<Row<'a>>,
}

/// Returns the events of the last `since`, or all that the journal and its old parts
/// have, as the lines of a table or as one line of JSON.
///
/// # Errors
///
/// [`Code::BadLayout`] for a record that this version does not know, and the errors of
/// the configuration and the layout.
pub fn history(config: &Path, json: bool, since: Option<Duration>) -> Result<Vec<String>> {
    let config = Config::load(config)?;
    let store = Store::examine(&config)?;
    run_as_account(&store, "history")?;
    let records = read_records(&store)?;
    let mut events = rows::fold(records.values());
    if let Some(since) = since {
        let now = journal::now();
        events.retain(|row| journal::age(row.time, now) <= since);
    }
    if json {
        let site = config.site();
        let document = Document { site, events };
        let line = serde_json::to_string(&document).expect("the document is plain JSON");
        return Ok(vec![line]);
    }
    Ok(table::lines(&events))
}

/// Returns every record that is kept, by its number.
///
/// The journal comes first. If a checkpoint replaces it meanwhile, its records are also
/// in a part, and a record that is read twice counts once.
fn read_records(store: &Store) -> Result<BTreeMap<u64, Record>> {
    let mut records = BTreeMap::new();
    journal::read_journal(store, |entry| {
        if let Entry::Record(record) = entry {
            records.insert(record.seq, record.clone());
        }
    })?;
    let cannot = |errno| store.io("cannot open the old parts of the journal", errno);
    for part in checkpoint::open_parts(store).map_err(cannot)? {
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
