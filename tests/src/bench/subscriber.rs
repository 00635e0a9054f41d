//! A subscriber of one queue: it polls, waits or follows a stream, and reports the message ids that
//! arrive.

use std::fmt::Debug;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpSocket;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio_rustls::TlsConnector;

use crate::load::post;

use super::relay::WAIT_MS_MAX;

/// How often a subscriber polls.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// How a subscriber reads its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reader {
    Poll,
    Wait,
    Stream,
}

/// A byte stream: TCP, or TLS over TCP.
trait Stream: AsyncRead + AsyncWrite + Debug + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Debug + Send + Unpin> Stream for S {}

/// A connection that reads one queue.
#[derive(Debug)]
pub(super) struct Subscriber {
    stream: Box<dyn Stream>,
    recipient: String,
    /// Bytes that are read and not used yet.
    read: Vec<u8>,
}

impl Reader {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Poll => "poll once a second",
            Self::Wait => "waiting pull",
            Self::Stream => "stream",
        }
    }
}

impl Subscriber {
    /// Connects from this address of 127/8, with TLS if that is configured.
    pub(super) async fn connect(
        address: SocketAddr,
        from: Ipv4Addr,
        recipient: String,
        tls: Option<&Arc<ClientConfig>>,
    ) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(IpAddr::V4(from), 0))?;
        let tcp = socket.connect(address).await?;
        tcp.set_nodelay(true)?;
        let stream: Box<dyn Stream> = match tls {
            Some(tls) => {
                let connector = TlsConnector::from(Arc::clone(tls));
                Box::new(connector.connect(address.ip().into(), tcp).await?)
            }
            None => Box::new(tcp),
        };
        Ok(Self { stream, recipient, read: Vec::new() })
    }

    /// Reports the message id of each item until `ended` is set.
    pub(super) async fn follow(
        mut self,
        reader: Reader,
        note: Arc<impl Fn(&str) + Send + Sync>,
        mut ended: watch::Receiver<bool>,
    ) {
        let following = async {
            match reader {
                Reader::Stream => self.follow_stream(&*note).await,
                Reader::Poll | Reader::Wait => self.follow_pages(reader, &*note).await,
            }
        };
        tokio::select! {
            result = following => drop(result),
            _ = ended.wait_for(|ended| *ended) => {}
        }
    }

    async fn follow_pages(&mut self, reader: Reader, note: &(impl Fn(&str) + Sync)) -> io::Result<()> {
        let mut cursor = Value::Null;
        // So that not all polls come at once.
        let offset = self.recipient.bytes().map(u64::from).sum::<u64>() * 37 % 1000;
        if reader == Reader::Poll {
            tokio::time::sleep(Duration::from_millis(offset)).await;
        }
        loop {
            let wait_ms = if reader == Reader::Wait { 55_000 } else { 0 };
            let pull =
                json!({"recipient": self.recipient, "cursor": cursor, "wait_ms": wait_ms, "tail": true});
            self.send("/pull", &pull).await?;
            let page: Value = serde_json::from_slice(&self.response().await?).map_err(io::Error::other)?;
            note_items(&page, note);
            // An empty page repeats the cursor.
            cursor = page.get("next_cursor").cloned().unwrap_or_default();
            if reader == Reader::Poll {
                tokio::time::sleep(POLL_INTERVAL).await;
            }
        }
    }

    async fn follow_stream(&mut self, note: &(impl Fn(&str) + Sync)) -> io::Result<()> {
        self.send("/stream", &json!({"recipient": self.recipient})).await?;
        self.head().await?;
        let mut text = Vec::new();
        loop {
            let length = self.line().await?;
            let length = usize::from_str_radix(length.trim(), 16).map_err(io::Error::other)?;
            let chunk = self.bytes(length + 2).await?;
            text.extend_from_slice(chunk.get(..length).unwrap_or_default());
            while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = text.drain(..=end).collect();
                note_items(&serde_json::from_slice(&line).map_err(io::Error::other)?, note);
            }
        }
    }

    /// Sends a pull that waits.
    pub(super) async fn begin_waiting(&mut self) -> io::Result<()> {
        self.send("/pull", &json!({"recipient": self.recipient, "wait_ms": WAIT_MS_MAX})).await
    }

    /// Whether the response to that pull is an empty page.
    pub(super) async fn is_answered_with_an_empty_page(&mut self) -> io::Result<bool> {
        Ok(self.response().await?.starts_with(br#"{"items":[],"#))
    }

    async fn send(&mut self, path: &str, body: &Value) -> io::Result<()> {
        self.stream.write_all(&post(path, b"", body.to_string().as_bytes())).await
    }

    /// The body of a response with a length.
    async fn response(&mut self) -> io::Result<Vec<u8>> {
        let head = self.head().await?.to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        let length = length.and_then(|length| length.trim().parse().ok());
        self.bytes(length.ok_or(io::ErrorKind::InvalidData)?).await
    }

    async fn head(&mut self) -> io::Result<String> {
        let mut head = String::new();
        loop {
            let line = self.line().await?;
            if line == "\r\n" {
                return Ok(head);
            }
            head.push_str(&line);
        }
    }

    async fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line = self.read.drain(..=end).collect();
                return String::from_utf8(line).map_err(io::Error::other);
            }
            self.fill().await?;
        }
    }

    async fn bytes(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.read.len() < length {
            self.fill().await?;
        }
        Ok(self.read.drain(..length).collect())
    }

    async fn fill(&mut self) -> io::Result<()> {
        match self.stream.read_buf(&mut self.read).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

/// The subscribers work on a thread of their own.
pub(super) fn runtime() -> io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads(1).enable_all().build()
}

fn note_items(page: &Value, note: &impl Fn(&str)) {
    for item in page.get("items").and_then(Value::as_array).into_iter().flatten() {
        note(item.get("message_id").and_then(Value::as_str).unwrap_or_default());
    }
}
