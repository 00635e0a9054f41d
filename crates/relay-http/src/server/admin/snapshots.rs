//! Snapshots of all figures for the dashboard, as server-sent events: one a second, made once for
//! all who watch, and none while nobody watches.

use std::cell::Cell;
use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::unfold;
use serde::{Serialize, Serializer};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::lifetime::Lifetime;
use crate::readiness::Unready;

/// The time between two snapshots.
const INTERVAL: Duration = Duration::from_secs(1);

/// The last event for a page whose slot another one has.
const REPLACED: Bytes = Bytes::from_static(b"event: replaced\ndata: \n\n");

/// The latest snapshot. All who watch are on one thread.
#[derive(Debug)]
pub(super) struct Snapshots {
    /// The event; empty while there is none.
    latest: watch::Sender<Bytes>,
    is_ticking: Cell<bool>,
}

/// The task that makes snapshots runs until this is dropped.
#[derive(Debug)]
struct Ticking(Rc<Snapshots>);

/// What a page gets each second.
#[derive(Debug, Serialize)]
struct Snapshot<'a> {
    /// The time of the snapshot, counted from any moment.
    at_seconds: f64,
    /// Why the relay is not ready; `null` if it is.
    unready: Option<String>,
    samples: Samples<'a>,
}

/// All samples of `/metrics`, by name and labels, without the buckets of empty
/// histograms.
#[derive(Debug)]
struct Samples<'a>(&'a str);

impl Snapshots {
    pub(super) fn new() -> Self {
        Self { latest: watch::Sender::default(), is_ticking: Cell::default() }
    }

    /// The events for a connection: the latest snapshot, and each new one that it can take. They
    /// are made by `make`, which has failed if it returns `None`.
    pub(super) fn events<M, F>(
        self: &Rc<Self>,
        make: M,
        lifetime: Rc<Lifetime>,
    ) -> impl Stream<Item = Result<Bytes, Infallible>> + use<M, F>
    where
        M: Fn() -> F + 'static,
        F: Future<Output = Option<Bytes>> + 'static,
    {
        lifetime.begin_watching();
        let mut latest = self.latest.subscribe();
        if !latest.borrow().is_empty() {
            latest.mark_changed();
        }
        self.tick(make);
        unfold(Some(latest), move |latest| {
            let lifetime = Rc::clone(&lifetime);
            async move {
                let mut latest = latest?;
                tokio::select! {
                    biased;
                    () = lifetime.leaving() => return Some((Ok(REPLACED), None)),
                    changed = latest.changed() => changed.ok()?,
                }
                lifetime.has_taken_a_snapshot();
                let snapshot = latest.borrow_and_update().clone();
                Some((Ok(snapshot), Some(latest)))
            }
        })
    }

    /// Begins to make snapshots, unless somebody does.
    fn tick<F>(self: &Rc<Self>, make: impl Fn() -> F + 'static)
    where
        F: Future<Output = Option<Bytes>> + 'static,
    {
        if self.is_ticking.replace(true) {
            return;
        }
        let ticking = Ticking(Rc::clone(self));
        drop(tokio::task::spawn_local(async move {
            let latest = &ticking.0.latest;
            let mut ticks = tokio::time::interval(INTERVAL);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                if latest.receiver_count() == 0 {
                    return;
                }
                if let Some(snapshot) = make().await {
                    latest.send_replace(snapshot);
                }
            }
        }));
    }
}

impl Drop for Ticking {
    fn drop(&mut self) {
        // Who comes later must not get an old snapshot.
        self.0.latest.send_replace(Bytes::new());
        self.0.is_ticking.set(false);
    }
}

impl Serialize for Samples<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let lines = self.0.lines().filter(|line| !line.starts_with('#'));
        // The count of a histogram stands before its buckets.
        let mut is_empty = false;
        let samples = lines.filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            // JSON has no other numbers.
            let value: f64 = value.parse().ok().filter(|value: &f64| value.is_finite())?;
            if name.split('{').next()?.ends_with("_count") {
                is_empty = value == 0.0;
            }
            (!is_empty || !name.contains("_bucket{")).then_some((name, value))
        });
        serializer.collect_map(samples)
    }
}

