//! Writes all metrics in the OpenMetrics text format, which Prometheus reads. It omits unknown
//! values, such as the files of a store in memory.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use relay_core::{Distribution, Figures, FileUse, SpaceFigures, WakeFigures};
use tokio::time::Instant;

use crate::metrics::{Label, Metric, Metrics};

/// The content type of what [`expose`] returns.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit, if whoever built the relay said it in the variable `RELAY_COMMIT`. The build does
/// not ask git, so it gives the same bytes with and without a repository.
const COMMIT: &str = match option_env!("RELAY_COMMIT") {
    Some(commit) if !commit.is_empty() => commit,
    _ => "unknown",
};

const MS_PER_SECOND: f64 = 1e3;
const US_PER_SECOND: f64 = 1e6;

/// The sources of all metrics.
#[derive(Debug)]
struct MetricsCollector {
    metrics: Arc<Metrics>,
    figures: Figures,
    now: Instant,
}

/// A histogram of the store.
#[derive(Debug)]
struct StoreHistogram {
    distribution: Distribution,
    /// How many units of the store make one unit of the metric.
    per_unit: f64,
}

type MetricValue = Box<dyn EncodeMetric>;

/// The text of all metrics at `now`.
///
/// # Errors
/// If the encoder fails, which does not happen for a string.
pub(crate) fn expose(metrics: Arc<Metrics>, figures: Figures, now: Instant) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(MetricsCollector { metrics, figures, now }));
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(text)
}

impl Collector for MetricsCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for metric in Metric::ALL {
            if let Some(value) = self.value(metric) {
                let (name, help) = (family_name(metric), metric.help());
                value.encode(encoder.encode_descriptor(name, help, None, value.metric_type())?)?;
            }
        }
        Ok(())
    }
}

impl MetricsCollector {
    fn value(&self, metric: Metric) -> Option<MetricValue> {
        let Self { metrics, figures, now } = self;
        let sources = metrics.gauge_sources.get();
        Some(match metric {
            Metric::Build => Box::new(Info::new([("version", VERSION), ("commit", COMMIT)])),
            Metric::Uptime => gauge(now.saturating_duration_since(sources?.started).as_secs_f64()),
            Metric::Requests => Box::new(metrics.requests.counts.clone()),
            Metric::RequestTime => Box::new(metrics.requests.times.clone()),
            Metric::Pushes => Box::new(metrics.pushes.clone()),
            Metric::BatchItemErrors => Box::new(metrics.item_errors.clone()),
            Metric::AckedItems => Box::new(metrics.acked_items.clone()),
            Metric::SweptItems => Box::new(metrics.swept_items.clone()),
            Metric::RateLimitRefusals => Box::new(metrics.rate_limit_refusals.clone()),
            Metric::RateLimitBans => Box::new(metrics.rate_limit_bans.clone()),
            Metric::AuthRefusals => Box::new(metrics.auth_refusals.clone()),
            Metric::RateLimitWaiting => gauge(sources?.waiting.count() as u64),
            Metric::WaitingPulls => gauge(sources?.parking.count() as u64),
            Metric::CertificateEnd => gauge(metrics.certificate_end_seconds()?.max(0)),
            Metric::Connections => gauge(sources?.connections.count() as u64),
            Metric::ProtocolConnections => Box::new(metrics.connections.by_protocol.clone()),
            Metric::Handshakes => Box::new(metrics.connections.handshakes.clone()),
            Metric::ConnectionsRefused => Box::new(metrics.refused_connections.clone()),
            Metric::RequestsInFlight => gauge(sources?.requests.count() as u64),
            Metric::InflightBytes => gauge(sources?.in_flight.used() as u64),
            Metric::BatchRequests => histogram(figures.batch_requests.as_ref()?, 1.0),
            Metric::SyncTime => histogram(figures.sync_us.as_ref()?, US_PER_SECOND),
            Metric::CheckpointTime => histogram(figures.checkpoint_us.as_ref()?, US_PER_SECOND),
            Metric::CheckpointsFailed => Box::new(ConstCounter::new(figures.checkpoints_failed?)),
            Metric::DeliveryAge => histogram(figures.delivery_age_ms.as_ref()?, MS_PER_SECOND),
            Metric::DamagedItems => Box::new(ConstCounter::new(figures.damaged_items?)),
            Metric::StorageFull => gauge(u64::from(figures.is_full?)),
            Metric::LiveItems => gauge(figures.live?.items),
            Metric::LiveBytes => gauge(figures.live?.bytes),
            Metric::WaitingBytes => gauge(figures.waiting_bytes?),
            Metric::DiskFiles => files(&figures.files, |kind| kind.files)?,
            Metric::DiskBytes => files(&figures.files, |kind| kind.bytes)?,
            Metric::DiskFree | Metric::SpaceFreeMin | Metric::SpaceMax => space(metric, figures.space?)?,
            Metric::SweepLag => gauge(as_f64(figures.sweep_lag_ms?) / MS_PER_SECOND),
            Metric::ReclaimLag => gauge(as_f64(figures.reclaim_lag_ms?) / MS_PER_SECOND),
            Metric::Wakes => wakes(figures.wakes?),
            Metric::WakesPending => gauge(figures.wakes?.pending),
            Metric::DatabaseAvailable => gauge(u64::from(figures.database?.is_available)),
            Metric::DatabaseBytes => gauge(figures.database?.bytes),
            Metric::DatabaseOldestTransaction => {
                gauge(as_f64(figures.database?.oldest_transaction_ms) / MS_PER_SECOND)
            }
            Metric::ClockOffset => {
                let ms = figures.clock_offset_ms?;
                gauge(as_f64(ms.unsigned_abs()).copysign(if ms < 0 { -1.0 } else { 1.0 }) / MS_PER_SECOND)
            }
        })
    }
}

