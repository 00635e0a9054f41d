//! The doors for benches and the load generator, which must see what no user of the crate has to. Nothing here is promised to stay.

use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::time::Duration;

use actix_http::{HttpService, KeepAlive, Request, Response};
use actix_service::{IntoService as _, Service, ServiceFactory as _, fn_factory};
use actix_web::dev::Server;
use actix_web::http::StatusCode;
use bytes::Bytes;
use futures_util::StreamExt as _;
use relay_core::{Ack, Envelope, Page, Recipient, Seq};
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::answer::{Answer, Sending};
use crate::api;
use crate::connection::{Acceptor, Connections};
use crate::cursor::CursorKey;
use crate::line::Line;

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

/// Serves as [`serve`](crate::serve) does, but answers every request with these bytes: what is left of a pull when nothing
/// has to be looked up or encoded. It never ends by itself.
///
/// # Errors
/// When the listener is not usable; the future, when no thread can be started.
pub fn serve_body(
    listener: TcpListener,
    body: Bytes,
) -> io::Result<impl Future<Output = io::Result<()>> + Send + 'static> {
    let server = Server::build().disable_signals().listen("body", listener, move || {
        let body = body.clone();
        fn_factory(move || body_service(body.clone()))
    })?;
    Ok(server.run())
}

async fn body_service(body: Bytes) -> Result<impl Service<TcpStream, Response = (), Error = Infallible>, ()> {
    let http = HttpService::build()
        .keep_alive(KeepAlive::Os)
        .client_request_timeout(Duration::ZERO)
        .client_disconnect_timeout(Duration::ZERO)
        .on_connect_ext(|line: &Line, data| drop(data.insert(line.clone())))
        .finish(move |request: Request| answer(request, body.clone()))
        .new_service(())
        .await
        .map_err(drop)?;
    let http = Rc::new(http);
    // Nobody ever tells it to close, and the sender has to be kept for that.
    let (never, closing) = watch::channel(false);
    let connections = Connections {
        acceptor: Acceptor::Plain,
        request_timeout: REQUEST_TIMEOUT,
        keep_alive: KEEP_ALIVE,
        closing,
        metrics: Default::default(),
    };
    let shared = Rc::new((connections, never));
    let serve = move |tcp| {
        let (shared, http) = (Rc::clone(&shared), Rc::clone(&http));
        async move {
            shared.0.serve(tcp, http).await;
            Ok(())
        }
    };
    Ok(serve.into_service())
}

async fn answer(mut request: Request, body: Bytes) -> Result<Response<Sending>, Infallible> {
    let line = request.conn_data::<Line>().expect("`on_connect_ext` gives every connection its line");
    let busy = line.begin_request(None);
    // A connection can only be used again when nothing of the request is left.
    let mut unread = request.take_payload();
    while unread.next().await.is_some() {}
    Ok(Answer::raw(StatusCode::OK, body).into_response(busy).into())
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
