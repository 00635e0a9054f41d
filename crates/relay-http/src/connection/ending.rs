//! The reasons for which the relay ends a connection.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::timeout;

use crate::connection::state::ConnectionState;

/// How many bytes are read and discarded after the last response.
const DISCARDED_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Resolves when something ends a connection.
pub(crate) type Ending = Pin<Box<dyn Future<Output = ()>>>;

/// Everything that makes the relay end a connection as soon as no request suffers from it. Each
/// reason wakes the task itself, so a busy connection does not poll them at every turn.
pub(crate) struct Endings {
    pending: FuturesUnordered<Ending>,
    has_ended: bool,
}

impl Endings {
    pub(crate) fn of(endings: [Ending; 3]) -> Self {
        Self { pending: endings.into_iter().collect(), has_ended: false }
    }

    #[cfg(feature = "tls")]
    pub(super) fn add(&self, ending: Ending) {
        self.pending.push(ending);
    }

    /// Whether the connection has to end. If not, the task is woken as soon as it has to.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, connection: &ConnectionState) -> bool {
        self.has_ended = self.has_ended
            || connection.open().poll_close_request(cx).is_ready()
            || matches!(self.pending.poll_next_unpin(cx), Poll::Ready(Some(())));
        self.has_ended || connection.is_ending()
    }
}

/// Reads and discards what a client still sends after its last response, until it sends nothing for
/// `pause`.
pub(crate) async fn discard_input(
    stream: &mut (impl AsyncRead + Unpin),
    pause: Duration,
) -> std::io::Result<()> {
    let (mut buffer, mut discarded) = (vec![0; 16 * 1024], 0);
    while discarded < DISCARDED_BYTES_MAX {
        match timeout(pause, stream.read(&mut buffer)).await?? {
            0 => break,
            bytes => discarded += bytes,
        }
    }
    Ok(())
}
