//! Describes the machine on which the figures were measured.

use std::process::Command;

use super::Lab;
use super::disk;
use super::figure::quantity;

/// The section about the machine: date, hardware, kernel and disk.
pub(super) fn describe(lab: &Lab) -> anyhow::Result<String> {
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    let memory_gib =
        field("/proc/meminfo", "MemTotal").and_then(|kib| kib.split(' ').next()?.parse::<f64>().ok());
    let syncs = disk::batch_syncs(lab)?;
    let sequential = disk::sequential_rate(lab)?;
    let rows = [
        ("date", output_of("date", &["-u", "+%Y-%m-%d %H:%M UTC"])),
        (
            "processors",
            format!("{processors} × {}", field("/proc/cpuinfo", "model name").unwrap_or_default()),
        ),
        ("memory", memory_gib.map_or_else(String::new, |kib| quantity(kib / 1024.0 / 1024.0, "GiB"))),
        ("kernel", output_of("uname", &["-sr"])),
        ("file system", output_of("stat", &["-f", "-c", "%T", &lab.scratch().to_string_lossy()])),
        ("append of 64 KiB + fdatasync, median", quantity(syncs.median.as_secs_f64() * 1e3, "ms")),
        ("append of 64 KiB + fdatasync, p99", quantity(syncs.p99.as_secs_f64() * 1e3, "ms")),
        ("writes of 8 MiB, each with fdatasync", quantity(sequential / 1e6, "MB/s")),
    ];
    let table: String = rows.iter().map(|(name, value)| format!("| {name} | {value} |\n")).collect();
    Ok(format!("## Machine\n\n| | |\n|---|---|\n{table}"))
}

/// The output of a command; empty if it cannot run.
fn output_of(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map_or_else(|_| String::new(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The value of the first line `name : value` of a file.
fn field(path: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let (_, value) =
        text.lines().find_map(|line| line.split_once(':').filter(|(key, _)| key.trim() == name))?;
    Some(value.trim().to_owned())
}
