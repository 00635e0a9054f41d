//! The store that an export reads.

use std::ops::ControlFlow;

use bytes::Bytes;
use relay_core::{Item, Recipient, Timestamp};
use relay_store_redb::RedbRelay;

use super::header::Header;
use super::{CommandError, open_existing};
use crate::config::RelayConfig;
#[cfg(feature = "postgres")]
use crate::config::StorageKind;
#[cfg(feature = "postgres")]
use crate::wiring;

/// An open store.
pub(super) enum Exported {
    Redb(Box<RedbRelay>),
    #[cfg(feature = "postgres")]
    Postgres(Box<relay_store_postgres::Admin>),
}

impl Exported {
    pub(super) fn open(config: &RelayConfig) -> Result<Self, CommandError> {
        #[cfg(feature = "postgres")]
        if config.storage.kind == StorageKind::Postgres {
            return Ok(Self::Postgres(Box::new(admin(config)?)));
        }
        Ok(Self::Redb(Box::new(open_existing(config)?)))
    }

    /// The number of items, and the first line of the export.
    pub(super) fn begin(&self, now: Timestamp) -> Result<(u64, Header), CommandError> {
        Ok(match self {
            Self::Redb(store) => {
                let header = Header::new(now, store.last_arrival_number(), store.naming().key_id());
                (store.contents()?.usage.items, header)
            }
            #[cfg(feature = "postgres")]
            Self::Postgres(admin) => {
                let contents = admin.contents()?;
                let key_id = contents.key_id.map(relay_store_redb::KeyId::from_bytes);
                (contents.usage.items, Header::new(now, contents.last_seq, key_id))
            }
        })
    }

    /// Visits all live items, until `visit` breaks. Returns a message for each that could not be
    /// read.
    pub(super) fn each(
        &self,
        visit: impl FnMut(&Recipient, Item<Bytes>) -> ControlFlow<()>,
    ) -> Result<Vec<String>, CommandError> {
        Ok(match self {
            Self::Redb(store) => store.export(visit)?,
            #[cfg(feature = "postgres")]
            Self::Postgres(admin) => admin.export(visit)?,
        })
    }
}

/// Connects to the database of the configuration.
#[cfg(feature = "postgres")]
pub(super) fn admin(config: &RelayConfig) -> Result<relay_store_postgres::Admin, CommandError> {
    // What only reads needs no key.
    Ok(relay_store_postgres::Admin::connect(&wiring::postgres_options(config, [0; 8])?)?)
}
