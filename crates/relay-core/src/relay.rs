//! The service interface. A store without local transactions implements it directly.

use std::future::Future;

use crate::error::Error;
use crate::figures::Figures;
use crate::limits::Limits;
use crate::message::{Envelope, Recipient};
use crate::operation::Operation;
use crate::queue::{Ack, AckOutcome, Page, Pull, PushOutcome, Swept};
use crate::waiters::{TooManyWaiters, Waiter};

/// Why a relay that has started cannot serve at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unavailable {
    /// Its database cannot be reached, or cannot be used.
    Database,
    /// Its database waits for its standby.
    Standby,
}

/// A store-and-forward relay.
///
/// A call completes when its effect is as durable as this relay can make it. Dropping the returned
/// future does not cancel the request, which may still take effect.
pub trait Relay: Send + Sync + 'static {
    /// Puts an item into its recipient's queue, once.
    fn push(&self, envelope: Envelope) -> impl Future<Output = Result<PushOutcome, Error>> + Send;

    /// Puts items into the queues of their recipients, each like [`push`](Self::push), and answers
    /// in their order. Items of one recipient arrive in that order. A refused item does not affect
    /// the others.
    ///
    /// By default, the items are pushed one after the other. A store can do better.
    ///
    /// # Errors
    /// If the relay could process none of them.
    fn push_all(
        &self,
        envelopes: Vec<Envelope>,
    ) -> impl Future<Output = Result<Vec<Result<PushOutcome, Error>>, Error>> + Send {
        async move {
            let mut outcomes = Vec::with_capacity(envelopes.len());
            for envelope in envelopes {
                outcomes.push(self.push(envelope).await);
            }
            Ok(outcomes)
        }
    }

    /// Reads a page of a queue and changes nothing.
    fn pull(&self, pull: Pull) -> impl Future<Output = Result<Page, Error>> + Send;

    /// Removes items from a queue, all of them or none: those that the ack names, and all up to
    /// [`Ack::through`].
    fn ack(&self, ack: Ack) -> impl Future<Output = Result<AckOutcome, Error>> + Send;

    /// Reclaims expired items, in bounded steps between other requests, until none is left.
    fn sweep(&self) -> impl Future<Output = Result<Swept, Error>> + Send;

    /// Waits until the relay can serve requests. By default, it always can.
    ///
    /// The caller awaits this before it reads the body of a request. So a relay that is almost
    /// ready may delay requests here, where they hold no memory. A success promises nothing:
    /// `push`, `pull` and `ack` may still fail.
    fn ready(&self) -> impl Future<Output = Result<(), Error>> + Send {
        std::future::ready(Ok(()))
    }

    /// Whether a client may do this with a queue. By default, it may.
    ///
    /// The caller awaits this before `push`, `pull` or `ack`, and for each item before `push_all`,
    /// one after the other; always after its own checks of the locks that a name may carry. For
    /// a stream, it asks again at each page and each sign of life. `authorization` is the
    /// `Authorization` header of the request, unchecked, if there is exactly one. A relay that
    /// knows users of its own refuses with [`Rejection::Unauthorized`] or
    /// [`Rejection::Forbidden`].
    ///
    /// # Errors
    /// Why not.
    ///
    /// [`Rejection::Unauthorized`]: crate::Rejection::Unauthorized
    /// [`Rejection::Forbidden`]: crate::Rejection::Forbidden
    fn permit(
        &self,
        operation: Operation,
        recipient: &Recipient,
        authorization: Option<&[u8]>,
    ) -> impl Future<Output = Result<(), Error>> + Send {
        let _ = (operation, recipient, authorization);
        std::future::ready(Ok(()))
    }

    /// Registers a wait for arrivals in a queue. The caller then looks into the queue with `pull`,
    /// and sleeps only if it finds nothing. `None` if this relay wakes nobody, which is the
    /// default; its callers have to look again from time to time.
    ///
    /// # Errors
    /// [`TooManyWaiters`] if the queue has as many waiters as it may have.
    fn waiter(&self, recipient: &Recipient) -> Result<Option<Waiter>, TooManyWaiters> {
        let _ = recipient;
        Ok(None)
    }

    /// Whether anybody waits for arrivals in a queue, at this moment. This must be cheap. By
    /// default, nobody does, as in a relay that wakes nobody.
    fn has_waiter(&self, recipient: &Recipient) -> bool {
        let _ = recipient;
        false
    }

    /// Whether the relay currently refuses pushes with [`Error::StorageFull`]. This must be cheap.
    /// By default, a relay is never full.
    fn is_full(&self) -> bool {
        false
    }

    /// Why the relay cannot serve at the moment, if it cannot. This must be cheap. By default, it
    /// always can.
    fn unavailable(&self) -> Option<Unavailable> {
        None
    }

    /// Resolves, with the reason, when only a restart can repair the relay. By default, it never
    /// resolves.
    fn ended(&self) -> impl Future<Output = Error> + Send {
        std::future::pending()
    }

    /// Decides the requests from now on by other limits, and returns true. A request is decided by
    /// the earlier limits or by these, never by both. Items keep their deadlines, and acked items
    /// the times for which they are remembered. By default, the limits of a relay do not change,
    /// and the result is false.
    fn set_limits(&self, limits: &Limits) -> bool {
        let _ = limits;
        false
    }

    /// Statistics of the relay; by default, none. A call may take some milliseconds.
    fn figures(&self) -> Figures {
        Figures::default()
    }
}

impl<R: Relay> Relay for std::sync::Arc<R> {
    fn push(&self, envelope: Envelope) -> impl Future<Output = Result<PushOutcome, Error>> + Send {
        (**self).push(envelope)
    }

    fn push_all(
        &self,
        envelopes: Vec<Envelope>,
    ) -> impl Future<Output = Result<Vec<Result<PushOutcome, Error>>, Error>> + Send {
        (**self).push_all(envelopes)
    }

    fn pull(&self, pull: Pull) -> impl Future<Output = Result<Page, Error>> + Send {
        (**self).pull(pull)
    }

    fn ack(&self, ack: Ack) -> impl Future<Output = Result<AckOutcome, Error>> + Send {
        (**self).ack(ack)
    }

    fn sweep(&self) -> impl Future<Output = Result<Swept, Error>> + Send {
        (**self).sweep()
    }

    fn ready(&self) -> impl Future<Output = Result<(), Error>> + Send {
        (**self).ready()
    }

    fn permit(
        &self,
        operation: Operation,
        recipient: &Recipient,
        authorization: Option<&[u8]>,
    ) -> impl Future<Output = Result<(), Error>> + Send {
        (**self).permit(operation, recipient, authorization)
    }

    fn waiter(&self, recipient: &Recipient) -> Result<Option<Waiter>, TooManyWaiters> {
        (**self).waiter(recipient)
    }

    fn has_waiter(&self, recipient: &Recipient) -> bool {
        (**self).has_waiter(recipient)
    }

    fn is_full(&self) -> bool {
        (**self).is_full()
    }

    fn unavailable(&self) -> Option<Unavailable> {
        (**self).unavailable()
    }

    fn ended(&self) -> impl Future<Output = Error> + Send {
        (**self).ended()
    }

    fn set_limits(&self, limits: &Limits) -> bool {
        (**self).set_limits(limits)
    }

    fn figures(&self) -> Figures {
        (**self).figures()
    }
}
