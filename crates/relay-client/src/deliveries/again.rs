//! When a queue is read from its start again, for messages that did not fit in memory. It reads no
//! clock.

use std::time::Duration;

use tokio::time::Instant;

/// The pause after a reading. It doubles with each one that completed no message, so that half
/// messages, which nobody ever completes, do not make the client read the whole queue all the time.
const PAUSE: Duration = Duration::from_secs(60);
const PAUSE_MAX: Duration = Duration::from_secs(3600);

#[derive(Debug)]
pub(crate) struct Again {
    from: Instant,
    pause: Duration,
    is_reading: bool,
    has_completed: bool,
}

impl Again {
    pub(crate) fn new(now: Instant) -> Self {
        Self { from: now, pause: PAUSE, is_reading: false, has_completed: false }
    }

    /// From when on the queue may be read again.
    pub(crate) fn from(&self) -> Instant {
        self.from
    }

    /// The queue is read again.
    pub(crate) fn begin(&mut self) {
        self.is_reading = true;
        self.has_completed = false;
    }

    /// A message of several chunks is complete. Others need no second reading.
    pub(crate) fn complete(&mut self) {
        self.has_completed = true;
    }

    /// Everything in the queue was seen. The pause counts from here, so that one of an hour is long
    /// enough for what is in memory to be given up.
    pub(crate) fn end(&mut self, now: Instant) {
        if std::mem::take(&mut self.is_reading) {
            self.pause = if self.has_completed { PAUSE } else { (self.pause * 2).min(PAUSE_MAX) };
            self.from = now + self.pause;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn the_pause_doubles_until_a_message_is_complete() {
        let now = clock::instant();
        let mut again = Again::new(now);
        assert_eq!(again.from(), now, "the first time is at once");
        let mut pause = |is_complete: bool| {
            // Outside of a reading, it is no merit of one.
            again.complete();
            again.begin();
            if is_complete {
                again.complete();
            }
            again.end(now);
            again.end(now + PAUSE_MAX);
            (again.from() - now).as_secs()
        };
        assert_eq!([false; 7].map(&mut pause), [120, 240, 480, 960, 1920, 3600, 3600]);
        assert_eq!([true, true, false].map(&mut pause), [60, 60, 120]);
    }
}
