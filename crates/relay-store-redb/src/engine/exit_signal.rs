//! Tells that a thread of the store has ended.

use tokio::sync::watch;

/// Told to whom it may concern when the thread that holds it ends, for whatever reason.
pub(crate) struct ExitSignal(pub(crate) watch::Sender<()>);

impl Drop for ExitSignal {
    fn drop(&mut self) {
        self.0.send_replace(());
    }
}
