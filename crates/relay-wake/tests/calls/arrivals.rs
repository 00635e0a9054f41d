//! Which arrivals lead to a call.

use std::collections::VecDeque;
use std::future::Future as _;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};
use std::time::Duration;

use relay_core::{Envelope, Error, Page, Pull, PushOutcome, Rejection, Relay, Usage};
use relay_wake::testing::TestGateway;
use relay_wake::{Rules, WakingRelay};

use super::support::{Waking, envelope, name, options};

#[tokio::test]
async fn an_item_that_nobody_waits_for_leads_to_one_call() {
    let gateway = TestGateway::accepting().unwrap();
    let relay = Waking::start(&options(&gateway.url()));
    for message in 0..50 {
        assert!(relay.push("alice", message).await.is_stored());
    }
    relay.push("bob", 1).await;
    relay.until(|figures| figures.sent == 2).await;
    let batch = (100..200).map(|message| envelope(if message % 2 == 0 { "alice" } else { "bob" }, message));
    relay.relay.push_all(batch.collect()).await.unwrap();
    let carol = (0..100).map(|message| envelope("carol", message));
    relay.relay.push_all(carol.collect()).await.unwrap();
    let figures = relay.until(|figures| figures.sent == 3).await;
    assert_eq!(gateway.requests(), 3, "one for each queue");
    assert_eq!(figures.pending, 2, "alice and bob have items that arrived in their quiet periods");
}

#[tokio::test]
async fn arrivals_in_a_quiet_period_lead_to_one_call_at_its_end() {
    let gateway = TestGateway::accepting().unwrap();
    let mut options = options(&gateway.url());
    options.rules.quiet = Duration::from_millis(300);
    let relay = Waking::start(&options);
    relay.push("alice", 0).await;
    relay.until(|figures| figures.sent == 1).await;
    let begin = super::support::now();
    for message in 1..20 {
        relay.push("alice", message).await;
    }
    relay.until(|figures| figures.sent == 2).await;
    assert!(super::support::now() - begin >= Duration::from_millis(250));
    let waiting: Vec<String> = (0..2).map(|_| gateway.next().unwrap().body).collect();
    assert!(waiting[0].ends_with("\"waiting\":1}") && waiting[1].ends_with("\"waiting\":20}"), "{waiting:?}");
}

#[tokio::test]
async fn duplicates_and_refused_items_lead_to_no_call() {
    let gateway = TestGateway::accepting().unwrap();
    let relay = Waking::start(&options(&gateway.url()));
    let (mut bad, good) = (envelope("bob", 1), envelope("alice", 1));
    bad.payload = vec![0; 9 << 20].into();
    assert!(relay.relay.push(bad.clone()).await.is_err());
    relay.relay.push(good.clone()).await.unwrap();
    relay.until(|figures| figures.sent == 1).await;
    assert!(!relay.relay.push(good.clone()).await.unwrap().is_stored());
    assert!(relay.relay.push_all(vec![good, bad]).await.unwrap()[1].is_err());
    assert_eq!(relay.figures().pending, 0);
    relay.push("carol", 1).await;
    relay.until(|figures| figures.sent == 2).await;
    assert_eq!(gateway.requests(), 2);
}

#[tokio::test]
async fn whoever_waits_is_not_woken_until_the_wait_has_ended() {
    let gateway = TestGateway::accepting().unwrap();
    let relay = Waking::start(&options(&gateway.url()));
    let waiter = relay.relay.waiter(&name("alice")).unwrap().unwrap();
    assert!(relay.relay.has_waiter(&name("alice")));
    relay.push("alice", 1).await;
    relay.relay.push_all(vec![envelope("alice", 2)]).await.unwrap();
    assert_eq!(relay.figures().pending, 0);
    drop(waiter);
    relay.push("alice", 3).await;
    relay.until(|figures| figures.sent == 1).await;
    assert_eq!(gateway.requests(), 1);
}

