//! The service that everything above a store sees. A store that has no local transaction implements
//! it directly.

use std::future::Future;

use crate::error::Error;
use crate::figures::Figures;
use crate::message::Envelope;
use crate::queue::{Ack, AckOutcome, Page, Pull, PushOutcome, Swept};

/// A store-and-forward relay, as those above it see one.
///
/// Each call is answered when its effect is as durable as this relay makes anything. Dropping the
/// returned future does not undo a request: it may take effect all the same.
pub trait Relay: Send + Sync + 'static {
    /// Puts an item into its recipient's queue, once.
    fn push(&self, envelope: Envelope) -> impl Future<Output = Result<PushOutcome, Error>> + Send;

    /// Reads a page of a queue and changes nothing.
    fn pull(&self, pull: Pull) -> impl Future<Output = Result<Page, Error>> + Send;

    /// Takes items out of a queue, all of them or none.
    fn ack(&self, ack: Ack) -> impl Future<Output = Result<AckOutcome, Error>> + Send;

    /// Reclaims what is expired, in bounded steps between other requests, until nothing is due.
    fn sweep(&self) -> impl Future<Output = Result<Swept, Error>> + Send;

    /// Resolves when requests can be served, or with the reason why not. It is asked before the
    /// body of a request is read, so a relay that is about to be ready may let requests wait here,
    /// where they hold nothing. Most are ready from the beginning.
    ///
    /// A relay that answers here decides nothing for later: `push`, `pull` and `ack` may fail all
    /// the same.
    fn ready(&self) -> impl Future<Output = Result<(), Error>> + Send {
        std::future::ready(Ok(()))
    }

    /// Whether pushes are refused with [`Error::StorageFull`] at the moment. Cheap enough to be
    /// asked often. Most have no such bound.
    fn is_full(&self) -> bool {
        false
    }

    /// Resolves, with the reason, when the relay has broken for good and nothing but a restart
    /// helps. Most never do.
    fn ended(&self) -> impl Future<Output = Error> + Send {
        std::future::pending()
    }

    /// What it can tell of its own work; nothing, unless it says otherwise. This may take some
    /// milliseconds, and is for now and then.
    fn figures(&self) -> Figures {
        Figures::default()
    }
}

impl<R: Relay> Relay for std::sync::Arc<R> {
    fn push(&self, envelope: Envelope) -> impl Future<Output = Result<PushOutcome, Error>> + Send {
        (**self).push(envelope)
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

    fn is_full(&self) -> bool {
        (**self).is_full()
    }

    fn ended(&self) -> impl Future<Output = Error> + Send {
        (**self).ended()
    }

    fn figures(&self) -> Figures {
        (**self).figures()
    }
}
