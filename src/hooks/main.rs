//! The runner's own main: the site as its file has it, and its commands.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::prctl;

use super::job::{Abandoned, Jobs};
use super::pipe::MonitorPipe;
use super::protocol::Order;
use super::sigchld::ChildSignal;
use super::{Ended, LONGEST, Stage};
use crate::config::{Argv, Config, Hook, HttpUrl};
use crate::dir::{self, Dir};
use crate::error::{Code, describe};
use crate::names::ReleaseId;
use crate::sandbox;
use crate::store::layout::RELEASES;

/// Where a command finds the programs that it names without a path. Not
/// sshd's, which is the client's account's.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What the probe may need beyond the time it gives its own answer in.
const PROBE_GRACE: Duration = Duration::from_secs(1);

/// Whether the site's file has anything to run.
pub fn has_work(config: &Config) -> bool {
    let health = &config.health;
    config.commands().next().is_some() || health.url.is_some() || health.smoke_url.is_some()
}

/// Runs as the runner, to the exit status: takes tasks from stdin until it is
/// closed, and answers on stdout.
pub fn main(path: &Path) -> u8 {
    sandbox::reset_inherited_state();
    match run(path) {
        Ok(()) => 0,
        // Nobody reads why: the monitor sees its end.
        Err(_) => Code::Internal.exit(),
    }
}

fn run(path: &Path) -> nix::Result<()> {
    prctl::set_child_subreaper(true)?;
    // A command is of the same user. It is not to open our pipes through /proc
    // and answer in our place, nor to trace us (prctl(2)). It is dumpable again
    // itself once it is executed.
    prctl::set_dumpable(false)?;
    let io = |error: std::io::Error| nix::Error::try_from(error).unwrap_or(nix::Error::EIO);
    let mut jobs = Jobs::new(MonitorPipe::open().map_err(io)?, ChildSignal::set()?);
    // That the site cannot be opened is said to whoever gives us a task.
    let site = Site::open(path);
    while let Some(order) = jobs.link().order() {
        let prepared = site
            .as_ref()
            .map_err(Clone::clone)
            .and_then(|site| site.command(&order));
        let done = match prepared {
            Ok((command, within)) => jobs.run(command, within),
            Err(why) => {
                jobs.answer(Ended::NotStarted(why));
                Ok(())
            }
        };
        if let Err(Abandoned) = done {
            break;
        }
    }
    Ok(())
}

/// A site, as far as its commands need it.
struct Site {
    config: Config,
    releases: Dir,
    /// Where we are while no command runs.
    home: Dir,
}

impl Site {
    fn open(path: &Path) -> Result<Site, String> {
        let config = Config::load(path).map_err(|error| error.problem)?;
        let root = config.root.display();
        let cannot = |errno: nix::Error| {
            let why = describe(&errno.into());
            format!("'{root}' cannot be opened: {why}")
        };
        let releases = Dir::open_root(&config.root)
            .and_then(|root| root.open_dir(RELEASES))
            .map_err(cannot)?;
        let home = Dir::open_root(Path::new("/")).map_err(cannot)?;
        Ok(Site {
            config,
            releases,
            home,
        })
    }

    /// The command that is meant, ready to be started from where we are now,
    /// and how long it may take.
    fn command(&self, order: &Order) -> Result<(Command, Duration), String> {
        let (hooks, health) = (&self.config.hooks, &self.config.health);
        let within = order.within.min(LONGEST);
        let absent = || {
            let (stage, index) = (order.stage, order.index);
            format!("there is no command {index} for {stage} in the site's file any more")
        };
        let hook = |list: &[Hook]| {
            let hook = list.get(order.index).ok_or_else(absent)?;
            let command = self.operators(&hook.command, order)?;
            Ok((command, within.min(hook.timeout)))
        };
        match order.stage {
            Stage::BeforeSwap => hook(&hooks.before_swap),
            Stage::AfterSwap => hook(&hooks.after_swap),
            Stage::BeforeRollback => hook(&hooks.before_rollback),
            Stage::Smoke | Stage::Health if order.index != 0 => Err(absent()),
            Stage::Smoke => {
                let url = health.smoke_url.as_ref().ok_or_else(absent)?;
                self.probe(url, None, within)
            }
            Stage::Health => match (&health.url, &health.command) {
                (Some(url), _) => {
                    let contains = health.contains.as_ref();
                    let contains =
                        contains.map(|text| text.replace("{release}", order.release.as_str()));
                    self.probe(url, contains, within)
                }
                (None, Some(argv)) => Ok((self.operators(argv, order)?, within)),
                (None, None) => Err(absent()),
            },
        }
    }

