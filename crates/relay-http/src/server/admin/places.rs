//! Places for connections: never more than so many, and the oldest one goes when there is none for
//! a new one. One thread alone knows them, and nobody waits here.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use tokio::sync::oneshot;

/// The places that are taken, the oldest one first.
#[derive(Debug)]
pub(super) struct Places {
    max: usize,
    taken: RefCell<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    last: u64,
    /// Whoever drops the sender takes the place away.
    places: VecDeque<(u64, oneshot::Sender<()>)>,
}

/// A place, until it is dropped or lost.
#[derive(Debug)]
pub(super) struct Place {
    number: u64,
    lost: oneshot::Receiver<()>,
    places: Rc<Places>,
}

impl Places {
    pub(super) fn new(max: usize) -> Self {
        Self { max, taken: RefCell::default() }
    }

    /// A place for a new one.
    pub(super) fn take(self: &Rc<Self>) -> Place {
        let (keep, lost) = oneshot::channel();
        let mut taken = self.taken.borrow_mut();
        taken.last += 1;
        let number = taken.last;
        if taken.places.len() >= self.max {
            drop(taken.places.pop_front());
        }
        taken.places.push_back((number, keep));
        Place { number, lost, places: Rc::clone(self) }
    }
}

impl Place {
    /// Resolves when a new one has taken the place.
    pub(super) async fn lost(&mut self) {
        // Nothing is ever sent: the other side is dropped.
        let _ = (&mut self.lost).await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.taken.borrow_mut().places.retain(|(number, _)| *number != self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future as _;
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    fn is_lost(place: &mut Place) -> bool {
        pin!(place.lost()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn the_oldest_one_makes_room() {
        let places = Rc::new(Places::new(2));
        let (mut first, mut second) = (places.take(), places.take());
        assert!(!is_lost(&mut first) && !is_lost(&mut second));
        let mut third = places.take();
        assert!(is_lost(&mut first) && !is_lost(&mut second) && !is_lost(&mut third));
        drop(second);
        let mut fourth = places.take();
        assert!(!is_lost(&mut third) && !is_lost(&mut fourth), "who goes leaves a place");
        drop(first);
        let mut fifth = places.take();
        assert!(
            is_lost(&mut third) && !is_lost(&mut fourth) && !is_lost(&mut fifth),
            "who has lost it leaves none"
        );
    }
}
