//! Limits of a request head, for both protocols.

/// The maximum size of a request head: its first line and all fields.
pub(crate) const HEAD_BYTES_MAX: usize = 32 * 1024;

/// The maximum number of fields. The framework's parser has the same limit.
pub(crate) const FIELDS_MAX: usize = 96;

/// How many items a batch may have.
pub const BATCH_ITEMS_MAX: usize = 256;
