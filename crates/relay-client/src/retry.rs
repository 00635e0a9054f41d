//! How long to wait before another try.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(10);

/// The longest pause that a relay can ask for.
const ASKED_MAX: Duration = Duration::from_secs(300);

/// Pauses that double, each with a random part.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
}

impl Backoff {
    pub(crate) fn new() -> Self {
        Self { next: FIRST }
    }

    pub(crate) fn reset(&mut self) {
        self.next = FIRST;
    }

    /// The next pause: what the relay asks for and a little more, or the own one.
    pub(crate) fn pause(&mut self, asked: Option<Duration>) -> Duration {
        match asked {
            Some(asked) => {
                let asked = asked.min(ASKED_MAX);
                asked + (asked / 10 + FIRST / 2).mul_f64(fastrand::f64())
            }
            None => {
                let pause = self.next;
                self.next = (pause * 2).min(LONGEST);
                pause / 2 + (pause / 2).mul_f64(fastrand::f64())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_bound() {
        let mut backoff = Backoff::new();
        for base in [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000] {
            let pause = backoff.pause(None).as_millis();
            assert!(pause >= base / 2 && pause <= base, "{pause} of {base}");
        }
        backoff.reset();
        assert!(backoff.pause(None) <= FIRST);
    }

    #[test]
    fn the_relay_is_heard_within_a_bound() {
        let mut backoff = Backoff::new();
        let pause = backoff.pause(Some(Duration::from_secs(10)));
        assert!((10.0..=11.1).contains(&pause.as_secs_f64()), "{pause:?}");
        assert!(backoff.pause(Some(Duration::MAX)) <= ASKED_MAX * 2);
        assert!(backoff.pause(Some(Duration::ZERO)) < FIRST);
    }
}
