//! Keeps TLS up to date with its files while the relay runs.
//!
//! It looks at the contents every so often instead of subscribing to file events. Kubernetes and
//! others renew by turning a symbolic link to another directory: the file that an event would be
//! about does not change at all, and network file systems send no events. Four small files every
//! two seconds cost nothing.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::{self, JoinError};
use tokio::time;
use tracing::{error, info, warn};

use super::Reload;
use super::Tls;
use super::TlsError;
use super::ends::Ends;

/// How often [`watch`] looks at the files, unless there is a reason to do otherwise.
pub const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// Reloads `tls` whenever its files have changed, looked at every `poll_interval`, and whenever
/// `reload_now` is notified. Runs until it is dropped; a failed reload is logged and leaves in
/// force what was.
///
/// Changed files that are no good are tried and logged once, and not again until they change. A
/// demand by `reload_now` is always carried out and answered in the log. Two demands before the
/// first is taken up are one.
///
/// It also warns, at once and then once a day, while the served certificate has less than 14 days
/// left or a revocation list is late.
pub async fn watch(tls: Tls, reload_now: Arc<Notify>, poll_interval: Duration) {
    let mut ends = Ends::default();
    loop {
        ends.warn(&tls);
        let demanded = time::timeout(poll_interval, reload_now.notified()).await.is_ok();
        let tls = tls.clone();
        let reload = move || if demanded { tls.reload() } else { tls.reload_if_new() };
        report(demanded, task::spawn_blocking(reload).await);
    }
}

fn report(demanded: bool, outcome: Result<Result<Reload, TlsError>, JoinError>) {
    match outcome {
        Ok(Ok(Reload::Changed)) => info!("new TLS files are in force for new connections"),
        Ok(Ok(Reload::Unchanged)) if demanded => info!("TLS files have not changed"),
        Ok(Ok(Reload::Unchanged)) => {}
        Ok(Err(error)) => warn!(%error, "new TLS files cannot be used; the old ones stay in force"),
        Err(error) => error!(%error, "the TLS files could not be looked at; trying again"),
    }
}
