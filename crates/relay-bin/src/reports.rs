//! What commands report of a store, whether a relay reads it or the command itself. With `--json`,
//! these are the printed objects.

mod contents;
mod stats;
mod verify;

pub(crate) use self::contents::ContentsReport;
pub(crate) use self::stats::{FileUse, ShardReport, StatsReport};
pub(crate) use self::verify::VerifyReport;