/// The event with all samples of the text of `/metrics`.
pub(super) fn event(metrics: &str, ready: Result<(), Unready>, at_seconds: f64) -> Option<Bytes> {
    let unready = ready.err().map(|reason| reason.to_string());
    let json = serde_json::to_string(&Snapshot { at_seconds, unready, samples: Samples(metrics) }).ok()?;
    // JSON has no line breaks, so this is one event.
    Some(format!("data: {json}\n\n").into())
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::StreamExt as _;
    use serde_json::json;
    use tokio::task::LocalSet;
    use tokio::time::sleep;

    use super::*;
    use crate::monotonic;
    use crate::server::admin::lifetime::Slots;

    #[tokio::test(start_paused = true)]
    async fn snapshots_are_made_once_a_second_and_only_while_somebody_watches() {
        let (snapshots, slots) = (Rc::new(Snapshots::new()), Rc::new(Slots::new()));
        let made = Rc::new(Cell::new(0_u8));
        let watch = || {
            let made = Rc::clone(&made);
            let make = move || {
                made.set(made.get() + 1);
                let number = made.get();
                async move { Some(Bytes::copy_from_slice(&[number])) }
            };
            Box::pin(snapshots.events(make, Rc::new(Lifetime::new(&slots))))
        };
        let scenario = async {
            let (mut one, mut other) = (watch(), watch());
            for number in 1..4 {
                assert_eq!(one.next().await.unwrap().unwrap(), [number].as_slice());
            }
            assert_eq!(other.next().await.unwrap().unwrap(), [3].as_slice(), "it skips what it did not take");
            drop((one, other));
            sleep(60 * INTERVAL).await;
            assert_eq!(made.get(), 3, "nobody watches");
            assert_eq!(watch().next().await.unwrap().unwrap(), [4].as_slice(), "none is old");
        };
        LocalSet::new().run_until(scenario).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_page_that_takes_nothing_is_disconnected() {
        let (slots, start) = (Rc::new(Slots::new()), monotonic::now());
        let lifetime = Lifetime::new(&slots);
        lifetime.begin_watching();
        let serving = async {
            for _ in 0..100 {
                sleep(INTERVAL).await;
                lifetime.has_taken_a_snapshot();
            }
            std::future::pending::<()>().await;
        };
        lifetime.run(pin!(serving)).await;
        assert_eq!(start.elapsed(), Duration::from_secs(115));
    }

    #[test]
    fn an_event_is_one_line_of_json() {
        let metrics = "# TYPE a counter\na_total{b=\"c\\\"d\"} 5\n\
            e_count 0\ne_bucket{le=\"1.0\"} 0\ne_bucket{le=\"+Inf\"} 0\n\
            e_count{f=\"g\"} 1\ne_bucket{f=\"g\",le=\"1.0\"} 0\nh 0\ni NaN\n# EOF\n";
        let bytes = event(metrics, Err(Unready::Replaying { percent: 7 }), 1.5).unwrap();
        let text = std::str::from_utf8(&bytes).unwrap();
        let json = text.strip_prefix("data: ").and_then(|rest| rest.strip_suffix("\n\n")).unwrap();
        assert!(!json.contains('\n'), "{json}");
        let samples = json!({
            "a_total{b=\"c\\\"d\"}": 5.0, "e_count": 0.0, "e_count{f=\"g\"}": 1.0,
            "e_bucket{f=\"g\",le=\"1.0\"}": 0.0, "h": 0.0,
        });
        let expected = json!({"at_seconds": 1.5, "unready": "replaying 7%", "samples": samples});
        assert_eq!(serde_json::from_str::<serde_json::Value>(json).unwrap(), expected);
    }
}
