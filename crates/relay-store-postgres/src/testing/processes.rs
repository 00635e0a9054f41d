//! Signals to processes that the tests have started.

use std::fs;
use std::io;
use std::process::{Command, Stdio};

pub(super) fn send(signal: &str, processes: &[u32]) -> io::Result<()> {
    let processes = processes.iter().map(u32::to_string);
    Command::new("kill").arg(format!("-{signal}")).args(processes).stderr(Stdio::null()).status().map(drop)
}

/// Each child of a server leads a group of its own, so they are found by their parent.
pub(super) fn children(parent: u32) -> io::Result<Vec<u32>> {
    let processes = fs::read_dir("/proc")?.filter_map(Result::ok);
    let ids = processes.filter_map(|process| process.file_name().to_str()?.parse::<u32>().ok());
    Ok(ids.filter(|id| parent_of(*id) == Some(parent)).collect())
}

fn parent_of(process: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name before it is in parentheses, and may contain anything.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}
