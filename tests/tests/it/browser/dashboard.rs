//! The dashboard on the admin address, in a browser: figures that move under load, a full store, a
//! restart, and alerts by the same rules as in Prometheus. With `UPDATE_SCREENSHOTS` set, it writes
//! the pictures in docs, which `pngquant --nofs 64` makes small.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use relay_tests::process::ADMIN_ADDRESS;
use relay_tests::{Client, Process, ack_body, pull_body, push_body};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::chromium::{Chromium, Page};
use super::demo::{HANDS, is_picture_wanted};
use crate::PROGRAM;
use crate::process::metrics::admin_url;

const RULES: &str = include_str!("rules.js");
const ALERT_TESTS: &str = include_str!("../../../../deploy/alerts.test.yaml");

/// The sizes of windows that the page must fit into.
const SIZES: [(u32, u32); 3] = [(360, 740), (768, 1024), (1280, 900)];

/// How many pages may watch at once.
const WATCHING_MAX: usize = 8;

/// A relay on disk with an admin address that stays the same over restarts.
struct Watched {
    process: Process,
    admin: String,
    directory: TempDir,
}

/// Ends the load when it is dropped, also if the test fails.
struct LoadEnd<'a>(&'a AtomicBool);

impl Watched {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (process, admin) = start(directory.path(), "127.0.0.1:0", 64 << 20);
        Self { process, admin, directory }
    }

    /// Ends the relay.
    fn end(&mut self) {
        self.process.signal("TERM").unwrap();
        assert!(self.process.wait().unwrap().success());
    }

    /// Starts the relay again, with a limit of its store that is higher.
    fn start_again(&mut self) {
        let address = self.admin.strip_prefix("http://").unwrap().to_owned();
        (self.process, self.admin) = start(self.directory.path(), &address, 1 << 30);
    }

    fn open<'a>(&self, browser: &'a Chromium) -> Page<'a> {
        let page = browser.open(&format!("{}/", self.admin));
        page.run(HANDS);
        page
    }
}

fn start(directory: &Path, admin: &str, bytes_max: u64) -> (Process, String) {
    let [config, store, log] = ["relay.toml", "store", "log"].map(|name| directory.join(name));
    let lines = format!(
        "rate_limit.enabled = false\nstorage.max_bytes = {bytes_max}\nstorage.min_free_bytes = 1000000\n"
    );
    std::fs::write(&config, lines).unwrap();
    let arguments = ["--config", config.to_str().unwrap(), "--storage-path", store.to_str().unwrap()];
    let process = Process::start_logging(PROGRAM, &arguments, &[(ADMIN_ADDRESS, admin)], &log).unwrap();
    (process, admin_url(&log))
}

/// Waits until an expression about the page is true.
fn until(page: &Page<'_>, what: &str) {
    page.run(&format!("until({}, () => {what})", json!(what)));
}

/// Waits until an element has this text.
fn shows(page: &Page<'_>, id: &str, text: &str) {
    until(page, &format!("textOf('{id}').includes('{text}')"));
}

impl Drop for LoadEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Pushes, pulls and acks at a rate that changes, until it is over. The queues become longer.
fn load(mut client: Client, is_over: &AtomicBool) {
    for number in 0_u64.. {
        let (queue, message) = (format!("queue {}", number % 7), number.into());
        let pushed = client.post("/push", &push_body(&queue, message, &[b'x'; 2000]));
        if pushed.is_err() || is_over.load(Ordering::Relaxed) {
            return;
        }
        if number % 3 != 0 {
            drop(client.post("/pull", &pull_body(&queue, None, Some(2))));
            drop(client.post("/ack", &ack_body(&queue, &[message])));
        }
        if number % 40 == 0 {
            drop(client.post("/push", &json!({"recipient": ""})));
        }
        thread::sleep(Duration::from_millis(4 + number / 300 % 5 * 4));
    }
}

/// Pushes until the store is full.
fn fill(client: &mut Client) {
    let payload = vec![b'x'; 4_000_000];
    let is_full = (0..100).any(|message| {
        let response = client.post("/push", &push_body("large", message, &payload)).unwrap();
        response.status == 507
    });
    assert!(is_full, "the store takes more than its limit");
}

