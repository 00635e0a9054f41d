//! Reloads TLS when its files change.
//!
//! It polls the contents instead of subscribing to file events. Kubernetes and others renew by
//! pointing a symbolic link at another directory, so the watched file itself never changes; network
//! file systems send no events. Reading four small files every two seconds costs nothing.

use std::future::pending;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{self, JoinError};
use tokio::time;
use tracing::{error, info, warn};

use super::Reload;
use super::Tls;
use super::TlsError;
use super::ends::ExpiryWarnings;

/// The usual interval between two reads of the files by [`watch`].
pub const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// Reads the files of `tls` every `poll_interval` and at each of `requests`, and reloads them if
/// they have changed. A request is dropped when it is done. Runs until it is dropped. After a
/// failed reload, the old files stay in use.
///
/// It logs an unusable file once, until the file changes again. Each requested reload is logged.
///
/// It also warns, at once and then once a day, while the certificate in use has less than 14 days
/// left or a revocation list is overdue.
pub async fn watch<T>(tls: Tls, mut requests: mpsc::Receiver<T>, poll_interval: Duration) {
    let mut warnings = ExpiryWarnings::default();
    loop {
        warnings.log(&tls);
        let request = time::timeout(poll_interval, next(&mut requests)).await.ok();
        let (tls, is_requested) = (tls.clone(), request.is_some());
        let reload = move || if is_requested { tls.reload() } else { tls.reload_if_new() };
        log_outcome(is_requested, task::spawn_blocking(reload).await);
        drop(request);
    }
}

/// Resolves with the next request, if there is ever one.
async fn next<T>(requests: &mut mpsc::Receiver<T>) -> T {
    match requests.recv().await {
        Some(request) => request,
        None => pending().await,
    }
}

fn log_outcome(is_requested: bool, outcome: Result<Result<Reload, TlsError>, JoinError>) {
    match outcome {
        Ok(Ok(Reload::Changed)) => info!("new TLS files are in use for new connections"),
        Ok(Ok(Reload::Unchanged)) if is_requested => info!("the TLS files have not changed"),
        Ok(Ok(Reload::Unchanged)) => {}
        Ok(Err(error)) => warn!(%error, "new TLS files cannot be used; the old ones stay in use"),
        Err(error) => error!(%error, "reload of the TLS files crashed; trying again"),
    }
}