#[tokio::test]
async fn a_client_that_comes_by_itself_within_the_grace_is_not_woken() {
    let gateway = TestGateway::accepting().unwrap();
    let mut options = options(&gateway.url());
    options.rules.grace = Duration::from_secs(3600);
    let relay = Waking::start(&options);
    relay.push("alice", 1).await;
    assert_eq!(relay.figures().pending, 1);
    assert_eq!(relay.pull("alice").await, 1);
    relay.push("bob", 1).await;
    relay.ack("bob", 1).await;
    relay.push("carol", 1).await;
    let figures = relay.figures();
    assert_eq!((figures.attended, figures.pending), (2, 1));
    assert_eq!(gateway.requests(), 0);
}

#[tokio::test]
async fn a_client_that_got_an_item_and_does_nothing_is_woken() {
    let gateway = TestGateway::accepting().unwrap();
    let mut options = options(&gateway.url());
    options.rules = Rules { confirm: Duration::from_millis(200), ..options.rules };
    let relay = Waking::start(&options);
    // Its connection is dead, but the relay cannot know that.
    let waiter = relay.relay.waiter(&name("alice")).unwrap();
    relay.push("alice", 1).await;
    relay.push("bob", 1).await;
    relay.until(|figures| figures.sent == 1 && figures.pending == 1).await;
    drop(waiter);
    relay.until(|figures| figures.sent == 2).await;
}

/// A store whose pushes end with these outcomes: the first with the first one, and so on. Further
/// pushes never end.
#[derive(Default)]
struct Scripted(Mutex<VecDeque<Result<PushOutcome, Error>>>);

impl Relay for Scripted {
    async fn push(&self, _: Envelope) -> Result<PushOutcome, Error> {
        let outcome = self.0.lock().unwrap().pop_front();
        match outcome {
            Some(outcome) => outcome,
            None => std::future::pending().await,
        }
    }

    async fn pull(&self, _: Pull) -> Result<Page, Error> {
        std::future::pending().await
    }

    async fn ack(&self, _: relay_core::Ack) -> Result<relay_core::AckOutcome, Error> {
        std::future::pending().await
    }

    async fn sweep(&self) -> Result<relay_core::Swept, Error> {
        std::future::pending().await
    }
}

fn scripted(outcomes: impl IntoIterator<Item = Result<PushOutcome, Error>>) -> WakingRelay<Scripted> {
    let clock = Arc::new(super::support::Machine(super::support::now()));
    let wakes = relay_wake::Wakes::new(&options("http://127.0.0.1:9/"), clock).unwrap();
    WakingRelay::new(Scripted(Mutex::new(outcomes.into_iter().collect())), Some(wakes))
}

#[tokio::test]
async fn a_push_whose_sender_is_gone_may_be_stored_and_so_it_wakes() {
    let relay = scripted([]);
    {
        let mut cx = Context::from_waker(Waker::noop());
        assert!(pin!(relay.push(envelope("alice", 1))).poll(&mut cx).is_pending());
        assert!(pin!(relay.push_all(vec![envelope("bob", 1)])).poll(&mut cx).is_pending());
    }
    assert_eq!(relay.figures().wakes.unwrap().pending, 2);
}

#[tokio::test]
async fn an_item_of_a_batch_that_may_be_stored_wakes_in_any_company() {
    let failed = || Err(Error::storage(std::io::Error::other("the disk fails")));
    let duplicate =
        || Ok(PushOutcome::Duplicate { usage: Usage::default(), conflict: false, deadline: None });
    let refused = || Err(Rejection::Forbidden.into());
    let pending = async |outcomes: Vec<Result<PushOutcome, Error>>| {
        let batch = (0..outcomes.len() as u128).map(|message| envelope("alice", message)).collect();
        let relay = scripted(outcomes);
        relay.push_all(batch).await.unwrap();
        relay.figures().wakes.unwrap().pending
    };
    assert_eq!(pending(vec![duplicate(), refused()]).await, 0);
    for other in [duplicate, refused] {
        assert_eq!(pending(vec![failed(), other()]).await, 1);
        assert_eq!(pending(vec![other(), failed()]).await, 1);
    }
}