/// The page shows figures of the load, which move, and fits into every window.
fn assert_figures_move(page: &Page<'_>) {
    shows(page, "readiness", "ready");
    shows(page, "link", "Live");
    shows(page, "alerts", "No alert would fire.");
    page.run("globalThis.row = (id, name) => [...document.getElementById(id).rows].find((row) => row.cells[0].textContent === name)?.innerText ?? ''; 0");
    until(page, "/\\d\\/s/.test(row('endpoints', '/push'))");
    until(page, "/\\d (ms|µs)/.test(row('endpoints', '/push'))");
    until(page, "row('outcomes', 'push · ok') && row('outcomes', 'push · invalid_input')");
    until(page, "/\\d (ms|µs)/.test(row('work', 'Sync, p99'))");
    until(
        page,
        "row('queues', 'Free on the disk') && row('queues', 'Rejects pushes above, size').includes('64 MiB')",
    );
    until(page, "/\\t1$/.test(row('waits', 'Pulls and streams that wait'))");
    page.run("globalThis.items = () => Number(row('queues', 'Items in queues').replaceAll(/\\D/g, '')); globalThis.before = items(); 0");
    until(page, "items() > before");
    until(page, "document.querySelector('.chart .line').getAttribute('d').length > 20");
    for (width, height) in SIZES {
        page.resize(width, height);
        let overflow = page.run("[document.documentElement.scrollWidth, innerWidth]");
        assert!(overflow[0].as_u64() <= overflow[1].as_u64(), "{overflow} at {width}");
    }
    assert_eq!(page.complaints(), Vec::<Value>::new());
}

/// What a screen reader needs: names of all parts, and what changes by itself.
fn assert_has_names(page: &Page<'_>) {
    let missing = page.run(
        "[...document.querySelectorAll('section, [role=region], [role=img], table th')].filter((node) => \
         !(node.getAttribute('aria-labelledby') ?? node.getAttribute('aria-label') ?? node.getAttribute('scope'))) \
         .map((node) => node.outerHTML)",
    );
    assert_eq!(missing, json!([]));
    let live =
        page.run("[...document.querySelectorAll('[aria-live], [role=status]')].map((node) => node.id)");
    assert_eq!(live, json!(["readiness", "link", "alerts"]));
}

#[test]
fn the_dashboard_shows_load_faults_and_a_restart() {
    let Some(browser) = Chromium::start(None) else { return };
    let mut relay = Watched::start();
    let page = relay.open(&browser);
    let is_over = &AtomicBool::new(false);
    thread::scope(|scope| {
        let load_end = LoadEnd(is_over);
        let [client, mut waiting] = [0, 0].map(|_| relay.process.connect().unwrap());
        scope.spawn(move || load(client, is_over));
        scope.spawn(move || waiting.post("/pull", &json!({"recipient": "nobody", "wait_ms": 50_000})));
        assert_figures_move(&page);
        assert_has_names(&page);
        if is_picture_wanted() {
            take_screenshots(&page);
        }

        fill(&mut relay.process.connect().unwrap());
        shows(&page, "readiness", "not ready: storage_full");
        shows(&page, "alerts", "RelayStorageFull");
        until(&page, "document.title.startsWith('(1) relay')");
        until(&page, "row('outcomes', 'push · storage_full')");
        if is_picture_wanted() {
            save(&page, "dashboard-full", (1280, 420), "light");
        }
        drop(load_end);
        relay.end();
        shows(&page, "link", "Connection lost");
        shows(&page, "readiness", "no contact");
        shows(&page, "alerts", "RelayDown");
        relay.start_again();
        shows(&page, "link", "Live");
        shows(&page, "readiness", "ready");
        shows(&page, "alerts", "No alert would fire.");
        assert_makes_room(&relay, &page);
    });
}

/// More pages than may watch: the first one stops, says so, and watches again if it is told to.
fn assert_makes_room(relay: &Watched, page: &Page<'_>) {
    let mut others: Vec<Client> = (0..WATCHING_MAX).map(|_| Client::connect(&relay.admin).unwrap()).collect();
    for other in &mut others {
        other.send(b"GET /events HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    }
    shows(page, "link", "too many pages");
    drop(others);
    page.run("document.getElementById('again').click()");
    shows(page, "link", "Live");
    until(page, "document.getElementById('again').hidden");
}

#[test]
fn the_page_judges_alerts_as_prometheus_does() {
    let Some(browser) = Chromium::start(None) else { return };
    let relay = Watched::start();
    let page = relay.open(&browser);
    page.run(RULES);
    let load = "Promise.all(['figures', 'alerts'].map((name) => import(`/page/${name}.js`)))";
    let tests = json!(ALERT_TESTS);
    let judged =
        page.run(&format!("{load}.then((modules) => differences(Object.assign({{}}, ...modules), {tests}))"));
    assert_eq!(judged["found"], json!([]));
    assert!(judged["rules"].as_u64() >= Some(36), "{judged}");
}

/// Lets the charts fill, and takes a picture of the page at each width.
fn take_screenshots(page: &Page<'_>) {
    thread::sleep(Duration::from_secs(75));
    for (width, height) in SIZES {
        save(page, &format!("dashboard-{width}"), (width, height), "light");
    }
    save(page, "dashboard-dark", SIZES[2], "dark");
}

fn save(page: &Page<'_>, name: &str, (width, height): (u32, u32), colors: &str) {
    page.resize(width, height);
    page.use_colors(colors);
    page.run("new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)))");
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    std::fs::write(docs.join(format!("{name}.png")), BASE64_STANDARD.decode(page.screenshot()).unwrap())
        .unwrap();
}
