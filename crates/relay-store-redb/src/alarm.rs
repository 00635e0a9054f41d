//! How the maintenance thread hears at once that redb refuses the index from now on. It tells nothing else, and opens nothing.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, OnceLock, Weak};

use crate::maintenance::Task;

/// Raised by whoever sees the index fail, and heard by the maintenance thread. However many raise it, it is one task until the maintenance thread looks.
#[derive(Debug, Default)]
pub(crate) struct Alarm {
    is_raised: AtomicBool,
    /// The way to the maintenance thread, which ends when nobody else can ask it for anything: this keeps it from nothing.
    maintenance: OnceLock<Weak<Sender<Task>>>,
}

impl Alarm {
    /// From here on the maintenance thread hears of it, and of what was before.
    pub(crate) fn lead_to(&self, maintenance: &Arc<Sender<Task>>) {
        // It leads to one maintenance thread for good.
        drop(self.maintenance.set(Arc::downgrade(maintenance)));
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
        if let Some(maintenance) = self.maintenance.get().and_then(Weak::upgrade) {
            // A maintenance thread that is gone opens nothing any more.
            drop(maintenance.send(Task::Heal));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{TryRecvError, channel};

    use super::*;

    #[test]
    fn it_is_told_once_until_the_maintenance_thread_looks() {
        let (alarm, (sender, tasks)) = (Alarm::default(), channel());
        alarm.raise();
        let sender = Arc::new(sender);
        alarm.lead_to(&sender);
        assert!(matches!(tasks.try_recv(), Ok(Task::Heal)), "also of what was before");
        alarm.raise();
        assert!(matches!(tasks.try_recv(), Err(TryRecvError::Empty)));
        alarm.heard();
        for _ in 0..3 {
            alarm.raise();
        }
        assert_eq!(tasks.try_iter().count(), 1);
        drop(sender);
        alarm.heard();
        alarm.raise();
        assert!(matches!(tasks.try_recv(), Err(TryRecvError::Disconnected)), "it keeps no thread at work");
    }
}
