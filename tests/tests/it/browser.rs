//! A real browser against the relay: what pages of listed origins can do and read, and that pages
//! of other origins can do nothing. The tests of relay-http cover the header fields; these show
//! that they are the right ones. Also what the dashboard of the relay shows its operator. Without
//! Chromium, these tests are skipped.

mod chromium;
mod dashboard;
mod demo;
mod foreign;
mod heavy;
mod listed;
mod pages;

use relay_tests::eventually;
use serde_json::{Value, json};

use crate::crowds::ShippedRelay;
use crate::tls::pki::{Authority, TlsFiles};

use self::chromium::{Chromium, Page};
use self::pages::Pages;

/// The host name of the listed origin. Browsers resolve it to loopback, and treat its pages like
/// those of HTTPS.
const LISTED_HOST: &str = "app.localhost";

/// The shipped rates would make most of these tests wait.
const NO_RATES: &str = "rate_limit.enabled = false\n";

/// A browser, a server of pages, and a relay that lists the pages under [`LISTED_HOST`].
struct Stage {
    browser: Chromium,
    pages: Pages,
    relay: ShippedRelay,
}

impl Stage {
    /// Starts all of it, the relay with these lines; `None` without a browser.
    fn with(lines: &str) -> Option<Self> {
        Self::build(lines, |_| None)
    }

    /// Like [`Stage::with`]. The relay serves with TLS, so the browser speaks HTTP/2.
    fn with_tls(lines: &str) -> Option<Self> {
        let files = TlsFiles::new(&Authority::new("authority").identity());
        // The relay has read the files when it has started.
        Self::with(&format!("{}{lines}", files.lines()))
    }

    /// Like [`Stage::with`], perhaps with one more flag of the browser.
    fn build(lines: &str, flag: impl FnOnce(&Pages) -> Option<String>) -> Option<Self> {
        let pages = Pages::start();
        let browser = Chromium::start(flag(&pages))?;
        let origin = pages.origin(LISTED_HOST);
        let relay = ShippedRelay::with(&format!("cors.allowed_origins = [\"{origin}\"]\n{lines}"));
        Some(Self { browser, pages, relay })
    }

    fn relay_url(&self) -> &str {
        &self.relay.process.base_url
    }

    /// Opens a page of the listed origin.
    fn listed_page(&self) -> Page<'_> {
        self.page(&self.pages.origin(LISTED_HOST))
    }

    /// Opens a page of this origin.
    fn page(&self, origin: &str) -> Page<'_> {
        self.browser.open(&format!("{origin}/?{}", self.relay_url()))
    }

    /// The numbers of the items of a queue, as a program that is no browser sees them.
    fn items(&self, recipient: &str) -> Vec<u64> {
        let mut client = self.relay.process.connect().unwrap();
        let items = client.pull_all(recipient).unwrap().unwrap();
        items.iter().map(number).collect()
    }

    /// Waits until this many pulls and streams wait.
    fn await_waiting(&self, count: f64) {
        let waits = || (self.relay.metric("relay_waiting_pulls") == count).then_some(());
        eventually(waits).unwrap_or_else(|| panic!("not {count} requests wait"));
    }

    /// How many requests had this outcome: `ok`, or the code of an error.
    fn outcomes(&self, code: &str) -> f64 {
        self.relay.sum("relay_requests_total", &format!("code=\"{code}\""))
    }
}

/// The number in the message id of an item.
fn number(item: &Value) -> u64 {
    let id = item["message_id"].as_str().unwrap();
    id.rsplit_once('-').unwrap().1.parse().unwrap()
}

/// A value as an expression of JavaScript.
fn script(function: &str, arguments: &[Value]) -> String {
    let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
    format!("{function}({})", arguments.join(", "))
}

fn recipient(name: &str) -> Value {
    json!({"recipient": name})
}
