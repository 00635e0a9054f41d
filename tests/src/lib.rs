//! What black-box tests need: a relay to talk to, in process or as a process of its own, and a
//! plain HTTP client that hides nothing. Besides, [`audit`], which keeps account of what was
//! answered, and [`load`] and the benchmark of the whole system made of it, [`mod@bench`], which
//! run on Linux.
//!
//! Everything listens on loopback, on a port that the system chooses, and ends with the test that
//! started it.

use std::time::Duration;

pub mod audit;
pub mod bench;
pub mod client;
pub mod load;
pub mod process;
pub mod relay;

pub use client::{Client, Response, ack_body, item, message_of, pull_body, push_body};
pub use process::Process;
pub use relay::Relay;

/// Asks until there is an answer, but not for ever: some ten seconds.
pub fn eventually<T>(mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    (0..1000).find_map(|attempt| {
        if attempt > 0 {
            std::thread::sleep(Duration::from_millis(10));
        }
        ask()
    })
}

/// Whether tests run at full length. `cargo xtask ci` says so; without, they run the same code for
/// less long.
pub fn run_slow_tests() -> bool {
    #[expect(clippy::disallowed_methods, reason = "the switch of the slow tests is an environment variable")]
    std::env::var_os("RUN_SLOW_TESTS").is_some()
}

/// `full` in a full run, `short` otherwise.
pub fn at_length<T>(full: T, short: T) -> T {
    if run_slow_tests() { full } else { short }
}
