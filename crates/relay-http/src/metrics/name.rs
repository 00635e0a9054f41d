//! The table of all metrics. Dashboards and alerts depend on the names, so a name keeps its meaning
//! for ever.

/// The Prometheus type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// A sum that only grows, until a restart.
    Counter,
    /// A value that rises and falls.
    Gauge,
    /// Observations by size.
    Histogram,
    /// Always 1; the labels have the information.
    Info,
}

/// Makes [`Metric`] from rows of variant, kind, name, labels and help text.
macro_rules! metrics {
    ($($metric:ident: $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        /// A metric of `/metrics`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Metric {
            $(#[doc = $help] $metric,)*
        }

        impl Metric {
            /// All metrics, in the order of `/metrics`.
            pub const ALL: [Self; [$($name),*].len()] = [$(Self::$metric),*];

            const fn row(self) -> (&'static str, MetricKind, &'static [&'static str], &'static str) {
                match self {
                    $(Self::$metric => ($name, MetricKind::$kind, &[$($label),*], $help),)*
                }
            }
        }
    };
}

metrics! {
    Build: Info "relay_build_info" ["version", "commit"]
        "The version of the relay, and the commit that it was built from.";
    Uptime: Gauge "relay_uptime_seconds" []
        "Time since the relay began to serve.";
    Requests: Counter "relay_requests_total" ["endpoint", "code"]
        "Requests: ok, the code of the error response, or gone if the client disconnected before the response.";
    RequestTime: Histogram "relay_request_seconds" ["endpoint"]
        "Time from the head of a request to its response, without the sending; pulls that waited for an item do not count.";
    Pushes: Counter "relay_pushes_total" ["outcome"]
        "Pushes whose outcome is known: stored, duplicate or failed.";
    BatchItemErrors: Counter "relay_batch_item_errors_total" ["code"]
        "Items of batches that were refused, by the code of their error.";
    AckedItems: Counter "relay_acked_items_total" []
        "Items removed by acks.";
    SweptItems: Counter "relay_swept_items_total" []
        "Expired items removed by sweeps.";
    RateLimitRefusals: Counter "relay_rate_limit_refusals_total" []
        "Requests that the rate limit refused, including those of banned addresses.";
    RateLimitBans: Counter "relay_rate_limit_bans_total" []
        "Bans that began.";
    AuthRefusals: Counter "relay_auth_refusals_total" ["reason"]
        "Requests whose proof did not open the recipient, by reason.";
    RateLimitWaiting: Gauge "relay_rate_limit_waiting" []
        "Requests that wait for their turn, or for their refusal.";
    WaitingPulls: Gauge "relay_waiting_pulls" []
        "Pulls that wait for an item to arrive, and streams.";
    CertificateEnd: Gauge "relay_tls_certificate_expiry_seconds" []
        "When the TLS certificate in use expires, in seconds since 1970.";
    Connections: Gauge "relay_connections" []
        "Open connections of clients.";
    ProtocolConnections: Gauge "relay_protocol_connections" ["protocol"]
        "Those of them that can send requests, by protocol: http1 in clear text, http1_tls or http2.";
    Handshakes: Counter "relay_tls_handshakes_total" ["outcome"]
        "TLS handshakes: ok, or failed, also because the client went away or took too long.";
    ConnectionsRefused: Counter "relay_refused_connections_total" ["reason"]
        "Connections that the relay refused: their address opens too many in a second (rate), has too many (address), or is banned (ban).";
    RequestsInFlight: Gauge "relay_requests_in_flight" []
        "Requests whose response is not yet sent to the last byte.";
    InflightBytes: Gauge "relay_inflight_bytes" []
        "Bytes of request bodies, payloads and pages in flight.";
    BatchRequests: Histogram "relay_batch_requests" []
        "Number of pushes and acks that shared one sync.";
    SyncTime: Histogram "relay_journal_sync_seconds" []
        "Time of one write and one sync of the journal, including failed ones.";
    CheckpointTime: Histogram "relay_checkpoint_seconds" []
        "Time of one checkpoint of the index; no request waits for it.";
    CheckpointsFailed: Counter "relay_checkpoints_failed_total" []
        "Checkpoints that could not be written; the relay tries each one again.";
    DeliveryAge: Histogram "relay_delivery_age_seconds" []
        "How long items had waited when they were pulled; each pull of an item counts.";
    DamagedItems: Counter "relay_damaged_items_total" []
        "Corrupt items that pulls found and skipped; each time counts.";
    StorageFull: Gauge "relay_storage_full" []
        "1 while the relay rejects pushes because of too little space, else 0.";
    LiveItems: Gauge "relay_live_items" []
        "Items in all queues, including expired ones that are not swept yet.";
    LiveBytes: Gauge "relay_live_bytes" []
        "Space that these items take, including ids and times; in memory, everything that counts towards the limit of the store.";
    WaitingBytes: Gauge "relay_waiting_bytes" []
        "Size of the pushes and acks that wait for the disk.";
    DiskFiles: Gauge "relay_disk_files" ["kind"]
        "Files of the store: journal, payload or index.";
    DiskBytes: Gauge "relay_disk_bytes" ["kind"]
        "Size of these files; the index as of its last checkpoint.";
    DiskFree: Gauge "relay_disk_free_bytes" []
        "What the file system has left for the store.";
    SpaceFreeMin: Gauge "relay_storage_min_free_bytes" []
        "The relay rejects pushes while the file system has less left than this; missing without that limit.";
    SpaceMax: Gauge "relay_storage_max_bytes" []
        "The relay rejects pushes while the store takes more than this; missing without that limit.";
    SweepLag: Gauge "relay_sweep_lag_seconds" []
        "Time since everything expired was swept.";
    ReclaimLag: Gauge "relay_reclaim_lag_seconds" []
        "Time since the store last had no space left to give back.";
    Wakes: Counter "relay_wakes_total" ["outcome"]
        "Wakes of sleeping clients: sent; attended, because the client came by itself; or dropped, as refused, failed or full. Retried counts failed calls that are repeated.";
    WakesPending: Gauge "relay_wakes_pending" []
        "Queues whose wake is due, or will be, or is being sent.";
    DatabaseAvailable: Gauge "relay_database_available" []
        "Whether the database of the relay serves, or all of several: 1 or 0.";
    DatabaseBytes: Gauge "relay_database_bytes" []
        "The size of the database, or of all together.";
    DatabaseOldestTransaction: Gauge "relay_database_oldest_transaction_seconds" []
        "The age of the oldest transaction in the database that keeps dead rows from being removed.";
    ClockOffset: Gauge "relay_clock_offset_seconds" []
        "How far the machine's clock is ahead of the time by which messages expire; the relay does not trust it beyond an hour in either direction.";
}

impl Metric {
    /// The name, as in a query; for a histogram, without `_bucket`, `_sum` or `_count`.
    pub const fn name(self) -> &'static str {
        self.row().0
    }

    /// The type of the metric.
    pub const fn kind(self) -> MetricKind {
        self.row().1
    }

    /// The names of its labels, without the `le` of a histogram.
    pub const fn labels(self) -> &'static [&'static str] {
        self.row().2
    }

    /// The help text: one sentence.
    pub const fn help(self) -> &'static str {
        self.row().3
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_follow_the_rules_of_prometheus() {
        let names: BTreeSet<_> = Metric::ALL.iter().map(|metric| metric.name()).collect();
        assert_eq!(names.len(), Metric::ALL.len(), "every name is unique");
        for metric in Metric::ALL {
            let (name, help) = (metric.name(), metric.help());
            assert!(name.starts_with("relay_") && help.ends_with('.'), "{name}: {help}");
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
            assert_eq!(name.ends_with("_total"), metric.kind() == MetricKind::Counter, "{name}");
            assert_eq!(name.ends_with("_info"), metric.kind() == MetricKind::Info, "{name}");
        }
    }
}
