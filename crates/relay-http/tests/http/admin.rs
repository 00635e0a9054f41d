//! Tests of the admin listener: what it serves, what it refuses, and that no client can block
//! others.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use relay_core::Limits;
use relay_http::{AdminOptions, AllowedHosts, Options, Readiness, Unready};
use serde_json::json;

use crate::metrics::Admin;
use crate::support::{Client, Response, Server, memory, options, post_head};

/// One more than the number of connections.
const CONNECTIONS: usize = 33;

/// Longer than the admin listener waits for a head, and far shorter than the public one does in
/// these tests.
const TIMEOUT: Duration = Duration::from_secs(12);

fn start(options: AdminOptions) -> Admin {
    Admin::with(&memory(Limits::default()), &Arc::default(), options)
}

fn ask(admin: &Admin, request: &str) -> Response {
    Client::to(admin.address).ask(request)
}

/// Waits until the server has closed, whatever it sends before.
fn assert_gone(client: &mut Client) {
    client.be_patient_for(TIMEOUT);
    while client.response_or_end().is_some() {}
}

#[test]
fn metrics_are_served_only_on_the_admin_address() {
    let relay = memory(Limits::default());
    let server = Server::with(Arc::clone(&relay), options());
    let admin = Admin::start(&relay, &server.metrics);
    server.get("/metrics").assert_error(404, "not_found");
    for path in ["/page", "/stats", "/metrics/", "/push", "/metrics%20", "/openapi.json"] {
        admin.get(path).assert_error(404, "not_found");
    }
    for path in ["/metrics", "/health", "/ready"] {
        assert_eq!(admin.get(path).status, 200, "{path}");
        let response = ask(&admin, &post_head(path, "", 0));
        response.assert_error(405, "method_not_allowed");
        assert_eq!(response.header("allow"), Some("GET, HEAD, OPTIONS"));
    }
}

#[test]
fn health_and_readiness_are_the_same_as_for_clients() {
    let state = Arc::new(Mutex::new(Err(Unready::Replaying { percent: 42 })));
    let shared_state = Arc::clone(&state);
    let readiness = Readiness::new(move || *shared_state.lock().unwrap());
    let relay = memory(Limits::default());
    let server = Server::with(Arc::clone(&relay), Options { readiness: readiness.clone(), ..options() });
    let admin = Admin::with(&relay, &server.metrics, AdminOptions { readiness, ..AdminOptions::default() });
    for now in [Err(Unready::Replaying { percent: 42 }), Err(Unready::StorageFull), Ok(())] {
        *state.lock().unwrap() = now;
        for path in ["/health", "/ready"] {
            let (public, admin_response) = (server.get(path), admin.get(path));
            assert_eq!(
                (admin_response.status, admin_response.json()),
                (public.status, public.json()),
                "{path} {now:?}"
            );
            assert_eq!(admin_response.header("retry-after"), public.header("retry-after"), "{path} {now:?}");
        }
    }
    *state.lock().unwrap() = Err(Unready::Draining);
    let details = admin.get("/ready").assert_error(503, "not_ready");
    assert_eq!(details, json!({"reason": "draining"}));
    let response = admin.get("/health");
    response.assert_error(503, "draining");
    assert_eq!(response.header("retry-after"), Some("1"));
}

#[test]
fn no_response_is_cached_and_each_closes_the_connection() {
    let admin = start(AdminOptions::default());
    for request in [
        "GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n",
        "GET /health HTTP/1.1\r\nhost: x\r\nconnection: keep-alive\r\n\r\n",
        "GET /ready HTTP/1.0\r\n\r\n",
        "GET /nowhere HTTP/1.1\r\nhost: x\r\n\r\n",
        "PUT /metrics HTTP/1.1\r\nhost: x\r\n\r\n",
    ] {
        let mut client = Client::to(admin.address);
        let response = client.ask(request);
        assert_eq!(response.header("cache-control"), Some("no-store"), "{request}");
        assert!(response.closes() || request.contains("HTTP/1.0"), "{request}");
        client.assert_closed();
    }
}

#[test]
fn head_and_options_are_answered_without_a_body() {
    let admin = start(AdminOptions::default());
    for path in ["/metrics", "/health", "/ready", "/", "/page/main.js"] {
        let mut client = Client::to(admin.address);
        client.send(format!("HEAD {path} HTTP/1.1\r\nhost: x\r\n\r\n"));
        let response = client.response_without_body();
        assert_eq!(response.status, 200, "{path}");
        assert_ne!(response.header("content-length"), Some("0"), "{path}");
        client.assert_closed();
    }
    for (path, allow) in [
        ("/metrics", "GET, HEAD, OPTIONS"),
        ("/health", "GET, HEAD, OPTIONS"),
        ("/", "GET, HEAD, OPTIONS"),
        ("/nowhere", "OPTIONS"),
        ("*", "OPTIONS"),
    ] {
        let mut client = Client::to(admin.address);
        client.send(format!("OPTIONS {path} HTTP/1.1\r\nhost: x\r\n\r\n"));
        let response = client.response_without_body();
        assert_eq!((response.status, response.header("allow")), (204, Some(allow)), "{path}");
        assert_eq!(response.header("cache-control"), Some("no-store"), "{path}");
        client.assert_closed();
    }
}

#[test]
fn a_foreign_web_page_gets_no_data() {
    let admin =
        start(AdminOptions { allowed_hosts: AllowedHosts::only(["relay"]), ..AdminOptions::default() });
    for path in ["/metrics", "/health", "/ready", "/nowhere"] {
        for (fields, is_allowed) in [
            ("host: localhost:7001", true),
            ("host: 127.0.0.1:7001", true),
            ("host: relay", true),
            ("host: localhost:7001\r\nsec-fetch-site: same-origin", true),
            ("host: rebound.evil.example:7001", false),
            ("host: localhost:7001\r\nsec-fetch-site: cross-site", false),
            ("host: localhost:7001\r\norigin: http://evil.example", false),
            ("host: localhost:7001\r\norigin: null", false),
        ] {
            let response = ask(&admin, &format!("GET {path} HTTP/1.1\r\n{fields}\r\n\r\n"));
            assert_eq!(response.status != 403, is_allowed, "{path} {fields}");
            if !is_allowed {
                response.assert_error(403, "forbidden");
                assert!(
                    !response.body.contains("evil"),
                    "the response repeats the request: {}",
                    response.body
                );
            }
        }
    }
    let anywhere = start(AdminOptions::default());
    assert_eq!(ask(&anywhere, "GET /metrics HTTP/1.1\r\nhost: a.example\r\n\r\n").status, 200);
}

/// For every state in which connections are held.
#[test]
fn held_connections_do_not_block_other_clients() {
    let admin = start(AdminOptions::default());
    for begin in ["", "GET /metrics HTTP/1.1\r\nhost: ", "GET /health HTTP/1.1\r\nhost: x\r\n\r\n"] {
        let mut holders: Vec<Client> = (0..3 * CONNECTIONS)
            .map(|_| {
                let mut client = Client::to(admin.address);
                // The server may have closed it already.
                client.try_send(begin.as_bytes());
                client
            })
            .collect();
        assert_eq!(admin.get("/metrics").status, 200, "{begin:?}");
        assert_gone(&mut holders[0]);
    }
}

#[test]
fn a_client_that_sends_nothing_is_disconnected() {
    let admin = start(AdminOptions::default());
    let mut idle = Client::to(admin.address);
    let mut slow = Client::to(admin.address);
    slow.send("GET /metrics HTTP/1.1\r\n");
    for client in [&mut idle, &mut slow] {
        assert_gone(client);
    }
}
