//! The main function of the hook runner, and the commands of the site.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::stat::SFlag;

use super::MAX_TIME_LIMIT;
use super::job::{Abandoned, Job, JobRunner};
use super::pipe::MonitorPipe;
use super::program::{self, StartError};
use super::protocol::{HookCommand, ReleaseCheck, RunOutcome, RunRequest, Setup, Stage};
use super::sigchld::ChildSignal;
use crate::config::Argv;
use crate::dir::{self, Dir};
use crate::error::{Code, describe};
use crate::message;
use crate::names::ReleaseId;
use crate::probe::{self, ProbeRequest};
use crate::sandbox;
use crate::store::layout::RELEASES;
use crate::url::HttpUrl;

/// The PATH of a command that runs as the account. It is fixed, and not taken from the login
/// environment.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The time that the probe gets to report that its time limit has passed. The probe
/// keeps that limit itself, and the hook runner ends it this much later.
pub const PROBE_GRACE: Duration = Duration::from_secs(1);

/// Runs as the hook runner, and returns the exit status: takes messages from stdin
/// until the monitor closes it, and answers on stdout.
pub fn main() -> u8 {
    sandbox::limit_commands();
    match serve_monitor() {
        Ok(()) => 0,
        // Nobody reads a reason: the monitor only sees that the process ends.
        Err(_) => Code::Internal.exit(),
    }
}

fn serve_monitor() -> nix::Result<()> {
    prctl::set_child_subreaper(true)?;
    // A command runs as the same user. A non-dumpable process (prctl(2)) is one
    // that it cannot trace, and whose pipes it cannot open through /proc to answer in
    // its place. The monitor does not rely on that: from execve(2) until
    // `reset_inherited_state`, which ignores a failure, any process of this user can trace
    // us, for example what an earlier hook left running. execve(2) makes the command itself
    // dumpable again.
    prctl::set_dumpable(false)?;
    let errno = |error: std::io::Error| Errno::try_from(error).unwrap_or(Errno::EIO);
    let mut jobs = JobRunner::new(MonitorPipe::open().map_err(errno)?, ChildSignal::open()?);
    let setup = jobs.monitor_pipe().setup().ok_or(Errno::EBADMSG)?;
    // If the site cannot be opened, every request gets that answer.
    let site = SiteCommands::open(setup);
    // Terminates: the monitor ends its requests, or closes the pipe.
    while let Some(request) = jobs.monitor_pipe().request() {
        let site = site.as_ref().map_err(|why| why.clone().into());
        let prepared = site.and_then(|site| {
            if request.dry_run {
                site.check_program(&request).map(|()| None)
            } else {
                site.chdir_and_prepare(&request).map(Some)
            }
        });
        let done = match prepared {
            Ok(Some(job)) => jobs.run(job),
            Ok(None) => {
                jobs.send_outcome(RunOutcome::DryRun);
                Ok(())
            }
            Err(error) => {
                jobs.send_outcome(error.into_outcome());
                Ok(())
            }
        };
        if let Err(Abandoned) = done {
            break;
        }
    }
    Ok(())
}

/// The commands of a site, and the directories in which they run.
struct SiteCommands {
    setup: Setup,
    /// The directory of all releases.
    releases: Dir,
    /// The directory `/`, in which the probe runs.
    top: Dir,
}

impl SiteCommands {
    fn open(setup: Setup) -> Result<SiteCommands, String> {
        let root = setup.root.display();
        let cannot = |errno: Errno| {
            let why = describe(&errno.into());
            format!("'{root}' cannot be opened: {why}")
        };
        let releases = Dir::open_root(&setup.root)
            .and_then(|root| root.open_dir(RELEASES))
            .map_err(cannot)?;
        let top = Dir::open_root(Path::new("/")).map_err(cannot)?;
        Ok(SiteCommands {
            setup,
            releases,
            top,
        })
    }

