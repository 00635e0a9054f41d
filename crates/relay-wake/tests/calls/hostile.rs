//! Gateways that are slow, broken or hostile.

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use relay_core::Relay as _;
use relay_wake::testing::{Reply, TestGateway};

use super::support::{Waking, envelope, now, options};

/// What became of one wake, whose call is tried once.
async fn once(reply: Reply) -> (u64, u64, u64) {
    let gateway = TestGateway::start(move |_| reply.clone()).unwrap();
    let mut options = options(&gateway.url());
    options.rules.attempts_max = NonZeroU32::MIN;
    options.timeout = Duration::from_millis(500);
    let relay = Waking::start(&options);
    relay.push("alice", 1).await;
    let begin = now();
    let done = relay.until(|figures| figures.pending == 0).await;
    assert!(now() - begin < Duration::from_secs(5), "the time of a call is bounded");
    (done.sent, done.refused, done.failed)
}

const SENT: (u64, u64, u64) = (1, 0, 0);
const REFUSED: (u64, u64, u64) = (0, 1, 0);
const FAILED: (u64, u64, u64) = (0, 0, 1);

#[tokio::test]
async fn each_status_has_its_consequence() {
    for (status, expected) in [
        ("200 OK", SENT),
        ("202 Accepted", SENT),
        ("204 No Content", SENT),
        ("300 Multiple Choices", REFUSED),
        ("304 Not Modified", REFUSED),
        ("400 Bad Request", REFUSED),
        ("401 Unauthorized", REFUSED),
        ("404 Not Found", REFUSED),
        ("410 Gone", REFUSED),
        ("429 Too Many Requests", FAILED),
        ("500 Internal Server Error", FAILED),
        ("503 Service Unavailable", FAILED),
        ("599 Strange", FAILED),
        ("999 Stranger", REFUSED),
    ] {
        assert_eq!(once(Reply::status(status, "")).await, expected, "{status}");
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let inside = TestGateway::accepting().unwrap();
    for status in
        ["301 Moved", "302 Found", "303 See Other", "307 Temporary Redirect", "308 Permanent Redirect"]
    {
        let location = format!("location: {}\r\n", inside.url());
        assert_eq!(once(Reply::status(status, &location)).await, REFUSED, "{status}");
    }
    assert_eq!(inside.connections(), 0);
}

#[tokio::test]
async fn broken_responses_fail() {
    let head = |rest: &str| format!("HTTP/1.1 200 OK\r\n{rest}").into_bytes();
    let fields = "a: b\r\n".repeat(65);
    for (what, reply) in [
        ("no response", Reply::Last(Vec::new())),
        ("garbage", Reply::Last(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec())),
        ("text", Reply::Last(b"220 mail.example.org ESMTP\r\n".to_vec())),
        ("half a head", Reply::Last(head("content-len"))),
        ("a silent gateway", Reply::Hang),
        ("a head without end", Reply::Endless(head("x: "), vec![b'a'; 4096])),
        ("fields without end", Reply::Endless(head(""), b"x: y\r\n".repeat(100))),
        ("too many fields", Reply::Bytes(head(&format!("{fields}\r\n")))),
        (
            "interim responses without end",
            Reply::Endless(Vec::new(), b"HTTP/1.1 103 Early Hints\r\n\r\n".to_vec()),
        ),
        ("two lengths", Reply::Bytes(head("content-length: 0\r\ncontent-length: 5\r\n\r\n"))),
    ] {
        assert_eq!(once(reply).await, FAILED, "{what}");
    }
}

#[tokio::test]
async fn of_a_body_nothing_is_kept_and_its_connection_ends() {
    let head = |rest: &str| format!("HTTP/1.1 200 OK\r\n{rest}\r\n").into_bytes();
    for (what, reply) in [
        ("endless", Reply::Endless(head(""), vec![0; 65_536])),
        (
            "endless in chunks",
            Reply::Endless(head("transfer-encoding: chunked\r\n"), b"1\r\na\r\n".repeat(999)),
        ),
        ("cut", Reply::Last(head("content-length: 1000\r\n"))),
        ("compressed", Reply::Bytes(head("content-encoding: gzip\r\ncontent-length: 0\r\n"))),
        ("without end", Reply::Bytes(head("content-length: 5\r\n"))),
        ("without length or end", Reply::Bytes(head(""))),
        ("in a chunk without end", Reply::Bytes(head("transfer-encoding: chunked\r\n\r\n5"))),
    ] {
        assert_eq!(once(reply).await, SENT, "{what}");
    }
    let not_found = b"HTTP/1.1 404 Not Found\r\ncontent-length: 5\r\n\r\n".to_vec();
    assert_eq!(once(Reply::Bytes(not_found)).await, REFUSED, "the head has decided");

    let gateway = TestGateway::start(move |_| Reply::Endless(head(""), vec![0; 65_536])).unwrap();
    let relay = Waking::start(&options(&gateway.url()));
    relay.push("alice", 1).await;
    relay.until(|figures| figures.sent == 1).await;
    assert_closes(&gateway).await;

    let gateway = TestGateway::start(|_| {
        Reply::Bytes([b"HTTP/1.1 200 OK\r\ncontent-length: 300000\r\n\r\n", &[b'x'; 300_000][..]].concat())
    });
    let gateway = gateway.unwrap();
    let relay = Waking::start(&options(&gateway.url()));
    for number in 0..3 {
        relay.push(&format!("queue {number}"), 1).await;
        relay.until(|figures| figures.sent == number + 1).await;
    }
    assert_eq!(gateway.connections(), 3, "a large body is not read to its end");
}

#[tokio::test]
async fn a_failed_call_is_repeated_until_it_succeeds() {
    let gateway = TestGateway::start(|number| match number {
        0 => Reply::status("500 Internal Server Error", ""),
        _ => Reply::status("200 OK", ""),
    });
    let gateway = gateway.unwrap();
    let relay = Waking::start(&options(&gateway.url()));
    relay.push("alice", 1).await;
    let figures = relay.until(|figures| figures.sent == 1).await;
    assert_eq!((figures.retried, figures.failed), (1, 0));
    let bodies = [gateway.next().unwrap().body, gateway.next().unwrap().body];
    assert_eq!(bodies[0], bodies[1]);
}

#[tokio::test]
async fn a_gateway_that_is_down_costs_its_attempts_and_no_more() {
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let relay = Waking::start(&options(&format!("http://{address}/")));
    relay.push("alice", 1).await;
    let figures = relay.until(|figures| figures.failed == 1).await;
    assert_eq!((figures.retried, figures.sent, figures.pending), (1, 0, 0));
}

#[tokio::test]
async fn retry_after_holds_all_calls_within_its_bound() {
    let gateway = TestGateway::start(|number| match number {
        0 => Reply::status("503 Service Unavailable", "retry-after: 2\r\n"),
        _ => Reply::status("200 OK", ""),
    });
    let gateway = gateway.unwrap();
    let relay = Waking::start(&options(&gateway.url()));
    let begin = now();
    relay.push("alice", 1).await;
    relay.until(|figures| figures.retried == 1).await;
    relay.push("bob", 1).await;
    relay.until(|figures| figures.sent == 2).await;
    assert!(now() - begin >= Duration::from_secs(2), "both had to wait");
}

#[tokio::test(flavor = "multi_thread")]
async fn pushes_do_not_wait_for_a_gateway_that_hangs_and_memory_is_bounded() {
    const QUEUES: u128 = 20_000;
    let gateway = TestGateway::start(|_| Reply::Hang).unwrap();
    let mut options = options(&gateway.url());
    options.rules.queues_max = NonZeroUsize::new(100).unwrap();
    options.rules.calls_max = NonZeroUsize::new(4).unwrap();
    options.timeout = Duration::from_secs(3600);
    let relay = Waking::start(&options);
    relay.push("first", 1).await;
    drop(gateway.next().unwrap());
    let begin = now();
    for number in 0..QUEUES / 2 {
        assert!(relay.push(&format!("queue {number}"), 1).await.is_stored());
    }
    let batches = (QUEUES / 2..QUEUES).map(|number| envelope(&format!("queue {number}"), 1));
    let outcomes = relay.relay.push_all(batches.collect()).await.unwrap();
    assert!(outcomes.iter().all(Result::is_ok));
    assert!(now() - begin < Duration::from_secs(20), "{:?}", now() - begin);
    let figures = relay.figures();
    assert_eq!((figures.pending, u128::from(figures.full)), (100, QUEUES + 1 - 100));
    for _ in 1..4 {
        drop(gateway.next().unwrap());
    }
    assert_eq!(gateway.connections(), 4, "no more calls than may run at a time");
}

#[tokio::test]
async fn calls_keep_to_their_rate() {
    let gateway = TestGateway::accepting().unwrap();
    let mut options = options(&gateway.url());
    options.rules.calls_per_second = NonZeroU32::new(20).unwrap();
    let relay = Waking::start(&options);
    let begin = now();
    for number in 0..50 {
        relay.push(&format!("queue {number}"), 1).await;
    }
    relay.until(|figures| figures.sent == 50).await;
    assert!(now() - begin >= Duration::from_millis(1_450), "20 at once, and 30 in a second and a half");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_relay_ends_its_calls() {
    let gateway = TestGateway::start(|_| Reply::Hang).unwrap();
    let mut options = options(&gateway.url());
    options.timeout = Duration::from_secs(3600);
    let relay = Waking::start(&options);
    relay.push("alice", 1).await;
    drop(gateway.next().unwrap());
    let begin = now();
    drop(relay);
    assert_closes(&gateway).await;
    assert!(now() - begin < Duration::from_secs(5));
}

/// Asserts that the relay closes its connections soon.
async fn assert_closes(gateway: &TestGateway) {
    for _ in 0..1000 {
        if gateway.open_connections() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    assert_eq!(gateway.open_connections(), 0);
}
