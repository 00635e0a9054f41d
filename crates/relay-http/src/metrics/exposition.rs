//! Writes what is measured in the text format of OpenMetrics, which Prometheus reads. The only file
//! that knows the library for that. What is not known, such as the files of a store in memory, is
//! left out.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use relay_core::{Distribution, Figures, FileUse};
use tokio::time::Instant;

use super::Counts;
use super::Levels;
use super::Metric;
use super::MetricKind;
use super::Metrics;

/// The type of what [`expose`] writes.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

const MS_PER_SECOND: f64 = 1e3;
const US_PER_SECOND: f64 = 1e6;

/// All that is shown at once.
#[derive(Debug)]
struct Snapshot {
    metrics: Arc<Metrics>,
    counts: Counts,
    levels: Option<Levels>,
    figures: Figures,
}

type Labels = Vec<(&'static str, &'static str)>;

/// One line, or the lines of one histogram.
enum Sample {
    Count(u64),
    Level(u64),
    Seconds(f64),
    /// By how much its observations are divided.
    Distribution(Distribution, f64),
    Info,
}

/// The text of everything at `now`.
///
/// # Errors
/// None that a string could give.
pub(crate) fn expose(metrics: Arc<Metrics>, figures: Figures, now: Instant) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    let (counts, levels) = (metrics.counts(), metrics.levels(now));
    registry.register_collector(Box::new(Snapshot { metrics, counts, levels, figures }));
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(text)
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for metric in Metric::ALL {
            let samples = self.samples(metric);
            if samples.is_empty() {
                continue;
            }
            let (family, kind) = (family(metric), metric_type(metric.kind()));
            let mut encoder = encoder.encode_descriptor(family, metric.help(), None, kind)?;
            for (labels, sample) in samples {
                match sample {
                    Sample::Info => encoder.encode_info(&labels)?,
                    sample if labels.is_empty() => sample.encode(&mut encoder)?,
                    sample => sample.encode(&mut encoder.encode_family(&labels)?)?,
                }
            }
        }
        Ok(())
    }
}

impl Snapshot {
    fn samples(&self, metric: Metric) -> Vec<(Labels, Sample)> {
        let Self { metrics, counts, levels: now, figures } = self;
        match metric {
            Metric::Build => vec![(vec![("version", env!("CARGO_PKG_VERSION"))], Sample::Info)],
            Metric::Uptime => one(now.map(|now| Sample::Seconds(now.uptime.as_secs_f64()))),
            Metric::Requests => self.requests(),
            Metric::RequestTime => self.request_times(),
            Metric::Pushes => [
                ("stored", counts.push_stored),
                ("duplicate", counts.duplicates),
                ("failed", counts.push_failed),
            ]
            .map(|(outcome, count)| (vec![("outcome", outcome)], Sample::Count(count)))
            .into(),
            Metric::AckedItems => one(Some(Sample::Count(counts.ack_deleted))),
            Metric::SweptItems => one(Some(Sample::Count(counts.gc_removed))),
            Metric::RateLimitRefusals => one(Some(Sample::Count(counts.rate_limited))),
            Metric::RateLimitBans => one(Some(Sample::Count(metrics.rate_limit_bans()))),
            Metric::RateLimitWaiting => one(now.map(|now| Sample::Level(now.waiting))),
            Metric::CertificateEnd => {
                let end = metrics.certificate_end_seconds();
                one(end.map(|end| Sample::Level(u64::try_from(end).unwrap_or_default())))
            }
            Metric::Connections => one(now.map(|now| Sample::Level(now.connections))),
            Metric::ConnectionsRefused => {
                let sample = |(reason, count)| (vec![("reason", reason)], Sample::Count(count));
                metrics.refused_connections.counts().map(sample).into()
            }
            Metric::RequestsInFlight => one(now.map(|now| Sample::Level(now.requests))),
            Metric::InflightBytes => one(now.map(|now| Sample::Level(now.inflight_bytes))),
            Metric::BatchRequests => one(figures.batch_requests.as_ref().map(in_units(1.0))),
            Metric::SyncTime => one(figures.sync_us.as_ref().map(in_units(US_PER_SECOND))),
            Metric::CheckpointTime => one(figures.checkpoint_us.as_ref().map(in_units(US_PER_SECOND))),
            Metric::CheckpointsFailed => one(figures.checkpoints_failed.map(Sample::Count)),
            Metric::DeliveryAge => one(figures.delivery_age_ms.as_ref().map(in_units(MS_PER_SECOND))),
            Metric::DamagedItems => one(figures.damaged_items.map(Sample::Count)),
            Metric::StorageFull => one(figures.is_full.map(|is_full| Sample::Level(u64::from(is_full)))),
            Metric::LiveItems => one(figures.live.map(|live| Sample::Level(live.items))),
            Metric::LiveBytes => one(figures.live.map(|live| Sample::Level(live.bytes))),
            Metric::WaitingBytes => one(figures.waiting_bytes.map(Sample::Level)),
            Metric::DiskFiles => self.files(|kind| kind.files),
            Metric::DiskBytes => self.files(|kind| kind.bytes),
            Metric::SweepLag => one(figures.sweep_lag_ms.map(seconds_of_ms)),
            Metric::ReclaimLag => one(figures.reclaim_lag_ms.map(seconds_of_ms)),
            Metric::ClockOffset => one(figures.clock_offset_ms.map(signed_seconds_of_ms)),
        }
    }

