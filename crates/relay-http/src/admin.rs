//! The listener for whoever runs the relay: `GET /metrics` and nothing else, on an address of its own, away from clients. It has a
//! thread of its own, so that it answers while the public address is overloaded, and never more than a few connections.
//!
//! It binds nothing itself, asks nobody who they are, and keeps nobody from ending: it holds the relay only while it asks it.

use std::io;
use std::net::TcpListener;
use std::sync::{Arc, Weak};
use std::time::Duration;

use actix_web::http::header::{ALLOW, CONTENT_TYPE};
use actix_web::{App, HttpResponse, HttpServer, web};
use relay_core::Relay;

use crate::metrics::{Metrics, exposition};
use crate::monotonic;

/// The most connections at once.
const CONNECTIONS_MAX: usize = 32;

/// How long a connection may rest: longer than the usual time between two scrapes.
const KEEP_ALIVE: Duration = Duration::from_secs(75);

/// Serves `/metrics` on `listener`: what `metrics` counts, and what `relay` tells of itself as long as it is there. The future
/// does nothing until it is polled, and does not resolve by itself. Dropped, it ends at once.
///
/// # Errors
/// When the listener is not usable; the future, when no thread can be started.
pub fn serve_admin<R: Relay>(
    listener: TcpListener,
    relay: Weak<R>,
    metrics: Arc<Metrics>,
) -> io::Result<impl Future<Output = io::Result<()>> + Send + 'static> {
    let server = HttpServer::new(move || {
        let (relay, metrics) = (relay.clone(), Arc::clone(&metrics));
        let scrape = move || scrape(relay.clone(), Arc::clone(&metrics));
        let metrics =
            web::resource("/metrics").route(web::get().to(scrape)).default_service(web::to(otherwise));
        App::new().service(metrics).default_service(web::to(elsewhere))
    });
    let server = server.workers(1).max_connections(CONNECTIONS_MAX).keep_alive(KEEP_ALIVE);
    Ok(server.disable_signals().listen(listener)?.run())
}

async fn scrape<R: Relay>(relay: Weak<R>, metrics: Arc<Metrics>) -> HttpResponse {
    let exposed = web::block(move || {
        let figures = relay.upgrade().map(|relay| relay.figures()).unwrap_or_default();
        exposition::expose(metrics, figures, monotonic::now())
    });
    match exposed.await {
        Ok(Ok(text)) => HttpResponse::Ok().insert_header((CONTENT_TYPE, exposition::CONTENT_TYPE)).body(text),
        failed => {
            tracing::error!(?failed, "the metrics could not be written");
            HttpResponse::InternalServerError()
                .body("the metrics could not be written; the log has the reason\n")
        }
    }
}

async fn otherwise() -> HttpResponse {
    HttpResponse::MethodNotAllowed().insert_header((ALLOW, "GET")).body("this path knows GET only\n")
}

async fn elsewhere() -> HttpResponse {
    HttpResponse::NotFound().body("there is nothing but GET /metrics\n")
}