    /// Returns the requested command and its time limit. Changes the working
    /// directory of this process to the one in which the command has to start.
    fn chdir_and_prepare(&self, request: &RunRequest) -> Result<Job, StartError> {
        let setup = &self.setup;
        let time_limit = request.time_limit.min(MAX_TIME_LIMIT);
        let absent = || {
            let (stage, index) = (request.stage, request.index);
            format!("the site has no command {index} for {stage}")
        };
        let hook = |hooks: &[HookCommand]| {
            let hook = hooks.get(request.index).ok_or_else(absent)?;
            self.chdir_to_release(&request.release)?;
            let command = self.operator_command(&hook.command, request)?;
            Ok(Job::without_input(command, time_limit.min(hook.timeout)))
        };
        let check = |check: &Option<ReleaseCheck>| match check.as_ref().ok_or_else(absent)? {
            ReleaseCheck::Http { url, contains } => {
                let release = request.release.as_str();
                let contains = contains.as_ref();
                let contains = contains.map(|text| text.replace("{release}", release));
                self.chdir_to_top()?;
                Ok(self.probe_command(url, contains, time_limit)?)
            }
            ReleaseCheck::Command(argv) => {
                self.chdir_to_release(&request.release)?;
                let command = self.operator_command(argv, request)?;
                Ok(Job::without_input(command, time_limit))
            }
        };
        match request.stage {
            Stage::BeforeSwap => hook(&setup.before_swap),
            Stage::AfterSwap => hook(&setup.after_swap),
            Stage::BeforeRollback => hook(&setup.before_rollback),
            Stage::Smoke | Stage::Health if request.index != 0 => Err(absent().into()),
            Stage::Smoke => check(&setup.smoke),
            Stage::Health => check(&setup.health),
        }
    }

    /// Checks that the operator's program that a request means can be started. The probe
    /// is none.
    fn check_program(&self, request: &RunRequest) -> Result<(), StartError> {
        let setup = &self.setup;
        let hook = |hooks: &[HookCommand]| hooks.get(request.index).map(|it| it.command.clone());
        let check = |check: &Option<ReleaseCheck>| match check {
            Some(ReleaseCheck::Command(argv)) => Some(argv.clone()),
            Some(ReleaseCheck::Http { .. }) | None => None,
        };
        let argv = match request.stage {
            Stage::BeforeSwap => hook(&setup.before_swap),
            Stage::AfterSwap => hook(&setup.after_swap),
            Stage::BeforeRollback => hook(&setup.before_rollback),
            Stage::Smoke => check(&setup.smoke),
            Stage::Health => check(&setup.health),
        };
        match argv {
            Some(argv) => program::check_program(argv.program(), &setup.root),
            None => Ok(()),
        }
    }

    /// Returns a command of the operator with its configured words. Its environment
    /// is PATH and three variables of ours.
    ///
    /// # Errors
    ///
    /// Returns why the program cannot or must not start.
    fn operator_command(&self, argv: &Argv, request: &RunRequest) -> Result<Command, StartError> {
        program::check_program(argv.program(), &self.setup.root)?;
        let previous = request.previous.as_ref().map_or("", ReleaseId::as_str);
        let mut command = Command::new(argv.program());
        command
            .args(argv.arguments())
            .env_clear()
            .env("PATH", PATH)
            .env("DEPLOY_RELEASE", request.release.as_str())
            .env("DEPLOY_PREVIOUS", previous)
            .env("DEPLOY_SITE", self.setup.site.as_str());
        Ok(command)
    }

    /// Changes the working directory to a release, through a descriptor. The
    /// directory must be this user's: no command runs in a directory that others can
    /// write.
    fn chdir_to_release(&self, release: &ReleaseId) -> Result<(), String> {
        let cannot = |errno: Errno| {
            let why = describe(&errno.into());
            format!("the directory of '{release}' cannot be entered: {why}")
        };
        let directory = self
            .releases
            .open_dir_of_this_mount(release)
            .map_err(cannot)?;
        let stat = directory.metadata().map_err(cannot)?;
        let owned = stat.st_uid == nix::unistd::geteuid().as_raw();
        if !owned || stat.st_mode & 0o022 != 0 || dir::file_type(&stat) != SFlag::S_IFDIR {
            return Err(format!(
                "the directory of '{release}' is not this user's, or others can write it"
            ));
        }
        nix::unistd::fchdir(&directory).map_err(cannot)
    }

    /// Changes the working directory to `/`: the probe needs no release.
    fn chdir_to_top(&self) -> Result<(), String> {
        let cannot = |errno: Errno| format!("'/' cannot be entered: {}", describe(&errno.into()));
        nix::unistd::fchdir(&self.top).map_err(cannot)
    }

    /// Returns the command of the probe, and the time limit at which the hook runner
    /// ends it. The probe is this program: it sandboxes itself before it reads what a
    /// release answers.
    fn probe_command(
        &self,
        url: &HttpUrl,
        contains: Option<String>,
        time_limit: Duration,
    ) -> Result<Job, String> {
        let request = ProbeRequest {
            url: url.clone(),
            contains,
            exchange: self.setup.exchange.clone(),
            time_limit,
            sandbox_required: self.setup.sandbox_required,
        };
        let request = message::encode(&request).map_err(|error| error.problem)?;
        let mut command = Command::new("/proc/self/exe");
        command.env_clear().arg(probe::WORD);
        let input = Some(format!("{request}\n"));
        Ok(Job {
            command,
            input,
            time_limit: time_limit + PROBE_GRACE,
        })
    }
}
