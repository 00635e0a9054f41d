//! Reports that a thread of the store has ended.

use tokio::sync::watch;

/// Held by each thread. Notifies the receiver when the thread ends, also by a panic.
#[derive(Clone)]
pub(crate) struct ExitSignal(watch::Sender<()>);

impl ExitSignal {
    pub(crate) fn new() -> (Self, watch::Receiver<()>) {
        let (sender, receiver) = watch::channel(());
        (Self(sender), receiver)
    }
}

impl Drop for ExitSignal {
    fn drop(&mut self) {
        self.0.send_replace(());
    }
}
