//! The operator's commands on a store in PostgreSQL. They work while relays use it.

use relay_store_postgres::{Assigned, Contents, Migrated};

use super::exported::admin;
use super::{CommandError, Outcome, StoreCommand, drain, export, import, log_level, stats, status, verify};
use crate::config::RelayConfig;
use crate::reports::{ContentsReport, ShardReport, StatsReport, VerifyReport};
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
        StoreCommand::Verify { json } => verify(config, json),
        StoreCommand::Stats { json } => stats(config, json),
        StoreCommand::Status { json } => status::run(config, json),
        StoreCommand::Drain => drain::run(config),
        StoreCommand::LogLevel { filter } => log_level::run(config, filter),
        StoreCommand::Backup(_) => instead("backup", "use pg_basebackup or pg_dump (docs/scale-out.md)"),
        StoreCommand::Restore { .. } => instead("restore", "restore the database (docs/scale-out.md)"),
        StoreCommand::Export { file } => export::run(config, &file),
        StoreCommand::Import { file, key } => import::run(config, &file, key.as_deref()),
        StoreCommand::Compact { .. } => instead("compact", "autovacuum frees the space of what is gone"),
    }
}

fn verify(config: &RelayConfig, is_json: bool) -> Result<Outcome, CommandError> {
    let admin = admin(config)?;
    let findings = admin.verify()?;
    let contents = Some(contents_of(&admin.contents()?));
    Ok(verify::print(&VerifyReport { findings, contents, uncounted: None }, "", is_json))
}

fn stats(config: &RelayConfig, is_json: bool) -> Result<Outcome, CommandError> {
    let of_each = admin(config)?.contents_of_each()?;
    let all = of_each.iter().copied().fold(Contents::default(), Contents::plus);
    let shard = |of: &Contents| ShardReport { contents: contents_of(of), table_bytes: of.table_bytes };
    let report = StatsReport {
        recipients: Some(if all.key_id.is_some() { "hashed" } else { "plain" }.to_owned()),
        contents: Some(contents_of(&all)),
        table_bytes: Some(all.table_bytes),
        shards: of_each.iter().filter(|_| of_each.len() > 1).map(shard).collect(),
        ..StatsReport::default()
    };
    Ok(stats::print(&report, is_json))
}

const fn contents_of(contents: &Contents) -> ContentsReport {
    ContentsReport::new(contents.queues, contents.usage, contents.acked)
}
