//! `verify`: what a check of a whole store found.

use std::ops::ControlFlow;

use relay_store_redb::{RedbRelay, StoreError};
use serde::{Deserialize, Serialize};

use super::ContentsReport;

/// What a check of a whole store found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VerifyReport {
    /// What is inconsistent, one sentence each.
    pub(crate) findings: Vec<String>,
    /// What the store holds; `None` if that cannot be counted.
    #[serde(flatten)]
    pub(crate) contents: Option<ContentsReport>,
    /// Why the contents cannot be counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) uncounted: Option<String>,
}

impl VerifyReport {
    /// Reads the whole store. `watch` gets the number of items that are checked, and may stop the
    /// check.
    ///
    /// # Errors
    /// The store cannot be read, or the check was stopped.
    pub(crate) fn of_redb(
        store: &RedbRelay,
        watch: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<Self, StoreError> {
        let findings = store.verify_watched(watch)?;
        match store.contents() {
            Ok(contents) => Ok(Self { findings, contents: Some(contents.into()), uncounted: None }),
            // The findings contain the reason.
            Err(error) if !findings.is_empty() => {
                Ok(Self { findings, contents: None, uncounted: Some(error.to_string()) })
            }
            Err(error) => Err(error),
        }
    }
}
