//! What the user of a client may set, and the defaults.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::credentials::Credentials;
use crate::error::Error;

/// The longest time in the options. Far longer ones overflow the clock.
const DURATION_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// What a client may do, and how long it waits, which is a year at most. Every field has a default.
#[derive(Clone, Debug)]
pub struct Options {
    /// The most payload bytes in one chunk; lowered to the relay's own limit. 256 KiB.
    pub chunk_bytes: usize,
    /// How long one request may take, beside the time that a pull waits. 30 seconds.
    pub request_timeout: Duration,
    /// How long a push is retried while no chunk is stored, and a raw pull or ack in all.
    /// 60 seconds.
    pub push_timeout: Duration,
    /// The pause between two pulls of a relay that cannot wait. 1 second.
    pub poll_interval: Duration,
    /// How long a pull waits for an item, at most. 25 seconds.
    pub wait: Duration,
    /// The most payload bytes of unfinished messages, and of messages that are neither acked nor
    /// dropped. Also the largest message that is delivered. 64 MiB.
    pub memory_bytes: usize,
    /// An unfinished message is given up this long after its last chunk. 1 hour.
    pub partial_age: Duration,
    /// The most entries in one ack; 1 to 10,000. 256.
    pub ack_max: usize,
    /// How long an ack waits for others. 50 ms.
    pub ack_delay: Duration,
    /// No further pages are pulled while more messages than this were handed out and not acked.
    /// 1,024.
    pub unacked_max: usize,
    /// Who may sign the certificate of the relay.
    pub roots: Roots,
    /// The certificate of this client, for relays that ask for one.
    pub identity: Option<Identity>,
    /// What pushes show, for relays that take pushes with a token of their issuer only.
    pub push_credentials: Credentials,
    /// Is told of each message that is never handed out.
    pub on_skipped: Option<OnSkipped>,
    /// Milliseconds that are added to the clock of the machine, if that is known to be wrong. The
    /// client finds it out by itself over TLS and on loopback. 0.
    pub clock_offset_ms: i64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            chunk_bytes: 256 << 10,
            request_timeout: Duration::from_secs(30),
            push_timeout: Duration::from_secs(60),
            poll_interval: Duration::from_secs(1),
            wait: Duration::from_secs(25),
            memory_bytes: 64 << 20,
            partial_age: Duration::from_secs(3600),
            ack_max: 256,
            ack_delay: Duration::from_millis(50),
            unacked_max: 1024,
            roots: Roots::System,
            identity: None,
            push_credentials: Credentials::none(),
            on_skipped: None,
            clock_offset_ms: 0,
        }
    }
}

impl Options {
    /// Says which values cannot be used.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let is_zero = self.chunk_bytes == 0
            || self.memory_bytes == 0
            || self.unacked_max == 0
            || self.request_timeout.is_zero();
        if is_zero || !(1..=10_000).contains(&self.ack_max) {
            let message = "chunk_bytes, memory_bytes, unacked_max and request_timeout are at least 1, and ack_max \
                           is 1 to 10,000";
            return Err(Error::Options(message.to_owned()));
        }
        let durations = [
            self.request_timeout,
            self.push_timeout,
            self.poll_interval,
            self.wait,
            self.partial_age,
            self.ack_delay,
        ];
        if durations.iter().any(|duration| *duration > DURATION_MAX) {
            return Err(Error::Options("no duration is over a year".to_owned()));
        }
        Ok(())
    }
}

/// Who may sign the certificate of the relay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Roots {
    /// The authorities that the system trusts.
    #[default]
    System,
    /// Those in a file in PEM format.
    File(PathBuf),
    /// Those in this text in PEM format.
    Pem(Vec<u8>),
}

/// A client certificate and its key, both in PEM format. The key is never shown.
#[derive(Clone)]
pub struct Identity {
    /// The certificate, and those that lead to its authority.
    pub certificate_pem: Vec<u8>,
    /// The private key.
    pub key_pem: Vec<u8>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity(..)")
    }
}

/// A function that is told of messages that are never handed out. It must not block.
#[derive(Clone)]
pub struct OnSkipped(Arc<dyn Fn(Uuid, SkipReason) + Send + Sync>);

impl OnSkipped {
    /// Calls this function.
    pub fn new(function: impl Fn(Uuid, SkipReason) + Send + Sync + 'static) -> Self {
        Self(Arc::new(function))
    }

    pub(crate) fn call(&self, message_id: Uuid, reason: SkipReason) {
        (self.0)(message_id, reason);
    }
}

impl fmt::Debug for OnSkipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnSkipped(..)")
    }
}

/// Why a message is never handed out. Its items stay on the relay until they expire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SkipReason {
    /// It is larger than [`Options::memory_bytes`].
    TooLarge,
    /// Its last chunk came longer than [`Options::partial_age`] ago. If its sender goes on, it may
    /// still be handed out.
    Incomplete,
    /// Its chunks contradict each other or themselves.
    Malformed,
}

impl SkipReason {
    /// The reason as a word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::Incomplete => "incomplete",
            Self::Malformed => "malformed",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_that_the_clock_cannot_add_is_refused() {
        let fields: [fn(&mut Options) -> &mut Duration; 6] = [
            |options| &mut options.request_timeout,
            |options| &mut options.push_timeout,
            |options| &mut options.poll_interval,
            |options| &mut options.wait,
            |options| &mut options.partial_age,
            |options| &mut options.ack_delay,
        ];
        for (index, field) in fields.into_iter().enumerate() {
            let mut options = Options::default();
            *field(&mut options) = DURATION_MAX;
            assert!(options.check().is_ok(), "{index}");
            *field(&mut options) = DURATION_MAX + Duration::from_nanos(1);
            assert_eq!(options.check().unwrap_err().code(), "invalid_input", "{index}");
        }
    }
}
