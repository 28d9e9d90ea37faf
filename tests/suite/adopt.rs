//! `adopt` makes the releases of another tool deploy-shell's own.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use nix::unistd::Uid;

use crate::adopt_layouts::{
    SHARED, adopt, capistrano, command, deployer, hour, plain_directory, point_current, put_file,
    script,
};
use crate::direct::{ask, everything, listing, live, put, states};
use crate::fields::Fields;
use crate::site::{Site, set_mode};
use crate::strace;
use crate::verify::verify;

/// Returns the lines of an adoption that prints and changes nothing.
#[track_caller]
pub fn printed(site: &Site) -> String {
    let before = everything(site);
    let printed = adopt(site, false).ok();
    assert_eq!(everything(site), before, "something was changed");
    printed
}

/// Returns the lines of an adoption that something prevents.
#[track_caller]
pub fn prevented(site: &Site) -> String {
    let before = everything(site);
    for yes in [false, true] {
        let reply = adopt(site, yes);
        assert_eq!(reply.code, 1, "{reply:?}");
        assert!(reply.stdout.ends_with("nothing was changed\n"), "{reply:?}");
        assert_eq!(everything(site), before, "something was changed: {reply:?}");
    }
    adopt(site, false).stdout
}

/// Adopts the site, and checks that every adopted release matches its manifest.
#[track_caller]
pub fn adopted(site: &Site) -> String {
    printed(site);
    let printed = adopt(site, true).ok();
    verify(site, &[]).ok();
    assert!(site.leftovers().is_empty());
    let again = everything(site);
    assert_eq!(adopt(site, true).ok(), "nothing is left to adopt\n");
    assert_eq!(everything(site), again);
    printed
}

fn page(site: &Site) -> String {
    fs::read_to_string(site.root().join("current/index.html")).expect("a page")
}

#[test]
fn a_site_of_deployer_is_adopted() {
    let site = Site::with_config(SHARED);
    deployer(&site, &["1", "2", "3"]);
    let printed = adopted(&site);
    let expected = "found Deployer, by '.dep'; '3' is live\n\
                    adopt '1': 3 files, 14 bytes, deployed 2021-11-06T00:51:45Z\n";
    assert!(printed.starts_with(expected), "{printed}");
    assert!(
        printed.contains("'rollback' then goes to '2'\n"),
        "{printed}"
    );
    assert_eq!(states(&site), ["3 current", "2 previous", "1 good"]);
    let listing = listing(&site);
    for (row, number) in [(0, 2), (1, 1), (2, 0)] {
        assert_eq!(listing["releases"][row]["received"], hour(number));
    }
    // A release was last live when the next one replaced it.
    assert_eq!(listing["releases"][1]["last_live"], hour(2));
    assert_eq!(ask(&site, "rollback").ok(), "ok rollback 2 previous=3\n");
    assert_eq!(page(&site), "2");
    // An id that the old tool used is not free.
    let payload = crate::direct::payload("x");
    let receive = Site::receive_command("1", &payload);
    site.run(crate::direct::serve(&site, "ci", receive), &payload)
        .refused(73, "release-exists");
}

#[test]
fn an_adoption_is_in_the_audit_log() {
    let site = Site::with_config(SHARED);
    deployer(&site, &["1", "2"]);
    fs::rename(site.dir().join("audit.socket"), site.dir().join("away")).expect("a socket");
    let before = everything(&site);
    adopt(&site, true).refused(75, "audit-unreachable");
    assert_eq!(everything(&site), before);
    fs::rename(site.dir().join("away"), site.dir().join("audit.socket")).expect("a socket");
    adopted(&site);
    let uid = Uid::effective().to_string();
    let lines = site.audit_lines();
    let lines: Vec<_> = (lines.iter())
        .filter(|line| line.contains("event=\"adopt\""))
        .collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    for (line, outcome) in lines.into_iter().zip(["begins", "ok"]) {
        Fields::read(line).has(&[
            ("event", "adopt"),
            ("site", "blog"),
            ("release", "2"),
            ("outcome", outcome),
            ("from", "deployer"),
            ("releases", "2"),
            ("uid", &uid),
        ]);
    }
}

