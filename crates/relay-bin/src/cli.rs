//! The syntax of the command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

pub use crate::check_token::CheckTokenArgs;
#[cfg(feature = "redb")]
pub use crate::commands::{BackupArgs, StoreCommand};
use crate::config::{Overrides, Sources};
pub use crate::health::HealthArgs;
pub use crate::keygen::{KeyKind, KeygenArgs};
pub use crate::logging::LogFormat;

const AFTER_HELP: &str = "\
Settings come from the built-in defaults, the configuration file, environment variables such as
RELAY__RELAY__MAX_MESSAGE_BYTES, and the options above; later ones override earlier ones. To see the result:

  relay-bin check-config --config relay.toml

Exit codes:
  0   the relay stopped as requested, or the command succeeded
  1   the relay could not start (the port is in use, the store is locked or unreadable), or a command failed
      or found problems
  2   the command line is invalid
  69  no relay answers, and the command needs a running one
  70  a storage thread crashed; acknowledged data is safe; restart the relay
  78  the configuration has mistakes; all of them are listed";

/// Keeps encrypted messages until their recipients fetch them.
///
/// Without a command, the relay starts. Without options, it listens on 127.0.0.1:7000 and stores
/// its messages in ./relay_db.
#[derive(Clone, Debug, PartialEq, Eq, Parser)]
#[command(name = "relay-bin", version, after_help = AFTER_HELP)]
pub struct Cli {
    /// The command; `None` means [`Command::Serve`].
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Options, before or after the command.
    #[command(flatten)]
    pub options: Options,
}

/// The commands of the program.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Start the relay (the default)
    Serve,
    /// Check the configuration and print the resulting settings
    CheckConfig,
    /// Ask the relay of this configuration whether it works; exit code 0 if it does, else 1
    Health(HealthArgs),
    /// Print a new recipient with a lock, and the secret or key that opens it
    Keygen(KeygenArgs),
    /// Say whether the secret or token on standard input opens a recipient, and why not
    CheckToken(CheckTokenArgs),
    /// Create the tables of a PostgreSQL store, or bring those of an older program up to date
    #[cfg(feature = "postgres")]
    Migrate {
        /// Give each database the slots of the configuration, and remove the queues of other slots
        /// from it, if the database that is to have them has a copy
        #[arg(long)]
        set_slots: bool,
    },
    /// Print the completions of the command line for a shell
    #[command(after_help = "Example:\n  relay-bin completions bash > /etc/bash_completion.d/relay-bin")]
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the manual page
    #[command(after_help = "Example:\n  relay-bin man > /usr/local/share/man/man1/relay-bin.1")]
    Man,
    /// Commands on a store.
    #[cfg(feature = "redb")]
    #[command(flatten)]
    Store(StoreCommand),
}

/// Options of every command.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct Options {
    /// Configuration file (TOML); without it, the defaults apply
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Address to listen on, such as 0.0.0.0:7000 (overrides the key `address`)
    #[arg(long, global = true, value_name = "HOST:PORT")]
    pub address: Option<String>,
    /// Directory of the message store (overrides the key `storage.path`)
    #[arg(long, global = true, value_name = "DIR")]
    pub storage_path: Option<PathBuf>,
    /// Format of the log: auto is text on a terminal and JSON elsewhere
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    pub log_format: LogFormat,
}

impl Cli {
    /// The given command, or the default.
    #[must_use]
    pub fn command_or_serve(&self) -> Command {
        self.command.clone().unwrap_or(Command::Serve)
    }
}

