//! How long a connection of the admin server lives. A connection for one short request ends after
//! a fixed time. One that watches the dashboard lives for as long as it takes what it gets.
//!
//! The two kinds have slots of their own, so neither takes those of the other. All connections are
//! on one thread.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Sleep, sleep_until};

use super::slots::{ConnectionSlot, ConnectionSlots};
use crate::monotonic;

/// How many connections with short requests may be open at once.
const SHORT_MAX: usize = 32;

/// How many pages may watch at once.
const WATCHING_MAX: usize = 8;

/// How many connections may be about to tell their page that another one has its slot.
const LEAVING_MAX: usize = 8;

/// All of them together.
pub(super) const CONNECTIONS_MAX: usize = SHORT_MAX + WATCHING_MAX + LEAVING_MAX;

/// The time for a short request and its response, which takes some milliseconds; and the time in
/// which a page that watches has to take the next snapshot.
const TIMEOUT: Duration = Duration::from_secs(15);

/// The time for the last event of a page whose slot another one has.
const LEAVING_TIMEOUT: Duration = Duration::from_secs(1);

/// The slots of the listener, by what a connection does.
#[derive(Debug)]
pub(super) struct Slots {
    short: Rc<ConnectionSlots>,
    watching: Rc<ConnectionSlots>,
    leaving: Rc<ConnectionSlots>,
}

/// What a connection does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    ShortRequest,
    Watching,
    /// Another page has its slot.
    Leaving,
}

/// The life of one connection, shared by its task and its request.
#[derive(Debug)]
pub(super) struct Lifetime {
    slots: Rc<Slots>,
    slot: RefCell<ConnectionSlot>,
    doing: Cell<Doing>,
    deadline: Cell<tokio::time::Instant>,
}

impl Slots {
    pub(super) fn new() -> Self {
        let slots = |max| Rc::new(ConnectionSlots::new(max));
        Self { short: slots(SHORT_MAX), watching: slots(WATCHING_MAX), leaving: slots(LEAVING_MAX) }
    }
}

impl Lifetime {
    /// The life of a new connection.
    pub(super) fn new(slots: &Rc<Slots>) -> Self {
        let slot = RefCell::new(slots.short.take());
        let deadline = Cell::new(monotonic::after(monotonic::now(), TIMEOUT));
        Self { slots: Rc::clone(slots), slot, doing: Cell::new(Doing::ShortRequest), deadline }
    }

    /// Notes that the connection watches from now on, perhaps in place of the one that has watched
    /// longest.
    pub(super) fn begin_watching(&self) {
        self.turn_to(Doing::Watching, &self.slots.watching, TIMEOUT);
    }

    /// Notes that the connection has taken a snapshot. The framework asks for one when it has sent
    /// most of what it has.
    pub(super) fn has_taken_a_snapshot(&self) {
        self.deadline.set(monotonic::after(monotonic::now(), TIMEOUT));
    }

    /// Resolves when another page has the slot of this one. Only the task of the connection may
    /// await this, because [`Lifetime::run`] polls again whatever it serves.
    pub(super) async fn leaving(&self) {
        poll_fn(|_| if self.doing.get() == Doing::Leaving { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    /// Serves the connection until that ends, or for as long as the connection may live.
    pub(super) async fn run<T>(&self, serving: impl Future<Output = T>) {
        let mut serving = pin!(serving);
        let mut alarm = pin!(sleep_until(self.deadline.get()));
        poll_fn(|cx| {
            loop {
                if serving.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(());
                }
                let is_taken_away = self.slot.borrow_mut().poll_taken_away(cx).is_ready();
                if !is_taken_away {
                    return self.poll_deadline(alarm.as_mut(), cx);
                }
                if self.doing.get() != Doing::Watching {
                    return Poll::Ready(());
                }
                self.turn_to(Doing::Leaving, &self.slots.leaving, LEAVING_TIMEOUT);
            }
        })
        .await;
    }

    fn turn_to(&self, doing: Doing, slots: &Rc<ConnectionSlots>, timeout: Duration) {
        self.slot.replace(slots.take());
        self.doing.set(doing);
        self.deadline.set(monotonic::after(monotonic::now(), timeout));
    }

    fn poll_deadline(&self, mut alarm: Pin<&mut Sleep>, cx: &mut Context<'_>) -> Poll<()> {
        if self.deadline.get() < alarm.deadline() {
            alarm.as_mut().reset(self.deadline.get());
        }
        loop {
            ready!(alarm.as_mut().poll(cx));
            if self.deadline.get() <= monotonic::now() {
                return Poll::Ready(());
            }
            alarm.as_mut().reset(self.deadline.get());
        }
    }
}
