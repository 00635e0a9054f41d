//! What the limiter needs to know about a key.

use std::hash::Hash;

/// A client that the limiter limits: an address, a network, a name.
///
/// Both methods are for keys that belong to a wider group, such as a network of addresses. Other
/// keys need neither: `impl Key for MyKey {}`.
pub trait Key: Eq + Hash + Clone {
    /// The next wider network that this key belongs to, `None` at the top.
    ///
    /// Bans climb to it, at most 8 steps. It must never equal a key that the limiter limits itself,
    /// so a key has to contain its own width.
    fn parent(&self) -> Option<Self> {
        None
    }

    /// A number that is equal for nearby keys and evenly distributed otherwise, such as a keyed
    /// hash of the /24.
    ///
    /// Keys that find no space in the limiter share a limit with keys of the same number, modulo
    /// 256.
    fn neighbourhood(&self) -> u64 {
        0
    }
}

macro_rules! impl_key {
    ($($key:ty),*) => { $(impl Key for $key {})* };
}

impl_key!((), u8, u16, u32, u64, u128, usize, &str, String);
