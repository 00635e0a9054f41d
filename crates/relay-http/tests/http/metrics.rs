//! Tests of `/metrics`: the values add up, and clients cannot read them.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroU32;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use relay_core::{
    Ack, AckOutcome, DatabaseFigures, Distribution, Envelope, Error, Figures, FileUse, Limits, Page, Pull,
    PushOutcome, Relay, SpaceFigures, Swept, Usage, WakeFigures,
};
use relay_http::{AdminOptions, Metric, MetricKind, Metrics, Options, RateLimit, serve_admin};
use serde_json::json;
use tokio::sync::oneshot;

use crate::limits::{now, rate_limit};
use crate::support::{Client, Gate, MESSAGE_ID, Response, Server, memory, options, post_head, push_of};

/// Within this time, a request waits or no longer does.
const WAITING_TIMEOUT: Duration = Duration::from_secs(5);

/// An admin listener. It ends when it is dropped.
pub(crate) struct Admin {
    pub(crate) address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    done: mpsc::Receiver<()>,
}

/// Samples by name and labels.
pub(crate) struct Samples(BTreeMap<String, f64>);

/// A relay that does nothing and reports these figures.
struct FixedFigures(Figures);

impl Admin {
    pub(crate) fn start<R: Relay>(relay: &Arc<R>, metrics: &Arc<Metrics>) -> Self {
        Self::with(relay, metrics, AdminOptions::default())
    }

    pub(crate) fn with<R: Relay>(relay: &Arc<R>, metrics: &Arc<Metrics>, options: AdminOptions) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let serving = serve_admin(listener, Arc::downgrade(relay), Arc::clone(metrics), options).unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let (end, done) = mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                tokio::select! {
                    ended = serving => panic!("it ended by itself: {ended:?}"),
                    _ = stopped => {}
                }
            });
            end.send(())
        });
        Self { address, stop: Some(stop), done }
    }

    pub(crate) fn get(&self, path: &str) -> Response {
        Client::to(self.address).ask(&format!("GET {path} HTTP/1.1\r\nhost: admin\r\n\r\n"))
    }

    pub(crate) fn scrape(&self) -> Samples {
        let response = self.get("/metrics");
        assert_eq!(response.status, 200, "{response:?}");
        Samples::parse(&response.body)
    }

    /// Waits until this many requests wait for items.
    pub(crate) fn await_waiting(&self, count: u32) {
        let start = now();
        while self.scrape().of("relay_waiting_pulls") != f64::from(count) {
            assert!(now() - start < WAITING_TIMEOUT, "{} wait", self.scrape().of("relay_waiting_pulls"));
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn end(mut self) -> SocketAddr {
        drop(self.stop.take());
        self.done.recv_timeout(Duration::from_secs(20)).unwrap();
        self.address
    }
}

impl Samples {
    fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let sample = |line: &str| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        };
        Self(lines.map(sample).collect())
    }

    /// The sample with this name and these labels; 0 if there is none.
    pub(crate) fn of(&self, name: &str) -> f64 {
        self.0.get(name).copied().unwrap_or_default()
    }

    /// The sum of all samples whose name and labels contain all of these words.
    fn sum(&self, words: &[&str]) -> f64 {
        self.0
            .iter()
            .filter(|(name, _)| words.iter().all(|word| name.contains(word)))
            .map(|(_, value)| value)
            .sum()
    }
}

impl Relay for FixedFigures {
    async fn push(&self, _: Envelope) -> Result<PushOutcome, Error> {
        Ok(PushOutcome::Stored { usage: Usage::ZERO, deadline: relay_core::Timestamp::default() })
    }

    async fn pull(&self, _: Pull) -> Result<Page, Error> {
        Ok(Page { items: Vec::new(), next: None, remaining: 0 })
    }

    async fn ack(&self, _: Ack) -> Result<AckOutcome, Error> {
        Ok(AckOutcome::default())
    }

    async fn sweep(&self) -> Result<Swept, Error> {
        Ok(Swept::default())
    }

    fn figures(&self) -> Figures {
        self.0.clone()
    }
}

