//! The doors for benches and the load generator, which must see what no user of the crate has to.
//! Nothing here is promised to stay.

use std::io;
use std::net::TcpListener;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_http::Request;
use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use futures_util::{FutureExt as _, StreamExt as _};
use relay_core::{Ack, Envelope, Page, Recipient, Seq};
use tokio::net::TcpStream;
use tokio::sync::{oneshot, watch};

use crate::accept::{Accepted, Admission, Door, Threads};
use crate::api;
use crate::connection::{Acceptor, Connections, Protocols, Stage};
use crate::connection_io::ConnectionIo;
use crate::connection_state::ConnectionState;
use crate::cursor::CursorKey;
use crate::in_flight_request::InFlightRequest;
use crate::monotonic;
use crate::open_connections::OpenConnections;
use crate::response::ApiResponse;
use crate::server::http1_service;

/// How long the server of a prepared body waits for a request that began to arrive.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// How long its connections may rest.
const KEEP_ALIVE: Duration = Duration::from_secs(75);

/// The item that the body of a push stands for.
pub fn decode_push(json: &[u8], payload_bytes_max: u64) -> Option<Envelope> {
    api::decode_push(json, payload_bytes_max).ok()
}

/// The text of a cursor.
pub fn encode_cursor(cursors: &CursorKey, recipient: &Recipient, seq: Seq) -> String {
    cursors.encode(recipient, seq)
}

/// Where a cursor of this recipient stands.
pub fn decode_cursor(cursors: &CursorKey, recipient: &Recipient, text: &str) -> Option<Seq> {
    cursors.decode(recipient, text).ok()
}

/// The items that the body of an ack names.
pub fn decode_ack(json: &[u8]) -> Option<Ack> {
    api::decode_ack(json).ok()
}

/// The body of the answer to a pull, in the pieces in which it is sent.
pub fn encode_page(
    cursors: &CursorKey,
    recipient: &Recipient,
    page: Page,
) -> impl Iterator<Item = Bytes> + use<> {
    let mut page = api::PageJson::new(cursors, recipient, page);
    std::iter::from_fn(move || page.next_piece())
}

/// Serves as [`serve`](crate::serve) does, but answers every request with these bytes: what is left
/// of a pull when nothing has to be looked up or encoded. It never ends by itself.
///
/// # Errors
/// When the listener is not usable; the future, when no thread can be started.
pub fn serve_body(
    listener: TcpListener,
    body: Bytes,
) -> io::Result<impl Future<Output = io::Result<()>> + Send + 'static> {
    listener.set_nonblocking(true)?;
    Ok(async move {
        let number = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let threads = Threads::start(number, move || worker(body.clone()))?;
        // Nobody ever tells it to stop, and the sender has to be kept for that.
        let (_never, paused) = oneshot::channel();
        let open = OpenConnections::new(usize::MAX, usize::MAX, monotonic::now());
        let door = Door { connections: open, decide: |_| Admission::OPEN, metrics: Arc::default() };
        threads.accept(listener, door, paused)?;
        std::future::pending().await
    })
}

async fn worker(body: Bytes) -> Option<impl Fn(Accepted) -> LocalBoxFuture<'static, ()>> {
    let http1 = http1_service(move |request: Request| answer(request, body.clone())).await.ok()?;
    let protocols = Rc::new(Protocols { http1, call: |_, _| std::future::ready(None) });
    // Its sender is gone, which ends nothing before the last stage.
    let (stage, staged) = watch::channel(Stage::Serving);
    let connections = Connections {
        acceptor: Acceptor::Plain,
        request_timeout: REQUEST_TIMEOUT,
        keep_alive: KEEP_ALIVE,
        age_max: Duration::MAX,
        stage: staged,
        metrics: Default::default(),
        #[cfg(feature = "tls")]
        streams: Default::default(),
    };
    let shared = Rc::new((connections, stage));
    Some(move |accepted: Accepted| {
        let (shared, protocols) = (Rc::clone(&shared), Rc::clone(&protocols));
        async move {
            let Accepted { tcp, peer, open, .. } = accepted;
            if let Ok(tcp) = TcpStream::from_std(tcp) {
                shared.0.serve(tcp, ConnectionState::new(peer, open, false), &protocols).await;
            }
        }
        .boxed_local()
    })
}

async fn answer(mut request: Request, body: Bytes) -> Result<HttpResponse, actix_web::Error> {
    let io = request.conn_data::<ConnectionIo>().expect("`on_connect_ext` gives every connection its stream");
    io.begin_request();
    let in_flight = InFlightRequest::begin(io.connection(), Some(io.clone()), None);
    let io = io.clone();
    // A connection can only be used again when nothing of the request is left.
    let mut unread = request.take_payload();
    while unread.next().await.is_some() {}
    io.begin_answer();
    Ok(ApiResponse::raw(StatusCode::OK, body).into_response(in_flight).map_into_boxed_body())
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpStream;

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_prepared_body_answers_every_request_of_a_connection() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(serve_body(listener, Bytes::from_static(b"prepared")).unwrap());
        let asking = tokio::task::spawn_blocking(move || {
            let mut stream = TcpStream::connect(address).unwrap();
            for _ in 0..3 {
                stream.write_all(b"POST /pull HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}").unwrap();
                let mut answer = Vec::new();
                while !answer.ends_with(b"\r\n\r\nprepared") {
                    let mut byte = [0];
                    stream.read_exact(&mut byte).unwrap();
                    answer.extend(byte);
                }
                assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"));
            }
        });
        asking.await.unwrap();
        server.abort();
    }
}
