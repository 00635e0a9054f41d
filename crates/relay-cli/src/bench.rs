//! `bench`: how long pushes and deliveries take, as a table and a histogram. It uses a new
//! recipient that only it can read, and leaves nothing there.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt as _};
use hdrhistogram::Histogram;
use relay_client::{Client, Credentials, Deliveries, Secret, Transport, Uuid};
use serde_json::{Value, json};

use crate::cli::BenchArgs;
use crate::clock;
use crate::failure::Failure;
use crate::output::Output;
use crate::progress::Bar;
use crate::session::Session;

/// Latencies are measured up to this, in microseconds.
const LATENCY_US_MAX: u64 = 600_000_000;

/// How many messages are acked at once.
const ACKS_MAX: usize = 256;

/// The widest bar of a histogram, in columns.
const COLUMNS: u64 = 40;

const QUANTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];

/// When the push of each message began, until it is delivered.
type Begun = Mutex<HashMap<Uuid, Instant>>;

/// What was measured.
struct Measured {
    pushes: Histogram<u64>,
    deliveries: Histogram<u64>,
    took: Duration,
}

pub(crate) async fn run(session: &Session, args: &BenchArgs, output: &Output) -> Result<(), Failure> {
    let secret = Secret::generate()?;
    let transport = if args.stream { Transport::Stream } else { Transport::Wait };
    let recipient = secret.recipient();
    let mut deliveries = session.client.deliveries(&*recipient, Credentials::secret(&secret), transport);
    let result = measure(&session.client, &recipient, args, &mut deliveries).await;
    deliveries.close().await;
    if result.is_err() {
        // What is left there would expire by itself.
        drop(session.client.purge(&recipient, &Credentials::secret(&secret)).await);
    }
    report(&result?, args, output)
}

async fn measure(
    client: &Client,
    recipient: &str,
    args: &BenchArgs,
    deliveries: &mut Deliveries,
) -> Result<Measured, Failure> {
    // Connections and what the relay can do are no part of the figures.
    client.info().await?;
    let (begun, begin) = (Begun::default(), clock::now());
    let bar = Bar::of_messages(args.count.get());
    let push = push_all(client, recipient, args, &begun);
    let receive = receive_all(deliveries, args.count.get(), &begun, &bar);
    let (pushes, deliveries) = tokio::try_join!(push, receive)?;
    let took = clock::now().duration_since(begin);
    Ok(Measured { pushes, deliveries, took })
}

async fn push_all(
    client: &Client,
    recipient: &str,
    args: &BenchArgs,
    begun: &Begun,
) -> Result<Histogram<u64>, Failure> {
    let payload = Bytes::from(vec![0x5a; usize::try_from(args.bytes).unwrap_or(usize::MAX)]);
    let pushes = stream::iter(0..args.count.get()).map(|index| {
        let payload = payload.clone();
        async move {
            let id = Uuid::from_u128(u128::from(index) + 1);
            let begin = clock::now();
            begun.lock().unwrap_or_else(PoisonError::into_inner).insert(id, begin);
            client.push(recipient, payload).message_id(id).kind("bench").await?;
            Ok::<_, relay_client::Error>(clock::now().duration_since(begin))
        }
    });
    let mut pushes = pushes.buffer_unordered(args.parallel.get());
    let mut latencies = histogram()?;
    while let Some(latency) = pushes.next().await {
        record(&mut latencies, latency?);
    }
    Ok(latencies)
}

async fn receive_all(
    deliveries: &mut Deliveries,
    count: u64,
    begun: &Begun,
    bar: &Bar,
) -> Result<Histogram<u64>, Failure> {
    let (mut latencies, mut unacked) = (histogram()?, Vec::new());
    for index in 0..count {
        let Some(message) = deliveries.next().await.transpose()? else { break };
        let now = clock::now();
        let begin = begun.lock().unwrap_or_else(PoisonError::into_inner).remove(&message.message_id);
        record(&mut latencies, begin.map_or(Duration::ZERO, |begin| now.duration_since(begin)));
        bar.add(1);
        unacked.push(message);
        if unacked.len() == ACKS_MAX || index + 1 == count {
            for acked in join_all(unacked.iter().map(|message| message.ack())).await {
                acked?;
            }
            unacked.clear();
        }
    }
    Ok(latencies)
}

fn histogram() -> Result<Histogram<u64>, Failure> {
    Histogram::new_with_max(LATENCY_US_MAX, 3).map_err(|error| Failure::File(error.to_string()))
}

fn record(latencies: &mut Histogram<u64>, latency: Duration) {
    latencies.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
}

fn report(measured: &Measured, args: &BenchArgs, output: &Output) -> Result<(), Failure> {
    let seconds = measured.took.as_secs_f64().max(f64::MIN_POSITIVE);
    let count = u32::try_from(args.count.get()).map_or(f64::INFINITY, f64::from);
    let per_second = count / seconds;
    let object = json!({
        "messages": args.count.get(),
        "bytes": args.bytes,
        "parallel": args.parallel.get(),
        "seconds": seconds,
        "messages_per_second": per_second,
        "push_us": quantiles(&measured.pushes),
        "delivery_us": quantiles(&measured.deliveries),
    });
    output.print(&object, || {
        let mut text = format!(
            "{} messages of {} bytes in {seconds:.2} s: {per_second:.0} a second\n\n{:>10}",
            args.count, args.bytes, "ms"
        );
        QUANTILES.iter().for_each(|(name, _)| text.push_str(&format!("{name:>10}")));
        for (name, latencies) in [("push", &measured.pushes), ("delivery", &measured.deliveries)] {
            text.push_str(&format!("\n{name:>10}"));
            for (_, quantile) in QUANTILES {
                text.push_str(&format!("{:>10}", ms(latencies.value_at_quantile(quantile))));
            }
        }
        text + "\n\ndeliveries, from the begin of the push:\n" + &plot(&measured.deliveries)
    })
}

fn quantiles(latencies: &Histogram<u64>) -> Value {
    let values = QUANTILES
        .iter()
        .map(|(name, quantile)| ((*name).to_owned(), Value::from(latencies.value_at_quantile(*quantile))));
    Value::Object(values.collect())
}

fn ms(us: u64) -> String {
    format!("{}.{:03}", us / 1000, us % 1000)
}

/// One line for each doubling of the latency.
fn plot(latencies: &Histogram<u64>) -> String {
    let counts: Vec<_> = latencies
        .iter_log(1, 2.0)
        .map(|step| (step.value_iterated_to(), step.count_since_last_iteration()))
        .skip_while(|(_, count)| *count == 0)
        .collect();
    let most = counts.iter().map(|(_, count)| *count).max().unwrap_or(0).max(1);
    let line = |(us, count): &(u64, u64)| {
        let width = usize::try_from(count * COLUMNS / most).unwrap_or(0);
        format!("{:>14} ms {:<40} {count}", format!("<= {}", ms(*us)), "#".repeat(width))
    };
    counts.iter().map(line).collect::<Vec<_>>().join("\n")
}