/// Figures with a value in every field.
fn figures() -> Figures {
    let distribution = |scale: u64| {
        Some(Distribution { bounds: &[1000, 2_000_000], counts: vec![1, 2, 3], sum: 7_500_000 * scale })
    };
    Figures {
        batch_requests: distribution(1),
        sync_us: distribution(1),
        checkpoint_us: distribution(2),
        checkpoints_failed: Some(4),
        delivery_age_ms: distribution(3),
        live: Some(Usage { items: 5, bytes: 6 }),
        waiting_bytes: Some(7),
        damaged_items: Some(13),
        is_full: Some(true),
        files: vec![
            FileUse { kind: "journal", files: 8, bytes: 9 },
            FileUse { kind: "index", files: 1, bytes: 10 },
        ],
        space: Some(SpaceFigures { free_bytes: Some(41), free_bytes_min: 42, store_bytes_max: 43 }),
        sweep_lag_ms: Some(11_500),
        reclaim_lag_ms: Some(12_000),
        clock_offset_ms: Some(-13_500),
        database: Some(DatabaseFigures { is_available: true, bytes: 31, oldest_transaction_ms: 32_500 }),
        wakes: Some(WakeFigures {
            sent: 21,
            retried: 22,
            attended: 23,
            refused: 24,
            failed: 25,
            full: 26,
            pending: 27,
        }),
    }
}

fn strict() -> Options {
    let limit = RateLimit { ban_threshold: NonZeroU32::MIN, ..rate_limit(12, 1, &[]) };
    Options { rate_limit: Some(limit), ..options() }
}

#[test]
fn every_metric_has_its_name_and_kind() {
    let relay = Arc::new(FixedFigures(figures()));
    let server = Server::with(Arc::clone(&relay), options());
    #[cfg(feature = "tls")]
    let _files = certificate_of(&server.metrics, 4000);
    let admin = Admin::start(&relay, &server.metrics);
    let response = admin.get("/metrics");
    assert_eq!(
        response.header("content-type"),
        Some("application/openmetrics-text; version=1.0.0; charset=utf-8")
    );
    assert!(response.body.ends_with("# EOF\n"), "{}", response.body);
    let shown: Vec<_> = response.body.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    let is_built_in = |metric: &Metric| *metric != Metric::CertificateEnd || cfg!(feature = "tls");
    let expected = Metric::ALL.into_iter().filter(is_built_in).map(|metric| {
        let name = metric.name();
        match metric.kind() {
            MetricKind::Counter => format!("{} counter", name.strip_suffix("_total").unwrap()),
            MetricKind::Info => format!("{} info", name.strip_suffix("_info").unwrap()),
            MetricKind::Gauge => format!("{name} gauge"),
            MetricKind::Histogram => format!("{name} histogram"),
        }
    });
    assert_eq!(shown, expected.collect::<Vec<_>>());
    for metric in Metric::ALL {
        let (name, labels) = (metric.name(), metric.labels());
        let samples =
            response.body.lines().filter(|line| line.starts_with(name) && !line.contains("_bucket"));
        for sample in samples {
            let given = sample.matches('=').count();
            assert!(given == labels.len() && labels.iter().all(|label| sample.contains(label)), "{sample}");
        }
    }
}

/// Loads a certificate that ends at the beginning of `year`, so that its end is reported.
#[cfg(feature = "tls")]
fn certificate_of(metrics: &Metrics, year: i32) -> tempfile::TempDir {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(year, 1, 1);
    let dir = tempfile::tempdir().unwrap();
    let [cert_pem, key_pem] = ["cert.pem", "key.pem"].map(|name| dir.path().join(name));
    std::fs::write(&cert_pem, params.self_signed(&key).unwrap().pem()).unwrap();
    std::fs::write(&key_pem, key.serialize_pem()).unwrap();
    let paths = relay_http::tls::TlsPaths { cert_pem, key_pem, client_ca_pem: None, client_crl_pem: None };
    metrics.set_tls(vec![relay_http::tls::Tls::load(paths).unwrap()]);
    dir
}

#[cfg(feature = "tls")]
#[test]
fn the_end_of_the_certificate_is_reported_if_there_is_one() {
    let (relay, metrics) = (memory(Limits::default()), Arc::<Metrics>::default());
    let admin = Admin::start(&relay, &metrics);
    assert!(!admin.get("/metrics").body.contains("relay_tls_certificate"));
    let _files = certificate_of(&metrics, 2002);
    assert_eq!(admin.scrape().of("relay_tls_certificate_expiry_seconds"), 1_009_843_200.0);
}

