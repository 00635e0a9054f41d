//! The command line of `relay-load`.
//!
//! Items are identified by numbers. A later run with the same seed, number of recipients and first
//! item can ack what one run has pushed.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::{Args, Parser, Subcommand, ValueEnum};
use relay_auth::LIFE_SECONDS_MAX;
use serde_json::Value;

use crate::client::Client;

use super::{
    Ack, Cycle, Groups, ItemIds, Mixed, Pace, Plan, Pull, Push, Recipients, Report, Stop, Workload, run,
    unix_seconds, walk,
};

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
        #[command(flatten)]
        pushes: Pushes,
    },
    /// Push each item, then pull its queue, then ack it
    Cycle {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        items: Items,
        #[command(flatten)]
        pushes: Pushes,
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
        #[command(flatten)]
        pushes: Pushes,
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
    #[command(flatten)]
    names: Names,
}

#[derive(Debug, Args)]
struct Pushes {
    /// Bytes of payload in each item
    #[arg(long, default_value_t = 1024)]
    payload: usize,
    /// Pushes carry a proof of their sender, who is a recipient too; without this, they carry none
    #[arg(long)]
    sender_proofs: bool,
}

#[derive(Debug, Args)]
struct Names {
    /// How recipients are named. Pulls and acks of those with a lock carry its proof
    #[arg(long, value_enum, default_value_t = NameKind::Plain)]
    names: NameKind,
    /// What the tokens for ed25519 names are for: one of auth.audiences of the relay
    #[arg(long, required_if_eq("names", "ed25519"))]
    audience: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum NameKind {
    /// 64 hexadecimal digits
    Plain,
    /// Locked with a secret
    Sha256,
    /// Locked with a key. A token for each is signed before the start, and valid for ten minutes.
    /// The relay remembers 16,000 verified tokens, and verifies more of them each time
    Ed25519,
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
            Self::Push { common, items, pushes } => {
                let push = Push::new(common.ids(items), pushes.payload, items.first..u64::MAX);
                if pushes.sender_proofs { common.run(push.with_sender_proofs()) } else { common.run(push) }
            }
            Self::Cycle { common, items, pushes } => {
                let cycle = Cycle::new(common.ids(items), pushes.payload, items.first..u64::MAX);
                if pushes.sender_proofs { common.run(cycle.with_sender_proofs()) } else { common.run(cycle) }
            }
            Self::Pull { common, queues, pages } => {
                let recipients = common.names.recipients(*queues);
                let mut client = Client::connect(&common.url)?;
                let mut prepared = Vec::new();
                for recipient in 0..*queues {
                    prepared.extend(walk(&mut client, &recipients, recipient, *pages, |_| ())?);
                }
                common.run(Pull::new(prepared))
            }
            Self::Ack { common, items, count, batch } => {
                let ids = common.ids(items);
                let groups = Groups::new(&ids, items.range(*count), *batch);
                common.run(Ack::new(ids, groups))
            }
            Self::Mixed { common, items, pushes, lag, batch } => {
                let range = items.first..u64::MAX;
                let mixed = Mixed::new(common.ids(items), pushes.payload, range, *lag, *batch);
                if pushes.sender_proofs { common.run(mixed.with_sender_proofs()) } else { common.run(mixed) }
            }
        };
        Ok(report?.to_json())
    }
}

impl Common {
    fn ids(&self, items: &Items) -> ItemIds {
        ItemIds::of(items.seed, self.names.recipients(items.recipients))
    }

    fn run(&self, mut workload: impl Workload) -> anyhow::Result<Report> {
        Ok(run(&mut workload, &self.plan()?)?)
    }

    fn plan(&self) -> anyhow::Result<Plan> {
        let is_too_long = self.seconds > LIFE_SECONDS_MAX as f64;
        ensure!(
            !is_too_long || self.names.names != NameKind::Ed25519,
            "--seconds: with ed25519 names, a run may take {LIFE_SECONDS_MAX} s, because tokens are valid for that long"
        );
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

impl Names {
    fn recipients(&self, count: u64) -> Recipients {
        match self.names {
            NameKind::Plain => Recipients::computed(count),
            NameKind::Sha256 => Recipients::with_secrets(count),
            NameKind::Ed25519 => {
                Recipients::with_keys(count, self.audience.as_deref().unwrap_or_default(), unix_seconds())
            }
        }
    }
}

impl Items {
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

    fn plan(arguments: &[&str]) -> anyhow::Result<Plan> {
        let cli = Cli::try_parse_from([&["relay-load", "push", "--url", "127.0.0.1:1"], arguments].concat())?;
        let Command::Push { common, .. } = cli.workload else { panic!("another command") };
        common.plan()
    }

    #[test]
    fn tokens_need_an_audience_and_last_ten_minutes() {
        let with_keys = ["--names", "ed25519", "--audience", "https://relay.example.org"];
        assert!(plan(&with_keys[..2]).is_err(), "without an audience");
        assert!(plan(&[&with_keys[..], &["--seconds", "600"]].concat()).is_ok());
        assert!(plan(&[&with_keys[..], &["--seconds", "601"]].concat()).is_err());
        assert!(plan(&["--names", "sha256", "--seconds", "601"]).is_ok());
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
