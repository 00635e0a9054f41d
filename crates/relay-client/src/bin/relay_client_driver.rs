//! Drives the client by lines of JSON, for the test that all clients have in common. It is no tool
//! for people: it prints payloads, and takes secrets from standard input.
//!
//! Commands come one in a line: `open`, `push`, `deliver`, `ack`, `close`; the end of the input
//! closes as well. Events go out one in a line: `opened`, `pushed`, `failed`, `message`, `acked`,
//! `skipped`, `error`, `closed`.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::io::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use relay_client::{Client, Credentials, Error, Key, Message, OnSkipped, Options, Secret, Transport, Uuid};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

/// How many pushes wait for those before them.
const PUSHES_MAX: usize = 100_000;

type Failure = Box<dyn StdError + Send + Sync>;

#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
enum Command {
    Open(Box<Open>),
    Push(PushCommand),
    Deliver(Deliver),
    Ack { message_id: String },
    Close,
}

#[derive(Deserialize)]
struct Open {
    url: String,
    #[serde(default)]
    options: OpenOptions,
    #[serde(default)]
    credentials: Option<OpenCredentials>,
    #[serde(default)]
    clock_offset_ms: i64,
}

#[derive(Default, Deserialize)]
struct OpenOptions {
    chunk_bytes: Option<usize>,
    memory_bytes: Option<usize>,
    poll_interval_ms: Option<u64>,
    wait_ms: Option<u64>,
    push_timeout_ms: Option<u64>,
    partial_age_ms: Option<u64>,
    ack_delay_ms: Option<u64>,
    /// In milliseconds, too.
    #[serde(alias = "request_timeout_ms")]
    request_timeout: Option<u64>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OpenCredentials {
    Secret { secret: String },
    Key { key: String, audience: String },
    Token { token: String },
}

#[derive(Deserialize)]
struct PushCommand {
    id: Value,
    recipient: String,
    payload_b64: String,
    kind: Option<String>,
    ttl_seconds: Option<u64>,
    message_id: Option<String>,
}

#[derive(Deserialize)]
struct Deliver {
    recipient: String,
    transport: String,
    #[serde(default)]
    auto_ack: bool,
    #[serde(default)]
    digest: bool,
}

/// What `open` has made.
struct Opened {
    client: Client,
    credentials: Credentials,
    pushes: mpsc::Sender<PushCommand>,
    pushing: JoinHandle<()>,
    delivering: Vec<(oneshot::Sender<()>, JoinHandle<()>)>,
    /// The messages that were handed out and not acked.
    held: Held,
}

type Held = Arc<Mutex<HashMap<Uuid, Arc<Message>>>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut opened: Option<Opened> = None;
    while let Some(line) = lines.next_line().await? {
        match (serde_json::from_str(&line)?, &mut opened) {
            (Command::Close, _) => break,
            (Command::Open(open), _) => opened = Some(Opened::new(*open)?),
            (_, None) => return Err("open comes first".into()),
            (Command::Push(push), Some(opened)) => opened.pushes.send(push).await?,
            (Command::Deliver(deliver), Some(opened)) => opened.deliver(deliver),
            (Command::Ack { message_id }, Some(opened)) => {
                let id = message_id.parse()?;
                let message = opened.held.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned();
                ack(message.ok_or("no such message")?, Arc::clone(&opened.held));
            }
        }
    }
    if let Some(opened) = opened {
        opened.close().await;
    }
    tell(&json!({"event": "closed"}));
    Ok(())
}

impl Opened {
    fn new(open: Open) -> Result<Self, Failure> {
        let credentials = match &open.credentials {
            None => Credentials::none(),
            Some(OpenCredentials::Secret { secret }) => Credentials::secret(&Secret::parse(secret)?),
            Some(OpenCredentials::Key { key, audience }) => Credentials::key(Key::parse(key)?, audience),
            Some(OpenCredentials::Token { token }) => Credentials::token(token)?,
        };
        let mut options = open.options.into_options();
        // A token may open pushes as well; the proof of a reader is nothing to a sender.
        if let Some(OpenCredentials::Token { .. }) = open.credentials {
            options.push_credentials = credentials.clone();
        }
        options.clock_offset_ms = open.clock_offset_ms;
        options.on_skipped = Some(OnSkipped::new(|id, reason| {
            tell(&json!({"event": "skipped", "message_id": id.to_string(), "reason": reason.as_str()}));
        }));
        let client = Client::new(&open.url, options)?;
        let (pushes, commands) = mpsc::channel(PUSHES_MAX);
        let pushing = tokio::spawn(push_all(client.clone(), commands));
        tell(&json!({"event": "opened"}));
        Ok(Self { client, credentials, pushes, pushing, delivering: Vec::new(), held: Held::default() })
    }

