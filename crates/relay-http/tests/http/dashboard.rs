//! Tests of the dashboard on the admin address: its files, its events, and that those who watch
//! and those who scrape leave each other alone. The tests of the browser show the page itself.

use std::collections::BTreeSet;
use std::net::TcpStream;
use std::sync::{Arc, Mutex};

use relay_core::Limits;
use relay_http::{AdminOptions, AllowedHosts, Readiness, Unready};
use serde_json::{Value, json};

use crate::metrics::Admin;
use crate::support::{Client, Events, Response, Server, memory, options, push_of};

/// How many pages may watch at once.
const WATCHING_MAX: usize = 8;

fn watch(admin: &Admin) -> Events {
    let socket = TcpStream::connect(admin.address).unwrap();
    Events::ask(socket, "GET /events HTTP/1.1\r\nhost: localhost\r\n\r\n")
}

/// The next snapshot; `None` if another page has the place, after which the events end.
fn next(events: &mut Events) -> Option<Value> {
    let line = events.line().expect("the events have ended");
    let Some(json) = line.strip_prefix("data: ") else {
        assert_eq!((&*line, events.line().as_deref()), ("event: replaced\n", Some("data: \n")));
        assert_eq!((events.line().as_deref(), events.line()), (Some("\n"), None));
        return None;
    };
    assert_eq!(events.line().as_deref(), Some("\n"));
    Some(serde_json::from_str(json).unwrap())
}

fn text(admin: &Admin, path: &str) -> String {
    let response = admin.get(path);
    assert_eq!(response.status, 200, "{path}");
    response.body
}

/// The paths in a file: of elements, and of modules.
fn paths(text: &str) -> BTreeSet<String> {
    let attributes = ["src=\"", "href=\"", "from \"."].iter().flat_map(|start| text.split(start).skip(1));
    let targets = attributes.map(|rest| rest.split('"').next().unwrap().to_owned());
    let is_of_page = |target: &String| !target.starts_with('#');
    let targets = targets.filter(is_of_page);
    targets.map(|target| if target.ends_with(".js") { in_page(&target) } else { target }).collect()
}

fn in_page(target: &str) -> String {
    format!("/page/{}", target.rsplit('/').next().unwrap())
}

#[test]
fn the_page_needs_nothing_but_its_own_files() {
    let admin = Admin::start(&memory(Limits::default()), &Arc::default());
    let index = text(&admin, "/");
    let mut files = paths(&index);
    while let Some(more) =
        files.iter().flat_map(|path| paths(&text(&admin, path))).find(|p| !files.contains(p))
    {
        files.insert(more);
    }
    let of_page = files.iter().filter(|path| path.starts_with("/page/")).count();
    assert_eq!((of_page, files.contains("/metrics")), (8, true), "{files:?}");
    for path in files.iter().map(String::as_str).chain(["/"]).filter(|path| *path != "/metrics") {
        let content = text(&admin, path);
        let foreign = content.replace("http://www.w3.org/2000/svg", "");
        assert!(!foreign.contains("://") && !foreign.contains("innerHTML"), "{path}");
        assert!(!content.contains("style=\""), "{path}");
    }
    assert!(!index.contains("<style") && !index.contains("<script>"), "the policy forbids it");
}

#[test]
fn browsers_keep_other_pages_away_from_the_dashboard() {
    let admin = Admin::start(&memory(Limits::default()), &Arc::default());
    let events = watch(&admin);
    let heads = ["/", "/page/main.js", "/page/style.css"].map(|path| admin.get(path).head);
    for head in heads.iter().chain([&events.head]) {
        let head = head.to_ascii_lowercase();
        for field in [
            "content-security-policy: default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
             connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none';",
            "cross-origin-opener-policy: same-origin\r\n",
            "cross-origin-resource-policy: same-origin\r\n",
            "referrer-policy: no-referrer\r\n",
            "x-content-type-options: nosniff\r\n",
            "cache-control: no-store\r\n",
        ] {
            assert!(head.contains(field), "{field}: {head}");
        }
        assert!(!head.contains("access-control"), "{head}");
    }
}

