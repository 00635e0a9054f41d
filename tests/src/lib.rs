//! Helpers for black-box tests: a relay in process ([`relay`]) or as a process of its own
//! ([`process`]), a plain HTTP client, and [`audit`], which checks a queue against what the relay
//! has answered. On Linux, also a load generator ([`load`]) and the benchmark of the whole system
//! that uses it ([`mod@bench`]).
//!
//! Servers listen on loopback, on a port that the system chooses, and end with the test that
//! started them.

use std::io::Write as _;
use std::time::Duration;

pub mod audit;
pub mod bench;
pub mod client;
pub mod drill;
pub mod load;
pub mod process;
pub mod relay;

pub use client::{Client, Response, ack_body, item, message_of, pull_body, push_body};
pub use process::Process;
pub use relay::Relay;

/// Calls `ask` every 10 ms until it returns a value. Gives up after about ten seconds.
pub fn eventually<T>(mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    (0..1000).find_map(|attempt| {
        if attempt > 0 {
            std::thread::sleep(Duration::from_millis(10));
        }
        ask()
    })
}

/// Whether tests run at full length, as in `cargo xtask ci`. Otherwise they run the same code for
/// less long.
pub fn run_slow_tests() -> bool {
    #[expect(clippy::disallowed_methods, reason = "the switch of the slow tests is an environment variable")]
    std::env::var_os("RUN_SLOW_TESTS").is_some()
}

/// Says that a test is skipped because this machine lacks a program.
///
/// # Panics
/// When no program may be missing, as in `.ci/run`.
pub fn skip_without(program: &str) {
    #[expect(clippy::disallowed_methods, reason = "the switch of these tests is an environment variable")]
    let must_exist = std::env::var_os("REQUIRE_PROGRAMS").is_some();
    assert!(!must_exist, "{program} is missing, and REQUIRE_PROGRAMS is set");
    skip(&format!("there is no {program} here"));
}

/// Says that a test is skipped, and why.
pub fn skip(reason: &str) {
    // Past the test harness, which hides what a successful test prints.
    drop(writeln!(std::io::stderr(), "skipped: a test, because {reason}"));
}

/// `full` in a full run, `short` otherwise.
pub fn at_length<T>(full: T, short: T) -> T {
    if run_slow_tests() { full } else { short }
}
