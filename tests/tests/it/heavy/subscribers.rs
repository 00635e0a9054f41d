//! A thousand subscribers follow their queues while the relay is stopped and killed again and
//! again. Each of them gets each of its items once, in order, and goes on by its cursor.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use relay_tests::{Client, Process, at_length, eventually, push_body};
use serde_json::{Value, json};

/// The stack of a subscriber's thread.
const STACK_BYTES: usize = 256 * 1024;

/// How long a subscriber waits for a byte before it connects again. A stream shows every 15 seconds
/// that it is alive.
const SILENCE: Duration = Duration::from_secs(20);

/// What a subscriber has got.
#[derive(Default)]
struct Inbox {
    numbers: Vec<u64>,
    /// After the last event.
    cursor: Option<String>,
    /// How often it has connected.
    connections: usize,
}

/// A stream of events over a new connection.
struct Events(BufReader<TcpStream>);

impl Events {
    fn open(address: SocketAddr, recipient: &str, cursor: Option<&str>) -> io::Result<Self> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(SILENCE))?;
        let body = json!({"recipient": recipient, "cursor": cursor, "keepalive_ms": 15_000}).to_string();
        let head = "POST /stream HTTP/1.1\r\nhost: relay\r\ncontent-type: application/json\r\n";
        stream.write_all(format!("{head}content-length: {}\r\n\r\n{body}", body.len()).as_bytes())?;
        let mut events = Self(BufReader::with_capacity(4096, stream));
        let status = events.line()?;
        if !status.starts_with("HTTP/1.1 200") {
            return Err(io::Error::other(status));
        }
        while events.line()? != "\r\n" {}
        Ok(events)
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        match self.0.read_line(&mut line)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(line),
        }
    }

    /// The next event. In these tests, each fits into one chunk.
    fn next(&mut self) -> io::Result<Value> {
        let length = self.line()?;
        let length = usize::from_str_radix(length.trim(), 16).map_err(io::Error::other)?;
        let mut chunk = vec![0; length + 2];
        self.0.read_exact(&mut chunk)?;
        serde_json::from_slice(&chunk).map_err(io::Error::other)
    }
}

/// Follows a queue until `is_over`, over as many connections as that takes.
fn subscribe(address: SocketAddr, recipient: &str, received: &AtomicUsize, is_over: &AtomicBool) -> Inbox {
    let mut inbox = Inbox::default();
    while !is_over.load(Ordering::SeqCst) {
        inbox.connections += 1;
        // Any error ends the connection, and nothing else.
        let _ = follow(&mut inbox, address, recipient, received, is_over);
        thread::sleep(Duration::from_millis(50));
    }
    inbox
}

fn follow(
    inbox: &mut Inbox,
    address: SocketAddr,
    recipient: &str,
    received: &AtomicUsize,
    is_over: &AtomicBool,
) -> io::Result<()> {
    let mut events = Events::open(address, recipient, inbox.cursor.as_deref())?;
    while !is_over.load(Ordering::SeqCst) {
        let event = events.next()?;
        if let Some(reason) = event["bye"].as_str() {
            assert_eq!(reason, "draining");
            break;
        }
        for item in event["items"].as_array().into_iter().flatten() {
            inbox.numbers.push(item["meta"]["sent_ms"].as_u64().unwrap());
            received.fetch_add(1, Ordering::SeqCst);
        }
        if let Some(cursor) = event["next_cursor"].as_str() {
            inbox.cursor = Some(cursor.to_owned());
        }
    }
    Ok(())
}

/// Pushes an item until that has succeeded.
fn push(client: &mut Option<Client>, base_url: &str, recipient: &str, number: u64) {
    let mut body = push_body(recipient, number.into(), b"payload");
    body["meta"]["sent_ms"] = number.into();
    let mut try_push = || {
        let mut connection = client.take().or_else(|| Client::connect(base_url).ok())?;
        let response = connection.post("/push", &body).ok()?;
        if response.header("connection") != Some("close") {
            *client = Some(connection);
        }
        (response.status == 200).then_some(())
    };
    eventually(&mut try_push).expect("the relay comes back");
}

fn start(directory: &Path, address: SocketAddr) -> Process {
    Process::start_on(crate::PROGRAM, directory, &["--address", &address.to_string()]).unwrap()
}

/// How much happens in this test.
struct Plan {
    subscribers: u64,
    rounds: u64,
    items_per_round: u64,
}

impl Plan {
    const fn items(&self) -> u64 {
        self.items_per_round * (self.rounds + 1)
    }

    /// A fixed sequence that looks random.
    const fn subscriber_of(&self, number: u64) -> u64 {
        (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) % self.subscribers
    }

    /// Stops and kills the relay in turns, each time in the middle of the pushes of a round.
    fn restart(&self, process: &mut Process, address: SocketAddr, directory: &Path, received: &AtomicUsize) {
        for round in 0..self.rounds {
            let enough = usize::try_from(self.items_per_round * round).unwrap() + 100;
            let has_enough = || (received.load(Ordering::SeqCst) >= enough).then_some(());
            eventually(has_enough).expect("items arrive");
            if round % 2 == 0 {
                process.signal("TERM").unwrap();
                assert!(process.wait_a_while().unwrap().success());
            } else {
                process.kill().unwrap();
            }
            *process = start(directory, address);
        }
    }

    fn check(&self, inboxes: &[Inbox]) {
        for (subscriber, inbox) in (0..).zip(inboxes) {
            let expected: Vec<u64> =
                (0..self.items()).filter(|number| self.subscriber_of(*number) == subscriber).collect();
            let connections = inbox.connections;
            assert_eq!(inbox.numbers, expected, "{} after {connections} connections", name(subscriber));
        }
        let cut_off = inboxes.iter().filter(|inbox| inbox.connections as u64 > self.rounds).count();
        assert!(cut_off * 10 > inboxes.len() * 9, "{cut_off} subscribers were cut off each time");
    }
}

fn name(subscriber: u64) -> String {
    format!("subscriber {subscriber}")
}

#[test]
fn a_thousand_subscribers_lose_nothing_over_stops_and_kills() {
    let plan = Plan {
        subscribers: at_length(1000, 100),
        rounds: at_length(6, 2),
        items_per_round: at_length(2000, 300),
    };
    let directory = tempfile::tempdir().unwrap();
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut process = start(directory.path(), address);
    let base_url = process.base_url.clone();
    let (received, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let inboxes: Vec<Inbox> = thread::scope(|scope| {
        let threads: Vec<_> = (0..plan.subscribers)
            .map(|subscriber| {
                let (received, is_over) = (&received, &is_over);
                let follow = move || subscribe(address, &name(subscriber), received, is_over);
                thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, follow).unwrap()
            })
            .collect();
        let pushing = scope.spawn(|| {
            let mut client = None;
            for number in 0..plan.items() {
                push(&mut client, &base_url, &name(plan.subscriber_of(number)), number);
            }
        });
        plan.restart(&mut process, address, directory.path(), &received);
        pushing.join().unwrap();
        let is_complete = || (received.load(Ordering::SeqCst) as u64 >= plan.items()).then_some(());
        // What is missing shows below.
        let _ = eventually(is_complete);
        is_over.store(true, Ordering::SeqCst);
        process.kill().unwrap();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    plan.check(&inboxes);
}