#[test]
fn another_site_may_link_to_the_page_and_read_nothing() {
    let allowed_hosts = AllowedHosts::only(["relay"]);
    let options = AdminOptions { allowed_hosts, ..AdminOptions::default() };
    let admin = Admin::with(&memory(Limits::default()), &Arc::default(), options);
    let get = |path: &str, fields: &str| -> Response {
        Client::to(admin.address).ask(&format!("GET {path} HTTP/1.1\r\n{fields}\r\n\r\n"))
    };
    let link = "sec-fetch-site: cross-site\r\nsec-fetch-mode: navigate";
    assert_eq!(get("/", &format!("host: localhost\r\n{link}")).status, 200);
    for path in ["/events", "/page/main.js", "/metrics"] {
        get(path, &format!("host: localhost\r\n{link}")).assert_error(403, "forbidden");
    }
    for path in ["/", "/events", "/page/main.js"] {
        get(path, "host: rebound.evil.example").assert_error(403, "forbidden");
        let response = Client::to(admin.address)
            .ask(&format!("POST {path} HTTP/1.1\r\nhost: relay\r\ncontent-length: 0\r\n\r\n"));
        response.assert_error(405, "method_not_allowed");
    }
    let mut client = Client::to(admin.address);
    client.send("HEAD /events HTTP/1.1\r\nhost: relay\r\n\r\n");
    assert_eq!(client.response_without_body().status, 200);
    client.assert_closed();
}

#[test]
fn events_have_the_figures_and_the_readiness() {
    let state = Arc::new(Mutex::new(Ok(())));
    let shared_state = Arc::clone(&state);
    let readiness = Readiness::new(move || *shared_state.lock().unwrap());
    let relay = memory(Limits::default());
    let server = Server::with(Arc::clone(&relay), options());
    let admin = Admin::with(&relay, &server.metrics, AdminOptions { readiness, ..AdminOptions::default() });
    let mut events = watch(&admin);
    let first = next(&mut events).unwrap();
    assert_eq!((&first["unready"], &first["samples"]["relay_live_items"]), (&Value::Null, &json!(0.0)));
    *state.lock().unwrap() = Err(Unready::StorageFull);
    server.post("/push", &push_of("alice", 0, "aGVsbG8=")).ok();
    let second = next(&mut events).unwrap();
    assert_eq!(
        (&second["unready"], &second["samples"]["relay_live_items"]),
        (&json!("storage_full"), &json!(1.0))
    );
    assert_eq!(second["samples"]["relay_requests_total{endpoint=\"push\",code=\"ok\"}"], 1.0);
    let seconds = second["at_seconds"].as_f64().unwrap() - first["at_seconds"].as_f64().unwrap();
    assert!((0.5..10.0).contains(&seconds), "{seconds}");
    assert!(second.to_string().len() < 32 * 1024, "a snapshot fits into the buffers of a connection");
}

/// Those who watch share one snapshot. Those who scrape do not take their places, nor the other way
/// round, and a page that comes too many takes the place of the one that has watched longest.
#[test]
fn watchers_and_scrapes_leave_each_other_alone() {
    let admin = Admin::start(&memory(Limits::default()), &Arc::default());
    let mut watchers: Vec<Events> = (0..WATCHING_MAX).map(|_| watch(&admin)).collect();
    let snapshots: BTreeSet<_> =
        watchers.iter_mut().map(|watcher| next(watcher).unwrap()["at_seconds"].to_string()).collect();
    assert!(snapshots.len() <= 3, "{snapshots:?} for {WATCHING_MAX} pages that came at once");
    let held: Vec<Client> = (0..100).map(|_| Client::to(admin.address)).collect();
    assert_eq!(admin.get("/metrics").status, 200);
    for watcher in &mut watchers {
        next(watcher).unwrap();
    }
    drop(held);
    let mut late = watch(&admin);
    next(&mut late).unwrap();
    assert!(std::iter::from_fn(|| next(&mut watchers[0])).count() < 5, "the oldest makes room");
    for watcher in &mut watchers[1..] {
        next(watcher).unwrap();
    }
}
