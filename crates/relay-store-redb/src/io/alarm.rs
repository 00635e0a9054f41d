//! How the maintenance thread hears at once that redb refuses the index from now on. It tells
//! nothing else, and opens nothing.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// Raised by whoever sees the index fail, and heard by the maintenance thread. However many raise
/// it, it is one task until the maintenance thread looks.
#[derive(Default)]
pub(crate) struct Alarm {
    is_raised: AtomicBool,
    /// Wakes the maintenance thread.
    wake: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl Alarm {
    /// From here on `wake` is called, also for what was raised before. It must not keep the
    /// maintenance thread alive.
    pub(crate) fn connect(&self, wake: impl Fn() + Send + Sync + 'static) {
        // It is connected once.
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

    /// The maintenance thread looks now: what fails from here on is told anew.
    pub(crate) fn heard(&self) {
        self.is_raised.store(false, Ordering::SeqCst);
    }

    fn wake(&self) {
        if let Some(wake) = self.wake.get() {
            wake();
        }
    }
}

impl fmt::Debug for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Alarm").field("is_raised", &self.is_raised).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[test]
    fn it_wakes_once_until_the_maintenance_thread_looks() {
        let (alarm, calls) = (Alarm::default(), Arc::new(AtomicUsize::new(0)));
        alarm.raise();
        let counted = Arc::clone(&calls);
        alarm.connect(move || {
            counted.fetch_add(1, Ordering::SeqCst);
        });
        assert_eq!(calls.load(Ordering::SeqCst), 1, "also of what was before");
        alarm.raise();
        assert_eq!(calls.load(Ordering::SeqCst), 1);
        alarm.heard();
        for _ in 0..3 {
            alarm.raise();
        }
        assert_eq!(calls.load(Ordering::SeqCst), 2);
    }
}
