//! `relay-bin stats`: prints the content and the size of the store. If a relay uses the store, the
//! relay reads it.

use relay_core::Clock as _;
use relay_store_redb::OpenError;

use super::running::RunningRelay;
use super::{CommandError, Outcome, count, human, open_existing, rows};
use crate::clock::SystemClock;
use crate::config::{RelayConfig, StorageKind};
use crate::reports::{ContentsReport, StatsReport};

pub(super) fn run(config: &RelayConfig, is_json: bool) -> Result<Outcome, CommandError> {
    Ok(print(&read(config)?, is_json))
}

/// The statistics for people or for scripts.
pub(super) fn print(report: &StatsReport, is_json: bool) -> Outcome {
    let now_ms = SystemClock.now().as_ms();
    Outcome::success(if is_json { super::to_json(report) } else { to_lines(report, now_ms) })
}

fn read(config: &RelayConfig) -> Result<StatsReport, CommandError> {
    let ask = || RunningRelay::connect(config)?.ask("stats", &(), |_| {});
    if config.storage.kind == StorageKind::Memory {
        return ask();
    }
    match open_existing(config) {
        Ok(store) => Ok(StatsReport::of_redb(&store)?),
        Err(OpenError::InUse(_)) => ask(),
        Err(error) => Err(error.into()),
    }
}

fn to_lines(report: &StatsReport, now_ms: u64) -> String {
    let mut all = Vec::new();
    if let Some(recipients) = &report.recipients {
        let key = report.recipients_key.as_ref().map(|key| format!(" with key {key}")).unwrap_or_default();
        all.push(("recipients", format!("{recipients}{key}")));
    }
    if let Some(ContentsReport { queues, .. }) = report.contents {
        all.push(("queues", queues.to_string()));
    }
    all.extend(report.contents.map(|contents| ("items", of(contents.items, contents.payload_bytes))));
    all.extend(report.on_disk.map(|disk| ("  of these expired", of(disk.expired_items, disk.expired_bytes))));
    all.extend(report.contents.map(|contents| ("acked item ids", contents.acked_names.to_string())));
    if let Some(disk) = report.on_disk {
        let time =
            |ms: Option<u64>| ms.map_or_else(|| "none".to_owned(), |ms| human::date_and_age(ms, now_ms));
        let files = |used: crate::reports::FileUse| {
            format!("{} in {}", human::bytes(used.bytes), count(used.files, "file", "files"))
        };
        all.extend([
            ("oldest item arrived at", time(disk.oldest_arrival_ms)),
            ("next item expires at", time(disk.next_deadline_ms)),
            ("index", files(disk.files.index)),
            ("journal", files(disk.files.journal)),
            ("large payloads", files(disk.files.payloads)),
        ]);
    }
    if let Some(memory) = report.in_memory {
        all.push(("items", memory.memory_items.to_string()));
        all.push(("memory", human::bytes(memory.memory_bytes)));
    }
    all.extend(report.table_bytes.map(|bytes| ("tables with indexes", human::bytes(bytes))));
    rows(&all) + &shards(report)
}

fn of(items: u64, payload_bytes: u64) -> String {
    format!("{items} of {}", human::bytes(payload_bytes))
}

fn shards(report: &StatsReport) -> String {
    let each = |(number, shard): (usize, &crate::reports::ShardReport)| {
        let ContentsReport { queues, items, payload_bytes, .. } = shard.contents;
        let shares = format!(
            "{queues} queues, {items} items of {}, tables of {}",
            human::bytes(payload_bytes),
            human::bytes(shard.table_bytes)
        );
        rows(&[(&format!("shard {number}"), shares)])
    };
    (1..).zip(&report.shards).map(each).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_get_dates_ages_and_units() {
        let json = serde_json::json!({
            "recipients": "hashed", "recipients_key": "0123456789abcdef", "queues": 1, "items": 2,
            "payload_bytes": 3_000_000, "acked_names": 0, "expired_items": 0, "expired_bytes": 0,
            "oldest_arrival_ms": 1_795_894_805_728_u64, "next_deadline_ms": null,
            "files": {"index": {"files": 1, "bytes": 117}, "journal": {"files": 2, "bytes": 1 << 20},
                "payloads": {"files": 0, "bytes": 0}},
        });
        let report: StatsReport = serde_json::from_value(json.clone()).unwrap();
        assert_eq!(serde_json::to_value(&report).unwrap(), json, "scripts get exact numbers");
        let expected = "\
recipients              hashed with key 0123456789abcdef
queues                  1
items                   2 of 2.86 MiB
  of these expired      0 of 0 B
acked item ids          0
oldest item arrived at  2026-11-28T19:40:05Z, 3 days ago
next item expires at    none
index                   117 B in 1 file
journal                 1.00 MiB in 2 files
large payloads          0 B in 0 files
";
        assert_eq!(to_lines(&report, 1_795_894_805_728 + 3 * 86_400_000), expected);
    }
}