    /// Those that there were. All possible ones would be a hundred lines of zeros; the usual ones
    /// are shown from the start, so that a rate can be told from the first one on.
    fn requests(&self) -> Vec<(Labels, Sample)> {
        let counts = self.metrics.requests.counts().into_iter();
        let shown = counts.filter(|([_, code], count)| {
            *count > 0 || matches!(*code, "ok" | "internal_error" | "storage_error")
        });
        shown
            .map(|([endpoint, code], count)| {
                (vec![("endpoint", endpoint), ("code", code)], Sample::Count(count))
            })
            .collect()
    }

    fn request_times(&self) -> Vec<(Labels, Sample)> {
        let times = self.metrics.requests.times_us().into_iter();
        times
            .map(|(endpoint, time)| (vec![("endpoint", endpoint)], Sample::Distribution(time, US_PER_SECOND)))
            .collect()
    }

    fn files(&self, number: impl Fn(&FileUse) -> u64) -> Vec<(Labels, Sample)> {
        let sample = |kind: &FileUse| (vec![("kind", kind.kind)], Sample::Level(number(kind)));
        self.figures.files.iter().map(sample).collect()
    }
}

impl Sample {
    fn encode(self, encoder: &mut MetricEncoder<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => encoder.encode_counter::<NoLabelSet, u64, f64>(&count, None),
            Self::Level(level) => encoder.encode_gauge(&level),
            Self::Seconds(seconds) => encoder.encode_gauge(&seconds),
            Self::Distribution(distribution, per_unit) => {
                let sum = in_float(distribution.sum) / per_unit;
                let buckets = buckets(&distribution, per_unit);
                encoder.encode_histogram::<NoLabelSet>(sum, distribution.count(), &buckets, None)
            }
            Self::Info => encoder.encode_info(&Labels::new()),
        }
    }
}

fn one(sample: Option<Sample>) -> Vec<(Labels, Sample)> {
    sample.map(|sample| (Labels::new(), sample)).into_iter().collect()
}

fn in_units(per_unit: f64) -> impl Fn(&Distribution) -> Sample {
    move |distribution| Sample::Distribution(distribution.clone(), per_unit)
}

fn seconds_of_ms(ms: u64) -> Sample {
    Sample::Seconds(in_float(ms) / MS_PER_SECOND)
}

fn signed_seconds_of_ms(ms: i64) -> Sample {
    let seconds = in_float(ms.unsigned_abs()) / MS_PER_SECOND;
    Sample::Seconds(if ms < 0 { -seconds } else { seconds })
}

/// Bounds and counts, the last one without a bound.
fn buckets(distribution: &Distribution, per_unit: f64) -> Vec<(f64, u64)> {
    let bounds = distribution.bounds.iter().map(|bound| in_float(*bound) / per_unit);
    bounds.chain([f64::INFINITY]).zip(distribution.counts.iter().copied()).collect()
}

/// What is lost of a number over 2^53 is less than anybody sees.
#[expect(clippy::cast_precision_loss, reason = "see above")]
fn in_float(number: u64) -> f64 {
    number as f64
}

/// The name as the library wants it: it adds these endings itself.
fn family(metric: Metric) -> &'static str {
    let name = metric.name();
    name.strip_suffix("_total").or_else(|| name.strip_suffix("_info")).unwrap_or(name)
}

const fn metric_type(kind: MetricKind) -> MetricType {
    match kind {
        MetricKind::Counter => MetricType::Counter,
        MetricKind::Gauge => MetricType::Gauge,
        MetricKind::Histogram => MetricType::Histogram,
        MetricKind::Info => MetricType::Info,
    }
}
