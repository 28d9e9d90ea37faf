//! Asking sshd what holds for the account (`sshd -T`, sshd(8)).

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::facts::{Settings, Way};
use super::paths::walk;
use deploy_shell::error::describe;

/// Where sshd stands.
const PROGRAMS: [&str; 3] = ["/usr/sbin/sshd", "/usr/local/sbin/sshd", "/usr/bin/sshd"];

/// The configuration sshd reads unless told otherwise.
pub const CONFIG: &str = "/etc/ssh/sshd_config";

/// Asks for `user` as if it came from this host. The error is prose.
pub fn ask(user: &str, config: Option<&Path>) -> Result<Settings, String> {
    // The name goes into a list of key=value.
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-@$+".contains(&byte);
    if !user.bytes().all(plain) {
        return Err(format!("sshd cannot be asked about a user named '{user}'"));
    }
    let Some(sshd) = PROGRAMS.iter().find(|path| Path::new(path).exists()) else {
        return Err("sshd is not installed where it usually is".to_owned());
    };
    let mut command = Command::new(sshd);
    command.env_clear().arg("-T");
    if let Some(config) = config {
        command.arg("-f").arg(config);
    }
    // laddr and lport are for Match blocks that ask for them: without, sshd
    // would not answer at all.
    let asked = format!("user={user},host=localhost,addr=127.0.0.1,laddr=127.0.0.1,lport=22");
    let output = command
        .args(["-C", &asked])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("'{sshd}' cannot be started: {}", describe(&error)))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.lines().rfind(|line| !line.trim().is_empty());
        return Err(format!(
            "'sshd -T' fails: {}",
            last.unwrap_or("no reason given").trim()
        ));
    }
    Ok(parse(&String::from_utf8_lossy(&output.stdout)))
}

/// Looks at sshd's configuration, and at what it includes.
pub fn files(config: &Path) -> Vec<Way> {
    let text = std::fs::read_to_string(config).unwrap_or_default();
    let mut paths = vec![config.to_owned()];
    for pattern in includes(&text) {
        // Whoever can write the folder can add a file that matches.
        let folder = pattern.parent().unwrap_or(Path::new("/"));
        paths.push(folder.to_owned());
        let entries = folder.read_dir().into_iter().flatten().flatten();
        let same = |path: &PathBuf| path.extension() == pattern.extension();
        paths.extend(entries.map(|entry| entry.path()).filter(same));
    }
    paths.sort();
    paths.dedup();
    paths.iter().map(|path| walk(path)).collect()
}

/// The patterns of `Include` lines, which stand in /etc/ssh unless absolute.
fn includes(text: &str) -> Vec<PathBuf> {
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

/// Reads what it prints: a keyword and its value on each line.
fn parse(text: &str) -> Settings {
    let mut settings = Settings::default();
    for line in text.lines() {
        let (keyword, value) = line.split_once(' ').unwrap_or((line, ""));
        // Newer versions write keywords as documented, older ones in lower case.
        let values = settings.0.entry(keyword.to_ascii_lowercase()).or_default();
        values.push(value.trim().to_owned());
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_by_keyword_in_lower_case() {
        let read = parse("PermitTTY no\nacceptenv LANG\nacceptenv LC_*\nbanner none\nodd\n");
        assert_eq!(read.get("permittty"), Some("no"));
        assert_eq!(read.all("acceptenv"), ["LANG", "LC_*"]);
        assert!(!read.on("permittty") && !read.on("banner") && !read.on("unset"));
        assert!(read.on("acceptenv") && !read.on("odd"));
    }

    #[test]
    fn what_is_included_is_looked_at() {
        let text = "# Include no\nInclude /a/*.conf\n\tinclude \"b/x\" c # d\nIncluded /e\n";
        let paths = ["/a/*.conf", "/etc/ssh/b/x", "/etc/ssh/c"].map(PathBuf::from);
        assert_eq!(includes(text), paths);

        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["one.conf", "other"] {
            std::fs::write(path(name), "").unwrap();
        }
        let text = format!("Include {}\n", path("*.conf").display());
        std::fs::write(path("sshd_config"), text).unwrap();
        let found = files(&path("sshd_config"));
        let found: Vec<&Path> = found.iter().map(|way| way.path.as_path()).collect();
        let expected = [folder.path(), &path("one.conf"), &path("sshd_config")];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_name_that_is_a_list_is_not_asked_about() {
        assert!(ask("a,addr=::1", None).is_err());
    }
}
