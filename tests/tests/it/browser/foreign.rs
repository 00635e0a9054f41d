//! What pages of origins that are not listed try: nothing of it reaches the store, and they read
//! nothing, whether a browser asks the relay first or not.

use relay_tests::eventually;
use serde_json::{Value, json};

use super::chromium::Page;
use super::pages::{Pages, SCRIPT};
use super::{LISTED_HOST, NO_RATES, Stage, script};

/// The ways of page.js to push, in its order, and what each shows to a page without leave.
fn shown_to_foreign_pages() -> Value {
    let failed = "TypeError: Failed to fetch";
    json!({
        "json": failed, "text": "opaque", "readable": failed, "opaque": "opaque", "unreferred": "opaque",
        "request": 0, "beacon": true, "form": "unreadable", "unreferredForm": "unreadable",
    })
}

/// The addresses to push to, with all names for loopback that a browser takes.
fn push_urls(stage: &Stage) -> [String; 5] {
    let port = stage.relay_url().rsplit_once(':').unwrap().1;
    ["127.0.0.1", "localhost", "foreign.localhost", "0.0.0.0", "[::ffff:127.0.0.1]"]
        .map(|host| format!("http://{host}:{port}/push"))
}

fn push_in_all_ways(page: &Page<'_>, url: &str) -> Value {
    page.run(&script("pushInAllWays", &[url.into(), "alice".into()]))
}

/// The same requests of a listed page are stored, except for those whose type is not JSON, and
/// forms without a referrer, which have no origin either.
#[test]
fn what_is_tried_works_from_a_listed_page() {
    let Some(stage) = Stage::with(NO_RATES) else { return };
    let shown = push_in_all_ways(&stage.listed_page(), &push_urls(&stage)[0]);
    assert_eq!(shown["json"]["body"]["stored"], true, "{shown}");
    // json, readable, opaque, unreferred, request, beacon.
    // Nobody waits for the response to a beacon.
    eventually(|| (stage.items("alice").len() == 6).then_some(()));
    assert_eq!(stage.items("alice"), [0, 2, 3, 4, 5, 6], "{shown}");
    assert_eq!(stage.outcomes("unsupported_media_type"), 2.0, "text and form");
    assert_eq!(stage.outcomes("forbidden"), 1.0, "unreferredForm");
}

#[test]
fn a_foreign_page_stores_and_reads_nothing() {
    let Some(stage) = Stage::with(NO_RATES) else { return };
    let others = Pages::start();
    for page in [
        // The same host as the listed page, and the relay's, on another port.
        others.origin(LISTED_HOST),
        stage.pages.origin("127.0.0.1"),
        stage.pages.origin("foreign.localhost"),
    ] {
        for url in push_urls(&stage) {
            let before = stage.outcomes("forbidden");
            let shown = push_in_all_ways(&stage.page(&page), &url);
            assert_eq!(shown, shown_to_foreign_pages(), "{page} {url}");
            eventually(|| (stage.outcomes("forbidden") - before >= 9.0).then_some(()));
            assert_eq!(stage.outcomes("forbidden") - before, 9.0, "{page} {url}");
        }
    }
    assert_eq!((stage.outcomes("ok"), stage.items("alice")), (0.0, vec![]));
}

#[test]
fn a_foreign_page_gets_nothing() {
    let Some(stage) = Stage::with(NO_RATES) else { return };
    let page = stage.page(&stage.pages.origin("foreign.localhost"));
    for path in ["/info", "/stats", "/health"] {
        let url = format!("{}{path}", stage.relay_url());
        let shown = page.run(&script("getInAllWays", &[url.into()]));
        let expected = json!({
            "text": "TypeError: Failed to fetch", "opaque": "opaque", "image": "error", "script": "error",
            "style": "error", "frame": "unreadable", "source": "error", "socket": "error",
        });
        assert_eq!(shown, expected, "{path}");
    }
    assert_eq!(stage.outcomes("ok"), 0.0);
}

