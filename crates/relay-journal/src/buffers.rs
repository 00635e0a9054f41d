//! A bounded pool of buffers for payloads. Zeroing a fresh buffer of a few hundred KiB takes as
//! long as reading the payloads, whether the kernel does it page by page or this crate. Callers
//! bound the number of buffers in use.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

/// How many buffers the pool keeps.
const POOLED_MAX: usize = 16;

/// Smaller buffers are cheap to allocate; larger ones are rare. Neither is pooled.
const POOLED_BYTES_MIN: usize = 16 << 10;
const POOLED_BYTES_MAX: usize = 512 << 10;

/// Unused buffers. Clones share the pool.
#[derive(Clone, Default)]
pub(crate) struct Buffers(Arc<Mutex<Vec<Vec<u8>>>>);

/// A buffer that returns to the pool after its last reader.
struct Lent {
    buffer: Vec<u8>,
    len: usize,
    pool: Buffers,
}

impl Buffers {
    /// Returns `len` bytes that `fill` has written.
    pub(crate) fn fill<E>(
        &self,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<Bytes, E> {
        let mut buffer = if (POOLED_BYTES_MIN..=POOLED_BYTES_MAX).contains(&len) {
            // A small page that is in use for long must not occupy a large buffer.
            self.pool().pop_if(|buffer| buffer.len() / 4 <= len).unwrap_or_default()
        } else {
            Vec::new()
        };
        if buffer.len() < len {
            buffer = vec![0; len.next_multiple_of(POOLED_BYTES_MIN)];
        }
        let mut lent = Lent { buffer, len, pool: self.clone() };
        fill(lent.buffer.get_mut(..len).unwrap_or_default())?;
        Ok(Bytes::from_owner(lent))
    }

    /// Ignores poisoning: no panic under the lock can leave the pool inconsistent.
    fn pool(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        self.buffer.get(..self.len).unwrap_or_default()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut pool = self.pool.pool();
        if pool.len() < POOLED_MAX && (POOLED_BYTES_MIN..=POOLED_BYTES_MAX).contains(&self.buffer.len()) {
            pool.push(std::mem::take(&mut self.buffer));
        }
    }
}

impl fmt::Debug for Buffers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffers").field("unused", &self.pool().len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(buffers: &Buffers, len: usize, byte: u8) -> Bytes {
        let fill = |bytes: &mut [u8]| {
            bytes.fill(byte);
            Ok::<_, ()>(())
        };
        buffers.fill(len, fill).unwrap()
    }

    #[test]
    fn a_buffer_is_reused_after_its_last_reader() {
        let buffers = Buffers::default();
        let first = filled(&buffers, 40_000, 1);
        let part = first.slice(39_000..);
        drop(first);
        let second = filled(&buffers, 40_000, 2);
        assert_eq!(part, vec![1; 1000]);
        let address = part.as_ptr() as usize - 39_000;
        drop(part);
        let third = filled(&buffers, 20_000, 3);
        assert_eq!((third.as_ptr() as usize, third.len()), (address, 20_000));
        assert_eq!((second, third), (vec![2; 40_000].into(), vec![3; 20_000].into()));
    }

    #[test]
    fn the_pool_is_bounded() {
        let buffers = Buffers::default();
        let lengths = [0, 1, POOLED_BYTES_MIN - 1, POOLED_BYTES_MAX + 1];
        drop(lengths.map(|len| filled(&buffers, len, 1)));
        assert!(buffers.pool().iter().all(|buffer| buffer.len() == POOLED_BYTES_MIN));
        drop([POOLED_BYTES_MAX; POOLED_MAX + 1].map(|len| filled(&buffers, len, 1)));
        assert_eq!(buffers.pool().len(), POOLED_MAX);
        assert!(buffers.pool().iter().all(|buffer| buffer.len() <= POOLED_BYTES_MAX));
        assert_eq!(buffers.fill(POOLED_BYTES_MAX, |_| Err("torn")), Err("torn"));
        assert_eq!(buffers.pool().len(), POOLED_MAX);
    }
}
