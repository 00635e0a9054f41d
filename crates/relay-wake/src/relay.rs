//! A relay that notes for whom items arrive, and which clients are awake. It changes no answer and
//! delays none.

use std::future::pending;

use relay_core::{
    Ack, AckOutcome, Envelope, Error, Figures, Limits, Operation, Page, Pull, PushOutcome, Recipient, Relay,
    Swept, TooManyWaiters, Unavailable, Waiter,
};

use crate::table::Arrival;
use crate::wakes::Wakes;

/// A relay whose arrivals lead to wakes. It lies above the hashing of recipients, so that the
/// gateway gets hashes of the recipients that clients know.
#[derive(Debug)]
pub struct WakingRelay<R> {
    relay: R,
    wakes: Option<Wakes>,
}

/// The queues of a push or a batch, whose arrivals are noted when this is dropped.
///
/// If the caller gives up before the outcome is known, the items may be stored all the same, and to
/// push them again would be a duplicate, which wakes nobody. So they count as arrivals.
struct Pushes<'a, R: Relay, Q: AsMut<[Pushed]>> {
    relay: &'a R,
    wakes: &'a Wakes,
    queues: Q,
}

/// Consecutive items of one queue.
struct Pushed {
    recipient: Recipient,
    items: usize,
    had_waiter: bool,
    outcome: Outcome,
}

/// What became of consecutive items of one queue. The greatest of several counts for all.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    NothingStored,
    Unknown,
    Stored { waiting: u64 },
}

/// A client that acts on its queue.
struct Seen<'a> {
    wakes: &'a Wakes,
    recipient: Recipient,
    /// The arrivals that it can see.
    arrivals: u64,
}

impl<R: Relay> WakingRelay<R> {
    /// Without wakes, it only hands requests on.
    pub const fn new(relay: R, wakes: Option<Wakes>) -> Self {
        Self { relay, wakes }
    }

    /// The relay below.
    pub const fn inner(&self) -> &R {
        &self.relay
    }

    /// Calls the gateway. The future never resolves; dropping it ends all calls at once. Needs a
    /// tokio runtime with timers and I/O.
    pub async fn call_gateway(&self) {
        match &self.wakes {
            Some(wakes) => wakes.run(|recipient| self.relay.has_waiter(recipient)).await,
            None => pending().await,
        }
    }

    fn pushed(&self, recipient: &Recipient) -> Pushed {
        // Before the push: whoever waits now may be answered and gone when the push is.
        let had_waiter = self.relay.has_waiter(recipient);
        Pushed { recipient: recipient.clone(), items: 1, had_waiter, outcome: Outcome::Unknown }
    }

    /// `None` if there is nothing to settle.
    fn seen(&self, recipient: &Recipient) -> Option<Seen<'_>> {
        let wakes = self.wakes.as_ref()?;
        let arrivals = wakes.seen(recipient)?;
        Some(Seen { wakes, recipient: recipient.clone(), arrivals })
    }
}

impl<R: Relay, Q: AsMut<[Pushed]>> Drop for Pushes<'_, R, Q> {
    fn drop(&mut self) {
        for pushed in self.queues.as_mut() {
            let waiting = match pushed.outcome {
                Outcome::NothingStored => continue,
                Outcome::Unknown => None,
                Outcome::Stored { waiting } => Some(waiting),
            };
            let arrival = match (self.relay.has_waiter(&pushed.recipient), pushed.had_waiter) {
                (true, _) => Arrival::Handed,
                (false, true) => Arrival::PerhapsHanded,
                (false, false) => Arrival::Unattended,
            };
            self.wakes.note(&pushed.recipient, arrival, waiting);
        }
    }
}

impl Outcome {
    fn of(outcome: Result<&PushOutcome, &Error>) -> Self {
        match outcome {
            Ok(PushOutcome::Stored { usage, .. }) => Self::Stored { waiting: usage.items },
            // It may be stored.
            Err(Error::Storage(_)) => Self::Unknown,
            Ok(PushOutcome::Duplicate { .. }) | Err(_) => Self::NothingStored,
        }
    }
}