impl EncodeMetric for StoreHistogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let Self { distribution, per_unit } = self;
        let bounds = distribution.bounds.iter().map(|bound| as_f64(*bound) / per_unit);
        let buckets: Vec<_> =
            bounds.chain([f64::INFINITY]).zip(distribution.counts.iter().copied()).collect();
        let sum = as_f64(distribution.sum) / per_unit;
        encoder.encode_histogram::<NoLabelSet>(sum, distribution.count(), &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

fn gauge<N>(value: N) -> MetricValue
where
    ConstGauge<N>: EncodeMetric + 'static,
{
    Box::new(ConstGauge::new(value))
}

fn histogram(distribution: &Distribution, per_unit: f64) -> MetricValue {
    Box::new(StoreHistogram { distribution: distribution.clone(), per_unit })
}

/// A gauge for each kind of file.
fn files(files: &[FileUse], value: impl Fn(&FileUse) -> u64) -> Option<MetricValue> {
    let family = Family::<[Label; 1], Gauge>::default();
    for kind in files {
        family.get_or_create(&[("kind", kind.kind)]).set(i64::try_from(value(kind)).unwrap_or(i64::MAX));
    }
    (!files.is_empty()).then(|| Box::new(family) as MetricValue)
}

/// The free space, or a limit if there is one.
fn space(metric: Metric, space: SpaceFigures) -> Option<MetricValue> {
    let limit = |bytes: u64| Some(bytes).filter(|bytes| *bytes > 0);
    let bytes = match metric {
        Metric::SpaceFreeMin => limit(space.free_bytes_min),
        Metric::SpaceMax => limit(space.store_bytes_max),
        _ => space.free_bytes,
    };
    bytes.map(gauge)
}

/// A counter for each outcome.
fn wakes(wakes: WakeFigures) -> MetricValue {
    let WakeFigures { sent, retried, attended, refused, failed, full, pending: _ } = wakes;
    let family = Family::<[Label; 1], Counter>::default();
    for (outcome, count) in [
        ("sent", sent),
        ("retried", retried),
        ("attended", attended),
        ("refused", refused),
        ("failed", failed),
        ("full", full),
    ] {
        family.get_or_create(&[("outcome", outcome)]).inc_by(count);
    }
    Box::new(family)
}

#[expect(clippy::cast_precision_loss, reason = "dashboards show no digits beyond 2^53")]
fn as_f64(number: u64) -> f64 {
    number as f64
}

/// The name without the suffix that the library adds.
fn family_name(metric: Metric) -> &'static str {
    let name = metric.name();
    name.strip_suffix("_total").or_else(|| name.strip_suffix("_info")).unwrap_or(name)
}
