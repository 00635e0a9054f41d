//! Checks the keys of a store in PostgreSQL.

use super::{Build, Findings, check_optional_path};
use crate::config::{PostgresDurability, PostgresShard, PostgresTls, RelayConfig};

/// A message of the database's protocol, which holds a batch, has at most 1 GiB.
const MESSAGE_BYTES_MAX: u64 = 256 << 20;

const SHARDS: &str = "storage.postgres.shards";

pub(super) fn check(config: &RelayConfig, build: Build, findings: &mut Findings) {
    let postgres = &config.storage.postgres;
    if !build.postgres {
        findings.refuse(
            "storage.kind",
            "\"postgres\" is not built into this program; build it with the cargo feature \"postgres\"",
        );
    }
    match (postgres.dsn.is_empty(), postgres.shards.as_slice()) {
        (true, []) => findings.refuse(
            "storage.postgres.dsn",
            "must be a connection string, such as \"host=db user=relay dbname=relay\"; it is empty",
        ),
        (false, []) => {}
        (true, shards) => check_shards(shards, findings),
        (false, _) => findings.refuse(
            SHARDS,
            "must be empty when storage.postgres.dsn is set: a store has one database, or shards",
        ),
    }
    if config.privacy.key_path.as_os_str().is_empty() {
        findings.refuse(
            "privacy.key_path",
            "must be the path of the key file when storage.kind = \"postgres\", the same file for all relays of the \
             database; it is empty",
        );
    }
    if config.relay.max_message_bytes > MESSAGE_BYTES_MAX {
        findings.refuse(
            "relay.max_message_bytes",
            format!(
                "must be at most {MESSAGE_BYTES_MAX} when storage.kind = \"postgres\"; found {}",
                config.relay.max_message_bytes
            ),
        );
    }
    check_optional_path("storage.postgres.password_path", &postgres.password_path, findings);
    check_optional_path("storage.postgres.ca_path", &postgres.ca_path, findings);
    findings.warn_if(
        postgres.durability == PostgresDurability::Single,
        "storage.postgres.durability: \"single\": if the disk of the database is lost, so are messages",
    );
    findings.warn_if(
        postgres.tls == PostgresTls::Off,
        "storage.postgres.tls: \"off\": whoever sees the network between relay and database sees recipients and passwords",
    );
}

/// Shards are numbered from 1, as in the log.
fn check_shards(shards: &[PostgresShard], findings: &mut Findings) {
    for (number, shard) in (1_usize..).zip(shards) {
        if shard.dsn.is_empty() {
            findings.refuse(SHARDS, format!("shard {number}: dsn must be a connection string; it is empty"));
        }
    }
    #[cfg(feature = "postgres")]
    check_slots(shards, findings);
}

#[cfg(feature = "postgres")]
fn check_slots(shards: &[PostgresShard], findings: &mut Findings) {
    use relay_store_postgres::{SlotMap, Slots};

    let (mut all, mut are_valid) = (Vec::with_capacity(shards.len()), true);
    for (number, shard) in (1_usize..).zip(shards) {
        match Slots::parse(&shard.slots) {
            Ok(slots) => all.push(slots),
            Err(error) => {
                are_valid = false;
                findings.refuse(SHARDS, format!("shard {number}: {error}"));
            }
        }
    }
    // What is missing can only be told of all.
    if are_valid && let Err(error) = SlotMap::new(&all) {
        findings.refuse(SHARDS, error.to_string());
    }
}
