//! The syntax of the command line.

use std::net::SocketAddr;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use relay_client::Uuid;

const AFTER_HELP: &str = "\
The address of the relay is --url, or RELAY_URL, or http://127.0.0.1:7000.

Proofs come from a file that only its owner may read (--credentials), as `relay-cli keygen` writes it, or from
the environment:
  RELAY_RECIPIENT               the recipient, for commands that are not told one
  RELAY_SECRET                  the secret of a sha256: recipient
  RELAY_KEY, RELAY_AUDIENCE     the key of an ed25519: recipient, and the relay's own name
  RELAY_TOKEN                   a token of the relay's issuer
  RELAY_SEND_SECRET             the secret of the send lock, for push

Exit codes:
  0   done
  1   failed for another reason
  2   the command line, the credentials or the environment is invalid
  3   the relay refused: the proof is missing or wrong, or the request is invalid
  4   the queue is full, or the message is too large
  5   the relay cannot be reached, is too slow, or has a fault; the same command may work later";

/// Pushes messages to a relay, and fetches them.
#[derive(Debug, Parser)]
#[command(name = "relay-cli", version, after_help = AFTER_HELP)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) options: Options,
}

/// Options of every command.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Address of the relay, which begins with http:// or https://
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) url: Option<String>,
    /// File with the recipient and what opens it, which nobody else may read
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) credentials: Option<PathBuf>,
    /// File with the authorities that may sign the relay's certificate (PEM); default: the system's
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// File with a client certificate (PEM)
    #[arg(long, global = true, value_name = "FILE", requires = "cert_key")]
    pub(crate) cert: Option<PathBuf>,
    /// File with the key of the client certificate (PEM), which nobody else may read
    #[arg(long, global = true, value_name = "FILE", requires = "cert")]
    pub(crate) cert_key: Option<PathBuf>,
    /// How long a request is retried, in seconds
    #[arg(long, global = true, value_name = "SECONDS", default_value = "60")]
    pub(crate) timeout: NonZeroU64,
    /// Print one JSON object in a line, for scripts; errors too, on standard error
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a new recipient, and the secret or key that opens it
    #[command(after_help = "Example:\n  relay-cli keygen --out alice.keys")]
    Keygen(KeygenArgs),
    /// Send a file, or standard input, as one message
    #[command(after_help = "Example:\n  echo hello | relay-cli push --to alice -")]
    Push(PushArgs),
    /// List the items of a queue; removes nothing
    #[command(after_help = "Example:\n  relay-cli pull --credentials alice.keys --all")]
    Pull(PullArgs),
    /// Print messages as they arrive
    #[command(after_help = "Example:\n  relay-cli watch --credentials alice.keys --ack --out inbox")]
    Watch(WatchArgs),
    /// Remove messages from a queue
    #[command(
        after_help = "Example:\n  relay-cli ack --credentials alice.keys 6f2c2f0e-8c6b-4c29-9b1f-0a6a7c9b1d11:0-3"
    )]
    Ack(AckArgs),
    /// Remove everything from a queue
    #[command(after_help = "Example:\n  relay-cli purge --credentials alice.keys --yes")]
    Purge(PurgeArgs),
    /// Say what the relay can do
    #[command(after_help = "Example:\n  relay-cli info --url https://relay.example.org")]
    Info,
    /// Serve a page in which two browser windows write to each other through the relay
    #[command(after_help = "Example:\n  relay-cli demo --url http://127.0.0.1:7000")]
    Demo(DemoArgs),
    /// Measure how long pushes and deliveries take
    #[command(after_help = "Example:\n  relay-cli bench --count 1000 --bytes 4096")]
    Bench(BenchArgs),
    /// Print completions for a shell
    #[command(
        after_help = "Example:\n  relay-cli completions bash > ~/.local/share/bash-completion/completions/relay-cli"
    )]
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the manual page
    #[command(after_help = "Example:\n  relay-cli man > relay-cli.1 && man ./relay-cli.1")]
    Man,
}

