//! `watch`: messages as they arrive.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use relay_client::{Client, Message, Options, Transport};
use serde_json::json;
use tokio::io::AsyncWriteExt as _;

use crate::cli::WatchArgs;
use crate::failure::Failure;
use crate::output::{Output, printable, printable_lines};
use crate::session::Session;

/// How many messages are watched without an ack: far more than queues hold.
const UNACKED_MAX: usize = 10_000_000;

pub(crate) async fn run(session: &Session, args: &WatchArgs, output: &Output) -> Result<(), Failure> {
    let recipient = session.recipient(&args.queue)?;
    let mut options = session.options.clone();
    if !args.ack {
        // Nobody acks, so that must not stop it.
        options.unacked_max = UNACKED_MAX;
    }
    let options = Options { on_skipped: Some(reporting(output.is_json())), ..options };
    let client = Client::new(&session.url, options)?;
    let transport = if args.stream { Transport::Stream } else { Transport::Wait };
    let mut deliveries = client.deliveries(recipient, session.credentials.clone(), transport);
    let mut left = args.count.map_or(u64::MAX, |count| count.get());
    let mut result = Ok(());
    // One for all messages, so that none is lost in between, or while an ack waits.
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    while left > 0 && result.is_ok() {
        let step = async {
            match deliveries.next().await? {
                Ok(message) => Some(take(&message, args, output).await),
                Err(error) => Some(Err(error.into())),
            }
        };
        let step = tokio::select! {
            step = step => step,
            interrupted = &mut interrupted => {
                interrupted?;
                break;
            }
        };
        let Some(taken) = step else { break };
        result = taken;
        left -= 1;
    }
    deliveries.close().await;
    result
}

/// Prints or writes a message. Only then is it acked.
async fn take(message: &Message, args: &WatchArgs, output: &Output) -> Result<(), Failure> {
    let (id, kind) = (message.message_id.to_string(), &message.kind);
    let mut object = json!({
        "message_id": id,
        "kind": kind,
        "bytes": message.payload.len(),
        "sent_ms": message.sent_ms,
        "arrival_ms": message.arrival_ms,
    });
    match &args.out {
        Some(directory) => {
            let path = directory.join(&id);
            write(directory, &id, &message.payload).await.map_err(|error| {
                Failure::File(format!("file {}: cannot be written: {error}", path.display()))
            })?;
            let path = path.to_string_lossy();
            if let Some(object) = object.as_object_mut() {
                object.insert("file".to_owned(), path.as_ref().into());
            }
            output.print(&object, || printable(&path))?;
        }
        None => {
            if let Some(object) = object.as_object_mut() {
                object.insert("payload_b64".to_owned(), STANDARD.encode(&message.payload).into());
            }
            output.print(&object, || describe(message))?;
        }
    }
    if args.ack {
        message.ack().await?;
    }
    Ok(())
}

/// A file is never seen half written, and is on disk before its message is acked.
async fn write(directory: &Path, id: &str, payload: &[u8]) -> std::io::Result<()> {
    let (part, path) = (directory.join(format!("{id}.part")), directory.join(id));
    let mut file = tokio::fs::File::create(&part).await?;
    file.write_all(payload).await?;
    file.sync_all().await?;
    drop(file);
    tokio::fs::rename(&part, &path).await?;
    tokio::fs::File::open(directory).await?.sync_all().await
}

/// Text as it is, without commands to the terminal; of other payloads the size.
fn describe(message: &Message) -> String {
    let (id, kind) = (message.message_id, printable(&message.kind));
    match str::from_utf8(&message.payload) {
        Ok(text) => format!("{id}  {kind}  {}", printable_lines(text.trim_end_matches('\n'))),
        Err(_) => format!("{id}  {kind}  ({} bytes)", message.payload.len()),
    }
}

fn reporting(is_json: bool) -> relay_client::OnSkipped {
    let output = Output::new(is_json);
    relay_client::OnSkipped::new(move |id, reason| {
        let reason = reason.as_str();
        if is_json {
            output.error(&json!({"skipped": {"message_id": id.to_string(), "reason": reason}}).to_string());
        } else {
            output.error(&format!("relay-cli: skipped message {id}: {reason}"));
        }
    })
}
