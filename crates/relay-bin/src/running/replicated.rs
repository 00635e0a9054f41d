//! Opens the store in PostgreSQL, which several relays share.

use std::sync::Arc;

use relay_core::Limits;
use relay_store_postgres::{Options, PostgresRelay};

use crate::clock::SystemClock;
use crate::config::RelayConfig;
use crate::error::RelayError;
use crate::key_file::KeyForStart;
use crate::recipients::HashedRecipients;
use crate::wiring;

/// Returns a function that opens the store of this configuration.
pub(super) fn opening(
    config: &RelayConfig,
    key: &KeyForStart,
    limits: Limits,
) -> Result<impl FnOnce() -> Result<HashedRecipients<PostgresRelay>, RelayError> + Send + use<>, RelayError> {
    let options: Options = wiring::postgres_options(config, key.root.id().to_bytes())?;
    let hasher = key.root.recipients();
    Ok(move || {
        let store = PostgresRelay::open(options, limits, Arc::new(SystemClock))?;
        let hasher = store.is_hashed().then_some(hasher);
        Ok(HashedRecipients::new(store, hasher))
    })
}