impl Seen<'_> {
    fn settle(self, is_empty: bool) {
        if is_empty {
            self.wakes.emptied(&self.recipient, self.arrivals);
        } else {
            self.wakes.pulled(&self.recipient, self.arrivals);
        }
    }
}

impl<R: Relay> Relay for WakingRelay<R> {
    async fn push(&self, envelope: Envelope) -> Result<PushOutcome, Error> {
        let Some(wakes) = &self.wakes else { return self.relay.push(envelope).await };
        let queues = [self.pushed(&envelope.recipient)];
        let mut pushes = Pushes { relay: &self.relay, wakes, queues };
        let outcome = self.relay.push(envelope).await;
        let [pushed] = &mut pushes.queues;
        pushed.outcome = Outcome::of(outcome.as_ref());
        outcome
    }

    async fn push_all(&self, envelopes: Vec<Envelope>) -> Result<Vec<Result<PushOutcome, Error>>, Error> {
        let Some(wakes) = &self.wakes else { return self.relay.push_all(envelopes).await };
        let mut queues: Vec<Pushed> = Vec::new();
        for envelope in &envelopes {
            match queues.last_mut() {
                Some(last) if last.recipient == envelope.recipient => last.items += 1,
                _ => queues.push(self.pushed(&envelope.recipient)),
            }
        }
        let mut pushes = Pushes { relay: &self.relay, wakes, queues };
        let outcomes = self.relay.push_all(envelopes).await;
        let mut each = outcomes.as_deref().unwrap_or_default().iter();
        for pushed in &mut pushes.queues {
            let items = each.by_ref().take(pushed.items).map(|outcome| Outcome::of(outcome.as_ref()));
            pushed.outcome = match &outcomes {
                Ok(_) => items.max().unwrap_or(Outcome::Unknown),
                Err(error) => Outcome::of(Err(error)),
            };
        }
        outcomes
    }

    async fn pull(&self, pull: Pull) -> Result<Page, Error> {
        let Some(seen) = self.seen(&pull.recipient) else { return self.relay.pull(pull).await };
        let is_whole = pull.after.is_none();
        let page = self.relay.pull(pull).await?;
        seen.settle(is_whole && page.items.is_empty() && page.next.is_none());
        Ok(page)
    }

    async fn ack(&self, ack: Ack) -> Result<AckOutcome, Error> {
        let Some(seen) = self.seen(ack.recipient()) else { return self.relay.ack(ack).await };
        let outcome = self.relay.ack(ack).await?;
        seen.settle(outcome.remaining == 0);
        Ok(outcome)
    }

    async fn sweep(&self) -> Result<Swept, Error> {
        self.relay.sweep().await
    }

    async fn ready(&self) -> Result<(), Error> {
        self.relay.ready().await
    }

    async fn permit(
        &self,
        operation: Operation,
        recipient: &Recipient,
        authorization: Option<&[u8]>,
    ) -> Result<(), Error> {
        self.relay.permit(operation, recipient, authorization).await
    }

    fn waiter(&self, recipient: &Recipient) -> Result<Option<Waiter>, TooManyWaiters> {
        self.relay.waiter(recipient)
    }

    fn has_waiter(&self, recipient: &Recipient) -> bool {
        self.relay.has_waiter(recipient)
    }

    fn is_full(&self) -> bool {
        self.relay.is_full()
    }

    fn unavailable(&self) -> Option<Unavailable> {
        self.relay.unavailable()
    }

    async fn ended(&self) -> Error {
        self.relay.ended().await
    }

    fn set_limits(&self, limits: &Limits) -> bool {
        self.relay.set_limits(limits)
    }

    fn figures(&self) -> Figures {
        let wakes = self.wakes.as_ref().map(Wakes::figures);
        Figures { wakes, ..self.relay.figures() }
    }
}
