//! A relay that notes for whom items arrive, and which clients are awake. It changes no answer and
//! delays none.

use std::future::pending;

use relay_core::{
    Ack, AckOutcome, Envelope, Error, Figures, Operation, Page, Pull, PushOutcome, Recipient, Relay, Swept,
    TooManyWaiters, Waiter,
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

#[derive(Clone, Copy)]
enum Outcome {
    Unknown,
    NothingStored,
    Stored { waiting: u64 },
}

impl<R: Relay> WakingRelay<R> {
    /// Without wakes, it only hands requests on.
    pub const fn new(relay: R, wakes: Option<Wakes>) -> Self {
        Self { relay, wakes }
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

impl Pushed {
    fn decide(&mut self, outcome: &Result<PushOutcome, Error>) {
        match outcome {
            Ok(PushOutcome::Stored { usage, .. }) => self.outcome = Outcome::Stored { waiting: usage.items },
            // It may be stored.
            Err(Error::Storage(_)) => {}
            Ok(PushOutcome::Duplicate { .. }) | Err(_) if matches!(self.outcome, Outcome::Unknown) => {
                self.outcome = Outcome::NothingStored;
            }
            // An earlier item of the same queue was stored.
            Ok(PushOutcome::Duplicate { .. }) | Err(_) => {}
        }
    }
}

impl<R: Relay> Relay for WakingRelay<R> {
    async fn push(&self, envelope: Envelope) -> Result<PushOutcome, Error> {
        let Some(wakes) = &self.wakes else { return self.relay.push(envelope).await };
        let queues = [self.pushed(&envelope.recipient)];
        let mut pushes = Pushes { relay: &self.relay, wakes, queues };
        let outcome = self.relay.push(envelope).await;
        pushes.queues.iter_mut().for_each(|pushed| pushed.decide(&outcome));
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
        let mut each = outcomes.iter().flatten();
        for pushed in &mut pushes.queues {
            pushed.outcome = Outcome::Unknown;
            each.by_ref().take(pushed.items).for_each(|outcome| pushed.decide(outcome));
            match &outcomes {
                Ok(_) | Err(Error::Storage(_)) => {}
                Err(_) => pushed.outcome = Outcome::NothingStored,
            }
        }
        outcomes
    }

    async fn pull(&self, pull: Pull) -> Result<Page, Error> {
        let seen = self.wakes.as_ref().and_then(|wakes| Some((wakes, wakes.seen(&pull.recipient)?)));
        let Some((wakes, seen)) = seen else { return self.relay.pull(pull).await };
        let (recipient, is_whole) = (pull.recipient.clone(), pull.after.is_none());
        let page = self.relay.pull(pull).await?;
        if is_whole && page.items.is_empty() && page.next.is_none() {
            wakes.emptied(&recipient, seen);
        } else {
            wakes.pulled(&recipient, seen);
        }
        Ok(page)
    }

    async fn ack(&self, ack: Ack) -> Result<AckOutcome, Error> {
        let seen = self.wakes.as_ref().and_then(|wakes| Some((wakes, wakes.seen(ack.recipient())?)));
        let Some((wakes, seen)) = seen else { return self.relay.ack(ack).await };
        let recipient = ack.recipient().clone();
        let outcome = self.relay.ack(ack).await?;
        if outcome.remaining == 0 {
            wakes.emptied(&recipient, seen);
        } else {
            wakes.pulled(&recipient, seen);
        }
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

    async fn ended(&self) -> Error {
        self.relay.ended().await
    }

    fn figures(&self) -> Figures {
        let wakes = self.wakes.as_ref().map(Wakes::figures);
        Figures { wakes, ..self.relay.figures() }
    }
}
