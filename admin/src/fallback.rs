//! Which release a remedy makes live, where the present one cannot stay.

use deploy_shell::names::ReleaseId;
use deploy_shell::store::history::History;

/// Returns the release that the journal has as the live one, or that was live last, or that
/// was received last: of those that are `present` and not bad, and never `live`.
pub fn fallback(
    present: &[ReleaseId],
    history: &History,
    live: Option<&ReleaseId>,
) -> Option<ReleaseId> {
    let others = present.iter().filter(|id| Some(*id) != live);
    others
        .filter(|id| !history.releases.get(*id).is_some_and(|known| known.bad))
        .max_by_key(|id| {
            let known = history.releases.get(*id);
            let is_live = history.live.as_ref() == Some(*id);
            known.map(|known| (is_live, known.last_live(), known.received))
        })
        .cloned()
}
