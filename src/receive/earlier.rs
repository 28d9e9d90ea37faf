//! Whether an earlier request has received the release, or other content under its id.

use crate::config::Config;
use crate::error::{Code, Error, Result};
use crate::manifest::{self, Sums};
use crate::request::Receive;
use crate::signature::{Requirement, Signable};
use crate::store::Store;
use crate::store::history::{Content, History};
use crate::success::Received;

/// Returns the release of the request, if an earlier request received the same
/// content under the same id.
///
/// # Errors
///
/// [`Code::ReleaseExists`] for other content, and for the same content whose
/// stored signatures are no longer valid: a success would promise a swap that will
/// be refused, and the stored signatures never change.
pub fn find(
    config: &Config,
    required: Option<&Requirement>,
    store: &Store,
    history: &History,
    request: &Receive,
) -> Result<Option<Received>> {
    let release = &request.release;
    let exists = |problem: String| {
        Error::new(Code::ReleaseExists, problem)
            .remedy("choose another id; an id is never used for other content")
    };
    let cannot = |errno: nix::Error| store.io(format!("cannot look for '{release}'"), errno);
    if !store.releases.exists(release).map_err(cannot)? {
        // Another process removed the live release. New content under its id would
        // be live at once, without a swap.
        if history.live.as_ref() == Some(release) {
            let problem = format!("the current symlink names '{release}', which is missing");
            return Err(exists(problem));
        }
        // An id never gets other content, also after its release was removed. A client that
        // remembers an id would take one content for the other, and so would PHP's opcache,
        // which may keep the old code by its path.
        match history.id_use(release).map(|id_use| id_use.content) {
            Some(content) if content.excludes(request.sha256) => {
                return Err(exists(match content {
                    Content::One(sha256) => {
                        format!("'{release}' was received before, with sha256 {sha256}")
                    }
                    _ => format!("'{release}' was received before, with several contents"),
                }));
            }
            // What is left of a removed release is the digest of its payload, and the
            // payload of a delta gives other content with another base.
            Some(_) if request.base.is_some() => {
                let problem = format!("'{release}' was received before, and was removed since");
                return Err(exists(problem));
            }
            _ => return Ok(None),
        }
    }
    if !store.is_present(release)? {
        let problem = format!("'{release}' is in releases/ but was not received");
        return Err(exists(problem));
    }
    let (identity, mut entries) = store.manifest(release)?;
    if identity.sha256 != request.sha256 {
        let problem = format!("release '{release}' exists with sha256 {}", identity.sha256);
        return Err(exists(problem));
    }
    // An older version of this program, or another base, may have received it.
    if let Some(tree) = request.tree
        && identity.tree != Some(tree)
    {
        let problem = match identity.tree {
            Some(other) => format!("release '{release}' exists with tree {other}"),
            None => format!("release '{release}' exists, and its tree digest is not known"),
        };
        return Err(exists(problem));
    }
    let checked = required.map(|required| {
        let signable = Signable::of_manifest(&identity);
        required.check(config.site(), release, signable, &identity.signatures)
    });
    let signed = checked.transpose().map_err(|why| {
        let problem = format!("release '{release}' exists without the required signatures: {why}");
        exists(problem)
    })?;
    let known = history.releases.get(release);
    let known = known.and_then(|known| Some((known.files?, known.bytes?)));
    let sums = match known {
        Some((files, bytes)) => Some(Sums { files, bytes }),
        None => manifest::read_sums(&mut entries).ok(),
    };
    Ok(Some(Received {
        release: release.clone(),
        sha256: identity.sha256,
        tree: identity.tree,
        sums: sums.unwrap_or_default(),
        signed,
        upload: None,
        warnings: Vec::new(),
    }))
}