#[test]
fn figures_of_the_store_are_reported_in_seconds_and_bytes() {
    let relay = Arc::new(FixedFigures(figures()));
    let admin = Admin::start(&relay, &Arc::default());
    let samples = admin.scrape();
    for (name, expected) in [
        ("relay_journal_sync_seconds_sum", 7.5),
        ("relay_journal_sync_seconds_count", 6.0),
        (r#"relay_journal_sync_seconds_bucket{le="0.001"}"#, 1.0),
        (r#"relay_journal_sync_seconds_bucket{le="2.0"}"#, 3.0),
        (r#"relay_journal_sync_seconds_bucket{le="+Inf"}"#, 6.0),
        ("relay_checkpoint_seconds_sum", 15.0),
        ("relay_batch_requests_sum", 7_500_000.0),
        ("relay_checkpoints_failed_total", 4.0),
        ("relay_delivery_age_seconds_sum", 22_500.0),
        ("relay_damaged_items_total", 13.0),
        ("relay_storage_full", 1.0),
        ("relay_live_items", 5.0),
        ("relay_live_bytes", 6.0),
        ("relay_waiting_bytes", 7.0),
        (r#"relay_disk_files{kind="journal"}"#, 8.0),
        (r#"relay_disk_bytes{kind="journal"}"#, 9.0),
        (r#"relay_disk_bytes{kind="index"}"#, 10.0),
        ("relay_disk_free_bytes", 41.0),
        ("relay_storage_min_free_bytes", 42.0),
        ("relay_storage_max_bytes", 43.0),
        ("relay_sweep_lag_seconds", 11.5),
        ("relay_reclaim_lag_seconds", 12.0),
        ("relay_clock_offset_seconds", -13.5),
        ("relay_database_available", 1.0),
        ("relay_database_bytes", 31.0),
        ("relay_database_oldest_transaction_seconds", 32.5),
        (r#"relay_wakes_total{outcome="sent"}"#, 21.0),
        (r#"relay_wakes_total{outcome="retried"}"#, 22.0),
        (r#"relay_wakes_total{outcome="attended"}"#, 23.0),
        (r#"relay_wakes_total{outcome="refused"}"#, 24.0),
        (r#"relay_wakes_total{outcome="failed"}"#, 25.0),
        (r#"relay_wakes_total{outcome="full"}"#, 26.0),
        ("relay_wakes_pending", 27.0),
    ] {
        assert!((samples.of(name) - expected).abs() < 1e-9, "{name}: {}", samples.of(name));
    }
    let commit = format!("relay_build_info{{version=\"{}\",commit=\"", env!("CARGO_PKG_VERSION"));
    assert_eq!(samples.sum(&[&commit]), 1.0);
    drop(relay);
    let alone = admin.scrape();
    assert_eq!(alone.sum(&["relay_live_items"]), 0.0, "a relay that is gone tells nothing");
    assert_eq!(alone.of("relay_acked_items_total"), 0.0);
}

/// Sends a request for every outcome, until the client is banned.
fn request_everything(server: &Server) {
    let mut client = server.connect();
    for index in [0, 0, 1, 2] {
        client.post("/push", &push_of("alice", index, "aGVsbG8=").to_string());
    }
    client.post("/push", "{");
    client.post("/pull", r#"{"recipient":"alice"}"#).ok();
    let ack = json!({"recipient": "alice", "ack": [{"message_id": MESSAGE_ID, "chunk_index": 0}]});
    client.post("/ack", &ack.to_string()).ok();
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: relay\r\n\r\n");
    client.ask(&get("/nowhere")).assert_error(404, "not_found");
    client.ask(&get("/push")).assert_error(405, "method_not_allowed");
    client.ask(&get("/health")).ok();
    server.connect().ask("no http at all\r\n\r\n").assert_error(400, "invalid_input");
    // A ban closes the connection.
    while !client.ask(&get("/stats")).closes() {}
}

/// Every outcome of a request, and what the totals report.
#[test]
fn the_counters_add_up() {
    let relay = memory(Limits { queue_items_max: 2, ..Limits::default() });
    let server = Server::with(Arc::clone(&relay), strict());
    let admin = Admin::start(&relay, &server.metrics);
    request_everything(&server);
    let (counts, samples) = (server.metrics.counts(), admin.scrape());
    let count = |number: u64| number as f64;
    let request = |endpoint: &str, code: &str| {
        samples.of(&format!("relay_requests_total{{endpoint=\"{endpoint}\",code=\"{code}\"}}"))
    };
    let pushes = |outcome: &str| samples.of(&format!("relay_pushes_total{{outcome=\"{outcome}\"}}"));
    assert_eq!([pushes("stored"), pushes("duplicate"), pushes("failed")], [2.0, 1.0, 2.0]);
    assert_eq!(samples.sum(&["relay_pushes_total"]), count(counts.push_total));
    assert_eq!(request("push", "ok"), pushes("stored") + pushes("duplicate"));
    assert_eq!(request("push", "quota_exceeded") + request("push", "invalid_input"), pushes("failed"));
    assert_eq!(
        samples.sum(&["relay_requests_total", "\"push\""]),
        count(counts.push_total) + request("push", "method_not_allowed")
    );
    assert_eq!(samples.sum(&["relay_requests_total", "\"pull\""]), count(counts.pull_total));
    assert_eq!(samples.sum(&["relay_requests_total", "\"ack\""]), count(counts.ack_total));
    assert_eq!((request("none", "not_found"), request("none", "invalid_input")), (1.0, 1.0));
    assert_eq!(samples.sum(&["relay_requests_total", "rate_limited"]), count(counts.rate_limited));
    assert_eq!(samples.of("relay_rate_limit_refusals_total"), count(counts.rate_limited));
    assert_eq!(
        samples.of("relay_rate_limit_bans_total"),
        1.0,
        "a ban is counted once, however often it is told"
    );
    assert_eq!(samples.of("relay_acked_items_total"), 1.0);
    assert_eq!(samples.of("relay_live_items"), 1.0);
    assert!(samples.of("relay_live_bytes") > 5.0, "names and places count beside the payload");
    let unread = request("none", "invalid_input");
    let answered =
        samples.sum(&["relay_requests_total"]) - samples.sum(&["relay_requests_total", "gone"]) - unread;
    assert_eq!(
        samples.sum(&["relay_request_seconds_count"]),
        answered,
        "each that was read and answered took its time"
    );
}

#[test]
fn gauges_follow_the_load() {
    let (gate, arrivals) = Gate::new();
    let let_go = Arc::clone(&gate.let_go);
    let server = Server::with(Arc::clone(&gate), options());
    let admin = Admin::start(&gate, &server.metrics);
    let level = |name| admin.scrape().of(name);
    assert_eq!((level("relay_connections"), level("relay_requests_in_flight")), (0.0, 0.0));

    let mut client = server.connect();
    let body = push_of("alice", 0, "aGVsbG8=").to_string();
    client.send(post_head("/push", "", body.len()));
    client.send(&body);
    arrivals.recv().unwrap();
    assert_eq!((level("relay_connections"), level("relay_requests_in_flight")), (1.0, 1.0));
    assert_eq!(level(r#"relay_protocol_connections{protocol="http1"}"#), 1.0);
    let_go.add_permits(1);
    client.response().ok();

    // Half a body reserves memory. The 100 for it shows that the request is in flight.
    client.send("POST /push HTTP/1.1\r\nhost: x\r\ncontent-length: 200000\r\n\r\n");
    client.send(vec![b' '; 100_000]);
    while level("relay_inflight_bytes") < 100_000.0 {
        std::thread::yield_now();
    }
    drop(client);
    while level("relay_connections") > 0.0 {
        std::thread::yield_now();
    }
    assert_eq!((level("relay_inflight_bytes"), level("relay_requests_in_flight")), (0.0, 0.0));
    assert!(level("relay_uptime_seconds") > 0.0);
    let requests = admin.scrape();
    assert_eq!(
        requests.sum(&["relay_requests_total", "\"push\""]),
        2.0,
        "one was answered, and one went away"
    );
}

#[test]
fn the_listener_holds_no_relay_and_ends_when_it_is_dropped() {
    let relay = memory(Limits::default());
    let admin = Admin::start(&relay, &Arc::default());
    admin.scrape();
    assert_eq!(Arc::strong_count(&relay), 1);
    let address = admin.end();
    assert!(TcpStream::connect(address).is_err());
}
