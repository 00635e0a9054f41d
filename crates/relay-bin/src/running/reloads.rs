//! The files that are read again while the relay serves: certificates, and the keys of the issuer.

use std::future::{Future, pending};

use relay_http::{Listener, Metrics};
use tokio::sync::mpsc;

use super::transport;
use crate::issuer_file::IssuerFile;
use crate::supervision::{ReloadRequest, ReloadRequests};

/// Reloads the files when they change and at each of `requests`. The future never resolves. Hands
/// the requests on to the configuration as well.
pub(super) fn reload_files(
    listeners: &[Listener],
    issuer: Option<IssuerFile>,
    metrics: &Metrics,
    requests: ReloadRequests,
) -> (impl Future<Output = ()> + Send + use<>, ReloadRequests) {
    let [(to_certificates, of_certificates), (to_issuer, of_issuer), (to_configuration, of_configuration)] =
        [(); 3].map(|()| mpsc::channel(1));
    let certificates = transport::reload_certificates(listeners, metrics, of_certificates);
    let files = async move {
        let keys = async {
            match issuer {
                Some(issuer) => issuer.watch(ReloadRequests(of_issuer)).await,
                None => {
                    // Otherwise a request would wait in the channel for ever.
                    drop(of_issuer);
                    pending::<()>().await;
                }
            }
        };
        tokio::join!(certificates, keys, hand_on(requests, [to_certificates, to_issuer, to_configuration]));
    };
    (files, ReloadRequests(of_configuration))
}

/// A request reaches one receiver, and each file has its own.
async fn hand_on(mut from: ReloadRequests, to: [mpsc::Sender<ReloadRequest>; 3]) {
    loop {
        let request = from.next().await;
        for receiver in &to {
            // Fails if there is no such file.
            drop(receiver.send(request.clone()).await);
        }
    }
}
