//! A clock that is wrong is corrected once; a wrong proof is an error at once.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use relay_client::{Client, Credentials, Key, Options, Pull, Secret};
use serde_json::{Value, json};

use crate::support::{Fake, Reply, Request, options, refusal};

const DAY_MS: i64 = 24 * 3600 * 1000;

/// The relay's clock, which is that of the machine.
fn now_ms() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "the clock of the relay")]
    let now = std::time::SystemTime::now();
    u64::try_from(now.duration_since(std::time::UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// Refuses tokens whose time is wrong, as a relay does.
fn check_time(request: &Request) -> Option<Reply> {
    let token = request.authorization.as_deref()?.strip_prefix("Bearer ")?;
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    let (now, iat, exp) = (now_ms() / 1000, claims["iat"].as_u64().unwrap(), claims["exp"].as_u64().unwrap());
    assert_eq!(exp - iat, 300);
    let refuse = |reason| refusal(403, "forbidden", json!({"reason": reason, "server_ms": now_ms()}));
    if exp + 60 < now {
        refuse("token_expired")
    } else if iat > now + 60 {
        refuse("token_not_valid_yet")
    } else {
        None
    }
}

async fn pull(client: &Client, key: &Key) -> Result<(), String> {
    let credentials = Credentials::key(key.clone(), "https://relay");
    let page = client.pull(&key.recipient(), &credentials, &Pull::default()).await;
    page.map(drop).map_err(|error| error.code().to_owned())
}

#[tokio::test]
async fn a_clock_that_is_a_day_off_is_corrected_once() {
    for clock_offset_ms in [-DAY_MS, DAY_MS] {
        let fake = Fake::scripted(check_time);
        let client = Client::new(&fake.url, Options { clock_offset_ms, ..options() }).unwrap();
        let key = Key::generate().unwrap();
        for requests in [2, 3, 4] {
            pull(&client, &key).await.unwrap();
            assert_eq!(fake.requests("/pull").len(), requests, "only the first is refused");
        }
    }
}

#[tokio::test]
async fn a_clock_that_is_off_by_more_is_an_error() {
    let fake = Fake::scripted(check_time);
    let client = Client::new(&fake.url, Options { clock_offset_ms: -2 * DAY_MS, ..options() }).unwrap();
    assert_eq!(pull(&client, &Key::generate().unwrap()).await, Err("forbidden".to_owned()));
    assert_eq!(fake.requests("/pull").len(), 1);
}

#[tokio::test]
async fn a_second_refusal_is_an_error() {
    let fake = Fake::scripted(|request| {
        let details = json!({"reason": "token_expired", "server_ms": now_ms()});
        if request.path == "/pull" { refusal(403, "forbidden", details) } else { None }
    });
    let client = fake.client();
    let key = Key::generate().unwrap();
    assert!(pull(&client, &key).await.is_err());
    assert_eq!(fake.requests("/pull").len(), 2);
    assert!(pull(&client, &key).await.is_err());
    assert_eq!(fake.requests("/pull").len(), 3, "no second correction");
}

#[tokio::test]
async fn a_wrong_proof_is_shown_once() {
    let fake = Fake::scripted(|request| {
        let details = json!({"reason": "wrong_proof", "server_ms": now_ms()});
        if request.path == "/pull" { refusal(403, "forbidden", details) } else { None }
    });
    let client = fake.client();
    let secret = Secret::generate().unwrap();
    let credentials = Credentials::secret(&secret);
    let error = client.pull("alice", &credentials, &Pull::default()).await.unwrap_err();
    assert_eq!(error.refusal().unwrap().reason.as_deref(), Some("wrong_proof"));
    let requests = fake.requests("/pull");
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].authorization, Some(format!("Bearer {}", secret.expose())));
    assert!(!format!("{error:?} {error} {client:?}").contains(&secret.expose()));
}
