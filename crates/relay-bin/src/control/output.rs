//! The response of a command, line by line. It holds a few lines at most: a command waits until its
//! client has taken them, and ends when its client is gone.

use serde::Serialize;
use tokio::sync::mpsc;

use super::protocol::{Line, Progress, Refusal};

/// How many lines may wait for the client.
const LINES_MAX: usize = 16;

/// Where a command writes. Clones write to the same client.
#[derive(Clone, Debug)]
pub(super) struct Output(mpsc::Sender<String>);

impl Output {
    /// The output of a command, and its lines for the connection.
    pub(super) fn new() -> (Self, mpsc::Receiver<String>) {
        let (sender, lines) = mpsc::channel(LINES_MAX);
        (Self(sender), lines)
    }

    /// Whether nobody waits for the command any more. Long work asks this now and then.
    pub(super) fn is_gone(&self) -> bool {
        self.0.is_closed()
    }

    /// Reports how far the command is, unless the client is slow to read.
    pub(super) fn progress(&self, done: u64, total: u64) {
        // The next report, or the end, says more.
        drop(self.0.try_send(encode(&Line::Progress(Progress { done, total }))));
    }

    /// Writes a row.
    ///
    /// # Errors
    /// The client is gone, or the row is no JSON.
    pub(super) async fn row(&self, row: &impl Serialize) -> Result<(), Refusal> {
        self.0.send(self::row(row)?).await.map_err(|_| Refusal::gone())
    }

    /// Writes the last line.
    pub(super) async fn end(self, line: &Line) {
        // A client that is gone needs no end.
        drop(self.0.send(encode(line)).await);
    }
}

/// The line with its end.
pub(super) fn encode(line: &Line) -> String {
    // Lines have only text as keys, so this cannot fail.
    serde_json::to_string(line).unwrap_or_default() + "\n"
}

fn row(row: &impl Serialize) -> Result<String, Refusal> {
    Ok(encode(&Line::Row(serde_json::to_value(row).map_err(Refusal::failed)?)))
}
