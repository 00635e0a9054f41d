//! The memory that payloads are read into, used again. A fresh buffer of a few hundred KiB is
//! zeroed, page by page, by the kernel or by us, which takes as long as to read the payloads
//! themselves. How many are out is the callers' business; what is kept is bounded.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

/// So many are kept for the next reader.
const KEPT_MAX: usize = 16;

/// A smaller one costs little, and a larger one is rare and not kept.
const KEPT_BYTES_MIN: usize = 16 << 10;
const KEPT_BYTES_MAX: usize = 512 << 10;

/// Buffers that nobody uses. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Buffers(Arc<Mutex<Vec<Vec<u8>>>>);

/// A buffer that goes back when the last reader of its bytes lets go.
struct Lent {
    buffer: Vec<u8>,
    used: usize,
    home: Buffers,
}

impl Buffers {
    /// Has `fill` write `len` bytes, all of them.
    pub(crate) fn fill<E>(
        &self,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<Bytes, E> {
        let mut buffer = if (KEPT_BYTES_MIN..=KEPT_BYTES_MAX).contains(&len) {
            // Who keeps a small page for long must not keep a large buffer.
            self.kept().pop_if(|buffer| buffer.len() / 4 <= len).unwrap_or_default()
        } else {
            Vec::new()
        };
        if buffer.len() < len {
            buffer = vec![0; len.next_multiple_of(KEPT_BYTES_MIN)];
        }
        let lent = Lent { buffer, used: len, home: self.clone() };
        Ok(Bytes::from_owner(lent.filled(fill)?))
    }

    /// No code under the lock can leave it half changed, so one that a panic has poisoned is used
    /// on.
    fn kept(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lent {
    fn filled<E>(mut self, fill: impl FnOnce(&mut [u8]) -> Result<(), E>) -> Result<Self, E> {
        fill(self.buffer.get_mut(..self.used).unwrap_or_default())?;
        Ok(self)
    }
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        self.buffer.get(..self.used).unwrap_or_default()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut kept = self.home.kept();
        if kept.len() < KEPT_MAX && (KEPT_BYTES_MIN..=KEPT_BYTES_MAX).contains(&self.buffer.len()) {
            kept.push(std::mem::take(&mut self.buffer));
        }
    }
}

impl fmt::Debug for Buffers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffers").field("kept", &self.kept().len()).finish()
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
    fn a_buffer_is_used_again_once_nobody_reads_it() {
        let buffers = Buffers::default();
        let first = filled(&buffers, 40_000, 1);
        let part = first.slice(39_000..);
        drop(first);
        let second = filled(&buffers, 40_000, 2);
        assert_eq!(part, vec![1; 1000]);
        let place = part.as_ptr() as usize - 39_000;
        drop(part);
        let third = filled(&buffers, 20_000, 3);
        assert_eq!((third.as_ptr() as usize, third.len()), (place, 20_000));
        assert_eq!((second, third), (vec![2; 40_000].into(), vec![3; 20_000].into()));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let buffers = Buffers::default();
        let lengths = [0, 1, KEPT_BYTES_MIN - 1, KEPT_BYTES_MAX + 1];
        drop(lengths.map(|len| filled(&buffers, len, 1)));
        assert!(buffers.kept().iter().all(|buffer| buffer.len() == KEPT_BYTES_MIN));
        drop([KEPT_BYTES_MAX; KEPT_MAX + 1].map(|len| filled(&buffers, len, 1)));
        assert_eq!(buffers.kept().len(), KEPT_MAX);
        assert!(buffers.kept().iter().all(|buffer| buffer.len() <= KEPT_BYTES_MAX));
        assert_eq!(buffers.fill(KEPT_BYTES_MAX, |_| Err("torn")), Err("torn"));
        assert_eq!(buffers.kept().len(), KEPT_MAX);
    }
}
