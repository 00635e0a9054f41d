//! The operator's commands on a store in PostgreSQL. They work while relays use it.

use relay_core::Usage;
use relay_store_postgres::{Assigned, Contents, Migrated};
use serde_json::{Value, json};

use super::exported::admin;
use super::{CommandError, Outcome, StoreCommand, export, import, rows};
use crate::config::RelayConfig;
use crate::wiring;

/// Creates the tables, or brings them up to date. Then gives the databases their slots, if that is
/// asked for.
pub(crate) fn migrate(config: &RelayConfig, set_slots: bool) -> Result<Outcome, CommandError> {
    // The tables do not depend on the key.
    let options = wiring::postgres_options(config, [0; 8])?;
    let migrated = relay_store_postgres::migrate(&options)?;
    let mut lines = of_shards(migrated.iter().map(|Migrated { from, to }| match from {
        0 => format!("created the tables of schema {to}"),
        from if from < to => format!("changed the tables from schema {from} to {to}"),
        from => format!("the tables have schema {from} already"),
    }));
    if set_slots {
        let assigned = relay_store_postgres::set_slots(&options)?;
        lines += &of_shards(assigned.iter().map(|Assigned { from, to, queues_removed }| {
            let from = from.as_deref().unwrap_or("none");
            format!("slots {to}, before {from}; {queues_removed} queues of other slots removed")
        }));
    }
    Ok(Outcome::success(lines))
}

/// A line for each database, with its number if there are several.
fn of_shards(lines: impl ExactSizeIterator<Item = String>) -> String {
    let is_alone = lines.len() == 1;
    let line =
        |(number, line)| if is_alone { format!("{line}\n") } else { format!("shard {number}: {line}\n") };
    (1_usize..).zip(lines).map(line).collect()
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
    let of_each = admin(config)?.contents_of_each()?;
    let all = of_each.iter().copied().fold(Contents::default(), Contents::plus);
    let Contents { queues, usage, acked, table_bytes, key_id, .. } = all;
    let recipients = if key_id.is_some() { "hashed" } else { "plain" };
    if is_json {
        let mut object = json!({
            "recipients": recipients,
            "queues": queues,
            "items": usage.items,
            "payload_bytes": usage.bytes,
            "acked_names": acked,
            "table_bytes": table_bytes,
        });
        if let Some(fields) = object.as_object_mut().filter(|_| of_each.len() > 1) {
            fields.insert("shards".to_owned(), of_each.iter().map(shard_object).collect());
        }
        return Ok(Outcome::success(format!("{object}\n")));
    }
    let sum = rows(&[
        ("recipients", recipients.to_owned()),
        ("queues", queues.to_string()),
        ("items", format!("{} of {} bytes", usage.items, usage.bytes)),
        ("acked item ids", acked.to_string()),
        ("tables with indexes", format!("{table_bytes} bytes")),
    ]);
    let each = |(number, shard): (usize, &Contents)| {
        let Contents { queues, usage: Usage { items, bytes }, table_bytes, .. } = shard;
        let shares =
            format!("{queues} queues, {items} items of {bytes} bytes, tables of {table_bytes} bytes");
        rows(&[(&format!("shard {number}"), shares)])
    };
    let shards = (1..).zip(&of_each).filter(|_| of_each.len() > 1).map(each);
    Ok(Outcome::success(sum + &shards.collect::<String>()))
}

fn shard_object(shard: &Contents) -> Value {
    json!({
        "queues": shard.queues,
        "items": shard.usage.items,
        "payload_bytes": shard.usage.bytes,
        "acked_names": shard.acked,
        "table_bytes": shard.table_bytes,
    })
}
