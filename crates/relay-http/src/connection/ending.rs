//! What ends a connection from the relay's side.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::timeout;

use crate::connection::state::ConnectionState;

/// No more of what a client still sends after its last response is read.
const HEARD_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Resolves when something ends a connection.
pub(crate) type Ending = Pin<Box<dyn Future<Output = ()>>>;

/// Whatever ends a connection from the relay's side, at the next moment that costs nobody anything.
/// None of it is looked at before it has something to say: the task of a busy connection is woken
/// far more often than that.
pub(crate) struct Endings {
    open: FuturesUnordered<Ending>,
    has_ended: bool,
}

impl Endings {
    pub(crate) fn of(endings: [Ending; 3]) -> Self {
        Self { open: endings.into_iter().collect(), has_ended: false }
    }

    /// Ends the connection with this too.
    #[cfg(feature = "tls")]
    pub(crate) fn add(&self, ending: Ending) {
        self.open.push(ending);
    }

    /// Whether the connection is to end. Wakes the task once it is.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, connection: &ConnectionState) -> bool {
        self.has_ended = self.has_ended
            || connection.open().poll_told_to_close(cx).is_ready()
            || matches!(self.open.poll_next_unpin(cx), Poll::Ready(Some(())));
        self.has_ended || connection.is_ending()
    }
}

/// Takes in and throws away what a client still sends that has all its answers, until it pauses for
/// so long.
pub(crate) async fn hear_out(stream: &mut (impl AsyncRead + Unpin), pause: Duration) -> std::io::Result<()> {
    let (mut buffer, mut heard) = (vec![0; 16 * 1024], 0);
    while heard < HEARD_BYTES_MAX {
        match timeout(pause, stream.read(&mut buffer)).await?? {
            0 => break,
            more => heard += more,
        }
    }
    Ok(())
}
