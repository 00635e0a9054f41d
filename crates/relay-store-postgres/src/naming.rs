//! What a database remembers of the relays that use it: the key that they share, whether the
//! database holds keyed hashes, and its slots. The first relay decides, and the others have to
//! agree.

use tokio_postgres::Client;

use crate::error::PostgresError;
use crate::options::RecipientNames;
use crate::slots::Slots;

const ADOPT: &str = "UPDATE meta SET key_id = $1, is_hashed = $2 WHERE key_id IS NULL";
const READ: &str = "SELECT key_id, is_hashed, slots FROM meta";

/// The slots that a database belongs to; NULL if it is new.
pub(crate) const SLOTS: &str = "SELECT slots FROM meta";

/// Programs that do not know slots must not use a database that has less than all of them.
pub(crate) const SET_SLOTS: &str = "\
UPDATE meta SET slots = $1::text,
    compatible_from = greatest(compatible_from, CASE $1::text WHEN '0-255' THEN 1 ELSE 2 END)";

/// Whether there are queues of certain ranges of keys.
const HAS_QUEUES: &str = "\
SELECT EXISTS (SELECT FROM unnest($1::uuid[], $2::uuid[]) AS r (first, last)
    CROSS JOIN LATERAL (SELECT FROM queue WHERE q BETWEEN r.first AND r.last LIMIT 1) u)";

/// Whether the database holds keyed hashes; `None` if it is new.
pub(crate) async fn is_hashed(client: &Client) -> Result<Option<bool>, PostgresError> {
    Ok(client.query_one(READ, &[]).await?.try_get(1)?)
}

/// Returns whether the database holds keyed hashes.
pub(crate) async fn adopt(
    client: &Client,
    names: RecipientNames,
    slots: &Slots,
) -> Result<bool, PostgresError> {
    let key_id = names.key_id.as_slice();
    client.execute(ADOPT, &[&key_id, &names.hash_new]).await?;
    let row = client.query_one(READ, &[]).await?;
    let stored: &[u8] = row.try_get(0)?;
    if stored != key_id {
        return Err(PostgresError::OtherKey);
    }
    if row.try_get::<_, Option<&str>>(2)?.is_none() {
        adopt_slots(client, slots).await?;
    }
    Ok(row.try_get(1)?)
}

async fn adopt_slots(client: &Client, slots: &Slots) -> Result<(), PostgresError> {
    let (configured, (first, last)) = (slots.to_string(), slots.foreign_keys());
    // Its relays had no slots yet, or it is a copy of such a database.
    if client.query_one(HAS_QUEUES, &[&first, &last]).await?.try_get(0)? {
        return Err(PostgresError::ForeignQueues { configured });
    }
    client.execute(&format!("{SET_SLOTS} WHERE slots IS NULL"), &[&configured]).await?;
    // Another relay may have been faster.
    check_slots(&configured, client.query_one(READ, &[]).await?.try_get(2)?)
}

/// Refuses a database that belongs to other slots than the configuration says, or to none.
pub(crate) fn check_slots(configured: &str, stored: Option<&str>) -> Result<(), PostgresError> {
    match stored {
        Some(stored) if stored == configured => Ok(()),
        stored => Err(PostgresError::OtherSlots {
            stored: stored.unwrap_or("none").to_owned(),
            configured: configured.to_owned(),
        }),
    }
}
