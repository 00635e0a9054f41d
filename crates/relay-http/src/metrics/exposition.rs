//! Writes all metrics in the text format of OpenMetrics, which Prometheus reads. What is unknown,
//! such as the files of a store in memory, is left out.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use relay_core::{Distribution, Figures, FileUse};
use tokio::time::Instant;

use crate::metrics::{Label, Levels, Metric, Metrics};

/// The content type of what [`expose`] returns.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

const MS_PER_SECOND: f64 = 1e3;
const US_PER_SECOND: f64 = 1e6;

/// All metrics at one moment.
#[derive(Debug)]
struct Snapshot {
    metrics: Arc<Metrics>,
    levels: Option<Levels>,
    figures: Figures,
}

/// A histogram of the store.
#[derive(Debug)]
struct Observed {
    distribution: Distribution,
    /// Observations per unit of the metric.
    per_unit: f64,
}

type Value = Box<dyn EncodeMetric>;

/// The text of all metrics at `now`.
///
/// # Errors
/// None that a string can give.
pub(crate) fn expose(metrics: Arc<Metrics>, figures: Figures, now: Instant) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    let levels = metrics.levels(now);
    registry.register_collector(Box::new(Snapshot { metrics, levels, figures }));
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(text)
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for metric in Metric::ALL {
            if let Some(value) = self.value(metric) {
                let family = family_name(metric);
                value.encode(encoder.encode_descriptor(
                    family,
                    metric.help(),
                    None,
                    value.metric_type(),
                )?)?;
            }
        }
        Ok(())
    }
}

impl Snapshot {
    fn value(&self, metric: Metric) -> Option<Value> {
        let Self { metrics, levels, figures } = self;
        Some(match metric {
            Metric::Build => Box::new(Info::new([("version", env!("CARGO_PKG_VERSION"))])),
            Metric::Uptime => gauge(levels.as_ref()?.uptime.as_secs_f64()),
            Metric::Requests => Box::new(metrics.requests.counts.clone()),
            Metric::RequestTime => Box::new(metrics.requests.times.clone()),
            Metric::Pushes => Box::new(metrics.pushes.clone()),
            Metric::AckedItems => Box::new(metrics.acked_items.clone()),
            Metric::SweptItems => Box::new(metrics.swept_items.clone()),
            Metric::RateLimitRefusals => Box::new(metrics.rate_limit_refusals.clone()),
            Metric::RateLimitBans => Box::new(metrics.rate_limit_bans.clone()),
            Metric::RateLimitWaiting => gauge(levels.as_ref()?.waiting),
            Metric::CertificateEnd => gauge(metrics.certificate_end_seconds()?.max(0)),
            Metric::Connections => gauge(levels.as_ref()?.connections),
            Metric::ConnectionsRefused => Box::new(metrics.refused_connections.clone()),
            Metric::RequestsInFlight => gauge(levels.as_ref()?.requests),
            Metric::InflightBytes => gauge(levels.as_ref()?.inflight_bytes),
            Metric::BatchRequests => observed(figures.batch_requests.as_ref()?, 1.0),
            Metric::SyncTime => observed(figures.sync_us.as_ref()?, US_PER_SECOND),
            Metric::CheckpointTime => observed(figures.checkpoint_us.as_ref()?, US_PER_SECOND),
            Metric::CheckpointsFailed => Box::new(ConstCounter::new(figures.checkpoints_failed?)),
            Metric::DeliveryAge => observed(figures.delivery_age_ms.as_ref()?, MS_PER_SECOND),
            Metric::DamagedItems => Box::new(ConstCounter::new(figures.damaged_items?)),
            Metric::StorageFull => gauge(u64::from(figures.is_full?)),
            Metric::LiveItems => gauge(figures.live?.items),
            Metric::LiveBytes => gauge(figures.live?.bytes),
            Metric::WaitingBytes => gauge(figures.waiting_bytes?),
            Metric::DiskFiles => files(&figures.files, |kind| kind.files)?,
            Metric::DiskBytes => files(&figures.files, |kind| kind.bytes)?,
            Metric::SweepLag => gauge(in_float(figures.sweep_lag_ms?) / MS_PER_SECOND),
            Metric::ReclaimLag => gauge(in_float(figures.reclaim_lag_ms?) / MS_PER_SECOND),
            Metric::ClockOffset => {
                let ms = figures.clock_offset_ms?;
                gauge(in_float(ms.unsigned_abs()).copysign(if ms < 0 { -1.0 } else { 1.0 }) / MS_PER_SECOND)
            }
        })
    }
}

impl EncodeMetric for Observed {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let Self { distribution, per_unit } = self;
        let bounds = distribution.bounds.iter().map(|bound| in_float(*bound) / per_unit);
        let buckets: Vec<_> =
            bounds.chain([f64::INFINITY]).zip(distribution.counts.iter().copied()).collect();
        let sum = in_float(distribution.sum) / per_unit;
        encoder.encode_histogram::<NoLabelSet>(sum, distribution.count(), &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

fn gauge<N>(value: N) -> Value
where
    ConstGauge<N>: EncodeMetric + 'static,
{
    Box::new(ConstGauge::new(value))
}

fn observed(distribution: &Distribution, per_unit: f64) -> Value {
    Box::new(Observed { distribution: distribution.clone(), per_unit })
}

fn files(files: &[FileUse], number: impl Fn(&FileUse) -> u64) -> Option<Value> {
    let family = Family::<[Label; 1], Gauge>::default();
    for kind in files {
        family.get_or_create(&[("kind", kind.kind)]).set(i64::try_from(number(kind)).unwrap_or(i64::MAX));
    }
    (!files.is_empty()).then(|| Box::new(family) as Value)
}

/// Rounds numbers over 2^53, which no dashboard shows.
#[expect(clippy::cast_precision_loss, reason = "see above")]
fn in_float(number: u64) -> f64 {
    number as f64
}

/// The name without the endings that the library adds itself.
fn family_name(metric: Metric) -> &'static str {
    let name = metric.name();
    name.strip_suffix("_total").or_else(|| name.strip_suffix("_info")).unwrap_or(name)
}
