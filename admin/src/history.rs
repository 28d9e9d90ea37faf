//! `history`: who deployed what and when, one row for each event of the journal that an
//! operator can act on.
//!
//! It works as the account, as [`crate::drop_releases`] does: the journal and its old
//! parts are the account's files, and root need not parse them. It takes no lock and
//! writes nothing.

pub mod rows;
mod table;

use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use crate::output::json_line;
use crate::records::read_records;
use crate::site_account::look_as_account;
use deploy_shell::config::Config;
use deploy_shell::error::Result;
use deploy_shell::names::SiteName;
use deploy_shell::store::Store;
use deploy_shell::store::journal;
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
/// [`Code::BadLayout`](deploy_shell::error::Code::BadLayout) for a record that this version does not know, and the errors of
/// the configuration and the layout.
pub fn history(config: &Path, json: bool, since: Option<Duration>) -> Result<Vec<String>> {
    let config = Config::load(config)?;
    let store = Store::examine(&config)?;
    look_as_account(&store, "history")?;
    let records = read_records(&store, usize::MAX)?;
    let mut events = rows::fold(records.values());
    if let Some(since) = since {
        let now = journal::now();
        events.retain(|row| journal::age(row.time, now) <= since);
    }
    if json {
        let site = config.site();
        let document = Document { site, events };
        return Ok(vec![json_line(&document)?]);
    }
    Ok(table::lines(&events))
}
