//! `push`: a file or standard input as one message.

use std::path::Path;
use std::time::Duration;

use relay_client::{Push, Pushed};
use serde_json::json;
use tokio::fs::File;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::cli::PushArgs;
use crate::failure::Failure;
use crate::output::Output;
use crate::progress::Counted;
use crate::session::Session;

/// How much of standard input is a message: its length must be known before it is sent.
const STDIN_BYTES_MAX: u64 = 64 << 20;

pub(crate) async fn run(session: &Session, args: &PushArgs, output: &Output) -> Result<(), Failure> {
    let (pushed, bytes) = if args.file == Path::new("-") {
        let mut payload = Vec::new();
        tokio::io::stdin().take(STDIN_BYTES_MAX + 1).read_to_end(&mut payload).await?;
        let bytes = payload.len() as u64;
        if bytes > STDIN_BYTES_MAX {
            let message = format!("standard input has over {STDIN_BYTES_MAX} bytes; push a file instead");
            return Err(Failure::Usage(message));
        }
        (send(session, args, session.client.push(&*args.to, payload)).await?, bytes)
    } else {
        let unreadable =
            |error| Failure::File(format!("file {}: cannot be read: {error}", args.file.display()));
        let file = File::open(&args.file).await.map_err(unreadable)?;
        let metadata = file.metadata().await.map_err(unreadable)?;
        if !metadata.is_file() {
            let message = format!("file {}: is not a regular file; use - and a pipe", args.file.display());
            return Err(Failure::Usage(message));
        }
        let bytes = metadata.len();
        let push = session.client.push_reader(&*args.to, Counted::new(file, bytes), bytes);
        (send(session, args, push).await?, bytes)
    };
    let Pushed { message_id, is_duplicate, is_conflict, .. } = pushed;
    if is_conflict {
        output.error("relay-cli: warning: the relay has another payload under this id, and keeps it");
    }
    let id = message_id.to_string();
    let object =
        json!({"message_id": id, "bytes": bytes, "duplicate": is_duplicate, "conflict": is_conflict});
    output.print(&object, || id)
}

async fn send<R: AsyncRead + Unpin + Send>(
    session: &Session,
    args: &PushArgs,
    push: Push<'_, R>,
) -> Result<Pushed, Failure> {
    let mut push = push.kind(&*args.kind);
    if let Some(seconds) = args.ttl {
        push = push.ttl(Duration::from_secs(seconds.get()));
    }
    if let Some(id) = args.id {
        push = push.message_id(id);
    }
    // A secret for another recipient is not shown.
    if let Some(secret) = session.send_secret.as_ref().filter(|secret| args.to.ends_with(&secret.send_lock()))
    {
        push = push.send_secret(secret);
    }
    Ok(push.await?)
}
