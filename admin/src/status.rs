//! `status`: the state of the sites of this machine, for a person and for Prometheus.
//!
//! This process opens nothing of a site and no configuration. It starts one child for each
//! site ([`reader`]), which reads the site as the site's account, and waits for it only
//! until a time limit. So a site whose file system stalls, or whose account is hostile,
//! delays the others by that time and no more.

mod attention;
mod metrics;
mod reader;
mod report;
mod site;
mod textfile;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use deploy_shell::config;
use deploy_shell::error::{Code, Error, Result};
use deploy_shell::escape;
use deploy_shell::store::journal;

use attention::Reason;
pub use reader::run_child;
use site::Answer;

/// A site, by its configuration, and what its child has found.
struct Site {
    /// The stem of the configuration's file, escaped: the name of the site, unless the
    /// configuration does not load.
    name: String,
    config: PathBuf,
    answer: Answer,
}

/// Returns the lines about the sites of these configurations, or of all in
/// [`config::DIRECTORY`], and the exit status: 0, 1 if a site needs attention, 78 if a
/// configuration does not load.
///
/// With `json`, the lines are one JSON document. With a `textfile`, the metrics go there,
/// and there is no table.
///
/// # Errors
///
/// [`Code::BadConfig`] if there is no site, [`Code::BadRequest`] for two configurations of
/// one name, and the errors of the textfile.
pub fn status(
    named: Vec<PathBuf>,
    json: bool,
    textfile: Option<&Path>,
) -> Result<(Vec<String>, u8)> {
    let configs = if named.is_empty() {
        configured(Path::new(config::DIRECTORY))?
    } else {
        named
    };
    let mut names = BTreeSet::new();
    for config in &configs {
        if !names.insert(name_of(config)) {
            let problem = format!("several configurations are of a site '{}'", name_of(config));
            return Err(Error::new(Code::BadRequest, problem).remedy("name each site once"));
        }
    }
    let answers = reader::read_sites(&configs);
    let sites: Vec<Site> = (configs.into_iter().zip(answers))
        .map(|(config, answer)| Site {
            name: name_of(&config),
            config,
            answer,
        })
        .collect();
    if let Some(path) = textfile {
        textfile::replace(path, &metrics::text(&sites, journal::now()))?;
    }
    let lines = match (json, textfile) {
        (true, _) => vec![report::document(&sites)?],
        (false, None) => report::lines(&sites),
        (false, Some(_)) => Vec::new(),
    };
    Ok((lines, exit_status(&sites)))
}

/// Returns the configurations in `directory`, by name.
fn configured(directory: &Path) -> Result<Vec<PathBuf>> {
    let shown = directory.display();
    let cannot = |error| Error::io(format!("cannot list '{shown}'"), error);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(cannot)? {
        let path = entry.map_err(cannot)?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "toml")
        {
            found.push(path);
        }
    }
    if found.is_empty() {
        let problem = format!("there is no configuration of a site in '{shown}'");
        return Err(Error::new(Code::BadConfig, problem)
            .remedy("'deploy-shell-admin init' writes one; or name one with --config"));
    }
    found.sort();
    Ok(found)
}

fn name_of(config: &Path) -> String {
    let stem = config.file_stem().unwrap_or_default();
    escape::escape(stem.as_encoded_bytes())
}

fn exit_status(sites: &[Site]) -> u8 {
    let reasons = || sites.iter().flat_map(|site| &site.answer.attention);
    if reasons().any(|attention| attention.reason == Reason::BadConfig) {
        return Code::BadConfig.exit();
    }
    u8::from(reasons().next().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_configuration_of_the_directory_is_a_site() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let error = configured(directory.path()).unwrap_err();
        assert_eq!(error.code, Code::BadConfig);
        for name in ["shop.toml", "blog.toml", "blog.allowed_signers", "x.toml~"] {
            std::fs::write(path(name), "").unwrap();
        }
        let found = configured(directory.path()).unwrap();
        assert_eq!(found, [path("blog.toml"), path("shop.toml")]);
        assert!(configured(&path("none")).is_err());
    }

    #[test]
    fn a_name_is_printable() {
        assert_eq!(name_of(Path::new("/etc/a\u{1b}b.toml")), "a\\x1bb");
    }
}
