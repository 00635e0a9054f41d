//! The relay's HTTP server over a store that does nothing: what the same machine could do if
//! storing were free. For the benchmark alone; it keeps nothing and promises nothing.

use std::path::PathBuf;

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
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:0")]
    address: String,
    /// Bytes of payload in each item of a page
    #[arg(long, default_value_t = 1024)]
    payload: usize,
    /// Answer every request with the bytes of this file, without looking at what it asks
    #[arg(long)]
    body: Option<PathBuf>,
}

/// Answers at once. Every pull is answered with the same full page.
struct Floor {
    page: Page,
}

/// As relay-bin has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main(worker_threads = 1)]
async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    match cli.body {
        Some(path) => {
            let body = std::fs::read(&path).with_context(|| path.display().to_string())?;
            let listener = std::net::TcpListener::bind(&cli.address)?;
            listener.set_nonblocking(true)?;
            println!("listening on http://{}", listener.local_addr()?);
            relay_http::codec::serve_body(listener, body.into())?.await?;
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
        Ok(PushOutcome::Stored { usage: Usage::of(envelope.payload.len() as u64) })
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
