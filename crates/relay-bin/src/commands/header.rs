//! The first line of an export: its version, its time, and how its recipients are named.

use relay_core::{Seq, Timestamp};
use relay_store_redb::{KeyId, NoKeyId};
use serde::{Deserialize, Serialize};

/// The version of an export with plain recipients.
const VERSION_PLAIN: u32 = 1;
/// The version of an export with hashed recipients, which programs that do not know them must not
/// import.
const VERSION_HASHED: u32 = 2;

/// No store assigns half of all numbers. After a larger number, few would be left.
const ARRIVAL_NUMBER_MAX: u64 = u64::MAX / 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Header {
    version: u32,
    exported_ms: u64,
    pub(super) last_arrival_number: u64,
    /// Missing if the recipients are plain.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    recipients_key: Option<KeyText>,
}

/// The id of a key as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct KeyText(KeyId);

impl Header {
    /// `key` is the id of the key that hashed the recipients, if one did.
    pub(super) fn new(exported: Timestamp, last: Seq, key: Option<KeyId>) -> Self {
        let version = if key.is_some() { VERSION_HASHED } else { VERSION_PLAIN };
        let (exported_ms, last_arrival_number) = (exported.as_ms(), last.as_u64());
        Self { version, exported_ms, last_arrival_number, recipients_key: key.map(KeyText) }
    }

    /// The id of the key that hashed the recipients; `None` if they are plain.
    pub(super) fn key_id(&self) -> Option<KeyId> {
        self.recipients_key.map(|KeyText(id)| id)
    }

    /// This header, if this program can read what follows it.
    pub(super) fn checked(self) -> Result<Self, String> {
        let version = self.version;
        if !matches!(version, VERSION_PLAIN | VERSION_HASHED) {
            return Err(format!(
                "the export has version {version}; this program only reads {VERSION_PLAIN} and {VERSION_HASHED}"
            ));
        }
        if (version == VERSION_HASHED) != self.recipients_key.is_some() {
            return Err("version and recipients_key contradict each other".to_owned());
        }
        if self.last_arrival_number > ARRIVAL_NUMBER_MAX {
            return Err("last_arrival_number is too large".to_owned());
        }
        Ok(self)
    }
}

impl TryFrom<String> for KeyText {
    type Error = NoKeyId;

    fn try_from(text: String) -> Result<Self, NoKeyId> {
        text.parse().map(Self)
    }
}

impl From<KeyText> for String {
    fn from(KeyText(id): KeyText) -> Self {
        id.to_string()
    }
}
