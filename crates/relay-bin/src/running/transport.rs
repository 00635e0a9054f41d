//! Clear text or TLS, and the certificates that the relay reloads while it serves.

use std::future::{Future, pending};
#[cfg(feature = "tls")]
use std::time::Duration;

#[cfg(feature = "tls")]
use relay_http::tls::Tls;
use relay_http::{Listener, Metrics, Transport};
use tokio::sync::mpsc;
#[cfg(feature = "tls")]
use tokio::task::JoinSet;

use crate::config::{ListenConfig, Mode};
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

/// One transport for each listener. Those with the same files share them.
#[cfg(feature = "tls")]
pub(super) fn load(listeners: &[ListenConfig]) -> Result<Vec<Transport>, RelayError> {
    let mut transports: Vec<Transport> = Vec::new();
    for (number, listener) in listeners.iter().enumerate() {
        let earlier = listeners.iter().take(number).position(|earlier| earlier.tls == listener.tls);
        let transport = match (&listener.tls, earlier.and_then(|earlier| transports.get(earlier))) {
            (None, _) => Transport::Plain,
            (Some(_), Some(shared)) => shared.clone(),
            (Some(tls), None) => Transport::Tls(Tls::load(crate::wiring::tls_paths(tls))?),
        };
        transports.push(transport);
    }
    Ok(transports)
}

#[cfg(not(feature = "tls"))]
#[expect(clippy::unnecessary_wraps, reason = "same signature as with TLS")]
pub(super) fn load(listeners: &[ListenConfig]) -> Result<Vec<Transport>, RelayError> {
    Ok(vec![Transport::Plain; listeners.len()])
}

/// Reloads the certificates when they change and at each of `requests`, and reports them to
/// `metrics`. The future never resolves.
#[cfg(feature = "tls")]
pub(super) fn reload_certificates(
    listeners: &[Listener],
    metrics: &Metrics,
    mut requests: mpsc::Receiver<ReloadRequest>,
) -> impl Future<Output = ()> + Send + use<> {
    let mut all: Vec<Tls> = Vec::new();
    for listener in listeners {
        match &listener.transport {
            // Listeners with the same files share them.
            Transport::Tls(tls) if !all.iter().any(|other| other.is_same(tls)) => all.push(tls.clone()),
            Transport::Tls(_) | Transport::Plain => {}
        }
    }
    metrics.set_tls(all.clone());
    async move {
        // They end when this is dropped.
        let mut watches = JoinSet::new();
        let to_each: Vec<_> = all
            .into_iter()
            .map(|tls| {
                let (to_one, of_one) = mpsc::channel(1);
                watches.spawn(relay_http::tls::watch(tls, of_one, CERTIFICATE_POLL));
                to_one
            })
            .collect();
        while let Some(request) = requests.recv().await {
            for to_one in &to_each {
                // The other side lives as long as this future.
                drop(to_one.send(request.clone()).await);
            }
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
