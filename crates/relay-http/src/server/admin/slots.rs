//! A bounded number of connection slots. A new connection takes the slot of the oldest one if none
//! is free, so nothing waits here. All connections are on one thread.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future as _;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

/// All slots of the listener.
#[derive(Debug)]
pub(super) struct ConnectionSlots {
    max: usize,
    /// The slots in use, the oldest first. Dropping a sender takes the slot away.
    used: RefCell<VecDeque<oneshot::Sender<()>>>,
}

/// A slot, until it is dropped or taken away.
#[derive(Debug)]
pub(super) struct ConnectionSlot {
    taken_away: oneshot::Receiver<()>,
    slots: Rc<ConnectionSlots>,
}

impl ConnectionSlots {
    pub(super) fn new(max: usize) -> Self {
        Self { max, used: RefCell::default() }
    }

    /// Takes a slot: a free one, or that of the oldest connection.
    pub(super) fn take(self: &Rc<Self>) -> ConnectionSlot {
        let (sender, taken_away) = oneshot::channel();
        let mut used = self.used.borrow_mut();
        if used.len() >= self.max {
            drop(used.pop_front());
        }
        used.push_back(sender);
        ConnectionSlot { taken_away, slots: Rc::clone(self) }
    }
}

impl ConnectionSlot {
    /// Ready when a new connection has taken the slot. It must not be polled again then.
    pub(super) fn poll_taken_away(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // Nothing is ever sent; the drop of the sender ends the wait.
        Pin::new(&mut self.taken_away).poll(cx).map(drop)
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.taken_away.close();
        self.slots.used.borrow_mut().retain(|sender| !sender.is_closed());
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn is_taken(slot: &mut ConnectionSlot) -> bool {
        slot.poll_taken_away(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn a_new_connection_takes_the_slot_of_the_oldest() {
        let slots = Rc::new(ConnectionSlots::new(2));
        let (mut first, mut second) = (slots.take(), slots.take());
        assert!(!is_taken(&mut first) && !is_taken(&mut second));
        let mut third = slots.take();
        assert!(is_taken(&mut first) && !is_taken(&mut second) && !is_taken(&mut third));
        drop(second);
        let mut fourth = slots.take();
        assert!(!is_taken(&mut third) && !is_taken(&mut fourth), "a dropped slot is free");
        drop(first);
        let mut fifth = slots.take();
        assert!(
            is_taken(&mut third) && !is_taken(&mut fourth) && !is_taken(&mut fifth),
            "the drop of a slot that was taken away frees none"
        );
    }
}
