//! A tiny HTTP server of test pages and of the demonstration. All host names that lead to it serve
//! the same, so one server has several origins.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How long a browser may take for a request.
const TIMEOUT: Duration = Duration::from_secs(10);

const LINE_BYTES_MAX: u64 = 16 * 1024;

const PAGE: &str = "<!doctype html><meta charset=utf-8><title>page</title><script src=/page.js></script>";

pub(super) const SCRIPT: &str = include_str!("page.js");

/// The files of the demonstration, each with its path and type.
const DEMO: &[(&str, &str, &str)] = &[
    ("/demo/", "text/html", include_str!("../../../../deploy/demo/index.html")),
    ("/demo/style.css", "text/css", include_str!("../../../../deploy/demo/style.css")),
    ("/demo/demo.js", "text/javascript", include_str!("../../../../deploy/demo/demo.js")),
    ("/demo/seal.js", "text/javascript", include_str!("../../../../deploy/demo/seal.js")),
    ("/demo/relay.js", "text/javascript", include_str!("../../../../deploy/demo/relay.js")),
];

/// A running server. Dropping it ends it.
pub(super) struct Pages {
    address: SocketAddr,
    is_over: Arc<AtomicBool>,
    serving: Option<JoinHandle<()>>,
}

impl Pages {
    pub(super) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, is_over) = (listener.local_addr().unwrap(), Arc::new(AtomicBool::new(false)));
        let ended = Arc::clone(&is_over);
        let serving = thread::spawn(move || {
            for stream in listener.incoming() {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                // A browser opens connections that it does not use, so each has its thread. An
                // error ends a connection, and nothing else.
                thread::spawn(move || drop(stream.and_then(serve)));
            }
        });
        Self { address, is_over, serving: Some(serving) }
    }

    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The origin of the pages under this host name.
    pub(super) fn origin(&self, host: &str) -> String {
        format!("http://{host}:{}", self.address.port())
    }
}

/// The type and text behind this target. Every unknown path leads to the page.
fn file(target: &str) -> (&'static str, &'static str) {
    let path = target.split('?').next().unwrap_or_default();
    if path == "/page.js" {
        return ("text/javascript", SCRIPT);
    }
    let of_demo = DEMO.iter().find(|(own, ..)| *own == path);
    of_demo.map_or(("text/html", PAGE), |(_, kind, text)| (kind, text))
}

/// Answers one request: a file, or a redirection to the address after `?`.
fn serve(stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(TIMEOUT))?;
    let mut reader = BufReader::new(&stream);
    let (mut target, mut body_bytes) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.by_ref().take(LINE_BYTES_MAX).read_line(&mut line)? == 0 {
            return Ok(());
        }
        match line.trim_end().split_once(' ') {
            None => break,
            Some((name, length)) if name.eq_ignore_ascii_case("content-length:") => {
                body_bytes = length.parse().unwrap_or(0);
            }
            Some((_, rest)) if target.is_empty() => {
                target = rest.split(' ').next().unwrap_or_default().to_owned();
            }
            Some(_) => {}
        }
    }
    io::copy(&mut reader.take(body_bytes), &mut io::sink())?;
    let (kind, body) = file(&target);
    let length = body.len();
    let head = match target.strip_prefix("/redirect?") {
        // Other methods than 307 would turn a POST into a GET.
        Some(to) => format!("307 Temporary Redirect\r\nlocation: {to}\r\ncontent-length: 0"),
        None => format!("200 OK\r\ncontent-type: {kind}\r\ncontent-length: {length}"),
    };
    let body = if head.starts_with("200") { body } else { "" };
    (&stream).write_all(format!("HTTP/1.1 {head}\r\nconnection: close\r\n\r\n{body}").as_bytes())
}

impl Drop for Pages {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        // So that the thread looks at it.
        drop(TcpStream::connect(self.address));
        drop(self.serving.take().map(JoinHandle::join));
    }
}
