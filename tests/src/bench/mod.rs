//! The benchmark of the whole system: the relay as a process on a real disk, under load from this
//! process, beside what bounds it: its own HTTP server without a store, the disk alone, and Redis.
//! Everything that is started listens on loopback and is killed at the end; the files lie in a
//! fresh directory below `target`.
//!
//! Each bar is a function from a lab (the programs, the disk, the length of runs) to a section of
//! figures. A bar that is missed is shown and fails nothing: this program measures, it does not
//! judge. Load and relay share the processors, so a figure is worth something beside its bar and
//! the machine that it comes from, and little alone.
//!
//! It needs Linux: it reads `/proc`.

mod ack;
pub mod command;
mod disk;
mod figure;
mod files;
mod floor;
mod growth;
mod kills;
mod lab;
mod large;
mod latency;
mod machine;
mod plot;
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
mod sweep;
mod written;

use figure::Section;
use lab::Lab;

/// A bar: its name on the command line, and how it is measured.
type Bar = (&'static str, fn(&Lab) -> anyhow::Result<Section>);

/// In the order in which they are run.
const BARS: [Bar; 11] = [
    ("push", push::measure),
    ("latency", latency::measure),
    ("pull", pull::measure),
    ("ack", ack::measure),
    ("large", large::measure),
    ("written", written::measure),
    ("growth", growth::measure),
    ("space", space::measure),
    ("sweep", sweep::measure),
    ("shapes", shapes::measure),
    ("start", start::measure),
];
