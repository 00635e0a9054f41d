//! Web pages of listed origins may send requests and read responses, and no others.

use relay_core::Limits;
use relay_http::{Options, Origin};

use crate::limits::rate_limit;
use crate::support::{Response, Server, memory, options, post_head, push_of};

const PAGE: &str = "https://app.example.org";

fn server() -> Server {
    let allowed_origins = vec![Origin::parse(PAGE).unwrap(), Origin::parse("tauri://localhost").unwrap()];
    let limit = rate_limit(40, 1000, &[]);
    let options = Options { allowed_origins, rate_limit: Some(limit), ..options() };
    Server::with(memory(Limits::default()), options)
}

/// The headers that a browser adds to the requests of a page.
fn of_page(origin: &str) -> String {
    format!("origin: {origin}\r\nsec-fetch-site: cross-site\r\nsec-fetch-mode: cors\r\n")
}

fn send(server: &Server, path: &str, headers: &str, body: &str) -> Response {
    let mut client = server.connect();
    client.send(post_head(path, &format!("content-type: application/json\r\n{headers}"), body.len()) + body);
    client.response_or_head()
}

fn preflight(server: &Server, path: &str, origin: &str) -> Response {
    let asks = "access-control-request-method: POST\r\naccess-control-request-headers: authorization, content-type\r\n";
    let head = format!("OPTIONS {path} HTTP/1.1\r\nhost: relay\r\n{}{asks}\r\n", of_page(origin));
    server.connect().ask(&head)
}

const PULL: &str = r#"{"recipient":"alice"}"#;

#[test]
fn a_browser_that_asks_first_learns_what_a_listed_page_may_send() {
    let server = server();
    for path in ["/push", "/push/batch", "/pull", "/ack", "/purge", "/stream", "/stats", "/nowhere"] {
        let response = preflight(&server, path, PAGE);
        // Otherwise the browser would hide the 404 of the request itself.
        assert_eq!(response.status, 204, "{path}: {response:?}");
        assert_eq!(response.header("access-control-allow-origin"), Some(PAGE));
        assert_eq!(response.header("access-control-allow-methods"), Some("GET, POST"));
        assert_eq!(
            response.header("access-control-allow-headers"),
            Some("Authorization, Content-Type, Content-Encoding")
        );
        assert_eq!(response.header("access-control-max-age"), Some("7200"));
        assert_eq!(response.header("vary"), Some("Origin"));
    }
}

#[test]
fn a_listed_page_reads_responses_streams_and_errors() {
    let server = server();
    let push = push_of("alice", 0, "aGVsbG8=").to_string();
    let responses = [
        send(&server, "/push", &of_page(PAGE), &push),
        send(&server, "/pull", &of_page(PAGE), PULL),
        send(&server, "/pull", &of_page(PAGE), r#"{"recipient":"bob","wait_ms":50}"#),
        send(&server, "/stream", &of_page(PAGE), PULL),
        send(&server, "/pull", &of_page("tauri://localhost"), PULL),
        send(&server, "/pull", &of_page(PAGE), "{"),
        send(&server, "/nowhere", &of_page(PAGE), PULL),
        send(&server, "/pull", &format!("{}content-encoding: br\r\n", of_page(PAGE)), PULL),
    ];
    let statuses = responses.each_ref().map(|response| response.status);
    assert_eq!(statuses, [200, 200, 200, 200, 200, 400, 404, 415]);
    for (index, response) in responses.iter().enumerate() {
        let origin = if index == 4 { "tauri://localhost" } else { PAGE };
        assert_eq!(response.header("access-control-allow-origin"), Some(origin), "{response:?}");
        let exposed = Some("Retry-After, RateLimit, RateLimit-Policy");
        assert_eq!(response.header("access-control-expose-headers"), exposed, "{response:?}");
        assert_eq!(response.header("vary"), Some("Origin"));
        assert_eq!(response.header("access-control-allow-credentials"), None);
    }
    let refused = (0..80).map(|_| send(&server, "/pull", &of_page(PAGE), PULL)).find(|it| it.status == 429);
    assert_eq!(refused.unwrap().header("access-control-allow-origin"), Some(PAGE));
}

#[test]
fn a_page_of_another_origin_gets_nothing_also_without_asking_first() {
    let server = server();
    for origin in
        ["https://evil.example.org", "https://app.example.org:8443", "http://app.example.org", "null"]
    {
        let asked = preflight(&server, "/pull", origin);
        asked.assert_error(403, "forbidden");
        preflight(&server, "/nowhere", origin).assert_error(403, "forbidden");
        let sent = send(&server, "/pull", &of_page(origin), PULL);
        sent.assert_error(403, "forbidden");
        for response in [asked, sent] {
            assert_eq!(response.header("access-control-allow-origin"), None, "{response:?}");
            assert_eq!(response.header("access-control-allow-headers"), None, "{response:?}");
            assert_eq!(response.header("vary"), Some("Origin"));
        }
    }
    let twice = format!("origin: {PAGE}\r\norigin: {PAGE}\r\n");
    send(&server, "/pull", &twice, PULL).assert_error(403, "forbidden");
}

#[test]
fn other_programs_see_no_difference() {
    let open = Server::start();
    let response = send(&open, "/pull", "", PULL);
    for name in ["access-control-allow-origin", "access-control-expose-headers", "vary"] {
        assert_eq!(response.header(name), None);
    }
    let server = server();
    let response = send(&server, "/pull", "", PULL);
    assert_eq!(response.header("access-control-allow-origin"), None);
    let response = server.connect().ask("OPTIONS /nowhere HTTP/1.1\r\nhost: relay\r\n\r\n");
    response.assert_error(404, "not_found");
}
