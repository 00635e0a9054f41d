//! Processes that the tests have started: signals to them, and waiting for them.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

const PAUSE: Duration = Duration::from_millis(50);

pub(super) fn send(signal: &str, processes: &[u32]) -> io::Result<()> {
    let processes = processes.iter().map(u32::to_string);
    Command::new("kill").arg(format!("-{signal}")).args(processes).stderr(Stdio::null()).status().map(drop)
}

/// Signals servers and their children. They are stopped first, so that they start no new ones.
pub(super) fn send_with_children(signal: &str, servers: &[u32]) -> io::Result<()> {
    if servers.is_empty() {
        return Ok(());
    }
    send("STOP", servers)?;
    let mut processes = servers.to_vec();
    for server in servers {
        processes.extend(children(*server)?);
    }
    send(signal, &processes)
}

/// Processes whose command line contains this path.
pub(super) fn naming(path: &Path) -> io::Result<Vec<u32>> {
    let path = path.as_os_str().as_bytes();
    let names = |id: &u32| {
        let words = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        words.windows(path.len()).any(|part| part == path)
    };
    Ok(all()?.filter(names).collect())
}

/// Each child of a server leads a group of its own, so they are found by their parent.
fn children(parent: u32) -> io::Result<Vec<u32>> {
    Ok(all()?.filter(|id| parent_of(*id) == Some(parent)).collect())
}

fn all() -> io::Result<impl Iterator<Item = u32>> {
    let processes = fs::read_dir("/proc")?.filter_map(Result::ok);
    Ok(processes.filter_map(|process| process.file_name().to_str()?.parse().ok()))
}

fn parent_of(process: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name before it is in parentheses, and may contain anything.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// Asks until it is so, and gives up after `patience`.
pub(super) fn becomes(patience: Duration, mut is_so: impl FnMut() -> io::Result<bool>) -> io::Result<bool> {
    for _ in 0..patience.as_millis() / PAUSE.as_millis() {
        if is_so()? {
            return Ok(true);
        }
        sleep(PAUSE);
    }
    Ok(false)
}