#[derive(Debug, Args)]
pub(crate) struct KeygenArgs {
    /// What opens the recipient: a secret that is sent along, or a key that signs tokens
    #[arg(long, value_enum, default_value_t)]
    pub(crate) kind: KeyKind,
    /// The relay's own name, for which a key signs its tokens
    #[arg(long, value_name = "NAME", required_if_eq("kind", "key"))]
    pub(crate) audience: Option<String>,
    /// Also lock sending, with a secret of its own
    #[arg(long)]
    pub(crate) send_lock: bool,
    /// Write to this new file, which only its owner may read, and print the recipient alone
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum KeyKind {
    /// A secret, in each request: `sha256:`
    #[default]
    Secret,
    /// An Ed25519 key that signs tokens: `ed25519:`
    Key,
}

#[derive(Debug, Args)]
pub(crate) struct PushArgs {
    /// Who gets the message
    #[arg(long, value_name = "RECIPIENT")]
    pub(crate) to: String,
    /// Kind of the message
    #[arg(long, default_value = "opaque")]
    pub(crate) kind: String,
    /// How long the relay keeps it; default: as long as it keeps any
    #[arg(long, value_name = "SECONDS")]
    pub(crate) ttl: Option<NonZeroU64>,
    /// Id of the message; a push that is repeated with the same id is stored once
    #[arg(long, value_name = "UUID")]
    pub(crate) id: Option<Uuid>,
    /// File to send; - is standard input, up to 64 MiB
    pub(crate) file: PathBuf,
}

/// Whose queue.
#[derive(Debug, Args)]
pub(crate) struct QueueArgs {
    /// Whose queue; default: the recipient of the credentials
    #[arg(long, value_name = "RECIPIENT")]
    pub(crate) recipient: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct PullArgs {
    #[command(flatten)]
    pub(crate) queue: QueueArgs,
    /// Begin after this cursor
    #[arg(long)]
    pub(crate) cursor: Option<String>,
    /// The most items; the relay has a limit of its own
    #[arg(long, conflicts_with = "all")]
    pub(crate) max: Option<NonZeroU64>,
    /// All pages, not the first alone
    #[arg(long)]
    pub(crate) all: bool,
}

#[derive(Debug, Args)]
pub(crate) struct WatchArgs {
    #[command(flatten)]
    pub(crate) queue: QueueArgs,
    /// Remove each message from the relay once it is printed or written
    #[arg(long)]
    pub(crate) ack: bool,
    /// Write each payload to a file of this directory, named by the message id, and print its
    /// path
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// End after this many messages
    #[arg(long, value_name = "MESSAGES")]
    pub(crate) count: Option<NonZeroU64>,
    /// Get messages by one response that goes on, not by pulls that wait
    #[arg(long)]
    pub(crate) stream: bool,
}

#[derive(Debug, Args)]
pub(crate) struct AckArgs {
    #[command(flatten)]
    pub(crate) queue: QueueArgs,
    /// Message ids; of several chunks, with the indexes: UUID:3 or UUID:0-9. Without, chunk 0
    #[arg(required = true, value_name = "UUID[:FIRST[-LAST]]")]
    pub(crate) messages: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct PurgeArgs {
    #[command(flatten)]
    pub(crate) queue: QueueArgs,
    /// Really: nothing that is removed comes back
    #[arg(long, required = true)]
    pub(crate) yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Loopback address and port of the page; its origin has this port
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7080")]
    pub(crate) listen: SocketAddr,
}

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// How many messages
    #[arg(long, default_value = "1000", value_name = "MESSAGES")]
    pub(crate) count: NonZeroU64,
    /// The size of each, in bytes; up to 16 MiB
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(0..=16_777_216))]
    pub(crate) bytes: u32,
    /// How many pushes at once
    #[arg(long, default_value = "4", value_name = "PUSHES")]
    pub(crate) parallel: NonZeroUsize,
    /// Get messages by one response that goes on, not by pulls that wait
    #[arg(long)]
    pub(crate) stream: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn every_command_has_an_example() {
        let command = Cli::command();
        command.clone().debug_assert();
        for command in command.get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.starts_with("Example:\n  ") && help.contains("relay-cli"), "{}", command.get_name());
        }
    }
}
