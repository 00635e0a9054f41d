//! Bounds on the head of a request, for both protocols.

/// The largest head of a request: its first line and all fields.
pub(crate) const HEAD_BYTES_MAX: usize = 32 * 1024;

/// The most fields of a head. The framework's parser knows the same number.
pub(crate) const FIELDS_MAX: usize = 96;
