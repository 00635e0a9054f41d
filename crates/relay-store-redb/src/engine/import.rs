//! How the writer decides a bundle of items from another store. The rule for each is relay-core's.

use relay_core::{ImportItem, Limits, Timestamp, import};

use crate::engine::batch::Batch;
use crate::engine::imported::Imported;
use crate::error::StoreError;

/// Decides a bundle, up to the first item that is refused.
pub(crate) fn decide(
    batch: &mut Batch<'_>,
    limits: &Limits,
    now: Timestamp,
    items: Vec<ImportItem>,
) -> Result<Imported, StoreError> {
    let mut imported = Imported::default();
    for item in items {
        match import::import(batch, limits, now, item)? {
            Ok(outcome) => imported.note(outcome),
            Err(rejection) => {
                imported.refused = Some(rejection);
                break;
            }
        }
    }
    Ok(imported)
}
