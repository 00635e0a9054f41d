//! A relay that a test scripts: a queue in memory behind HTTP/1.1 by hand, with a hook that may
//! answer in its place. It runs on a thread of its own, so that the tasks of a test's runtime are
//! those of the client.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use relay_client::{Client, Credentials, Deliveries, Message, Options, Transport, Uuid};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::timeout;

/// No test waits longer for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) path: String,
    pub(crate) authorization: Option<String>,
    pub(crate) body: Value,
}

/// What the hook answers.
pub(crate) enum Reply {
    Json(u16, Vec<(&'static str, String)>, Value),
    /// The first bytes of what the relay would answer, and the end of the connection.
    Cut(usize),
    /// Nothing, for ever.
    Silence,
}

type Hook = Box<dyn FnMut(&Request) -> Option<Reply> + Send>;

/// The queue and what was asked.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) items: Vec<(u64, Value)>,
    pub(crate) requests: Vec<Request>,
    last_seq: u64,
}

/// A scripted relay. It ends with the process.
#[derive(Clone)]
pub(crate) struct Fake {
    pub(crate) url: String,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    hook: Mutex<Hook>,
    arrived: Notify,
    /// `None`: a relay of 0.0.3.
    features: Option<Vec<&'static str>>,
}

pub(crate) const FEATURES: &[&str] = &["wait", "tail", "batch", "item_proof", "ttl", "stream"];

impl Fake {
    pub(crate) fn start() -> Self {
        Self::with(Some(FEATURES.to_vec()), |_| None)
    }

    pub(crate) fn scripted(hook: impl FnMut(&Request) -> Option<Reply> + Send + 'static) -> Self {
        Self::with(Some(FEATURES.to_vec()), hook)
    }

    pub(crate) fn with(
        features: Option<Vec<&'static str>>,
        hook: impl FnMut(&Request) -> Option<Reply> + Send + 'static,
    ) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            hook: Mutex::new(Box::new(hook)),
            arrived: Notify::new(),
            features,
        });
        let served = Arc::clone(&shared);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = TcpListener::from_std(listener).unwrap();
                while let Ok((stream, _)) = listener.accept().await {
                    let served = Arc::clone(&served);
                    tokio::spawn(async move { served.connection(stream).await });
                }
            });
        });
        Self { url, shared }
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(&self.url, options()).unwrap()
    }

    pub(crate) fn state<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.shared.state.lock().unwrap())
    }

    /// The requests to a path.
    pub(crate) fn requests(&self, path: &str) -> Vec<Request> {
        self.state(|state| state.requests.iter().filter(|request| request.path == path).cloned().collect())
    }

    /// Puts a chunk into the queue.
    pub(crate) fn arrive(&self, id: u128, index: u64, count: u64, total: u64, payload: &[u8]) {
        let meta = json!({"kind": "opaque", "total_len": total, "chunk_index": index, "chunk_count": count, "sent_ms": 5});
        let id = Uuid::from_u128(id).to_string();
        let item =
            json!({"recipient": "alice", "message_id": id, "ciphertext_b64": encode(payload), "meta": meta});
        self.shared.push(&item);
    }

    /// A message of one chunk.
    pub(crate) fn arrive_alone(&self, id: u128, payload: &[u8]) {
        self.arrive(id, 0, 1, payload.len() as u64, payload);
    }

    /// Waits until there are this many requests to a path.
    pub(crate) async fn wait_for(&self, path: &str, count: usize) {
        eventually(|| self.requests(path).len() >= count).await;
    }
}

impl Shared {
    async fn connection(&self, stream: TcpStream) -> Option<()> {
        let mut stream = BufReader::new(stream);
        loop {
            let request = read(&mut stream).await?;
            self.state.lock().unwrap().requests.push(request.clone());
            let reply = (self.hook.lock().unwrap())(&request);
            let is_stream = request.path == "/stream";
            let (answer, cut) = match reply {
                Some(Reply::Silence) => std::future::pending().await,
                Some(Reply::Json(status, headers, body)) => (write(status, &headers, &body), None),
                Some(Reply::Cut(bytes)) => (self.answer(&request).await, Some(bytes)),
                None => (self.answer(&request).await, None),
            };
            let end = cut.unwrap_or(answer.len()).min(answer.len());
            stream.get_mut().write_all(&answer[..end]).await.ok()?;
            if cut.is_some() {
                return None;
            }
            if is_stream {
                std::future::pending::<()>().await;
            }
        }
    }

    async fn answer(&self, request: &Request) -> Vec<u8> {
        let body = &request.body;
        if request.path == "/stream" {
            return self.events(body);
        }
        let answer = match (&*request.path, &self.features) {
            ("/info", Some(features)) => {
                json!({"version": "9", "server_ms": 0, "features": features, "limits": {"message_bytes": 1 << 20}})
            }
            ("/push", _) => self.push(body),
            ("/push/batch", Some(_)) => {
                let items = body["items"].as_array().unwrap();
                json!({"results": items.iter().map(|item| self.push(item)).collect::<Vec<_>>()})
            }
            ("/pull", _) => self.pull(body).await,
            ("/ack", _) => self.ack(body),
            _ => return write(404, &[], &json!({"error": {"code": "not_found", "message": "no such path"}})),
        };
        write(200, &[], &answer)
    }

