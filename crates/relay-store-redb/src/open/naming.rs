//! How a store names recipients, decided when it opens: a store that never had a queue takes what
//! its caller wants, and any other one stays as it is.

use std::path::Path;

use crate::Options;
use crate::error::OpenError;
use crate::naming::Naming;
use crate::options::RecipientNames;

/// The naming for a store without queues; `None` if the caller takes any.
const fn wanted(names: RecipientNames) -> Option<Naming> {
    match names {
        RecipientNames::Plain => Some(Naming::Plain),
        RecipientNames::Keyed { id, hash_new: true } => Some(Naming::Hashed(id)),
        RecipientNames::Keyed { hash_new: false, .. } => Some(Naming::Plain),
        RecipientNames::AsStored => None,
    }
}

/// The naming of a store that does not exist yet.
pub(super) fn of_new(options: &Options) -> Naming {
    wanted(options.recipients).unwrap_or_default()
}

/// The naming of a store that exists, once it is open. `stored` is what its index says.
///
/// # Errors
/// When the caller has no key, or another one, and so would find no queue.
pub(super) fn of_existing(
    stored: Naming,
    had_queues: bool,
    options: &Options,
    path: &Path,
) -> Result<Naming, OpenError> {
    if !had_queues {
        return Ok(wanted(options.recipients).unwrap_or(stored));
    }
    match (stored, options.recipients) {
        (Naming::Hashed(stored), RecipientNames::Keyed { id: given, .. }) if stored != given => {
            Err(OpenError::OtherKey { path: path.to_owned(), stored, given })
        }
        (Naming::Hashed(stored), RecipientNames::Plain) => {
            Err(OpenError::KeyNeeded { path: path.to_owned(), stored })
        }
        _ => Ok(stored),
    }
}
