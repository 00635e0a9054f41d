//! Sends one HTTP/1.1 response without the framework, for a request that has waited. Meanwhile the
//! connection needs none of the framework's buffers.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::Poll;
use std::time::SystemTime;

use actix_web::HttpResponse;
use actix_web::body::{BodySize, BoxBody, MessageBody as _};
use actix_web::http::ConnectionType;
use actix_web::http::header::TRANSFER_ENCODING;
use bytes::Bytes;
use tokio::io::AsyncWriteExt as _;

use crate::connection::io::ConnectionIo;

/// The end of a body in chunks (RFC 9112, section 7.1).
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Sends a response. Asks for the next piece of its body when the last one is sent. A body of
/// unknown length is sent in chunks if its head says so, and else ends with the connection.
///
/// # Errors
/// If the socket fails.
pub(crate) async fn send(io: &mut ConnectionIo, response: HttpResponse<BoxBody>) -> io::Result<()> {
    let has_chunks = response.headers().contains_key(TRANSFER_ENCODING);
    let mut unsent = head(&response);
    let mut body = pin!(response.into_body());
    while let Some(piece) = poll_fn(|cx| {
        let next = body.as_mut().poll_next(cx);
        if next.is_pending() && !unsent.is_empty() {
            // What is there goes out meanwhile.
            return Poll::Ready(Some(Ok(Bytes::new())));
        }
        next
    })
    .await
    {
        let piece = piece.map_err(|error| io::Error::other(error.to_string()))?;
        if has_chunks && !piece.is_empty() {
            unsent.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
            unsent.extend_from_slice(&piece);
            unsent.extend_from_slice(b"\r\n");
        } else {
            unsent.extend_from_slice(&piece);
        }
        io.write_all(&unsent).await?;
        io.flush().await?;
        unsent = Vec::new();
    }
    if has_chunks {
        unsent.extend_from_slice(LAST_CHUNK);
    }
    io.write_all(&unsent).await?;
    io.flush().await
}

/// The wall clock, for the header that every response has (RFC 9110, section 6.6.1).
#[expect(clippy::disallowed_methods, reason = "it is shown to the client, and nothing is computed from it")]
fn now() -> SystemTime {
    SystemTime::now()
}

fn head(response: &HttpResponse<BoxBody>) -> Vec<u8> {
    let status = response.status();
    let reason = status.canonical_reason().unwrap_or_default();
    let mut head = format!("HTTP/1.1 {} {reason}\r\n", status.as_u16()).into_bytes();
    if let BodySize::Sized(bytes) = response.body().size() {
        head.extend_from_slice(format!("content-length: {bytes}\r\n").as_bytes());
    }
    if response.head().connection_type() == ConnectionType::Close {
        head.extend_from_slice(b"connection: close\r\n");
    }
    head.extend_from_slice(format!("date: {}\r\n", httpdate::HttpDate::from(now())).as_bytes());
    for (name, value) in response.headers() {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            head.extend_from_slice(part);
        }
    }
    head.extend_from_slice(b"\r\n");
    head
}