    fn deliver(&mut self, deliver: Deliver) {
        let (stop, stopped) = oneshot::channel();
        let (client, credentials) = (self.client.clone(), self.credentials.clone());
        let task =
            tokio::spawn(run_deliveries(client, credentials, deliver, Arc::clone(&self.held), stopped));
        self.delivering.push((stop, task));
    }

    /// Ends deliveries, and drops the pushes that are not done.
    async fn close(self) {
        self.pushing.abort();
        for (stop, task) in self.delivering {
            // It may have ended with an error.
            let _: Result<(), ()> = stop.send(());
            drop(task.await);
        }
    }
}

impl OpenOptions {
    fn into_options(self) -> Options {
        let default = Options::default();
        let ms = |value: Option<u64>, default| value.map_or(default, Duration::from_millis);
        Options {
            chunk_bytes: self.chunk_bytes.unwrap_or(default.chunk_bytes),
            memory_bytes: self.memory_bytes.unwrap_or(default.memory_bytes),
            poll_interval: ms(self.poll_interval_ms, default.poll_interval),
            wait: ms(self.wait_ms, default.wait),
            push_timeout: ms(self.push_timeout_ms, default.push_timeout),
            partial_age: ms(self.partial_age_ms, default.partial_age),
            ack_delay: ms(self.ack_delay_ms, default.ack_delay),
            request_timeout: ms(self.request_timeout, default.request_timeout),
            ..default
        }
    }
}

/// Pushes one after the other.
async fn push_all(client: Client, mut commands: mpsc::Receiver<PushCommand>) {
    while let Some(command) = commands.recv().await {
        let id = command.id.clone();
        match push(&client, command).await {
            Ok(message_id) => {
                tell(&json!({"event": "pushed", "id": id, "message_id": message_id.to_string()}));
            }
            Err(code) => tell(&json!({"event": "failed", "id": id, "code": code})),
        }
    }
}

async fn push(client: &Client, command: PushCommand) -> Result<Uuid, String> {
    let payload = STANDARD.decode(&command.payload_b64).map_err(|_| "invalid_command".to_owned())?;
    let mut push = client.push(command.recipient, payload);
    if let Some(kind) = command.kind {
        push = push.kind(kind);
    }
    if let Some(seconds) = command.ttl_seconds {
        push = push.ttl(Duration::from_secs(seconds));
    }
    if let Some(id) = command.message_id {
        push = push.message_id(id.parse().map_err(|_| "invalid_command".to_owned())?);
    }
    push.await.map(|pushed| pushed.message_id).map_err(|error| error.code().to_owned())
}

async fn run_deliveries(
    client: Client,
    credentials: Credentials,
    deliver: Deliver,
    held: Held,
    mut stopped: oneshot::Receiver<()>,
) {
    let transport = if deliver.transport == "stream" { Transport::Stream } else { Transport::Wait };
    let mut deliveries = client.deliveries(deliver.recipient, credentials, transport);
    loop {
        let next = tokio::select! {
            next = deliveries.next() => next,
            _ = &mut stopped => break,
        };
        match next {
            Some(Ok(message)) => {
                tell(&describe(&message, deliver.digest));
                let message = Arc::new(message);
                let mut messages = held.lock().unwrap_or_else(PoisonError::into_inner);
                messages.insert(message.message_id, Arc::clone(&message));
                drop(messages);
                if deliver.auto_ack {
                    ack(message, Arc::clone(&held));
                }
            }
            Some(Err(error)) => failed(&error),
            None => break,
        }
    }
    deliveries.close().await;
}

/// Acks beside everything else.
fn ack(message: Arc<Message>, held: Held) {
    tokio::spawn(async move {
        match message.ack().await {
            Ok(()) => {
                held.lock().unwrap_or_else(PoisonError::into_inner).remove(&message.message_id);
                tell(&json!({"event": "acked", "message_id": message.message_id.to_string()}));
            }
            Err(Error::Closed) => {}
            Err(error) => failed(&error),
        }
    });
}

fn describe(message: &Message, is_digest: bool) -> Value {
    let (id, kind) = (message.message_id.to_string(), &message.kind);
    if is_digest {
        let digest: String =
            Sha256::digest(&message.payload).iter().map(|byte| format!("{byte:02x}")).collect();
        let bytes = message.payload.len();
        json!({"event": "message", "message_id": id, "kind": kind, "sha256": digest, "bytes": bytes})
    } else {
        let payload = STANDARD.encode(&message.payload);
        json!({"event": "message", "message_id": id, "kind": kind, "payload_b64": payload})
    }
}

fn failed(error: &Error) {
    tell(&json!({"event": "error", "code": error.code(), "message": error.to_string()}));
}

/// Writes an event. Whoever reads them may be gone; then nobody needs it.
fn tell(event: &Value) {
    let mut out = std::io::stdout().lock();
    drop(writeln!(out, "{event}").and_then(|()| out.flush()));
}
