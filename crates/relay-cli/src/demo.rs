//! `demo`: serves the page of deploy/demo to browsers of this machine. The page talks to the relay
//! itself; nothing of that passes through here.

mod site;

use std::convert::Infallible;
use std::future::ready;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::cli::DemoArgs;
use crate::failure::Failure;
use crate::output::Output;
use crate::session::Session;

/// What clients of the page can hold.
#[derive(Clone, Copy)]
struct Bounds {
    connections: usize,
    /// How long each connection lasts at most. It has one request.
    lasting: Duration,
}

const BOUNDS: Bounds = Bounds { connections: 64, lasting: Duration::from_secs(10) };

/// The longest head of a request.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// How long to wait when no connection can be accepted, such as without file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

pub(crate) async fn run(session: &Session, args: &DemoArgs, output: &Output) -> Result<(), Failure> {
    if !args.listen.ip().is_loopback() {
        let message =
            "--listen takes loopback addresses only: elsewhere, the page needs HTTPS (see deploy/demo)";
        return Err(Failure::Usage(message.to_owned()));
    }
    let relay = &session.url;
    if !is_reachable(relay) {
        let message =
            format!("{relay}: pages reach a relay by https://, http://127.0.0.1 or http://localhost");
        return Err(Failure::Usage(message));
    }
    let (listener, address) = listen(args.listen).await?;
    let origin = format!("http://{address}");
    let url = format!("{origin}/?relay={}", encoded(relay));
    output
        .print(&json!({"url": url, "origin": origin, "relay": relay}), || describe(&url, &origin, relay))?;
    tokio::select! {
        () = serve(listener, address.to_string().into(), BOUNDS) => Ok(()),
        interrupted = tokio::signal::ctrl_c() => Ok(interrupted?),
    }
}

fn describe(url: &str, origin: &str, relay: &str) -> String {
    format!(
        "Open this in a browser on this machine; Ctrl-C ends the page:\n  {url}\nThe page works if the relay at \
         {relay} lists its origin, {origin}, in cors.allowed_origins. For a relay on this machine:\n  \
         RELAY__CORS__ALLOWED_ORIGINS={origin} relay-bin"
    )
}

/// Whether the policy of the page lets it reach this relay.
fn is_reachable(relay: &str) -> bool {
    let Some((scheme, rest)) = relay.split_once("://") else { return false };
    let host = rest.split(['/', ':']).next();
    let is_here = host.is_some_and(|host| host == "127.0.0.1" || host.eq_ignore_ascii_case("localhost"));
    scheme.eq_ignore_ascii_case("https") || is_here
}

/// An address as a value in a query.
fn encoded(relay: &str) -> String {
    let encode = |c: char| match c {
        '%' | '&' | '#' | '+' | ' ' => format!("%{:02X}", u32::from(c)),
        _ => c.to_string(),
    };
    relay.chars().map(encode).collect()
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), Failure> {
    let unusable = |error: std::io::Error| {
        Failure::File(format!("cannot listen on {address}: {error}; choose another port with --listen"))
    };
    let listener = TcpListener::bind(address).await.map_err(unusable)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Serves for ever; `host` is the host and port of the page.
async fn serve(listener: TcpListener, host: Arc<str>, bounds: Bounds) {
    let slots = Arc::new(Semaphore::new(bounds.connections));
    while let Ok(slot) = Arc::clone(&slots).acquire_owned().await {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let connection = converse(stream, Arc::clone(&host));
        tokio::spawn(async move {
            // A connection that fails is the browser's affair.
            drop(tokio::time::timeout(bounds.lasting, connection).await);
            drop(slot);
        });
    }
}

/// Answers one request.
async fn converse(stream: TcpStream, host: Arc<str>) -> hyper::Result<()> {
    let service = service_fn(|request| ready(Ok::<_, Infallible>(site::respond(&request, &host))));
    let mut http = http1::Builder::new();
    http.keep_alive(false).max_buf_size(HEAD_BYTES_MAX);
    http.serve_connection(TokioIo::new(stream), service).await
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn served(connections: usize, lasting: Duration) -> SocketAddr {
        let (listener, address) = listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        tokio::spawn(serve(listener, address.to_string().into(), Bounds { connections, lasting }));
        address
    }

    #[tokio::test]
    async fn silent_connections_are_cut() {
        let address = served(1, Duration::from_millis(1)).await;
        for _ in 0..2 {
            let mut silent = TcpStream::connect(address).await.unwrap();
            // Gone, whether by an end or by a reset.
            assert_eq!(silent.read(&mut [0]).await.unwrap_or(0), 0);
        }
    }

    /// The second connection waits until the first one is gone.
    #[tokio::test]
    async fn connections_are_few() {
        let address = served(1, Duration::from_secs(3600)).await;
        let silent = TcpStream::connect(address).await.unwrap();
        let mut asking = TcpStream::connect(address).await.unwrap();
        asking.write_all(format!("GET / HTTP/1.1\r\nhost: {address}\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        {
            let early = asking.read_to_string(&mut answer);
            assert!(tokio::time::timeout(Duration::from_millis(1), early).await.is_err());
        }
        drop(silent);
        asking.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("</html>\n"), "{answer}");
    }

    #[test]
    fn pages_reach_relays_of_this_machine_and_those_with_tls() {
        for url in ["http://127.0.0.1:7000", "http://LOCALHOST", "https://relay.example.org:7000/a"] {
            assert!(is_reachable(url), "{url}");
        }
        for url in ["http://192.0.2.1:7000", "http://[::1]:7000", "http://127.0.0.1@example.org", "127.0.0.1"]
        {
            assert!(!is_reachable(url), "{url}");
        }
    }

    #[test]
    fn an_address_is_one_value_of_a_query() {
        assert_eq!(encoded("https://a.example:1/b%20c&d"), "https://a.example:1/b%2520c%26d");
    }
}
