//! The operator's commands on a store in PostgreSQL. They work while relays use it.

use relay_core::Usage;
use relay_store_postgres::{Contents, Migrated};
use serde_json::json;

use super::exported::admin;
use super::{CommandError, Outcome, StoreCommand, export, import, rows};
use crate::config::RelayConfig;
use crate::wiring;

/// Creates the tables, or brings them up to date.
pub(crate) fn migrate(config: &RelayConfig) -> Result<Outcome, CommandError> {
    // The tables do not depend on the key.
    let options = wiring::postgres_options(config, [0; 8])?;
    let migrated = relay_store_postgres::migrate(&options)?;
    let text = migrated.iter().map(|Migrated { from, to }| match from {
        0 => format!("created the tables of schema {to}\n"),
        from if from < to => format!("changed the tables from schema {from} to {to}\n"),
        from => format!("the tables have schema {from} already\n"),
    });
    Ok(Outcome::success(text.collect()))
}

pub(super) fn run(command: StoreCommand, config: &RelayConfig) -> Result<Outcome, CommandError> {
    let instead = |command, instead| Err(CommandError::NotWithPostgres { command, instead });
    match command {
        StoreCommand::Verify => verify(config),
        StoreCommand::Stats { json } => stats(config, json),
        StoreCommand::Backup { .. } => instead("backup", "use pg_basebackup or pg_dump (docs/scale-out.md)"),
        StoreCommand::Restore { .. } => instead("restore", "restore the database (docs/scale-out.md)"),
        StoreCommand::Export { file } => export::run(config, &file),
        StoreCommand::Import { file, key } => import::run(config, &file, key.as_deref()),
        StoreCommand::Compact { .. } => instead("compact", "autovacuum frees the space of what is gone"),
    }
}

fn verify(config: &RelayConfig) -> Result<Outcome, CommandError> {
    let admin = admin(config)?;
    let findings = admin.verify()?;
    let Contents { queues, usage: Usage { items, bytes }, acked, .. } = admin.contents()?;
    let found = findings.len();
    let summary = format!(
        "{queues} queues, {items} items of {bytes} bytes, {acked} acked item ids; {found} findings\n"
    );
    Ok(Outcome::with_findings(&findings, summary))
}

fn stats(config: &RelayConfig, is_json: bool) -> Result<Outcome, CommandError> {
    let Contents { queues, usage, acked, table_bytes, key_id, .. } = admin(config)?.contents()?;
    let recipients = if key_id.is_some() { "hashed" } else { "plain" };
    if is_json {
        let object = json!({
            "recipients": recipients,
            "queues": queues,
            "items": usage.items,
            "payload_bytes": usage.bytes,
            "acked_names": acked,
            "table_bytes": table_bytes,
        });
        return Ok(Outcome::success(format!("{object}\n")));
    }
    Ok(Outcome::success(rows(&[
        ("recipients", recipients.to_owned()),
        ("queues", queues.to_string()),
        ("items", format!("{} of {} bytes", usage.items, usage.bytes)),
        ("acked item ids", acked.to_string()),
        ("tables with indexes", format!("{table_bytes} bytes")),
    ])))
}
