//! Asks sshd which settings hold for the account (`sshd -T`, sshd(8)), and finds
//! the files of its configuration.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::facts::{ResolvedPath, SshdSettings};
use super::paths::resolve_path;
use deploy_shell::error::describe;

/// Where distributions install sshd.
const PROGRAMS: [&str; 3] = ["/usr/sbin/sshd", "/usr/local/sbin/sshd", "/usr/bin/sshd"];

/// The configuration that sshd reads by default.
pub const DEFAULT_CONFIG: &str = "/etc/ssh/sshd_config";

/// Returns the settings for `user` from this host, or in prose why not.
pub fn query_sshd(user: &str, config: Option<&Path>) -> Result<SshdSettings, String> {
    // The name becomes part of a list of key=value.
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-@$+".contains(&byte);
    if !user.bytes().all(plain) {
        return Err(format!("cannot query sshd about a user named '{user}'"));
    }
    let Some(sshd) = PROGRAMS.iter().find(|path| Path::new(path).exists()) else {
        return Err(format!("sshd is not at {}", PROGRAMS.join(", ")));
    };
    let mut command = Command::new(sshd);
    command.env_clear().arg("-T");
    if let Some(config) = config {
        command.arg("-f").arg(config);
    }
    // sshd fails without laddr and lport if a Match block tests them.
    let connection = format!("user={user},host=localhost,addr=127.0.0.1,laddr=127.0.0.1,lport=22");
    let output = command
        .args(["-C", &connection])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("'{sshd}' cannot be started: {}", describe(&error)))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let last = stderr.lines().rfind(|line| !line.trim().is_empty());
        return Err(format!(
            "'sshd -T' fails: {}",
            last.unwrap_or("no reason given").trim()
        ));
    }
    Ok(parse_settings(&String::from_utf8_lossy(&output.stdout)))
}

/// Resolves the paths of sshd's configuration, and of the files it includes.
pub fn resolve_config_files(config: &Path) -> Vec<ResolvedPath> {
    let text = std::fs::read_to_string(config).unwrap_or_default();
    let mut paths = vec![config.to_owned()];
    for pattern in include_patterns(&text) {
        // A user who can write the directory can add a file that matches.
        let directory = pattern.parent().unwrap_or(Path::new("/"));
        paths.push(directory.to_owned());
        let entries = directory.read_dir().into_iter().flatten().flatten();
        let matches = |path: &PathBuf| path.extension() == pattern.extension();
        paths.extend(entries.map(|entry| entry.path()).filter(matches));
    }
    paths.sort();
    paths.dedup();
    paths.iter().map(|path| resolve_path(path)).collect()
}

/// Returns the patterns of `Include` lines, which are relative to /etc/ssh.
fn include_patterns(text: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for line in text.lines() {
        let mut words = line
            .split([' ', '\t', '=', '"'])
            .filter(|word| !word.is_empty());
        if words
            .next()
            .is_some_and(|first| first.eq_ignore_ascii_case("include"))
        {
            let patterns = words.take_while(|word| !word.starts_with('#'));
            found.extend(patterns.map(|pattern| Path::new("/etc/ssh").join(pattern)));
        }
    }
    found
}

/// Parses the output of `sshd -T`: a keyword and its value on each line.
fn parse_settings(text: &str) -> SshdSettings {
    let mut settings = SshdSettings::default();
    for line in text.lines() {
        let (keyword, value) = line.split_once(' ').unwrap_or((line, ""));
        // Newer versions print keywords as documented, older ones in lower case.
        let values = settings.0.entry(keyword.to_ascii_lowercase()).or_default();
        values.push(value.trim().to_owned());
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_looked_up_by_keyword_in_lower_case() {
        let settings =
            parse_settings("PermitTTY no\nacceptenv LANG\nacceptenv LC_*\nbanner none\nodd\n");
        assert_eq!(settings.get("permittty"), Some("no"));
        assert_eq!(settings.all("acceptenv"), ["LANG", "LC_*"]);
        for off in ["permittty", "banner", "unset", "odd"] {
            assert!(!settings.is_on(off), "{off}");
        }
        assert!(settings.is_on("acceptenv"));
    }

    #[test]
    fn included_files_are_found() {
        let text = "# Include no\nInclude /a/*.conf\n\tinclude \"b/x\" c # d\nIncluded /e\n";
        let paths = ["/a/*.conf", "/etc/ssh/b/x", "/etc/ssh/c"].map(PathBuf::from);
        assert_eq!(include_patterns(text), paths);

        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        for name in ["one.conf", "other"] {
            std::fs::write(path(name), "").unwrap();
        }
        let text = format!("Include {}\n", path("*.conf").display());
        std::fs::write(path("sshd_config"), text).unwrap();
        let found = resolve_config_files(&path("sshd_config"));
        let found: Vec<&Path> = found.iter().map(|file| file.path.as_path()).collect();
        let expected = [directory.path(), &path("one.conf"), &path("sshd_config")];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_user_name_with_a_comma_is_refused() {
        assert!(query_sshd("a,addr=::1", None).is_err());
    }
}
