//! The files that are read again while the relay serves: certificates, and the keys of the issuer.

use std::future::{Future, pending};
use std::sync::Arc;

use relay_http::{Metrics, Transport};
use tokio::sync::Notify;

use super::transport;
use crate::issuer_file::IssuerFile;

/// Reloads the files when they change or `reload` is notified. The future never resolves.
pub(super) fn reload_files(
    transport: &Transport,
    issuer: Option<IssuerFile>,
    metrics: &Metrics,
    reload: Arc<Notify>,
) -> impl Future<Output = ()> + Send + use<> {
    let [for_certificates, for_issuer] = [(); 2].map(|()| Arc::new(Notify::new()));
    let certificates = transport::reload_certificates(transport, metrics, Arc::clone(&for_certificates));
    async move {
        let keys = async {
            match issuer {
                Some(issuer) => issuer.watch(Arc::clone(&for_issuer)).await,
                None => pending().await,
            }
        };
        tokio::join!(certificates, keys, hand_on(&reload, [&for_certificates, &for_issuer]));
    }
}

/// A notification reaches one receiver, and each file has its own.
async fn hand_on(from: &Notify, to: [&Notify; 2]) {
    loop {
        from.notified().await;
        to.iter().for_each(|receiver| receiver.notify_one());
    }
}
