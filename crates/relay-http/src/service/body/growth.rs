//! The buffer of a body, whose memory is taken from the budget as bytes arrive.

use crate::api::error::ApiError;
use crate::api::format::{Encoded, Format};
use crate::limits::memory_budget::{Share, overloaded};
use crate::service::offload::OFFLOAD_BYTES;

/// The initial capacity of a body, if it declares that many bytes. Afterwards the capacity is at
/// most twice the size of what has arrived.
const INITIAL_BYTES: usize = 64 * 1024;

/// The bytes of a body in memory, and their share of the budget. The share also covers what they
/// are decoded to.
pub(super) struct BodyBuffer {
    format: Format,
    bytes: Vec<u8>,
    declared: usize,
    share: Share,
}

impl BodyBuffer {
    pub(super) const fn new(format: Format, share: Share) -> Self {
        Self { format, bytes: Vec::new(), declared: 0, share }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Reserves memory for a body that declares its size, but not more than [`INITIAL_BYTES`].
    pub(super) fn expect(&mut self, declared: usize) -> Result<(), ApiError> {
        self.declared = declared;
        self.reserve(declared.min(INITIAL_BYTES))
    }

    pub(super) fn append(&mut self, chunk: &[u8]) -> Result<(), ApiError> {
        let bytes = self.bytes.len() + chunk.len();
        if bytes > self.bytes.capacity() {
            // Doubling avoids a copy for each chunk. The declared size is the limit, unless it was
            // wrong.
            let wanted = bytes.saturating_mul(2).max(INITIAL_BYTES);
            let wanted = if bytes <= self.declared { wanted.min(self.declared) } else { wanted };
            self.reserve(wanted).or_else(|_| self.reserve(bytes))?;
        }
        self.bytes.extend_from_slice(chunk);
        Ok(())
    }

    fn reserve(&mut self, bytes: usize) -> Result<(), ApiError> {
        self.share.grow_to(with_decoded(self.format, bytes))?;
        let more = bytes.saturating_sub(self.bytes.len());
        self.bytes.try_reserve_exact(more).map_err(|_| overloaded())
    }

    /// Decodes the body, and returns the share of the result.
    pub(super) fn decode<T>(
        mut self,
        decode: impl FnOnce(&Encoded) -> Result<T, ApiError>,
    ) -> Result<(T, Share), ApiError> {
        let len = self.bytes.len();
        let has_escapes = || memchr::memchr(b'\\', &self.bytes).is_some();
        if self.format == Format::Json && len > OFFLOAD_BYTES && has_escapes() {
            // The parser copies a string with escapes once more.
            self.share.grow_to(with_decoded(self.format, len).saturating_add(len))?;
        }
        let body = Encoded::new(self.format, self.bytes);
        let decoded = decode(&body)?;
        self.share.shrink_to(match self.format {
            Format::Json => decoded_bytes_max(self.format, len),
            // What is decoded may keep the memory of the body, and has copies of the rest.
            Format::Cbor => body.held_bytes.saturating_add(len / 16),
        });
        Ok((decoded, self.share))
    }
}

/// The size of a body and of what it is decoded to.
pub(super) const fn with_decoded(format: Format, bytes: usize) -> usize {
    bytes.saturating_add(decoded_bytes_max(format, bytes))
}

/// The most bytes that a body is decoded to: most of a push in JSON is base64, and CBOR has
/// payloads as they are.
const fn decoded_bytes_max(format: Format, body_bytes: usize) -> usize {
    match format {
        Format::Json => body_bytes / 4 * 3,
        Format::Cbor => body_bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::memory_budget::Budget;

    #[test]
    fn memory_is_taken_as_bytes_arrive() {
        let budget = Budget::new(100 * 1024 * 1024);
        let mut buffer = BodyBuffer::new(Format::Json, budget.share(None));
        buffer.expect(10_000_000).unwrap();
        assert_eq!(budget.used(), with_decoded(Format::Json, INITIAL_BYTES));
        for arrived in (100_000..=10_000_000).step_by(100_000) {
            buffer.append(&[0; 100_000]).unwrap();
            assert!(buffer.bytes.capacity() <= 2 * arrived && buffer.bytes.capacity() <= 10_000_000);
            assert_eq!(
                budget.used(),
                with_decoded(Format::Json, buffer.bytes.capacity()),
                "the whole capacity counts"
            );
        }
        let (decoded, share) = buffer.decode(|body| Ok(body.bytes.len())).unwrap();
        assert_eq!((decoded, share.bytes()), (10_000_000, 7_500_000));
        drop(share);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_body_in_cbor_counts_with_what_is_copied_and_then_with_what_is_kept() {
        let budget = Budget::new(100 * 1024 * 1024);
        for (declared, held) in [(1_000_000, 1_000_000), (0, 1_400_000)] {
            let mut buffer = BodyBuffer::new(Format::Cbor, budget.share(None));
            buffer.expect(declared).unwrap();
            for _ in 0..10 {
                buffer.append(&[0; 100_000]).unwrap();
            }
            assert_eq!((buffer.bytes.capacity(), budget.used()), (held, 2 * held));
            let (held_bytes, share) = buffer.decode(|body| Ok(body.held_bytes)).unwrap();
            assert_eq!((held_bytes, share.bytes()), (held, held + 1_000_000 / 16));
            drop(share);
            assert_eq!(budget.used(), 0);
        }
    }

    #[test]
    fn a_body_without_a_declared_size_counts_too() {
        let budget = Budget::new(1_000_000);
        let _other = budget.take(None, 1).unwrap();
        let mut buffer = BodyBuffer::new(Format::Json, budget.share(None));
        buffer.append(&[0; 40]).unwrap();
        assert!(budget.used() >= 60 + 45, "{}", budget.used());
        assert!((0..10).any(|_| buffer.append(&[0; 100_000]).is_err()));
        assert!(buffer.bytes.len() < 600_000);
    }

    #[test]
    fn the_copy_of_a_string_with_escapes_counts() {
        let budget = Budget::new(10 * 1024 * 1024);
        let used_for = |byte: u8| {
            let mut buffer = BodyBuffer::new(Format::Json, budget.share(None));
            buffer.expect(1024 * 1024).unwrap();
            buffer.append(&vec![byte; 1024 * 1024]).unwrap();
            let mut used = 0;
            buffer
                .decode(|_| {
                    used = budget.used();
                    Ok(())
                })
                .unwrap();
            used
        };
        assert!(used_for(b'\\') >= used_for(b'A') + 512 * 1024);
    }
}
