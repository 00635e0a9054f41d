//! The benchmark of the whole system: the relay as a process on a real disk, under load from this
//! process. It is compared with what bounds it: its own HTTP server without a store, the disk
//! alone, and Redis. All servers listen on loopback and are killed at the end. Files lie in a fresh
//! directory below `target`.
//!
//! Each benchmark is a function from a lab (the programs, the disk, the length of runs) to a
//! section of figures. A figure that misses its bar is shown, and fails nothing. Load and relay
//! share the processors, so a figure means little without its bar and its machine.
//!
//! It reads `/proc`, so it needs Linux.

mod ack;
mod auth;
mod batch;
mod cbor;
pub mod command;
mod delivery;
mod disk;
mod failovers;
mod figure;
mod files;
mod flood;
mod flooder;
mod floor;
mod growth;
mod half_open;
mod kills;
mod lab;
mod large;
mod latency;
mod machine;
mod open_files;
mod parked;
mod plot;
mod postgres;
mod probe;
pub(crate) mod procfs;
mod pull;
mod push;
mod redis;
mod relay;
mod server;
mod shapes;
mod soak;
mod space;
mod start;
mod statistics;
mod subscriber;
mod sweep;
mod timing;
mod tls;
mod written;

use figure::Section;
use lab::Lab;

/// A benchmark: its name on the command line, and the function that measures it.
type Benchmark = (&'static str, fn(&Lab) -> anyhow::Result<Section>);

/// All benchmarks, in the order in which they run.
const BENCHMARKS: [Benchmark; 17] = [
    ("push", push::measure),
    ("latency", latency::measure),
    ("batch", batch::measure),
    ("delivery", delivery::measure),
    ("pull", pull::measure),
    ("ack", ack::measure),
    ("large", large::measure),
    ("written", written::measure),
    ("growth", growth::measure),
    ("space", space::measure),
    ("sweep", sweep::measure),
    ("shapes", shapes::measure),
    ("start", start::measure),
    ("auth", auth::measure),
    ("flood", flood::measure),
    ("timing", timing::measure),
    ("postgres", postgres::measure),
];
