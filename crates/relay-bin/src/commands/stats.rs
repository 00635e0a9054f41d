//! `relay-bin stats`: prints the content and the size of the store. It reads only the first item of
//! each queue.

use relay_core::Timestamp;
use relay_store_redb::{Files, Naming, Stats};
use serde_json::json;

use super::{CommandError, Outcome, count, open_existing, rows};
use crate::config::RelayConfig;

pub(super) fn run(config: &RelayConfig, is_json: bool) -> Result<Outcome, CommandError> {
    let store = open_existing(config)?;
    let (stats, naming) = (store.stats()?, store.naming());
    Ok(Outcome::success(if is_json { to_json(&stats, naming) } else { to_lines(&stats, naming) }))
}

fn to_json(stats: &Stats, naming: Naming) -> String {
    let Stats { contents, expired, oldest_arrival, next_deadline, index, journal, payloads } = stats;
    let files = |files: &Files| json!({"files": files.files, "bytes": files.bytes});
    let object = json!({
        "recipients": if naming == Naming::Plain { "plain" } else { "hashed" },
        "recipients_key": naming.key_id().map(|id| id.to_string()),
        "queues": contents.queues,
        "items": contents.usage.items,
        "payload_bytes": contents.usage.bytes,
        "expired_items": expired.items,
        "expired_bytes": expired.bytes,
        "acked_names": contents.acked,
        "oldest_arrival_ms": oldest_arrival.map(Timestamp::as_ms),
        "next_deadline_ms": next_deadline.map(Timestamp::as_ms),
        "files": {"index": files(index), "journal": files(journal), "payloads": files(payloads)},
    });
    format!("{object}\n")
}

fn to_lines(stats: &Stats, naming: Naming) -> String {
    let Stats { contents, expired, oldest_arrival, next_deadline, index, journal, payloads } = stats;
    let time =
        |time: &Option<Timestamp>| time.map_or("none".to_owned(), |time| format!("{} ms", time.as_ms()));
    let files = |files: &Files| format!("{} bytes in {}", files.bytes, count(files.files, "file", "files"));
    let items = format!("{} of {} bytes", contents.usage.items, contents.usage.bytes);
    let expired = format!("{} of {} bytes", expired.items, expired.bytes);
    let recipients = naming.key_id().map_or_else(|| "plain".to_owned(), |id| format!("hashed with key {id}"));
    rows(&[
        ("recipients", recipients),
        ("queues", contents.queues.to_string()),
        ("items", items),
        ("  of these expired", expired),
        ("acked item ids", contents.acked.to_string()),
        ("oldest item arrived at", time(oldest_arrival)),
        ("next item expires at", time(next_deadline)),
        ("index", files(index)),
        ("journal", files(journal)),
        ("large payloads", files(payloads)),
    ])
}
