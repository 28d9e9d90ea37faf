//! `adopt`: makes the releases of another tool deploy-shell's own, in their place.
//!
//! Without `--yes` it prints what it would do. With it, the command holds the site's lock
//! from the survey to the last record. root changes owners, by handles. Everything else
//! happens as the account, like in `drop`.

mod apply;
mod exchange;
mod history;
mod layout;
mod old_log;
mod order;
mod plan;
mod report;
mod rules;
mod survey;

use std::path::Path;

use nix::unistd::{geteuid, getuid};

use crate::output::Output;
use crate::record::{record_after, record_before};
use crate::site_account::{Ids, become_user};
use deploy_shell::audit;
use deploy_shell::config::Config;
use deploy_shell::error::Result;
use deploy_shell::event::AuditEvent;
use deploy_shell::store::ledger::{LOCK_TIMEOUT, Ledger};
use deploy_shell::store::lock::Lock;
use deploy_shell::store::{Actor, Store};
use exchange::Exchange;
use layout::Current;
use plan::Plan;
use survey::SiteFacts;

const COMMAND: &str = "adopt";

/// Adopts the releases of a site, or returns what would be done.
///
/// # Errors
///
/// [`Code::BadLayout`] for a site that cannot be adopted, [`Code::Busy`],
/// [`Code::Denied`], [`Code::AuditUnreachable`], and the errors of the configuration.
pub fn adopt(config_path: &Path, yes: bool) -> Result<Output> {
    let uid = getuid().as_raw();
    let config = Config::load(config_path)?;
    let store = Store::open_unchecked(&config)?;
    let account = Ids::of_site(&config, &store)?;
    let is_root = geteuid().is_root();
    let site = SiteFacts::new(account.uid, is_root, &config);
    let actor = Actor::operator(COMMAND, audit::notices_of_operator(&config));
    // Before the survey: no request may change what it sees.
    let lock = if yes {
        Some(account.act(|| Lock::take(&store, &actor, LOCK_TIMEOUT))?)
    } else {
        None
    };
    if let Some(exchange) = Exchange::find(&config, &store)? {
        return make_symlink_again(&config, &store, &exchange, account, &actor, lock);
    }
    let plan = plan::make(&config, &store, &site)?;
    if plan.is_complete {
        return Ok(printed(vec!["nothing is left to adopt".to_owned()], true));
    }
    let mut lines = report::plan_lines(&config, &store, &plan, account.uid);
    if !plan.is_possible(is_root) {
        if !is_root && plan.directories.iter().any(|change| change.owner.is_some()) {
            lines.push("run adopt as root: only root can change an owner".to_owned());
        }
        lines.push("nothing was changed".to_owned());
        return Ok(printed(lines, false));
    }
    let Some(lock) = lock else {
        lines.push("nothing was changed; with --yes, adopt does this".to_owned());
        return Ok(printed(lines, true));
    };
    if plan.layout.current == Current::Directory {
        account.act(|| apply::probe_exchange(&store))?;
    }
    record_before(&config, &event(&plan, uid, None))?;
    let done = carry_out(&config, &store, &plan, account, &actor, lock);
    record_after(&config, &event(&plan, uid, Some(done.is_ok())));
    done?;
    let site = config.site_option();
    lines.push("adopted".to_owned());
    lines.push(format!("next: deploy-shell-admin verify {site}"));
    lines.push(format!("then: deploy-shell-admin check {site}"));
    Ok(printed(lines, true))
}

/// Prints or carries out the exchange of a directory that replaced `current` after the
/// first swap.
fn make_symlink_again(
    config: &Config,
    store: &Store,
    exchange: &Exchange,
    account: Ids,
    actor: &Actor,
    lock: Option<Lock>,
) -> Result<Output> {
    let uid = getuid().as_raw();
    let mut lines = exchange.lines(config);
    let Some(lock) = lock else {
        lines.push("nothing was changed; with --yes, adopt does this".to_owned());
        return Ok(printed(lines, true));
    };
    account.act(|| apply::probe_exchange(store))?;
    let event = |done| AuditEvent::Adopted {
        live: &exchange.release,
        uid,
        releases: 0,
        from: layout::Tool::Directory.name(),
        done,
    };
    record_before(config, &event(None))?;
    let done = become_user(account.uid, COMMAND).and_then(|()| {
        let store = Store::open(config)?;
        exchange.carry_out(config, &store)?;
        // Completes the journal from the symlink, as each request does.
        Ledger::open_locked(&store, actor, lock).map(drop)
    });
    record_after(config, &event(Some(done.is_ok())));
    done?;
    let site = config.site_option();
    lines.push("exchanged".to_owned());
    lines.push(format!("next: deploy-shell-admin check {site}"));
    Ok(printed(lines, true))
}

fn printed(lines: Vec<String>, sound: bool) -> Output {
    Output { lines, sound }
}

/// Carries out the plan, and releases the lock at the end.
fn carry_out(
    config: &Config,
    store: &Store,
    plan: &Plan,
    account: Ids,
    actor: &Actor,
    lock: Lock,
) -> Result<()> {
    apply::change_owners(config, store, plan, account.uid)?;
    become_user(account.uid, COMMAND)?;
    apply::change_directory_modes(store, plan)?;
    // Its checks are those of every request from now on.
    let store = &Store::open(config)?;
    let site = SiteFacts::new(account.uid, false, config);
    if plan.layout.current == Current::Directory {
        apply::prepare_exchange(store, plan)?;
    }
    let mut adopted = plan.completed.clone();
    for candidate in &plan.candidates {
        let release = apply::adopt_release(config, store, plan, candidate, &site)?;
        adopted.insert(candidate.id.clone(), release);
    }
    // Modes and symlinks become durable before the record of them.
    store
        .root
        .sync_file_system()
        .map_err(|errno| store.io("cannot sync the site", errno))?;
    // The records first. Until the symlink is that of deploy-shell, every request is
    // refused, so no record of a request comes before these.
    let records = history::records(&plan.order.steps, &adopted, actor, config.min_age);
    history::append(store, &records)?;
    apply::replace_current(config, store, plan)?;
    // Completes the journal from the symlink, as each request does.
    Ledger::open_locked(store, actor, lock).map(drop)
}

/// Returns the audit event of the adoption; `done` is none before it.
fn event<'a>(plan: &'a Plan, uid: u32, done: Option<bool>) -> AuditEvent<'a> {
    AuditEvent::Adopted {
        live: &plan.layout.live,
        uid,
        releases: plan.candidates.len() + plan.completed.len(),
        from: plan.layout.tool.name(),
        done,
    }
}
