//! The listener for whoever runs the relay: what it shows, to whom it does not, and that nobody can
//! keep others out.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use relay_core::Limits;
use relay_http::{AdminOptions, AllowedHosts, Options, Readiness, Unready};
use serde_json::json;

use crate::metrics::Admin;
use crate::support::{Answer, Client, Server, memory, options, post_head};

/// One more than there are places.
const CONNECTIONS: usize = 33;

/// Longer than a head may take here, and far shorter than one may take on the public address of
/// these tests.
const A_WHILE: Duration = Duration::from_secs(12);

fn start(options: AdminOptions) -> Admin {
    Admin::with(&memory(Limits::default()), &Arc::default(), options)
}

fn ask(admin: &Admin, request: &str) -> Answer {
    Client::to(admin.address).ask(request)
}

/// Waits until the other side has closed, whatever it says before.
fn assert_gone(client: &mut Client) {
    client.be_patient_for(A_WHILE);
    while client.answer_or_end().is_some() {}
}

#[test]
fn clients_cannot_see_it_and_there_is_little_else() {
    let relay = memory(Limits::default());
    let server = Server::with(Arc::clone(&relay), options());
    let admin = Admin::start(&relay, &server.metrics);
    server.get("/metrics").assert_error(404, "not_found");
    for path in ["/", "/stats", "/metrics/", "/push", "/metrics%20", "/openapi.json"] {
        admin.get(path).assert_error(404, "not_found");
    }
    for path in ["/metrics", "/health", "/ready"] {
        assert_eq!(admin.get(path).status, 200, "{path}");
        let answer = ask(&admin, &post_head(path, "", 0));
        answer.assert_error(405, "method_not_allowed");
        assert_eq!(answer.header("allow"), Some("GET, HEAD, OPTIONS"));
    }
}

#[test]
fn health_and_readiness_are_told_as_clients_are() {
    let told = Arc::new(Mutex::new(Err(Unready::Replaying { percent: 42 })));
    let says = Arc::clone(&told);
    let readiness = Readiness::new(move || *says.lock().unwrap());
    let relay = memory(Limits::default());
    let server = Server::with(Arc::clone(&relay), Options { readiness: readiness.clone(), ..options() });
    let admin = Admin::with(&relay, &server.metrics, AdminOptions { readiness, ..AdminOptions::default() });
    for now in [Err(Unready::Replaying { percent: 42 }), Err(Unready::StorageFull), Ok(())] {
        *told.lock().unwrap() = now;
        for path in ["/health", "/ready"] {
            let (public, own) = (server.get(path), admin.get(path));
            assert_eq!((own.status, own.json()), (public.status, public.json()), "{path} {now:?}");
            assert_eq!(own.header("retry-after"), public.header("retry-after"), "{path} {now:?}");
        }
    }
    *told.lock().unwrap() = Err(Unready::Draining);
    let details = admin.get("/ready").assert_error(503, "not_ready");
    assert_eq!(details, json!({"reason": "draining"}));
    let answer = admin.get("/health");
    answer.assert_error(503, "draining");
    assert_eq!(answer.header("retry-after"), Some("1"));
}

#[test]
fn no_answer_is_kept_by_anybody_and_each_is_the_last_one() {
    let admin = start(AdminOptions::default());
    for request in [
        "GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n",
        "GET /health HTTP/1.1\r\nhost: x\r\nconnection: keep-alive\r\n\r\n",
        "GET /ready HTTP/1.0\r\n\r\n",
        "GET /nowhere HTTP/1.1\r\nhost: x\r\n\r\n",
        "PUT /metrics HTTP/1.1\r\nhost: x\r\n\r\n",
    ] {
        let mut client = Client::to(admin.address);
        let answer = client.ask(request);
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{request}");
        assert!(answer.closes() || request.contains("HTTP/1.0"), "{request}");
        client.assert_closed();
    }
}

#[test]
fn head_and_options_are_answered_without_a_body() {
    let admin = start(AdminOptions::default());
    for path in ["/metrics", "/health", "/ready"] {
        let mut client = Client::to(admin.address);
        client.send(format!("HEAD {path} HTTP/1.1\r\nhost: x\r\n\r\n"));
        let answer = client.answer_without_body();
        assert_eq!(answer.status, 200, "{path}");
        assert_ne!(answer.header("content-length"), Some("0"), "{path}");
        client.assert_closed();
    }
    for (path, allow) in [
        ("/metrics", "GET, HEAD, OPTIONS"),
        ("/health", "GET, HEAD, OPTIONS"),
        ("/", "OPTIONS"),
        ("*", "OPTIONS"),
    ] {
        let mut client = Client::to(admin.address);
        client.send(format!("OPTIONS {path} HTTP/1.1\r\nhost: x\r\n\r\n"));
        let answer = client.answer_without_body();
        assert_eq!((answer.status, answer.header("allow")), (204, Some(allow)), "{path}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{path}");
        client.assert_closed();
    }
}

#[test]
fn a_page_of_somebody_else_is_not_told_anything() {
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
            let answer = ask(&admin, &format!("GET {path} HTTP/1.1\r\n{fields}\r\n\r\n"));
            assert_eq!(answer.status != 403, is_allowed, "{path} {fields}");
            if !is_allowed {
                answer.assert_error(403, "forbidden");
                assert!(!answer.body.contains("evil"), "it repeats nothing: {}", answer.body);
            }
        }
    }
    let anywhere = start(AdminOptions::default());
    assert_eq!(ask(&anywhere, "GET /metrics HTTP/1.1\r\nhost: a.example\r\n\r\n").status, 200);
}

/// Whatever they hold their connections with, and however many times over.
#[test]
fn who_holds_connections_keeps_nobody_out() {
    let admin = start(AdminOptions::default());
    for begin in ["", "GET /metrics HTTP/1.1\r\nhost: ", "GET /health HTTP/1.1\r\nhost: x\r\n\r\n"] {
        let mut holders: Vec<Client> = (0..3 * CONNECTIONS)
            .map(|_| {
                let mut client = Client::to(admin.address);
                // It may have had to make room already.
                client.try_send(begin.as_bytes());
                client
            })
            .collect();
        assert_eq!(admin.get("/metrics").status, 200, "{begin:?}");
        assert_gone(&mut holders[0]);
    }
}

#[test]
fn who_says_nothing_is_gone_before_long() {
    let admin = start(AdminOptions::default());
    let mut silent = Client::to(admin.address);
    let mut slow = Client::to(admin.address);
    slow.send("GET /metrics HTTP/1.1\r\n");
    for client in [&mut silent, &mut slow] {
        assert_gone(client);
    }
}
