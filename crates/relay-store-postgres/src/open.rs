//! The start: connects to all databases, and agrees with each on what it remembers of its relays.

use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::time::timeout;

use crate::clock::instant;
use crate::connect::{Connection, Connector};
use crate::error::PostgresError;
use crate::naming;
use crate::options::{Options, RecipientNames};

/// How often an open tries to reach a database.
const OPEN_PAUSE: Duration = Duration::from_secs(1);

/// How long the first start with a database may take to write its key's id, which the standby has
/// to have.
const ADOPT_TIMEOUT: Duration = Duration::from_secs(30);

/// Databases that can be used.
pub(crate) struct Opened {
    /// The way to each, and the server that is its primary.
    pub(crate) databases: Vec<(Connector, String)>,
    /// Whether they hold keyed hashes.
    pub(crate) is_hashed: bool,
}

/// Connects to all databases at once. One that is missing after the patience of the options fails
/// all of them: a relay that starts serves every queue.
pub(crate) async fn open(options: &Options) -> Result<Opened, PostgresError> {
    let connecting = options.numbered().map(async |(number, shard)| {
        let in_shard = |error: PostgresError| error.of_shard(number);
        let connector = Connector::new(options, shard).map_err(in_shard)?;
        let connected = connect_patiently(&connector, options.open_patience, number).await;
        Ok::<_, PostgresError>((connector, connected.map_err(in_shard)?))
    });
    let connected = try_join_all(connecting).await?;
    let is_hashed = adopt(options, &connected).await?;
    let databases = connected.into_iter().map(|(connector, connection)| (connector, connection.server));
    Ok(Opened { databases: databases.collect(), is_hashed })
}

/// Returns whether the databases hold keyed hashes. A new one takes after the others.
async fn adopt(options: &Options, connected: &[(Connector, Connection)]) -> Result<bool, PostgresError> {
    let mut known = None;
    for ((number, _), (_, connection)) in options.numbered().zip(connected) {
        let is_hashed = naming::is_hashed(&connection.client).await;
        known = known.or(is_hashed.map_err(|error| error.of_shard(number))?);
    }
    let hash_new = known.unwrap_or(options.recipients.hash_new);
    let names = RecipientNames { hash_new, ..options.recipients };
    let mut adopted = Vec::with_capacity(connected.len());
    for ((number, shard), (_, connection)) in options.numbered().zip(connected) {
        let adopting = timeout(ADOPT_TIMEOUT, naming::adopt(&connection.client, names, &shard.slots));
        let is_hashed = adopting.await.unwrap_or(Err(PostgresError::Unconfirmed));
        adopted.push(is_hashed.map_err(|error| error.of_shard(number))?);
    }
    match adopted.as_slice() {
        [first, others @ ..] if others.iter().all(|other| other == first) => Ok(*first),
        _ => Err(PostgresError::MixedRecipients),
    }
}

async fn connect_patiently(
    connector: &Connector,
    patience: Duration,
    shard: Option<usize>,
) -> Result<Connection, PostgresError> {
    let begun = instant();
    connector.look_at_all().await;
    loop {
        match connector.connect().await {
            Err(error) if error.is_of_connection() && instant() - begun < patience => {
                tracing::warn!(shard, %error, "waiting for the database");
                tokio::time::sleep(OPEN_PAUSE).await;
            }
            connected => return connected,
        }
    }
}
