//! A proxy between a client and the relay that refuses, rewrites, slows down or cuts exchanges.

use std::borrow::Cow;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// What becomes of a request.
pub(super) enum Fate {
    /// It is passed on as it is.
    Pass,
    /// It is passed on with this body.
    Rewrite(Vec<u8>),
    /// It is answered without the relay.
    Answer(Cow<'static, str>),
    /// It is passed on, and its answer is cut after so many bytes. Longer than the answer: it is
    /// sent whole, and then cut.
    Cut(usize),
    /// It is passed on, and its answer comes in pieces of so many bytes, one each 10 ms.
    Slow(usize),
}

/// A request as the proxy sees it.
pub(super) struct Request {
    /// Such as `POST /push`.
    pub(super) target: String,
    head: String,
    pub(super) body: Vec<u8>,
}

/// A running proxy, which ends when it is dropped.
pub(super) struct Proxy {
    pub(super) url: String,
    address: SocketAddr,
    is_over: Arc<AtomicBool>,
}

type Plan = Arc<dyn Fn(&Request) -> Fate + Send + Sync>;

/// The pause after each piece of a slow exchange.
const PIECE_PAUSE: Duration = Duration::from_millis(10);

impl Proxy {
    pub(super) fn start(relay_url: &str, plan: impl Fn(&Request) -> Fate + Send + Sync + 'static) -> Self {
        Self::build(relay_url, usize::MAX, plan)
    }

    /// One that takes the bodies of requests in pieces of so many bytes, one each 10 ms.
    pub(super) fn slow_upload(
        relay_url: &str,
        bytes: usize,
        plan: impl Fn(&Request) -> Fate + Send + Sync + 'static,
    ) -> Self {
        Self::build(relay_url, bytes, plan)
    }

    fn build(
        relay_url: &str,
        piece_bytes: usize,
        plan: impl Fn(&Request) -> Fate + Send + Sync + 'static,
    ) -> Self {
        let relay: SocketAddr = relay_url.trim_start_matches("http://").parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, plan): (_, Plan) = (listener.local_addr().unwrap(), Arc::new(plan));
        let is_over = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&is_over);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if ends.load(Ordering::SeqCst) {
                    return;
                }
                let plan = Arc::clone(&plan);
                // An exchange that fails is one that the client sees fail.
                thread::spawn(move || drop(serve(client, relay, piece_bytes, &plan)));
            }
        });
        Self { url: format!("http://{address}"), address, is_over }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
    }
}

/// One request over each connection to the relay, any number over the client's.
fn serve(mut client: TcpStream, relay: SocketAddr, piece_bytes: usize, plan: &Plan) -> io::Result<()> {
    while let Some(mut request) = read_request(&mut client, piece_bytes)? {
        let fate = plan(&request);
        if let Fate::Answer(answer) = fate {
            client.write_all(answer.as_bytes())?;
            continue;
        }
        if let Fate::Rewrite(body) = &fate {
            request.body.clone_from(body);
        }
        let mut upstream = TcpStream::connect(relay)?;
        upstream.write_all(&request.bytes())?;
        if request.target == "POST /stream" {
            return pump(upstream, client);
        }
        let mut answer = Vec::new();
        upstream.read_to_end(&mut answer)?;
        match fate {
            Fate::Cut(at) => return client.write_all(answer.get(..at).unwrap_or(&answer)),
            Fate::Slow(bytes) => {
                for piece in answer.chunks(bytes) {
                    client.write_all(piece)?;
                    thread::sleep(PIECE_PAUSE);
                }
                return Ok(());
            }
            _ => client.write_all(&answer)?,
        }
        // The relay was asked to close, and its answer says so.
        return Ok(());
    }
    Ok(())
}

/// Passes a stream on until one side ends it.
fn pump(mut upstream: TcpStream, mut client: TcpStream) -> io::Result<()> {
    let (mut from_client, to_relay) = (client.try_clone()?, upstream.try_clone()?);
    thread::spawn(move || {
        drop(io::copy(&mut from_client, &mut io::sink()));
        drop(to_relay.shutdown(std::net::Shutdown::Both));
    });
    io::copy(&mut upstream, &mut client)?;
    client.shutdown(std::net::Shutdown::Both)
}

fn read_request(client: &mut TcpStream, piece_bytes: usize) -> io::Result<Option<Request>> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        if client.read(&mut byte)? == 0 {
            return Ok(None);
        }
        head.extend(byte);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let length = field(&head, "content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    if field(&head, "expect").is_some() {
        client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let mut body = vec![0; length];
    for piece in body.chunks_mut(piece_bytes) {
        client.read_exact(piece)?;
        if piece.len() == piece_bytes {
            thread::sleep(PIECE_PAUSE);
        }
    }
    let target = head.split(' ').take(2).collect::<Vec<_>>().join(" ");
    Ok(Some(Request { target, head, body }))
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut fields = head.lines().filter_map(|line| line.split_once(':'));
    fields.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

impl Request {
    /// The request as the relay gets it, which closes the connection behind it.
    fn bytes(&self) -> Vec<u8> {
        let dropped = ["content-length", "connection", "expect"];
        let kept = self.head.lines().filter(|line| {
            let name = line.split(':').next().unwrap_or_default();
            !line.is_empty() && !dropped.iter().any(|dropped| name.eq_ignore_ascii_case(dropped))
        });
        let mut bytes: Vec<u8> = kept.flat_map(|line| format!("{line}\r\n").into_bytes()).collect();
        let length = self.body.len();
        bytes.extend(format!("content-length: {length}\r\nconnection: close\r\n\r\n").bytes());
        bytes.extend(&self.body);
        bytes
    }
}
