//! Creates the tables, and brings those of older programs up to date. Needs a role that may create
//! them; the relays need less.

use crate::connect::Connector;
use crate::error::PostgresError;
use crate::options::{Options, ShardOptions};

/// All migrations, in their order. One that was released never changes.
const MIGRATIONS: [&str; 2] = [include_str!("schema/1_initial.sql"), include_str!("schema/2_slots.sql")];

/// Only one migration runs at a time in a database.
const LOCK: &str = "\
BEGIN; SELECT pg_advisory_xact_lock(8245928655720965995); CREATE SCHEMA IF NOT EXISTS relay; SET LOCAL search_path = relay";

const VERSION: &str = "SELECT schema_version FROM relay.meta";
const HAS_TABLES: &str = "SELECT to_regclass('relay.meta') IS NOT NULL";

/// What a migration has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Migrated {
    /// The schema before; 0 if there was none.
    pub from: u32,
    /// The schema now.
    pub to: u32,
}

/// Brings the tables of all databases up to date, one after the other. Blocks.
///
/// # Errors
/// [`PostgresError`]; then nothing has changed in that database and those behind it.
pub fn migrate(options: &Options) -> Result<Vec<Migrated>, PostgresError> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(PostgresError::Threads)?;
    runtime.block_on(async {
        let mut migrated = Vec::with_capacity(options.shards.len());
        for (number, shard) in options.numbered() {
            let done = migrate_one(options, shard).await;
            migrated.push(done.map_err(|error| error.of_shard(number))?);
        }
        Ok(migrated)
    })
}

async fn migrate_one(options: &Options, shard: &ShardOptions) -> Result<Migrated, PostgresError> {
    let client = Connector::new(options, shard)?.connect_bare().await?;
    client.batch_execute(LOCK).await?;
    let has_tables: bool = client.query_one(HAS_TABLES, &[]).await?.try_get(0)?;
    let from = match has_tables {
        true => client.query_one(VERSION, &[]).await?.try_get::<_, i32>(0)?,
        false => 0,
    };
    let done = usize::try_from(from).unwrap_or_default();
    for migration in MIGRATIONS.iter().skip(done) {
        client.batch_execute(migration).await?;
    }
    client.batch_execute("COMMIT").await?;
    let from = u32::try_from(from).unwrap_or_default();
    Ok(Migrated { from, to: from.max(u32::try_from(MIGRATIONS.len()).unwrap_or(u32::MAX)) })
}
