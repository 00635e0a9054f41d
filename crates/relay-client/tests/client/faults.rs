//! What goes wrong on the way: cut connections, errors that pass, and errors that stay.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use relay_client::{Client, Credentials, Error, Options, Transport};
use serde_json::{Value, json};

use crate::support::{Fake, Reply, next, options, refusal};

/// A fake that cuts off the first answer of each recipient to `path`, at the byte that is the name.
fn cutting(path: &'static str) -> Fake {
    let mut seen = HashSet::new();
    Fake::scripted(move |request| {
        let at: usize = request.body["recipient"].as_str()?.parse().ok()?;
        (request.path == path && seen.insert(at)).then_some(Reply::Cut(at))
    })
}

#[tokio::test]
async fn a_push_survives_a_cut_at_every_byte_of_its_answer() {
    let fake = cutting("/push");
    let client = fake.client();
    let pushes = (0..110).map(|at| {
        let client = &client;
        async move { client.push(at.to_string(), "x").await.unwrap() }
    });
    let pushed = join_all(pushes).await;
    let ids: HashSet<_> = pushed.iter().map(|pushed| pushed.message_id).collect();
    assert_eq!((ids.len(), fake.state(|state| state.items.len())), (110, 110));
}

#[tokio::test]
async fn deliveries_survive_a_cut_at_every_byte_of_a_page() {
    let fake = cutting("/pull");
    let client = fake.client();
    let sent = (0..320).map(|at| {
        let client = &client;
        async move {
            let name = at.to_string();
            client.push(&*name, name.clone()).await.unwrap();
            let mut deliveries = client.deliveries(&*name, Credentials::none(), Transport::Wait);
            assert_eq!(next(&mut deliveries).await.payload, name);
        }
    });
    join_all(sent).await;
}

#[tokio::test]
async fn deliveries_survive_a_cut_at_every_byte_of_a_stream() {
    let fake = cutting("/stream");
    let client = fake.client();
    let sent = (0..800).step_by(3).map(|at| {
        let client = &client;
        async move {
            let name = at.to_string();
            for payload in 0..4 {
                client.push(&*name, payload.to_string()).await.unwrap();
            }
            let mut deliveries = client.deliveries(&*name, Credentials::none(), Transport::Stream);
            for payload in 0..4 {
                assert_eq!(next(&mut deliveries).await.payload, payload.to_string());
            }
        }
    });
    join_all(sent).await;
}

#[tokio::test]
async fn the_relay_says_when_to_try_again() {
    for (headers, details) in [
        (vec![("retry-after", "1".to_owned())], json!({})),
        (vec![("retry-after", "60".to_owned())], json!({"retry_after_ms": 1000})),
    ] {
        let mut answer = Some((headers, details));
        let fake = Fake::scripted(move |request| {
            let (headers, details) = (request.path == "/push").then(|| answer.take())??;
            let body = json!({"error": {"code": "rate_limited", "message": "", "details": details}});
            Some(Reply::Json(429, headers, body))
        });
        let client = fake.client();
        let begin = now();
        client.push("alice", "x").await.unwrap();
        assert!((1.0..4.0).contains(&begin.elapsed_seconds()), "{}", begin.elapsed_seconds());
    }
}

#[tokio::test]
async fn every_status_that_may_pass_is_retried_and_no_other() {
    for (status, passes) in [
        (408, true),
        (429, true),
        (500, true),
        (502, true),
        (503, true),
        (504, true),
        (507, true),
        (302, false),
        (400, false),
        (401, false),
        (403, false),
        (404, false),
        (409, false),
        (413, false),
        (501, false),
    ] {
        let mut is_first = true;
        let fake = Fake::scripted(move |request| {
            let answers = request.path == "/push" && std::mem::take(&mut is_first);
            // As something in front of the relay answers.
            answers.then(|| Reply::Json(status, Vec::new(), Value::Null))
        });
        let client = fake.client();
        let result = client.push("alice", "x").await;
        assert_eq!(result.is_ok(), passes, "{status}: {result:?}");
        if let Err(error) = result {
            assert_eq!(error.code(), format!("http_{status}"));
        }
    }
}

#[tokio::test]
async fn a_push_gives_up_with_the_last_error() {
    let fake =
        Fake::scripted(
            |request| {
                if request.path == "/push" { refusal(507, "storage_full", json!({})) } else { None }
            },
        );
    let push_timeout = Duration::from_millis(500);
    let client = Client::new(&fake.url, Options { push_timeout, ..options() }).unwrap();
    let begin = now();
    assert_eq!(client.push("alice", "x").await.unwrap_err().code(), "storage_full");
    assert!(begin.elapsed_seconds() < 2.0 && fake.requests("/push").len() > 1);
}

#[tokio::test]
async fn a_silent_relay_is_a_timeout_and_a_missing_one_unreachable() {
    let fake = Fake::scripted(|request| (request.path == "/push").then_some(Reply::Silence));
    let push_timeout = Duration::from_millis(300);
    let client = Client::new(&fake.url, Options { push_timeout, ..options() }).unwrap();
    assert_eq!(client.push("alice", "x").await.unwrap_err().code(), "timeout");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let client = Client::new(&url, Options { push_timeout, ..options() }).unwrap();
    assert_eq!(client.push("alice", "x").await.unwrap_err().code(), "unreachable");
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_not_read() {
    let fake = Fake::scripted(|request| {
        let body = || json!({"stored": true, "padding": "x".repeat(2 << 20)});
        (request.path == "/push").then(|| Reply::Json(200, Vec::new(), body()))
    });
    let error = fake.client().push("alice", "x").await.unwrap_err();
    assert!(matches!(error, Error::AnswerTooLarge { limit_bytes: 1_048_576 }), "{error:?}");
}

#[tokio::test]
async fn deliveries_go_on_after_errors_that_pass() {
    let mut answers = 0;
    let fake = Fake::scripted(move |request| {
        answers += usize::from(request.path == "/pull");
        match answers {
            1 => refusal(503, "not_ready", json!({})),
            2 => Some(Reply::Json(200, Vec::new(), json!("no page"))),
            3 => refusal(429, "rate_limited", json!({"retry_after_ms": 5})),
            _ => None,
        }
    });
    fake.arrive_alone(1, b"one");
    let client = fake.client();
    let mut deliveries = client.deliveries("alice", Credentials::none(), Transport::Wait);
    assert_eq!(next(&mut deliveries).await.payload, "one");
}

/// How long something takes.
struct Begin(Instant);

#[expect(clippy::disallowed_methods, reason = "a test measures")]
fn now() -> Begin {
    Begin(Instant::now())
}

impl Begin {
    #[expect(clippy::disallowed_methods, reason = "a test measures")]
    fn elapsed_seconds(&self) -> f64 {
        self.0.elapsed().as_secs_f64()
    }
}
