//! What a key tells of itself. The limiter never knows more of it than this, its hash and its
//! equality.

use std::hash::Hash;

/// Whom a limit is for: an address, a network, a name.
///
/// Both methods are for keys that are part of something wider, such as a network of addresses. A
/// key that stands for itself alone needs neither: `impl Key for MyKey {}`.
pub trait Key: Eq + Hash + Clone {
    /// The next wider network that this one belongs to, `None` at the top.
    ///
    /// Bans climb to it. It must never be equal to a key that is limited itself, so a key has to
    /// know its own width. No more than 8 steps are climbed.
    fn parent(&self) -> Option<Self> {
        None
    }

    /// A number that is alike for keys near each other and evenly spread otherwise: say, a keyed
    /// hash of the /24.
    ///
    /// Keys that the limiter has no room for share a limit with those of the same number, modulo
    /// 256.
    fn neighbourhood(&self) -> u64 {
        0
    }
}

macro_rules! stands_for_itself {
    ($($key:ty),*) => { $(impl Key for $key {})* };
}

stands_for_itself!((), u8, u16, u32, u64, u128, usize, &str, String);
