//! Wakes the maintenance thread when redb starts to reject everything.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// Raised by any thread that sees the index fail. It wakes the maintenance thread once, until that
/// thread resets it.
#[derive(Default)]
pub(crate) struct Alarm {
    is_raised: AtomicBool,
    /// Wakes the maintenance thread.
    wake: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl Alarm {
    /// Sets the function that wakes the maintenance thread, and calls it if the alarm was raised
    /// before. `wake` must not keep the maintenance thread alive.
    pub(crate) fn connect(&self, wake: impl Fn() + Send + Sync + 'static) {
        // Only one caller connects.
        drop(self.wake.set(Box::new(wake)));
        if self.is_raised.load(Ordering::SeqCst) {
            self.wake();
        }
    }

    pub(crate) fn raise(&self) {
        if !self.is_raised.swap(true, Ordering::SeqCst) {
            self.wake();
        }
    }

    /// The maintenance thread calls this before it checks the index. Later failures wake it again.
    pub(crate) fn reset(&self) {
        self.is_raised.store(false, Ordering::SeqCst);
    }

    fn wake(&self) {
        if let Some(wake) = self.wake.get() {
            wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[test]
    fn the_alarm_wakes_once_until_it_is_reset() {
        let (alarm, calls) = (Alarm::default(), Arc::new(AtomicUsize::new(0)));
        alarm.raise();
        let counted = Arc::clone(&calls);
        alarm.connect(move || {
            counted.fetch_add(1, Ordering::SeqCst);
        });
        assert_eq!(calls.load(Ordering::SeqCst), 1, "raised before it was connected");
        alarm.raise();
        assert_eq!(calls.load(Ordering::SeqCst), 1);
        alarm.reset();
        for _ in 0..3 {
            alarm.raise();
        }
        assert_eq!(calls.load(Ordering::SeqCst), 2);
    }
}
