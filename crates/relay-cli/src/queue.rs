//! `pull`, `ack`, `purge` and `info`: the raw requests of the API.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use relay_client::{Acked, Item, Page, Pull, Uuid};
use serde_json::{Value, json};

use crate::cli::{AckArgs, PullArgs, PurgeArgs};
use crate::failure::Failure;
use crate::output::{Output, printable};
use crate::session::Session;

/// The most entries in one ack.
const ENTRIES_MAX: usize = 10_000;

/// Prints a page, or all. People get one line for each item; scripts also the cursor at the end.
pub(crate) async fn pull(session: &Session, args: &PullArgs, output: &Output) -> Result<(), Failure> {
    let recipient = session.recipient(&args.queue)?;
    let mut pull = Pull { cursor: args.cursor.clone(), ..Pull::default() };
    pull.max = args.max.map(|max| max.get());
    loop {
        let page = session.client.pull(&recipient, &session.credentials, &pull).await?;
        let Page { items, next_cursor, remaining, .. } = page;
        for item in &items {
            output.print(&object(item), || line(item))?;
        }
        if args.all && next_cursor.is_some() {
            pull.cursor = next_cursor;
            continue;
        }
        if output.is_json() {
            return output.print(&json!({"next_cursor": next_cursor, "remaining": remaining}), String::new);
        }
        if let Some(cursor) = next_cursor {
            output.error(&format!("{remaining} more; go on with --cursor {}", printable(&cursor)));
        }
        return Ok(());
    }
}

fn object(item: &Item) -> Value {
    json!({
        "message_id": item.message_id.to_string(),
        "chunk_index": item.chunk_index,
        "chunk_count": item.chunk_count,
        "kind": item.kind,
        "total_len": item.total_len,
        "sent_ms": item.sent_ms,
        "arrival_ms": item.arrival_ms,
        "deadline_ms": item.deadline_ms,
        "payload_b64": STANDARD.encode(&item.payload),
    })
}

fn line(item: &Item) -> String {
    let Item { message_id, chunk_index, chunk_count, payload, kind, .. } = item;
    let (bytes, kind) = (payload.len(), printable(kind));
    let last = chunk_count.saturating_sub(1);
    format!("{message_id}:{chunk_index} of 0-{last}  {bytes:>9} bytes  {kind}")
}

pub(crate) async fn ack(session: &Session, args: &AckArgs, output: &Output) -> Result<(), Failure> {
    let recipient = session.recipient(&args.queue)?;
    let mut entries = Vec::new();
    for message in &args.messages {
        entries.extend(parse(message)?);
    }
    let mut total = (0, 0, 0);
    for entries in entries.chunks(ENTRIES_MAX) {
        let acked = session.client.ack(&recipient, &session.credentials, entries).await?;
        let Acked { deleted, missing, remaining, .. } = acked;
        total = (total.0 + deleted, total.1 + missing, remaining);
    }
    removed(total, output)
}

pub(crate) async fn purge(session: &Session, args: &PurgeArgs, output: &Output) -> Result<(), Failure> {
    let recipient = session.recipient(&args.queue)?;
    let Acked { deleted, missing, remaining, .. } =
        session.client.purge(&recipient, &session.credentials).await?;
    removed((deleted, missing, remaining), output)
}

fn removed((deleted, missing, remaining): (u64, u64, u64), output: &Output) -> Result<(), Failure> {
    let object = json!({"deleted": deleted, "missing": missing, "remaining": remaining});
    output.print(&object, || format!("{deleted} removed, {missing} not there, {remaining} left"))
}

/// `UUID`, `UUID:3` or `UUID:0-9`.
fn parse(message: &str) -> Result<impl Iterator<Item = (Uuid, u64)> + use<>, Failure> {
    let wrong = || Failure::Usage(format!("{}: not a UUID, UUID:3 or UUID:0-9", printable(message)));
    let (id, chunks) = message.split_once(':').unwrap_or((message, "0"));
    let (first, last) = chunks.split_once('-').unwrap_or((chunks, chunks));
    let id = Uuid::parse_str(id).map_err(|_| wrong())?;
    let (first, last): (u32, u32) = (first.parse().map_err(|_| wrong())?, last.parse().map_err(|_| wrong())?);
    if last < first || last - first > 65_535 {
        return Err(wrong());
    }
    Ok((u64::from(first)..=u64::from(last)).map(move |chunk| (id, chunk)))
}

pub(crate) async fn info(session: &Session, output: &Output) -> Result<(), Failure> {
    let info = session.client.info().await?;
    let object = json!({
        "version": info.version,
        "server_ms": info.server_ms,
        "features": info.features,
        "limits": info.limits,
    });
    output.print(&object, || {
        if info.version.is_empty() {
            return "a relay before 0.1: push, pull and ack alone".to_owned();
        }
        let (version, features) = (printable(&info.version), printable(&info.features.join(" ")));
        let mut lines = format!("version   {version}\nfeatures  {features}");
        for (name, limit) in &info.limits {
            lines.push_str(&format!("\n{:<21} {limit:>12}", printable(name)));
        }
        lines
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_one_or_a_range() {
        let id = "00000000-0000-4000-8000-000000000001";
        let parsed = |text: &str| {
            let chunks = parse(text).ok()?;
            Some(chunks.map(|(_, chunk)| chunk).collect::<Vec<_>>())
        };
        assert_eq!(parsed(id), Some(vec![0]));
        assert_eq!(parsed(&format!("{id}:3")), Some(vec![3]));
        assert_eq!(parsed(&format!("{id}:1-3")), Some(vec![1, 2, 3]));
        for text in
            ["x", "", ":", ":0", "-", &format!("{id}:"), &format!("{id}:3-1"), &format!("{id}:0-65536")]
        {
            assert_eq!(parsed(text), None, "{text}");
        }
    }
}
