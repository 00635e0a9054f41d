//! The key that all relays of a database share, and whether the database holds keyed hashes. The
//! first relay decides, and the others have to agree.

use tokio_postgres::Client;

use crate::error::PostgresError;
use crate::options::RecipientNames;

const ADOPT: &str = "UPDATE meta SET key_id = $1, is_hashed = $2 WHERE key_id IS NULL";
const READ: &str = "SELECT key_id, is_hashed FROM meta";

/// Returns whether the database holds keyed hashes.
pub(crate) async fn adopt(client: &Client, names: RecipientNames) -> Result<bool, PostgresError> {
    let key_id = names.key_id.as_slice();
    client.execute(ADOPT, &[&key_id, &names.hash_new]).await?;
    let row = client.query_one(READ, &[]).await?;
    let stored: &[u8] = row.try_get(0)?;
    if stored == key_id { Ok(row.try_get(1)?) } else { Err(PostgresError::OtherKey) }
}
