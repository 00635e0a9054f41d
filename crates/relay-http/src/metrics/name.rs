//! The one table of what `/metrics` shows: names, kinds, labels, and a sentence each. Dashboards
//! and alerts are written against it, so a name keeps its meaning for ever. It counts nothing.

/// Something that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Metric {
    /// Which version runs.
    Build,
    /// Since when it serves.
    Uptime,
    /// Requests by what became of them.
    Requests,
    /// Time to an answer.
    RequestTime,
    /// Pushes by what became of them.
    Pushes,
    /// Items that left by an ack.
    AckedItems,
    /// Items that left by expiry.
    SweptItems,
    /// Requests over a rate limit.
    RateLimitRefusals,
    /// Bans that began.
    RateLimitBans,
    /// Requests that wait for their turn.
    RateLimitWaiting,
    /// When the TLS certificate ends.
    CertificateEnd,
    /// Open connections.
    Connections,
    /// Connections that were not let in.
    ConnectionsRefused,
    /// Requests that are being worked.
    RequestsInFlight,
    /// Bodies, payloads and pages in flight.
    InflightBytes,
    /// Requests that were made durable together.
    BatchRequests,
    /// The disk's time for a batch.
    SyncTime,
    /// Time for a checkpoint.
    CheckpointTime,
    /// Checkpoints that failed.
    CheckpointsFailed,
    /// How long items had waited when they were delivered.
    DeliveryAge,
    /// Damaged items that were met.
    DamagedItems,
    /// Whether pushes are refused for want of space.
    StorageFull,
    /// Items in queues.
    LiveItems,
    /// What they take on disk.
    LiveBytes,
    /// What waits for the disk.
    WaitingBytes,
    /// Files of the store.
    DiskFiles,
    /// What is in them.
    DiskBytes,
    /// How far the sweep is behind.
    SweepLag,
    /// How long space waits to be given back.
    ReclaimLag,
    /// How far the machine's clock is from the time of the store.
    ClockOffset,
}

/// What kind of number it is, in Prometheus' words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// A sum that only grows until a restart.
    Counter,
    /// A level that comes and goes.
    Gauge,
    /// Observations by size.
    Histogram,
    /// Always 1; the labels tell.
    Info,
}

impl Metric {
    /// All there are, in the order in which they are shown.
    pub const ALL: [Self; 30] = [
        Self::Build,
        Self::Uptime,
        Self::Requests,
        Self::RequestTime,
        Self::Pushes,
        Self::AckedItems,
        Self::SweptItems,
        Self::RateLimitRefusals,
        Self::RateLimitBans,
        Self::RateLimitWaiting,
        Self::CertificateEnd,
        Self::Connections,
        Self::ConnectionsRefused,
        Self::RequestsInFlight,
        Self::InflightBytes,
        Self::BatchRequests,
        Self::SyncTime,
        Self::CheckpointTime,
        Self::CheckpointsFailed,
        Self::DeliveryAge,
        Self::DamagedItems,
        Self::StorageFull,
        Self::LiveItems,
        Self::LiveBytes,
        Self::WaitingBytes,
        Self::DiskFiles,
        Self::DiskBytes,
        Self::SweepLag,
        Self::ReclaimLag,
        Self::ClockOffset,
    ];