    /// One of the operator's own commands: its words as they stand in the
    /// site's file, four variables, and the release as its working directory.
    fn operators(&self, argv: &Argv, order: &Order) -> Result<Command, String> {
        self.enter(&order.release)?;
        self.not_of_the_site(argv.program())?;
        let previous = order.previous.as_ref().map_or("", ReleaseId::as_str);
        let mut command = Command::new(argv.program());
        command
            .args(argv.arguments())
            .env_clear()
            .env("PATH", PATH)
            .env("DEPLOY_RELEASE", order.release.as_str())
            .env("DEPLOY_PREVIOUS", previous)
            .env("DEPLOY_SITE", self.config.site().as_str());
        Ok(command)
    }

    /// Whether a program stands below the root wherever its path leads: there a
    /// client has sent it. The path alone was looked at when the site's file was
    /// read; links in it are the operator's own, so they do not change between
    /// this and the start.
    fn not_of_the_site(&self, program: &Path) -> Result<(), String> {
        let leads = |path: &Path| std::fs::canonicalize(path);
        match (leads(program), leads(&self.config.root)) {
            (Ok(found), Ok(root)) if found.starts_with(&root) => {
                let (program, found) = (program.display(), found.display());
                Err(format!(
                    "'{program}' leads into the site's own root, to '{found}'"
                ))
            }
            // What is not there cannot be started either, and says so.
            _ => Ok(()),
        }
    }

    /// Changes into a release, by its handle. It must be ours: what others can
    /// write no command is run in.
    fn enter(&self, release: &ReleaseId) -> Result<(), String> {
        let cannot = |errno: nix::Error| {
            let why = describe(&errno.into());
            format!("the folder of '{release}' cannot be entered: {why}")
        };
        let folder = self.releases.open_dir(release).map_err(cannot)?;
        let stat = folder.metadata().map_err(cannot)?;
        let ours = stat.st_uid == nix::unistd::geteuid().as_raw();
        if !ours
            || stat.st_mode & 0o022 != 0
            || dir::file_type(&stat) != nix::sys::stat::SFlag::S_IFDIR
        {
            return Err(format!(
                "the folder of '{release}' is not ours, or others can write it"
            ));
        }
        nix::unistd::fchdir(&folder).map_err(cannot)
    }

    /// The probe is this program, executed anew: it reads what a release
    /// answers, and confines itself before it does.
    fn probe(
        &self,
        url: &HttpUrl,
        contains: Option<String>,
        within: Duration,
    ) -> Result<(Command, Duration), String> {
        let cannot =
            |errno: nix::Error| format!("'/' cannot be entered: {}", describe(&errno.into()));
        nix::unistd::fchdir(&self.home).map_err(cannot)?;
        let mut command = Command::new("/proc/self/exe");
        command
            .env_clear()
            .args(["probe", "--url", url.as_str()])
            .args(["--within", &within.as_millis().to_string()]);
        if let Some(text) = contains {
            // One word, so that no text is taken for an option.
            command.arg(format!("--contains={text}"));
        }
        if !self.config.sandbox.required {
            command.arg("--sandbox-optional");
        }
        Ok((command, within + PROBE_GRACE))
    }
}