#[test]
fn a_release_that_a_rollback_of_deployer_left_stays_bad() {
    let site = Site::with_config(SHARED);
    deployer(&site, &["1", "2", "3"]);
    point_current(&site, "releases/2");
    put_file(
        &site,
        "releases/3/BAD_RELEASE",
        "2021-11-06T20:51:45+0000,Jane\n",
    );
    adopted(&site);
    assert_eq!(states(&site), ["2 current", "3 bad", "1 previous"]);
    assert_eq!(
        site.journal().last().expect("a record")["event"],
        "rolled-back"
    );
    assert_eq!(ask(&site, "rollback").ok(), "ok rollback 1 previous=2\n");
}

#[test]
fn a_site_of_capistrano_is_adopted() {
    let site = Site::with_config(SHARED);
    let releases = ["20211106005145", "20211106015145", "20211106025145"];
    capistrano(&site, &releases);
    let printed = adopted(&site);
    let root = site.root().display();
    for line in [
        "found Capistrano, by 'revisions.log'; '20211106025145' is live\n",
        "  make the symlink './storage/logs' relative: '../../../shared/storage/logs'\n",
        &format!(
            "replace the symlink 'current' to '{root}/releases/20211106025145' by one to \
             'releases/20211106025145', in one step\n"
        ),
        "'rollback' then goes to '20211106015145'\n",
    ] {
        assert!(printed.contains(line), "{line}{printed}");
    }
    assert_eq!(site.current().as_deref(), Some(releases[2]));
    let shared = fs::read_to_string(site.root().join("current/.env"));
    assert_eq!(shared.expect("a shared file"), "SECRET=1\n");
    assert_eq!(listing(&site)["releases"][2]["received"], hour(0));
    ask(&site, "rollback").ok();
    assert_eq!(page(&site), releases[1]);
}

/// Runs Capistrano itself, where it is installed (Debian package capistrano, and git).
#[test]
fn a_deployment_by_capistrano_itself_is_adopted() {
    let found = Command::new("cap").arg("--version").output();
    if !found.is_ok_and(|output| output.status.success()) {
        println!("skipped: Capistrano is not installed");
        return;
    }
    let site = Site::with_config("[shared]\nlinks = [\".env\", \"public/uploads\"]\n");
    put_file(&site, "shared/.env", "SECRET=1\n");
    let script = "set -e; git init -q repo; cd repo; mkdir public; echo page > index.html; \
                  git add -A; git -c user.name=a -c user.email=a@b commit -qm 1; \
                  git branch -M main; cd ..; mkdir -p work/config/deploy; cd work; \
                  printf 'require \"capistrano/setup\"\\nrequire \"capistrano/deploy\"\\n\
                  require \"capistrano/scm/git\"\\ninstall_plugin Capistrano::SCM::Git\\n' > Capfile; \
                  printf 'set :application, \"blog\"\\nset :repo_url, \"%s\"\\nset :branch, \"main\"\\n\
                  set :deploy_to, \"%s\"\\nset :tmp_dir, \"%s\"\\nset :linked_files, [\".env\"]\\n\
                  set :linked_dirs, [\"public/uploads\"]\\n' \
                  \"$OLDPWD/repo\" \"$OLDPWD/root\" \"$PWD\" > config/deploy.rb; \
                  echo 'server :local, roles: %w{app}' > config/deploy/production.rb; \
                  for deployment in 1 2 3; do cap production deploy; sleep 1; done; \
                  cap production deploy:rollback; umask";
    let mut shell = Command::new("sh");
    shell.args(["-c", script]).current_dir(site.dir());
    shell.env("HOME", site.dir());
    let reply = site.run(shell, b"");
    assert_eq!(reply.code, 0, "{reply:?}");
    let target = fs::read_link(site.root().join("current")).expect("a symlink");
    assert!(target.is_absolute(), "{target:?}");
    let printed = adopted(&site);
    assert!(printed.contains("found Capistrano"), "{printed}");
    // The release that the rollback left is archived. One is live, and one is before it.
    let states = states(&site);
    assert_eq!(states.len(), 2, "{states:?}");
    assert_eq!(page(&site), "page\n");
    ask(&site, "rollback").ok();
}