    fn push(&self, item: &Value) -> Value {
        let mut state = self.state.lock().unwrap();
        let is_same = |other: &Value| {
            (&other["message_id"], &other["meta"]["chunk_index"], &other["recipient"])
                == (&item["message_id"], &item["meta"]["chunk_index"], &item["recipient"])
        };
        if state.items.iter().any(|(_, other)| is_same(other)) {
            return json!({"stored": false, "duplicate": true});
        }
        state.last_seq += 1;
        let (seq, mut item) = (state.last_seq, item.clone());
        item["arrival_ms"] = json!(seq);
        state.items.push((seq, item));
        self.arrived.notify_waiters();
        json!({"stored": true, "queue_len": 0, "queue_bytes": 0})
    }

    async fn pull(&self, body: &Value) -> Value {
        let wait = body["wait_ms"].as_u64().filter(|_| self.features.is_some());
        let arrived = self.arrived.notified();
        let page = self.page(body);
        if page["items"].as_array().unwrap().is_empty()
            && let Some(wait_ms) = wait
        {
            let _ = timeout(Duration::from_millis(wait_ms), arrived).await;
            return self.page(body);
        }
        page
    }

    /// The events of a stream: what is there, in pages.
    fn events(&self, body: &Value) -> Vec<u8> {
        let mut answer = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n".to_owned();
        let mut request = json!({"recipient": body["recipient"], "cursor": body["cursor"], "tail": true});
        loop {
            let page = self.page(&request);
            answer.push_str(&format!("{page}\n"));
            if page["remaining_estimate"] == 0 {
                return answer.into_bytes();
            }
            request["cursor"] = page["next_cursor"].clone();
        }
    }

    /// A page of three items.
    fn page(&self, body: &Value) -> Value {
        let state = self.state.lock().unwrap();
        let after = body["cursor"].as_str().map_or(0, |cursor| cursor.parse().unwrap());
        let of_recipient = |item: &Value| item["recipient"] == body["recipient"];
        let follows: Vec<_> =
            state.items.iter().filter(|(seq, item)| *seq > after && of_recipient(item)).collect();
        let items: Vec<&Value> = follows.iter().take(3).map(|(_, item)| item).collect();
        let remaining = follows.len() - items.len();
        let tail = self.features.is_some() && body["tail"] == true;
        let last = follows.iter().take(3).next_back().map(|(seq, _)| seq.to_string());
        let next = match last {
            Some(last) if remaining > 0 || tail => json!(last),
            None if tail => body["cursor"].clone(),
            _ => Value::Null,
        };
        json!({"items": items, "next_cursor": next, "remaining_estimate": remaining})
    }

    fn ack(&self, body: &Value) -> Value {
        let entries = body["ack"].as_array().unwrap();
        let mut state = self.state.lock().unwrap();
        let before = state.items.len();
        state.items.retain(|(_, item)| {
            !entries.contains(
                &json!({"message_id": item["message_id"], "chunk_index": item["meta"]["chunk_index"]}),
            )
        });
        json!({"deleted": before - state.items.len(), "missing": 0, "remaining": state.items.len()})
    }
}

async fn read(stream: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = String::new();
    if stream.read_line(&mut line).await.ok()? == 0 {
        return None;
    }
    let path = line.split(' ').nth(1)?.to_owned();
    let (mut length, mut authorization) = (0, None);
    loop {
        line.clear();
        stream.read_line(&mut line).await.ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        match &*name.to_ascii_lowercase() {
            "content-length" => length = value.parse().ok()?,
            "authorization" => authorization = Some(value.to_owned()),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(Request { path, authorization, body: serde_json::from_slice(&body).unwrap_or_default() })
}

fn write(status: u16, headers: &[(&str, String)], body: &Value) -> Vec<u8> {
    let body = body.to_string();
    let mut answer = format!("HTTP/1.1 {status} Status\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        answer.push_str(&format!("{name}: {value}\r\n"));
    }
    answer.push_str("\r\n");
    answer.push_str(&body);
    answer.into_bytes()
}

fn encode(payload: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(payload)
}

/// An error as the relay writes it.
pub(crate) fn refusal(status: u16, code: &str, details: Value) -> Option<Reply> {
    let body = json!({"error": {"code": code, "message": "no", "details": details}});
    Some(Reply::Json(status, Vec::new(), body))
}

/// Options with short times.
pub(crate) fn options() -> Options {
    Options {
        request_timeout: Duration::from_secs(5),
        push_timeout: Duration::from_secs(10),
        poll_interval: Duration::from_millis(20),
        wait: Duration::from_millis(500),
        ..Options::default()
    }
}

/// The deliveries of alice.
pub(crate) fn deliver(client: &Client) -> Deliveries {
    client.deliveries("alice", Credentials::none(), Transport::Wait)
}

/// The next message.
pub(crate) async fn next(deliveries: &mut Deliveries) -> Message {
    timeout(PATIENCE, deliveries.next()).await.unwrap().unwrap().unwrap()
}

/// Whether nothing is handed out for a while.
pub(crate) async fn is_quiet(deliveries: &mut Deliveries) -> bool {
    timeout(Duration::from_millis(300), deliveries.next()).await.is_err()
}

/// Waits until something is so.
pub(crate) async fn eventually(mut is_so: impl FnMut() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(PATIENCE, wait).await.unwrap();
}
