//! What takes long or loads the machine. These run one at a time: several measure how long
//! something takes.

mod drain;
mod kept_in_memory;
mod kill;
mod malformed;
mod memory;
mod parallel;
mod restart;
mod sweep;
mod trickle;
