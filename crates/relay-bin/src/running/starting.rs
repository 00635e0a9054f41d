//! The task of a server whose store may not be open yet.

use std::convert::Infallible;
use std::future::Future;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::error::RelayError;

/// A server during its start. Dropping this, as when the start is cancelled, stops the server.
pub(super) struct Starting {
    task: Option<JoinHandle<Result<(), RelayError>>>,
    /// Closed when the task ends.
    running: mpsc::Receiver<Infallible>,
}

impl Starting {
    pub(super) fn new(server: impl Future<Output = Result<(), RelayError>> + Send + 'static) -> Self {
        let (sender, running) = mpsc::channel(1);
        let task = tokio::spawn(async move {
            let _sender = sender;
            server.await
        });
        Self { task: Some(task), running }
    }

    /// Resolves when the server has ended.
    pub(super) async fn ended(&mut self) {
        while self.running.recv().await.is_some() {}
    }

    /// The task, which continues after the start.
    pub(super) fn into_inner(mut self) -> JoinHandle<Result<(), RelayError>> {
        self.task.take().expect("the task is only taken here, and this method consumes its owner")
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        if let Some(server) = &self.task {
            server.abort();
        }
    }
}