impl Options {
    /// The sources of the configuration, with the environment of the process.
    #[must_use]
    pub fn into_sources(self, env: Vec<(String, String)>) -> Sources {
        let overrides = Overrides { address: self.address, storage_path: self.storage_path };
        Sources { file: self.config, env, overrides }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use clap::CommandFactory;
    use clap::error::ErrorKind;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn options_are_accepted_before_and_after_the_command() {
        let options = Options {
            config: Some("x.toml".into()),
            address: Some("[::1]:1".to_owned()),
            storage_path: Some("db".into()),
            log_format: LogFormat::Json,
        };
        let words = "--config x.toml --address [::1]:1 --storage-path db --log-format json";
        for (line, command) in [
            (format!("relay-bin {words}"), Command::Serve),
            (format!("relay-bin serve {words}"), Command::Serve),
            (format!("relay-bin {words} serve"), Command::Serve),
            (format!("relay-bin check-config {words}"), Command::CheckConfig),
            (format!("relay-bin {words} check-config"), Command::CheckConfig),
        ] {
            let cli = parse(&line).unwrap();
            assert_eq!((cli.command_or_serve(), cli.options), (command, options.clone()), "{line}");
        }
        let bare = parse("relay-bin").unwrap();
        assert_eq!((bare.command_or_serve(), bare.options), (Command::Serve, Options::default()));
    }

    #[cfg(feature = "redb")]
    #[test]
    fn commands_on_a_store_take_their_arguments() {
        let parsed = |line: &str| parse(&format!("relay-bin {line} --storage-path db")).unwrap().command;
        let (dir, file) = (PathBuf::from("d"), PathBuf::from("f"));
        let backup = BackupArgs { dir: dir.clone(), base: None, with_key: false, verify: false };
        for (line, command) in [
            ("verify", StoreCommand::Verify { json: false }),
            ("status --json", StoreCommand::Status { json: true }),
            ("drain", StoreCommand::Drain),
            ("log-level", StoreCommand::LogLevel { filter: None }),
            ("log-level debug", StoreCommand::LogLevel { filter: Some("debug".to_owned()) }),
            ("stats", StoreCommand::Stats { json: false }),
            ("stats --json", StoreCommand::Stats { json: true }),
            ("backup d", StoreCommand::Backup(backup.clone())),
            ("backup d --with-key", StoreCommand::Backup(BackupArgs { with_key: true, ..backup.clone() })),
            ("backup --verify d", StoreCommand::Backup(BackupArgs { verify: true, ..backup.clone() })),
            ("backup d --base f", StoreCommand::Backup(BackupArgs { base: Some(file.clone()), ..backup })),
            ("restore d", StoreCommand::Restore { dir }),
            ("export f", StoreCommand::Export { file: file.clone() }),
            ("import f", StoreCommand::Import { file, key: None }),
            ("compact", StoreCommand::Compact { hash_recipients: false }),
            ("compact --hash-recipients", StoreCommand::Compact { hash_recipients: true }),
        ] {
            assert_eq!(parsed(line), Some(Command::Store(command)), "{line}");
        }
        for line in
            ["backup", "backup d --verify --base f", "restore", "export", "import", "verify x", "compact x"]
        {
            assert_eq!(parse(&format!("relay-bin {line}")).unwrap_err().exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn health_may_ask_for_readiness() {
        for (line, ready) in [("relay-bin health", false), ("relay-bin health --ready", true)] {
            assert_eq!(parse(line).unwrap().command, Some(Command::Health(HealthArgs { ready })), "{line}");
        }
    }

    #[cfg(feature = "postgres")]
    #[test]
    fn slots_are_set_only_if_that_is_asked_for() {
        for (line, set_slots) in [("relay-bin migrate", false), ("relay-bin migrate --set-slots", true)] {
            assert_eq!(parse(line).unwrap().command, Some(Command::Migrate { set_slots }), "{line}");
        }
    }

    #[test]
    fn an_invalid_command_line_exits_with_2() {
        for line in
            ["relay-bin --port 1", "relay-bin run", "relay-bin --config", "relay-bin --log-format xml"]
        {
            let error = parse(line).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line}: {error}");
        }
    }

    #[test]
    fn help_lists_the_exit_codes() {
        Cli::command().debug_assert();
        for line in ["relay-bin --help", "relay-bin -h"] {
            let error = parse(line).unwrap_err();
            assert_eq!((error.kind(), error.exit_code()), (ErrorKind::DisplayHelp, 0));
            for code in ["70  a storage thread crashed", "78  the configuration has mistakes"] {
                assert!(error.to_string().contains(code), "{error}");
            }
        }
        let version = parse("relay-bin --version").unwrap_err();
        assert_eq!((version.kind(), version.exit_code()), (ErrorKind::DisplayVersion, 0));
        assert_eq!(version.to_string(), concat!("relay-bin ", env!("CARGO_PKG_VERSION"), "\n"));
    }
}
