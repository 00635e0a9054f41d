//! Delivers the messages of one recipient as a stream.
//!
//! The requests are made while the stream is polled, in a future that it owns, so dropping it ends
//! them. Only acks have a task, because they go on while the application works on a message; it
//! ends when the stream and all its messages are dropped.

mod acks;
mod again;
mod assembly;
mod events;
mod key;
mod known;
mod message;
mod recent;
mod session;

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;

use self::acks::Acks;
use self::known::Known;
pub use self::message::Message;
use self::session::Session;
pub use self::session::Transport;
use crate::client::Client;
use crate::credentials::Credentials;
use crate::error::Error;

/// What one call of [`Session::next`] returns, and the session for the next one.
type Next = Pin<Box<dyn Future<Output = (Session, Option<Result<Message, Error>>)> + Send>>;

/// The messages of a recipient, in the order in which their last chunks arrived. It never ends by
/// itself, except after an error.
///
/// Failures that may pass are retried for ever. An error is what the relay refuses for good, such
/// as a wrong proof.
#[must_use = "nothing is delivered unless the stream is polled"]
pub struct Deliveries {
    /// `None` after the end.
    next: Option<Next>,
    acks: Acks,
}

impl Client {
    /// Delivers the messages of a recipient. Must be called within a runtime of tokio, for the task
    /// that sends acks.
    pub fn deliveries(
        &self,
        recipient: impl Into<String>,
        credentials: Credentials,
        transport: Transport,
    ) -> Deliveries {
        let (shared, recipient) = (Arc::clone(self.shared()), recipient.into());
        let known = Arc::new(Known::new(shared.options.unacked_max, shared.options.memory_bytes));
        let acks =
            Acks::spawn(Arc::clone(&shared), recipient.clone(), credentials.clone(), Arc::clone(&known));
        let session = Session::new(shared, recipient, credentials, transport, known, acks.clone());
        Deliveries { next: Some(next(session)), acks }
    }
}

impl Deliveries {
    /// The next message, or the error that ends the deliveries. `None` after that. If this is
    /// dropped before it is done, nothing is lost.
    pub async fn next(&mut self) -> Option<Result<Message, Error>> {
        poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }

    /// Ends the deliveries. Sends the acks that were asked for before; takes five seconds at most.
    /// Later acks fail with `closed`.
    pub async fn close(mut self) {
        self.next = None;
        self.acks.close().await;
    }
}

impl Stream for Deliveries {
    type Item = Result<Message, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(step) = &mut self.next else { return Poll::Ready(None) };
        let Poll::Ready((session, result)) = step.as_mut().poll(context) else { return Poll::Pending };
        self.next = result.is_some().then(|| next(session));
        Poll::Ready(result)
    }
}

impl fmt::Debug for Deliveries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deliveries").finish_non_exhaustive()
    }
}

fn next(mut session: Session) -> Next {
    Box::pin(async move {
        let result = session.next().await;
        (session, result)
    })
}