/// A page without an origin: in a sandbox, or from a `data:` address.
#[test]
fn a_page_of_no_origin_stores_and_reads_nothing() {
    let Some(stage) = Stage::with(NO_RATES) else { return };
    let origin = stage.pages.origin(LISTED_HOST);
    for frame in [
        json!({"sandbox": "allow-scripts allow-forms", "src": "/"}),
        json!({"src": format!("data:text/html,<script src={origin}/page.js></script><body>")}),
    ] {
        let page = stage.listed_page();
        let arguments = [frame.clone(), push_urls(&stage)[0].as_str().into(), "alice".into()];
        let seen = page.run(&script("pushFromFrame", &arguments));
        assert_eq!(seen["origin"], "null", "{frame}");
        assert_eq!(seen["shown"], shown_to_foreign_pages(), "{frame}");
    }
    assert_eq!((stage.outcomes("ok"), stage.items("alice")), (0.0, vec![]));
}

/// A server of a listed origin that redirects to where it is told lends its origin to nobody, and a
/// listed page that asks a foreign server does not lend its own.
#[test]
fn a_redirection_lends_no_origin() {
    let Some(stage) = Stage::with(NO_RATES) else { return };
    let [foreign, listed] = ["foreign.localhost", LISTED_HOST].map(|host| stage.pages.origin(host));
    for (page, server) in [(&foreign, &listed), (&listed, &foreign)] {
        for url in push_urls(&stage) {
            push_in_all_ways(&stage.page(page), &format!("{server}/redirect?{url}"));
        }
        assert!(stage.outcomes("forbidden") > 0.0, "{page}");
    }
    assert_eq!((stage.outcomes("ok"), stage.items("alice")), (0.0, vec![]));
}

/// After DNS rebinding, the relay is a page's own site by name, and only its `Host` shows that.
#[test]
fn a_page_whose_name_was_rebound_to_the_relay_stores_nothing() {
    let Some(stage) = Stage::with(NO_RATES) else { return };
    let port = stage.relay_url().rsplit_once(':').unwrap().1;
    let page = stage.browser.open(&format!("http://rebound.example:{port}/nowhere"));
    page.run(&format!("{SCRIPT}; 0"));
    let shown = push_in_all_ways(&page, "/push");
    for way in ["json", "readable"] {
        assert_eq!(shown[way]["body"]["error"]["code"], "forbidden", "{shown}");
    }
    assert_eq!((stage.outcomes("ok"), stage.items("alice")), (0.0, vec![]), "{shown}");
}

/// Over clear text, a browser does not mark a GET to a page's own name, but the name shows.
#[test]
fn a_list_of_host_names_also_refuses_what_a_rebound_page_gets() {
    for (lines, status) in [("", 200), ("server.allowed_hosts = [\"relay.example\"]\n", 403)] {
        let Some(stage) = Stage::with(&format!("{NO_RATES}{lines}")) else { return };
        let port = stage.relay_url().rsplit_once(':').unwrap().1;
        let page = stage.browser.open(&format!("http://rebound.example:{port}/nowhere"));
        for path in ["/info", "/stats"] {
            let seen = page.run(&format!("fetch('{path}').then((response) => response.status)"));
            assert_eq!(seen, status, "{path} {lines}");
        }
    }
}

/// A foreign page cannot use up the requests that its visitor's address has at once. The relay
/// refuses none of them for its rate here, and lets none wait.
#[test]
fn requests_of_a_foreign_page_leave_the_rates_of_a_listed_one() {
    let Some(stage) = Stage::with("rate_limit.max_wait_ms = 0\n") else { return };
    let foreign = stage.page(&stage.pages.origin("foreign.localhost"));
    let url = format!("{}/pull", stage.relay_url());
    // More than an address has at once. Each takes a connection, since the page may not read.
    foreign.run(&format!("Promise.all(Array.from({{length: 60}}, () => PUSHES.opaque('{url}', '{{}}')))"));
    assert_eq!(stage.outcomes("forbidden"), 60.0);
    let listed = stage.listed_page();
    for number in 0..10 {
        let pushed = listed.run(&format!("post('/push', item('alice', {number}))"));
        assert_eq!(pushed["status"], 200, "{pushed}");
    }
    assert_eq!((stage.relay.bans(), stage.items("alice").len()), (0.0, 10));
}
