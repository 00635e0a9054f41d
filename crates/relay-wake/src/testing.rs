//! A gateway for tests, on loopback. A test says how it responds to each request, also in ways that
//! no good gateway does. It ends with its owner.

use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// How long a test waits for a request: far longer than any should take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A gateway, and the requests that it has got.
#[derive(Debug)]
pub struct TestGateway {
    address: SocketAddr,
    scheme: &'static str,
    received: Mutex<Receiver<Received>>,
    shared: Arc<Shared>,
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// The request line.
    pub line: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
}

/// How a gateway responds to a request.
#[derive(Clone, Debug)]
pub enum Reply {
    /// These bytes. The connection stays open.
    Bytes(Vec<u8>),
    /// These bytes, and then it closes the connection.
    Last(Vec<u8>),
    /// These bytes once, and then those for ever.
    Endless(Vec<u8>, Vec<u8>),
    /// Nothing, until the client gives up.
    Hang,
}

#[derive(Debug)]
struct Shared {
    connections: AtomicUsize,
    ended: AtomicUsize,
    requests: AtomicUsize,
    is_ended: AtomicBool,
}

type Respond = Arc<dyn Fn(usize) -> Reply + Send + Sync>;

/// Makes the stream of a connection, such as with TLS.
type Accept<S> = fn(&Secrets, TcpStream) -> io::Result<S>;

#[cfg(feature = "tls")]
type Secrets = Option<Arc<rustls::ServerConfig>>;
#[cfg(not(feature = "tls"))]
type Secrets = Option<()>;

impl TestGateway {
    /// Starts a gateway. `respond` gets the number of the request, from 0.
    ///
    /// # Errors
    /// If the system refuses a port or a thread.
    pub fn start(respond: impl Fn(usize) -> Reply + Send + Sync + 'static) -> io::Result<Self> {
        Self::start_with("http", None, |_, tcp| Ok(tcp), Arc::new(respond))
    }

    /// Like [`start`](Self::start), over TLS.
    ///
    /// # Errors
    /// As [`start`](Self::start), and if the key is not that of the certificate.
    #[cfg(feature = "tls")]
    pub fn start_tls(
        certificate: rustls::pki_types::CertificateDer<'static>,
        key: rustls::pki_types::PrivateKeyDer<'static>,
        respond: impl Fn(usize) -> Reply + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(vec![certificate], key))
            .map_err(io::Error::other)?;
        let accept: Accept<_> = |config, tcp| {
            let config = config.clone().ok_or(io::ErrorKind::InvalidInput)?;
            let tls = rustls::ServerConnection::new(config).map_err(io::Error::other)?;
            Ok(rustls::StreamOwned::new(tls, tcp))
        };
        Self::start_with("https", Some(Arc::new(config)), accept, Arc::new(respond))
    }

    fn start_with<S: Read + Write + 'static>(
        scheme: &'static str,
        secrets: Secrets,
        accept: Accept<S>,
        respond: Respond,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let (sender, received) = channel();
        let shared = Arc::new(Shared {
            connections: AtomicUsize::new(0),
            ended: AtomicUsize::new(0),
            requests: AtomicUsize::new(0),
            is_ended: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        thread::Builder::new().spawn(move || {
            for tcp in listener.incoming() {
                if accepting.is_ended.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(tcp) = tcp else { continue };
                accepting.connections.fetch_add(1, Ordering::SeqCst);
                let (shared, sender, respond) =
                    (Arc::clone(&accepting), sender.clone(), Arc::clone(&respond));
                let secrets = secrets.clone();
                // A client that goes away is no fault of the gateway.
                drop(thread::Builder::new().spawn(move || {
                    let served =
                        accept(&secrets, tcp).and_then(|stream| serve(stream, &shared, &sender, &*respond));
                    shared.ended.fetch_add(1, Ordering::SeqCst);
                    served
                }));
            }
        })?;
        Ok(Self { address, scheme, received: Mutex::new(received), shared })
    }

    /// Responds to each request with an empty 200.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn accepting() -> io::Result<Self> {
        Self::start(|_| Reply::status("200 OK", ""))
    }

    /// The URL of the gateway.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}://localhost:{}/wake", self.scheme, self.address.port())
    }

    /// Waits for the next request. `None` if none comes for a long time.
    #[must_use]
    pub fn next(&self) -> Option<Received> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner).recv_timeout(PATIENCE).ok()
    }

    /// How many requests have come.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::SeqCst)
    }

    /// How many connections have come.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// How many connections are open.
    #[must_use]
    pub fn open_connections(&self) -> usize {
        let ended = self.shared.ended.load(Ordering::SeqCst);
        self.connections().saturating_sub(ended)
    }
}

impl Drop for TestGateway {
    fn drop(&mut self) {
        self.shared.is_ended.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        drop(TcpStream::connect(self.address));
    }
}

impl Received {
    /// The first header with this name, in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }
}

impl Reply {
    /// An empty response with this status and these header lines, each with its line break.
    #[must_use]
    pub fn status(status: &str, headers: &str) -> Self {
        Self::Bytes(format!("HTTP/1.1 {status}\r\n{headers}content-length: 0\r\n\r\n").into_bytes())
    }
}

fn serve(
    stream: impl Read + Write,
    shared: &Shared,
    sender: &Sender<Received>,
    respond: &(dyn Fn(usize) -> Reply + Send + Sync),
) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    while let Some(received) = receive(&mut stream)? {
        let number = shared.requests.fetch_add(1, Ordering::SeqCst);
        // The test may be over.
        drop(sender.send(received));
        let out = stream.get_mut();
        match respond(number) {
            Reply::Bytes(bytes) => out.write_all(&bytes)?,
            Reply::Last(bytes) => return out.write_all(&bytes),
            Reply::Endless(begin, rest) => {
                out.write_all(&begin)?;
                loop {
                    out.write_all(&rest)?;
                }
            }
            Reply::Hang => return io::copy(&mut stream, &mut io::sink()).map(drop),
        }
        stream.get_mut().flush()?;
    }
    Ok(())
}

/// Reads a request; `None` at the end of the connection.
fn receive(stream: &mut BufReader<impl Read>) -> io::Result<Option<Received>> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut received =
        Received { line: line.trim_end().to_owned(), headers: Vec::new(), body: String::new() };
    loop {
        let mut header = String::new();
        stream.read_line(&mut header)?;
        let Some((name, value)) = header.split_once(':') else { break };
        received.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let length = received.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    stream.take(length).read_to_string(&mut received.body)?;
    Ok(Some(received))
}
