//! The machine's clock. The one place where this workspace asks what time it is.

use std::time::{SystemTime, UNIX_EPOCH};

use relay_core::{Clock, Timestamp};

/// The machine's clock. It may be set back; the stores see to it that this does no harm.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        #[expect(clippy::disallowed_methods, reason = "this is the clock that everybody else is handed")]
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_ms(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
    }
}