#[test]
fn a_site_of_a_script_is_adopted_in_the_order_of_its_names_or_directories() {
    let site = Site::new();
    script(&site, &["20211106-005145", "20211106-015145"]);
    adopted(&site);
    assert_eq!(site.current().as_deref(), Some("20211106-015145"));
    ask(&site, "rollback").ok();
    assert_eq!(page(&site), "20211106-005145");

    let site = Site::new();
    script(&site, &["zebra", "apple", "mango"]);
    for (hours, name) in ["zebra", "apple", "mango"].iter().enumerate() {
        let mut touch = Command::new("touch");
        touch.args(["-d", &hour(hours)]);
        let path = site.root().join("releases").join(name);
        assert!(touch.arg(path).status().expect("touch").success());
    }
    let printed = adopted(&site);
    assert!(
        printed.contains("'rollback' then goes to 'apple'\n"),
        "{printed}"
    );
    assert_eq!(
        states(&site),
        ["mango current", "apple previous", "zebra good"]
    );
}

#[test]
fn a_directory_at_the_place_of_the_symlink_becomes_a_release() {
    let site = Site::new();
    plain_directory(&site);
    let touch = Command::new("touch")
        .args(["-d", &hour(3)])
        .arg(site.root().join("current"))
        .status();
    assert!(touch.expect("touch").success());
    let printed = adopted(&site);
    let line = "exchange the directory 'current' for a symlink to 'releases/20211106-035145', \
                in one step\n";
    assert!(printed.contains(line), "{printed}");
    assert_eq!(site.current().as_deref(), Some("20211106-035145"));
    assert_eq!(site.releases(), ["20211106-035145"]);
    assert_eq!(page(&site), "plain");
    live(&site, &["next"]);
    ask(&site, "rollback").ok();
    assert_eq!(page(&site), "plain");
}

/// A copy of the site by another tool, at the place of the symlink.
fn replace_current(site: &Site, content: &str) {
    fs::remove_file(site.root().join("current")).expect("a symlink");
    put_file(site, "current/index.html", content);
}

#[test]
fn a_directory_that_replaced_the_symlink_after_a_swap_is_exchanged() {
    let site = Site::new();
    live(&site, &["a", "b"]);
    put(&site, "c");
    for kept in ["current.replaced", "current.replaced-2"] {
        replace_current(&site, "copied");
        let reply = ask(&site, "swap c");
        reply.refused(78, "bad-layout");
        let remedy = reply.stderr.lines().nth(1).expect("a remedy");
        assert!(
            remedy.contains(": deploy-shell-admin adopt --config "),
            "{remedy}"
        );
        assert!(remedy.contains(" --yes "), "{remedy}");
        let lines = format!(
            "exchange the directory 'current' for a symlink to 'releases/b', in one step: \
             visitors see that release\nkeep the directory as '{kept}'\n"
        );
        assert!(printed(&site).contains(&lines));
        assert!(adopt(&site, true).ok().contains(&lines));
        assert_eq!(page(&site), "b");
        let copy = site.root().join(kept).join("index.html");
        assert_eq!(fs::read_to_string(copy).expect("it is kept"), "copied");
        assert_eq!(states(&site), ["b current", "a previous", "c pending"]);
        assert_eq!(adopt(&site, true).ok(), "nothing is left to adopt\n");
        ask(&site, "swap a").ok();
        ask(&site, "swap b").ok();
    }
}

/// root follows no path of the account, and the result is the account's.
#[test]
fn root_exchanges_the_directory_of_another_account() {
    if !Uid::effective().is_root() {
        println!("skipped: only root gives files away");
        return;
    }
    let site = Site::new();
    live(&site, &["a", "b"]);
    replace_current(&site, "copied");
    site.give_to("daemon");
    set_mode(&site.dir().join("audit.socket"), 0o777);
    adopt(&site, true).ok();
    assert_eq!(page(&site), "b");
    let link = fs::symlink_metadata(site.root().join("current"));
    assert_ne!(link.expect("a symlink").uid(), 0);
}

#[test]
fn the_configuration_must_have_the_shared_paths_of_the_live_release() {
    let site = Site::with_config("[shared]\nlinks = [\".env\"]\n");
    deployer(&site, &["1", "2"]);
    let printed = prevented(&site);
    let table = "[shared]\nlinks = [\".env\", \"storage/logs\"]\n";
    assert!(printed.contains(table), "{printed}");
    site.configure(table);
    adopted(&site);
}