    /// The name, as a query writes it; that of a histogram without `_bucket`, `_sum` or `_count`.
    pub const fn name(self) -> &'static str {
        self.row().0
    }

    /// What kind of number it is.
    pub const fn kind(self) -> MetricKind {
        self.row().1
    }

    /// The names of its labels, but for the `le` of a histogram.
    pub const fn labels(self) -> &'static [&'static str] {
        self.row().2
    }

    /// What it is, in a sentence.
    pub const fn help(self) -> &'static str {
        self.row().3
    }

    #[rustfmt::skip]
    const fn row(self) -> (&'static str, MetricKind, &'static [&'static str], &'static str) {
        use MetricKind::{Counter, Gauge, Histogram, Info};
        match self {
            Self::Build => ("relay_build_info", Info, &["version"], "The version that runs."),
            Self::Uptime => ("relay_uptime_seconds", Gauge, &[], "Time since the relay began to serve."),
            Self::Requests => (
                "relay_requests_total", Counter, &["endpoint", "code"],
                "Requests: ok, the code of the error that was answered, or gone when the client went away before.",
            ),
            Self::RequestTime => (
                "relay_request_seconds", Histogram, &["endpoint"],
                "Time from the head of a request to its answer; what sending it takes is not in it.",
            ),
            Self::Pushes => ("relay_pushes_total", Counter, &["outcome"], "Pushes whose outcome is known: stored, duplicate or failed."),
            Self::AckedItems => ("relay_acked_items_total", Counter, &[], "Items that acks took out of their queues."),
            Self::SweptItems => ("relay_swept_items_total", Counter, &[], "Expired items that sweeps reclaimed."),
            Self::RateLimitRefusals => ("relay_rate_limit_refusals_total", Counter, &[], "Requests that the rate limit refused, those of banned addresses included."),
            Self::RateLimitBans => ("relay_rate_limit_bans_total", Counter, &[], "Bans that began."),
            Self::RateLimitWaiting => ("relay_rate_limit_waiting", Gauge, &[], "Requests that wait for their turn, or for their refusal."),
            Self::CertificateEnd => ("relay_tls_certificate_expiry_seconds", Gauge, &[], "When the TLS certificate in force ends, in seconds since 1970."),
            Self::Connections => ("relay_connections", Gauge, &[], "Open connections to the public address."),
            Self::ConnectionsRefused => (
                "relay_refused_connections_total", Counter, &["reason"],
                "Connections that were not heard: their address opens too many a second (rate), has too many (address), or is banned (ban).",
            ),
            Self::RequestsInFlight => ("relay_requests_in_flight", Gauge, &[], "Requests that are not answered to the last byte."),
            Self::InflightBytes => ("relay_inflight_bytes", Gauge, &[], "Bytes of bodies, payloads and pages in flight, of max_inflight_bytes."),
            Self::BatchRequests => ("relay_batch_requests", Histogram, &[], "Pushes and acks that were written and synced together."),
            Self::SyncTime => ("relay_journal_sync_seconds", Histogram, &[], "Time to write a batch to the journal and to sync it, also when that failed."),
            Self::CheckpointTime => ("relay_checkpoint_seconds", Histogram, &[], "Time to write a checkpoint of the index, which nobody waits for."),
            Self::CheckpointsFailed => ("relay_checkpoints_failed_total", Counter, &[], "Checkpoints that could not be written; each is tried again."),
            Self::DeliveryAge => ("relay_delivery_age_seconds", Histogram, &[], "How long items had waited when a page with them was read, counted for each time."),
            Self::DamagedItems => ("relay_damaged_items_total", Counter, &[], "Damaged items that were met by pulls and left out, counted for each time."),
            Self::StorageFull => ("relay_storage_full", Gauge, &[], "1 while pushes are refused for want of space, else 0."),
            Self::LiveItems => ("relay_live_items", Gauge, &[], "Items in all queues, with expired ones that are not reclaimed yet."),
            Self::LiveBytes => ("relay_live_bytes", Gauge, &[], "What these items take, names included; in memory all that is counted by storage.max_bytes."),
            Self::WaitingBytes => ("relay_waiting_bytes", Gauge, &[], "Weight of the pushes and acks that wait for the disk."),
            Self::DiskFiles => ("relay_disk_files", Gauge, &["kind"], "Files of the store: journal, payload or index."),
            Self::DiskBytes => ("relay_disk_bytes", Gauge, &["kind"], "What is in these files; the index as of its last checkpoint."),
            Self::SweepLag => ("relay_sweep_lag_seconds", Gauge, &[], "Time since everything that had expired was reclaimed."),
            Self::ReclaimLag => ("relay_reclaim_lag_seconds", Gauge, &[], "Time since there was no space left to be given back."),
            Self::ClockOffset => (
                "relay_clock_offset_seconds", Gauge, &[],
                "How far the machine's clock is ahead of the time by which messages expire; it is not believed beyond an hour either way.",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_what_prometheus_expects_of_their_kind() {
        let names: BTreeSet<_> = Metric::ALL.iter().map(|metric| metric.name()).collect();
        assert_eq!(names.len(), Metric::ALL.len(), "every name is given once");
        for metric in Metric::ALL {
            let (name, help) = (metric.name(), metric.help());
            assert!(name.starts_with("relay_") && help.ends_with('.'), "{name}: {help}");
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
            assert_eq!(name.ends_with("_total"), metric.kind() == MetricKind::Counter, "{name}");
            assert_eq!(name.ends_with("_info"), metric.kind() == MetricKind::Info, "{name}");
        }
    }
}
