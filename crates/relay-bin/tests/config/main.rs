//! Tests the configuration from file, environment and options to values or messages. They start no
//! relay.

#![cfg(all(feature = "redb", feature = "tls"))]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod defaults;
mod files;
mod random;
mod refusals;
mod values;
mod warnings;

use clap::Parser;
use relay_bin::cli::Cli;
use relay_bin::config::{AdminConfig, Loaded, RelayConfig};

const CERTS: &str = "[tls]\ncert_pem_path = \"cert.pem\"\nkey_pem_path = \"key.pem\"\n";

/// An admin address, and nothing else.
fn admin_at(address: &str) -> AdminConfig {
    AdminConfig { address: address.to_owned(), allowed_hosts: Vec::new(), control_path: "".into() }
}

/// The operator's input, empty by default.
#[derive(Default)]
struct Given<'a> {
    file: &'a str,
    env: &'a [(&'a str, &'a str)],
    flags: &'a [&'a str],
}

impl Given<'_> {
    /// Loads as the program does. Returns an error as text, without the directory of the file.
    fn load(&self) -> Result<Loaded, String> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("relay.toml");
        std::fs::write(&file, self.file).unwrap();
        let words =
            ["relay-bin", "--config", file.to_str().unwrap()].into_iter().chain(self.flags.iter().copied());
        let cli = Cli::try_parse_from(words).unwrap();
        let env = self.env.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let prefix = format!("{}/", dir.path().display());
        RelayConfig::load(cli.options.into_sources(env))
            .map_err(|errors| errors.to_string().replace(&prefix, ""))
    }

    #[track_caller]
    fn refused(&self, lines: &[&str]) {
        let text = self.load().expect_err(self.file);
        assert_eq!(text.lines().collect::<Vec<_>>(), lines, "{}", self.file);
    }

    #[track_caller]
    fn warned(&self, lines: &[&str]) {
        assert_eq!(self.load().unwrap().warnings, lines, "{}", self.file);
    }
}

fn file(text: &str) -> Given<'_> {
    Given { file: text, ..Given::default() }
}

fn env<'a>(variables: &'a [(&'a str, &'a str)]) -> Given<'a> {
    Given { env: variables, ..Given::default() }
}

fn flags<'a>(words: &'a [&'a str]) -> Given<'a> {
    Given { flags: words, ..Given::default() }
}