#[test]
fn the_first_swap_keeps_what_a_rollback_needs() {
    let config = format!("keep = 2\n{SHARED}[archive]\nrequired_paths = []\n");
    let site = Site::with_config(&config);
    deployer(&site, &["1", "2", "3", "4", "5", "6"]);
    adopted(&site);
    let receive = |release: &str| {
        put(&site, release);
        ask(&site, &format!("swap {release}")).ok();
    };
    receive("new");
    // The new release has no place yet. So `keep` and two more stay of the others.
    assert_eq!(
        states(&site),
        ["new current", "6 previous", "5 good", "4 good", "3 good"]
    );
    assert_eq!(ask(&site, "rollback").ok(), "ok rollback 6 previous=new\n");
}

#[test]
fn what_is_no_release_of_the_tool_is_named_and_left_alone() {
    let site = Site::with_config(SHARED);
    deployer(&site, &["1", "2", "3"]);
    point_current(&site, "releases/2");
    put_file(&site, "releases/by-hand/index.html", "x");
    put_file(&site, "releases/_odd/index.html", "x");
    put_file(&site, "releases/note", "x");
    let printed = adopted(&site);
    for line in [
        "leave 'releases/_odd' alone: its name is not that of a release\n",
        "leave 'releases/note' alone: it is not a directory\n",
        "leave 'releases/by-hand' alone: the log of the tool does not name it\n",
        "leave 'releases/3' alone: it is newer than the live release, and was perhaps never live\n",
    ] {
        assert!(printed.contains(line), "{line}{printed}");
    }
    let not_received = ["by-hand not-received", "3 not-received"];
    let expected = [&["2 current", "1 previous"][..], &not_received].concat();
    assert_eq!(states(&site), expected);
}

#[test]
fn a_site_with_a_swap_of_its_own_or_a_running_deployment_is_not_adopted() {
    let site = Site::with_config(SHARED);
    deployer(&site, &["1", "2"]);
    put_file(&site, ".dep/deploy.lock", "Jane\n");
    adopt(&site, true).refused(75, "busy");
    fs::remove_file(site.root().join(".dep/deploy.lock")).expect("it exists");
    site.configure("");
    live(&site, &["new"]);
    site.configure(SHARED);
    let before = everything(&site);
    let reply = adopt(&site, true);
    reply.refused(78, "bad-layout");
    assert!(
        reply.stderr.contains("has made 'new' live already"),
        "{reply:?}"
    );
    assert_eq!(everything(&site), before);
}

/// Without a swap, the order is still certain. The times are not, and the plan says so.
#[test]
fn a_site_with_a_pending_release_is_adopted() {
    let site = Site::with_config(SHARED);
    deployer(&site, &["1", "2", "3"]);
    put(&site, "new");
    let printed = adopted(&site);
    assert!(
        printed.contains("the journal has requests until 20"),
        "{printed}"
    );
    let states = states(&site);
    assert_eq!(states, ["3 current", "2 previous", "1 good", "new pending"]);
    ask(&site, "swap new").ok();
    assert_eq!(ask(&site, "rollback").ok(), "ok rollback 3 previous=new\n");
}

/// Some file systems (vfat, and network file systems) cannot exchange two names.
#[test]
fn a_file_system_without_an_exchange_is_named() {
    let site = Site::new();
    plain_directory(&site);
    let before = everything(&site);
    let inject = "inject=renameat2:error=EINVAL";
    let options = ["-qq", "-o", "/dev/null", "-e", inject];
    let adopting = strace::under(&options, &command(&site, true));
    let reply = site.run(adopting, b"");
    reply.refused(78, "bad-layout");
    let problem = "cannot exchange a directory and a symlink in one step";
    assert!(reply.stderr.contains(problem), "{reply:?}");
    assert_eq!(everything(&site), before);
}

#[test]
fn nothing_is_adopted_while_a_request_changes_the_site_or_without_a_live_release() {
    let site = Site::with_config(SHARED);
    adopt(&site, true).refused(78, "bad-layout");
    deployer(&site, &["1"]);
    put(&Site::new(), "unused");
    let lock = site.root().join(".deploy-shell/lock");
    let lock = fs::File::create(lock).expect("the lock");
    lock.lock().expect("it is free");
    printed(&site);
    adopt(&site, true).refused(75, "busy");
    point_current(&site, "shared");
    drop(lock);
    adopt(&site, true).refused(78, "bad-layout");
}
