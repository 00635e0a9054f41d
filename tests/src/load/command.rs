//! The command line of `relay-load`.
//!
//! Items are identified by numbers. A later run with the same seed, number of recipients and first
//! item can ack what one run has pushed.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use serde_json::Value;

use crate::client::Client;

use super::{Ack, Groups, ItemIds, Mixed, Pace, Plan, Pull, Push, Stop, run, walk};

/// Put load on a relay and print the results as one line of JSON.
///
/// Without --rate, each connection sends its next request when it has its response, and latencies
/// hide stalls. With --rate, requests are due at fixed instants, and latencies count from there.
#[derive(Debug, Parser)]
#[command(name = "relay-load")]
struct Cli {
    #[command(subcommand)]
    workload: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Push new items to random recipients
    Push {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        items: Items,
        /// Bytes of payload in each item
        #[arg(long, default_value_t = 1024)]
        payload: usize,
    },
    /// Pull full pages, from the start of queues or by their cursors
    Pull {
        #[command(flatten)]
        common: Common,
        /// Number of queues to pull in turn, from recipient 0 on
        #[arg(long, default_value_t = 1)]
        queues: u64,
        /// Number of pages to pull from each queue, by its cursors
        #[arg(long, default_value_t = 1)]
        pages: usize,
    },
    /// Ack items that were pushed before
    Ack {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        items: Items,
        /// Number of items that were pushed
        #[arg(long)]
        count: u64,
        /// Most items in one ack
        #[arg(long, default_value_t = 100)]
        batch: usize,
    },
    /// Push items, and ack each when some more were pushed
    Mixed {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        items: Items,
        /// Bytes of payload in each item
        #[arg(long, default_value_t = 1024)]
        payload: usize,
        /// How many pushes an ack is late
        #[arg(long, default_value_t = 20_000)]
        lag: u64,
        /// Most items in one ack
        #[arg(long, default_value_t = 100)]
        batch: usize,
    },
}

#[derive(Debug, Args)]
struct Common {
    /// The relay, such as http://127.0.0.1:7000; an address, not a name, and no TLS
    #[arg(long)]
    url: String,
    /// Connections that are kept open
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=512))]
    connections: u16,
    /// Stop after this many seconds
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Stop after this many requests
    #[arg(long)]
    requests: Option<u64>,
    /// Requests a second over all connections; without it, as many as there can be
    #[arg(long)]
    rate: Option<f64>,
}

#[derive(Debug, Args)]
struct Items {
    /// How many recipients there are
    #[arg(long, default_value_t = 100_000)]
    recipients: u64,
    /// Another seed gives other messages to the same recipients
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The number of the first item
    #[arg(long, default_value_t = 0)]
    first: u64,
}

/// The program: reads the command line, runs the workload, prints the outcome.
pub fn main() -> ExitCode {
    match Cli::parse().workload.run() {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The address in a base URL.
///
/// # Errors
/// When it is not `http://` and an IP address with a port.
pub fn address(url: &str) -> anyhow::Result<SocketAddr> {
    let address = url.strip_prefix("http://").unwrap_or(url).trim_end_matches('/');
    address.parse().with_context(|| format!("{url} is no http:// and an IP address with a port"))
}

impl Command {
    fn run(&self) -> anyhow::Result<Value> {
        let report = match self {
            Self::Push { common, items, payload } => {
                run(&mut Push::new(items.ids(), *payload, items.first..u64::MAX), &common.plan()?)
            }
            Self::Pull { common, queues, pages } => {
                let mut client = Client::connect(&common.url)?;
                let mut prepared = Vec::new();
                for recipient in 0..*queues {
                    prepared.extend(walk(&mut client, recipient, *pages, |_| ())?);
                }
                run(&mut Pull::new(prepared), &common.plan()?)
            }
            Self::Ack { common, items, count, batch } => {
                let groups = Groups::new(&items.ids(), items.range(*count), *batch);
                run(&mut Ack::new(items.ids(), groups), &common.plan()?)
            }
            Self::Mixed { common, items, payload, lag, batch } => {
                let mut mixed = Mixed::new(items.ids(), *payload, items.first..u64::MAX, *lag, *batch);
                run(&mut mixed, &common.plan()?)
            }
        };
        Ok(report?.to_json())
    }
}

impl Common {
    fn plan(&self) -> anyhow::Result<Plan> {
        Ok(Plan {
            address: address(&self.url)?,
            connections: self.connections.into(),
            pace: self.rate.map_or(Pace::Closed, Pace::PerSecond),
            stop: Stop {
                requests: self.requests,
                time: Some(Duration::try_from_secs_f64(self.seconds).context("--seconds")?),
                flag: None,
            },
        })
    }
}

impl Items {
    fn ids(&self) -> ItemIds {
        ItemIds::new(self.seed, self.recipients)
    }

    const fn range(&self, count: u64) -> std::ops::Range<u64> {
        self.first..self.first.saturating_add(count)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_url_is_an_address() {
        for url in ["http://127.0.0.1:7000", "http://127.0.0.1:7000/", "127.0.0.1:7000"] {
            assert_eq!(address(url).unwrap(), SocketAddr::from(([127, 0, 0, 1], 7000)));
        }
        for url in ["https://127.0.0.1:7000", "http://relay", ""] {
            address(url).unwrap_err();
        }
    }
}
