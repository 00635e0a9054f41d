//! Accepts connections on the control socket, checks who asks, and runs one command for each.
//! Everything that a client can make it hold is bounded.

use std::future::pending;
use std::io::{self, Write as _};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::{sleep, timeout};

use super::commands;
use super::output::{Output, encode};
use super::protocol::{Line, REQUEST_BYTES_MAX, Refusal, Request, VERSION};
use super::relay::{COMMANDS_MAX, ControlledRelay, stopping};
use super::socket::Socket;

/// How long a client may take to send its request.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a client may leave a line unread. A person may look at a page of a long list.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// After this time without a line, an empty one says that the relay still works.
const SIGN_OF_LIFE: Duration = Duration::from_secs(10);

/// The pause after a failed accept, which usually means too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Serves the socket, once it is there. The future never resolves; dropping it removes the file of
/// the socket, and commands that run go on.
pub(crate) async fn serve(socket: oneshot::Receiver<Socket>, relay: Arc<ControlledRelay>) {
    let Ok(socket) = socket.await else { return pending().await };
    let listener = match socket.listen() {
        Ok(listener) => listener,
        Err(error) => {
            tracing::warn!(%error, "control socket: cannot listen");
            return pending().await;
        }
    };
    loop {
        match listener.accept().await {
            Ok((stream, _)) => accept(stream, &relay),
            Err(error) => {
                tracing::warn!(%error, "control socket: accept failed");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Starts the task of a connection, if its user may ask and few enough others do.
fn accept(stream: UnixStream, relay: &Arc<ControlledRelay>) {
    // An existing directory may have a weaker mode than the one that the relay creates.
    let user = rustix::process::geteuid().as_raw();
    if !stream.peer_cred().is_ok_and(|peer| peer.uid() == user || peer.uid() == 0) {
        tracing::warn!("control socket: refused another user");
        return;
    }
    if let Ok(slot) = Arc::clone(&relay.slots).try_acquire_owned() {
        drop(tokio::spawn(converse(stream, Arc::clone(relay), slot)));
    } else {
        let message = format!("{COMMANDS_MAX} commands run already; try again later");
        let line = encode(&Line::Error(Refusal::new("busy", message)));
        // The buffer of a new connection has room for this line. The runtime does not know yet that
        // it can be written.
        drop(stream.into_std().and_then(|mut stream| stream.write_all(line.as_bytes())));
    }
}

/// Reads a request, runs its command, and writes the response.
async fn converse(stream: UnixStream, relay: Arc<ControlledRelay>, _slot: OwnedSemaphorePermit) {
    let (mut reader, mut writer) = stream.into_split();
    let request = match timeout(READ_TIMEOUT, read_request(&mut reader)).await {
        Ok(Ok(request)) => request,
        Ok(Err(ReadError::Refused(refusal))) => {
            drop(write(&mut writer, &encode(&Line::Error(refusal))).await);
            return;
        }
        Ok(Err(ReadError::Gone)) | Err(_) => return,
    };
    tracing::debug!(command = request.command, "control socket: a command");
    let (waits_for_end, relay) = (commands::waits_for_end(&request.command), &relay);
    let closing = async { if waits_for_end { pending().await } else { relay.closing().await } };
    let (output, mut lines) = Output::new();
    let command = async {
        let line = match commands::run(relay, request, &output).await {
            Ok(result) => Line::Done(result),
            Err(refusal) => Line::Error(refusal),
        };
        output.end(&line).await;
        Ok(())
    };
    let is_closing = tokio::select! {
        // The end of the client, or a fault of it, drops `lines`, which stops the command.
        () = gone(&mut reader) => false,
        _ = async { tokio::try_join!(command, deliver(&mut lines, &mut writer)) } => false,
        () = closing => true,
    };
    if is_closing {
        drop(write(&mut writer, &encode(&Line::Error(stopping()))).await);
    }
}

enum ReadError {
    Gone,
    Refused(Refusal),
}

impl From<io::Error> for ReadError {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

/// Reads the line of a request.
async fn read_request(reader: &mut OwnedReadHalf) -> Result<Request, ReadError> {
    let mut line = Vec::new();
    let mut limited = reader.take(REQUEST_BYTES_MAX as u64 + 1);
    while line.last() != Some(&b'\n') {
        if limited.read_buf(&mut line).await? == 0 {
            if line.len() > REQUEST_BYTES_MAX {
                let message = format!("a request has at most {REQUEST_BYTES_MAX} bytes");
                return Err(ReadError::Refused(Refusal::new("invalid_request", message)));
            }
            return Err(ReadError::Gone);
        }
    }
    parse(&line).map_err(ReadError::Refused)
}

fn parse(line: &[u8]) -> Result<Request, Refusal> {
    // The text of the error repeats nothing of the request.
    let request: Request = serde_json::from_slice(line).map_err(|error| {
        let column = error.column();
        Refusal::new("invalid_request", format!("the request is no JSON of this protocol (column {column})"))
    })?;
    if request.version == VERSION {
        return Ok(request);
    }
    let message = format!(
        "this relay ({}) speaks version {VERSION} of the control protocol, and the command version {}; \
         use the relay-bin of the relay's version",
        env!("CARGO_PKG_VERSION"),
        request.version
    );
    Err(Refusal::new("version", message))
}

/// Resolves when the client closes the connection, or sends more than a request.
async fn gone(reader: &mut OwnedReadHalf) {
    // A client that has more to say does not know the protocol.
    drop(reader.read_u8().await);
}

/// Writes the lines of a command until it has ended.
async fn deliver(lines: &mut mpsc::Receiver<String>, writer: &mut OwnedWriteHalf) -> io::Result<()> {
    loop {
        match timeout(SIGN_OF_LIFE, lines.recv()).await {
            Ok(Some(line)) => write(writer, &line).await?,
            Ok(None) => return Ok(()),
            Err(_) => write(writer, "\n").await?,
        }
    }
}

async fn write(writer: &mut OwnedWriteHalf, line: &str) -> io::Result<()> {
    timeout(WRITE_TIMEOUT, writer.write_all(line.as_bytes())).await.map_err(|_| io::ErrorKind::TimedOut)?
}
