//! Redis Streams as a peer: one append per push, synced before the response. Redis checks no
//! duplicates and no quotas, and keeps everything in memory.

use std::io;
use std::process::Command;

use anyhow::Context as _;
use tempfile::TempDir;

use super::lab::{Lab, PAYLOAD_BYTES, RECIPIENTS};
use super::server::{Server, free_address};

/// The key of the stream. redis-benchmark replaces the placeholder with a random number.
const STREAM: &str = "stream:__rand_int__";

/// The arguments of the server. They are printed in the document, so that anybody can repeat the
/// run. The append-only file is never rewritten, which is best for Redis here.
pub(super) const SERVER_ARGUMENTS: [&str; 10] = [
    "--bind",
    "127.0.0.1",
    "--appendonly",
    "yes",
    "--appendfsync",
    "always",
    "--auto-aof-rewrite-percentage",
    "0",
    "--save",
    "",
];

/// A running Redis with an empty store.
#[derive(Debug)]
pub(super) struct Redis {
    pub(super) server: Server,
    _home: TempDir,
}

/// Appends a second to a fresh Redis; `None` if Redis is not installed.
pub(super) fn append_rate(lab: &Lab, connections: usize, requests: u64) -> anyhow::Result<Option<f64>> {
    pipelined_append_rate(lab, connections, 1, requests)
}

/// The same, with so many appends in a pipeline.
pub(super) fn pipelined_append_rate(
    lab: &Lab,
    connections: usize,
    pipeline: usize,
    requests: u64,
) -> anyhow::Result<Option<f64>> {
    let Some(redis) = Redis::start(lab)? else { return Ok(None) };
    let output = Command::new("redis-benchmark")
        .args(["-p", &redis.server.address.port().to_string(), "--csv", "-P", &pipeline.to_string()])
        .args(["-c", &connections.to_string(), "-n", &requests.to_string(), "-r", &RECIPIENTS.to_string()])
        .args(["XADD", STREAM, "*", "item", &"x".repeat(PAYLOAD_BYTES)])
        .output();
    let output = match output {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        output => output?,
    };
    let text = String::from_utf8_lossy(&output.stdout);
    requests_per_second(&text).map(Some).with_context(|| format!("redis-benchmark printed {text:?}"))
}

impl Redis {
    /// Starts Redis; `None` if it is not installed.
    pub(super) fn start(lab: &Lab) -> anyhow::Result<Option<Self>> {
        let (home, address) = (lab.directory()?, free_address()?);
        let mut command = Command::new("redis-server");
        command
            .args(SERVER_ARGUMENTS)
            .args(["--port", &address.port().to_string()])
            .arg("--dir")
            .arg(home.path());
        match Server::start_on(address, &mut command) {
            Ok(server) => Ok(Some(Self { server, _home: home })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).context("redis-server"),
        }
    }
}

/// The column `rps` of the CSV that redis-benchmark prints.
fn requests_per_second(csv: &str) -> Option<f64> {
    let mut lines = csv.lines().filter(|line| line.starts_with('"'));
    let column = fields(lines.next()?).iter().position(|name| *name == "rps")?;
    fields(lines.next()?).get(column)?.parse().ok()
}

/// Splits quoted fields at commas. No field contains a quote.
fn fields(line: &str) -> Vec<&str> {
    line.trim_matches('"').split("\",\"").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_found_by_its_name() {
        let names = r#""test","rps","avg_latency_ms","min_latency_ms""#;
        let values = r#""XADD stream:__rand_int__ * item x,y","29154.52","2.190","0.5""#;
        assert_eq!(requests_per_second(&format!("{names}\n{values}\n")), Some(29154.52));
        assert_eq!(requests_per_second(&format!("WARNING: x\n{names}\n{values}\n")), Some(29154.52));
        for wrong in ["", names, values, "Could not connect"] {
            assert_eq!(requests_per_second(wrong), None, "{wrong}");
        }
    }
}
