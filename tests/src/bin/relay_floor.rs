//! The relay's HTTP server over a store that does nothing. The benchmark compares the relay with it
//! to show the cost of storing.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Parser;
use relay_bin::config::RelayConfig;
use relay_core::{
    Ack, AckOutcome, Chunk, Envelope, Error, Item, Kind, MessageId, Page, Pull, PushOutcome, Relay, Seq,
    Swept, Timestamp, Usage,
};

/// The relay's HTTP server over a store that does nothing.
#[derive(Debug, Parser)]
#[command(name = "relay-floor")]
struct Cli {
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1:0")]
    address: String,
    /// Payload bytes of each item in a page
    #[arg(long, default_value_t = 1024)]
    payload: usize,
    /// Answer every request with the contents of this file, without decoding the request
    #[arg(long)]
    body: Option<PathBuf>,
}

/// A store that keeps nothing. Every pull returns the same full page.
struct Floor {
    page: Page,
}

/// The same allocator as in relay-bin.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main(worker_threads = 1)]
async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    match cli.body {
        Some(path) => {
            let body = std::fs::read(&path).with_context(|| path.display().to_string())?;
            let listener = TcpListener::bind(&cli.address)?;
            println!("listening on http://{}", listener.local_addr()?);
            serve_prepared(&listener, &body)?;
        }
        None => {
            let mut config = RelayConfig { address: cli.address, ..RelayConfig::default() };
            config.rate_limit.enabled = false;
            let page = page(config.relay.pull_batch_max, cli.payload)?;
            let running = relay_bin::start_with_store(Floor { page }, config).await?;
            println!("listening on {}", running.base_url);
            running.handle.await??;
        }
    }
    Ok(())
}

/// Answers every request with the same bytes, one thread per connection: the cost of a pull without
/// lookups, encoding and limits. It runs until the process is killed.
fn serve_prepared(listener: &TcpListener, body: &[u8]) -> io::Result<()> {
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let response: Arc<[u8]> = [head.as_bytes(), body].concat().into();
    for stream in listener.incoming() {
        let (stream, response) = (stream?, Arc::clone(&response));
        // A failing connection affects no other one; its client sees the error.
        std::thread::spawn(move || drop(respond(&stream, &response)));
    }
    Ok(())
}

fn respond(mut stream: &TcpStream, response: &[u8]) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut requests = BufReader::new(stream);
    while let Some(body_bytes) = read_head(&mut requests)? {
        io::copy(&mut requests.by_ref().take(body_bytes), &mut io::sink())?;
        stream.write_all(response)?;
    }
    Ok(())
}

/// The length of the body that follows. `None` when the client has hung up.
fn read_head(requests: &mut BufReader<&TcpStream>) -> io::Result<Option<u64>> {
    let (mut line, mut body_bytes) = (String::new(), 0);
    loop {
        line.clear();
        if requests.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        match line.trim_end().split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                body_bytes = value.trim().parse().map_err(io::Error::other)?;
            }
            Some(_) => {}
            None if line.trim_end().is_empty() => return Ok(Some(body_bytes)),
            // The request line.
            None => {}
        }
    }
}

fn page(items: u64, payload_bytes: usize) -> anyhow::Result<Page> {
    let item = |number: u64| {
        Ok(Item {
            seq: Seq::new(number),
            message_id: MessageId::from_bytes(u128::from(number).to_be_bytes()),
            chunk: Chunk::new(0, 1)?,
            kind: Kind::parse("opaque")?,
            total_len: payload_bytes as u64,
            sent_ms: number,
            arrival: Timestamp::from_ms(number),
            deadline: Timestamp::from_ms(number),
            payload_bytes: payload_bytes as u64,
            body: vec![0x5a; payload_bytes].into(),
        })
    };
    let items = (0..items).map(item).collect::<Result<_, Error>>()?;
    Ok(Page { items, next: None, remaining: 0 })
}

impl Relay for Floor {
    async fn push(&self, envelope: Envelope) -> Result<PushOutcome, Error> {
        let usage = Usage::of(envelope.payload.len() as u64);
        Ok(PushOutcome::Stored { usage, deadline: Timestamp::default() })
    }

    async fn pull(&self, _: Pull) -> Result<Page, Error> {
        Ok(self.page.clone())
    }

    async fn ack(&self, ack: Ack) -> Result<AckOutcome, Error> {
        Ok(AckOutcome { deleted: ack.items().len() as u64, ..AckOutcome::default() })
    }

    async fn sweep(&self) -> Result<Swept, Error> {
        Ok(Swept::default())
    }
}
