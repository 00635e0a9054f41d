//! Reads figures of a process from `/proc`: memory, CPU time, bytes written.

use std::io;
use std::time::Duration;

/// The unit of times in `/proc`: USER_HZ, which is 100 on every architecture that Linux supports.
const TICKS_PER_SECOND: u64 = 100;

/// The memory of a process, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Memory {
    /// Resident memory now.
    pub(crate) resident: u64,
    /// The largest resident memory so far.
    pub(crate) peak: u64,
}

pub(crate) fn memory(process: u32) -> io::Result<Memory> {
    let text = read(process, "status")?;
    let bytes = |name| Some(field(&text, name)? * 1024);
    let memory = || Some(Memory { resident: bytes("VmRSS")?, peak: bytes("VmHWM")? });
    memory().ok_or_else(|| unreadable("status"))
}

/// Bytes that the process has caused to be written to disk.
pub(super) fn written_bytes(process: u32) -> io::Result<u64> {
    field(&read(process, "io")?, "write_bytes").ok_or_else(|| unreadable("io"))
}

/// The CPU time of all its threads.
pub(crate) fn cpu(process: u32) -> io::Result<Duration> {
    ticks(&read(process, "stat")?)
        .map(|ticks| Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
        .ok_or_else(|| unreadable("stat"))
}

/// The CPU time of its threads, to the nanosecond. Threads that have ended do not count.
pub(super) fn cpu_of_threads(process: u32) -> io::Result<Duration> {
    let mut nanoseconds = 0;
    for thread in std::fs::read_dir(format!("/proc/{process}/task"))? {
        // A thread may end meanwhile.
        let text = std::fs::read_to_string(thread?.path().join("schedstat")).unwrap_or_default();
        nanoseconds += text.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0);
    }
    Ok(Duration::from_nanos(nanoseconds))
}

fn read(process: u32, file: &str) -> io::Result<String> {
    std::fs::read_to_string(format!("/proc/{process}/{file}"))
}

/// The number in a line such as `name: 12 kB`.
fn field(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    value.split_whitespace().next()?.parse().ok()
}

/// The sum of fields 14 and 15: user and system time. Field 2 is the program name in parentheses
/// and may contain anything.
fn ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(") ")?;
    let mut fields = after_name.split(' ').skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(user + system)
}

fn unreadable(file: &str) -> io::Error {
    io::Error::other(format!("/proc/PID/{file} has an unknown format"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_full_name() {
        let text = "VmRSSX:\t1 kB\nVmRSS:\t   2048 kB\nwrite_bytes: 7\ncancelled_write_bytes: 9\n";
        assert_eq!(
            [field(text, "VmRSS"), field(text, "write_bytes"), field(text, "Vm")],
            [Some(2048), Some(7), None]
        );
    }

    #[test]
    fn times_follow_the_name() {
        let stat = "12 (a) b (c) S 1 12 12 0 -1 4194304 1 0 0 0 250 50 0 0 20 0 3 0 99 1 2";
        assert_eq!(ticks(stat), Some(300));
    }

    #[test]
    fn this_process_can_be_read() {
        let process = std::process::id();
        let memory = memory(process).unwrap();
        assert!(0 < memory.resident && memory.resident <= memory.peak);
        written_bytes(process).unwrap();
        let (ticks, exact) = (cpu(process).unwrap(), cpu_of_threads(process).unwrap());
        assert!(exact > Duration::ZERO && exact < ticks + Duration::from_secs(10), "{exact:?} {ticks:?}");
    }
}
