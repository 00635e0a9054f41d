//! Clear text or TLS, and the certificates that the relay reloads while it serves.

use std::future::{Future, pending};
#[cfg(feature = "tls")]
use std::time::Duration;

use relay_http::{Listener, Metrics, Transport};
use tokio::sync::mpsc;

use crate::config::{Mode, RelayConfig};
use crate::error::RelayError;
use crate::supervision::ReloadRequest;

/// How often the relay checks the certificate files for changes.
#[cfg(feature = "tls")]
const CERTIFICATE_POLL: Duration = Duration::from_secs(2);

/// The scheme of the relay's URL.
pub(super) const fn scheme(mode: Mode) -> &'static str {
    match mode {
        Mode::Http => "http",
        Mode::Tls => "https",
    }
}

#[cfg(feature = "tls")]
pub(super) fn load(config: &RelayConfig) -> Result<Transport, RelayError> {
    match (config.mode, &config.tls) {
        (Mode::Tls, Some(tls)) => {
            Ok(Transport::Tls(relay_http::tls::Tls::load(crate::wiring::tls_paths(tls))?))
        }
        (Mode::Http, _) | (Mode::Tls, None) => Ok(Transport::Plain),
    }
}

#[cfg(not(feature = "tls"))]
pub(super) fn load(_: &RelayConfig) -> Result<Transport, RelayError> {
    Ok(Transport::Plain)
}

/// Reloads the certificates when they change and at each of `requests`, and reports them to
/// `metrics`. The future never resolves.
#[cfg(feature = "tls")]
pub(super) fn reload_certificates(
    listeners: &[Listener],
    metrics: &Metrics,
    requests: mpsc::Receiver<ReloadRequest>,
) -> impl Future<Output = ()> + Send + use<> {
    let tls = listeners.iter().find_map(|listener| match &listener.transport {
        Transport::Tls(tls) => Some(tls.clone()),
        Transport::Plain => None,
    });
    if let Some(tls) = &tls {
        metrics.set_tls(tls.clone());
    }
    async move {
        match tls {
            Some(tls) => relay_http::tls::watch(tls, requests, CERTIFICATE_POLL).await,
            // Otherwise a request would wait in the channel for ever.
            None => drop(requests),
        }
        pending::<()>().await;
    }
}

/// There are no certificates. The future never resolves.
#[cfg(not(feature = "tls"))]
pub(super) fn reload_certificates(
    _: &[Listener],
    _: &Metrics,
    _: mpsc::Receiver<ReloadRequest>,
) -> impl Future<Output = ()> + Send + use<> {
    pending()
}
