//! How this crate takes a lock. It never holds one while something else is waited for.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// No code under these locks can leave something half done, so one that a panic has poisoned is
/// used on.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
