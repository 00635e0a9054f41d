//! Stands in for the service manager where there is none that a socket tells about the relay.

use tokio::sync::oneshot;

use crate::supervision::{Monitor, Reloader};

#[derive(Default)]
pub(crate) struct ServiceManager;

impl ServiceManager {
    pub(crate) const fn from_environment(_: &[(String, String)]) -> Self {
        Self
    }

    pub(crate) const fn ready(&self) {}

    pub(crate) const fn stopping(&self) {}

    pub(crate) async fn reload(&self, reloader: &Reloader) {
        reloader.reload().await;
    }

    pub(crate) async fn watch(&self, _: oneshot::Receiver<Monitor>) {
        std::future::pending::<()>().await;
    }
}
