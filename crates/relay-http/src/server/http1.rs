//! The framework's part of HTTP/1.1 connections.

use std::net::SocketAddr;
use std::time::Duration;

use actix_http::error::DispatchError;
use actix_http::{HttpService, KeepAlive, Request, Response};
use actix_service::{Service, ServiceFactory as _};
use actix_web::body::BoxBody;

use crate::connection::io::ConnectionIo;

/// How many bytes of a response are written to the socket at once. The kernel makes full segments
/// of this size; with a third of it, the kernel does twice the work. The framework keeps a buffer
/// of this size plus the piece that exceeds it, but frees buffers of over 128 KiB.
const WRITE_BUFFER_BYTES: usize = 96 * 1024;

/// The framework's HTTP/1.1 over [`ConnectionIo`]. Its timers are off, because the stream has its
/// own.
pub(super) fn http1_service<S, F, A>(
    serve: S,
) -> impl Future<
    Output = Result<
        impl Service<(ConnectionIo, Option<SocketAddr>), Response = (), Error = DispatchError>,
        (),
    >,
>
where
    S: Fn(Request) -> F + Clone + 'static,
    F: Future<Output = Result<A, actix_web::Error>> + 'static,
    A: Into<Response<BoxBody>> + 'static,
{
    HttpService::build()
        .keep_alive(KeepAlive::Os)
        .h1_write_buffer_size(WRITE_BUFFER_BYTES)
        .client_request_timeout(Duration::ZERO)
        .client_disconnect_timeout(Duration::ZERO)
        .on_connect_ext(|io: &ConnectionIo, data| drop(data.insert(io.clone())))
        .h1(serve)
        .new_service(())
}
