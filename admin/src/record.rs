//! The audit lines of a command that changes a site: one before the change and one after.

use deploy_shell::audit;
use deploy_shell::config::Config;
use deploy_shell::error::Result;
use deploy_shell::event::AuditEvent;
use deploy_shell::reply;

/// Writes the line before a change.
///
/// # Errors
///
/// [`Code::AuditUnreachable`](deploy_shell::error::Code::AuditUnreachable) where the site
/// requires the audit log. Elsewhere the failure becomes a warning.
pub fn record_before(config: &Config, event: &AuditEvent<'_>) -> Result<()> {
    match audit::record_by_operator(config, event) {
        Err(error) if !config.audit.required => {
            reply::warning(&error.problem);
            Ok(())
        }
        other => other,
    }
}

/// Writes the line after a change. The change is on record already, so a failure changes
/// nothing and becomes a warning.
pub fn record_after(config: &Config, event: &AuditEvent<'_>) {
    if let Err(error) = audit::record_by_operator(config, event) {
        reply::warning(&error.problem);
    }
}
