//! Tests of connections from proxies that speak the PROXY protocol, and from those who pretend to.

use std::net::TcpListener;
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use relay_core::Limits;
use relay_http::{Listener, Options, Peers, RateLimit, Transport};

use crate::limits::{now, rate_limit};
use crate::support::{Client, Response, Server, memory, options};

const ASK: &str = "GET /stats HTTP/1.1\r\nhost: relay\r\n\r\n";

/// A server whose proxies are in these networks.
fn server(networks: &[&str], options: Options) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let networks = networks.iter().map(|network| network.parse().unwrap()).collect();
    let proxy_protocol = Peers { networks, unix: false };
    let listener = Listener { proxy_protocol, ..Listener::new(listener, Transport::Plain) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    Server::listening(runtime, address, vec![listener], memory(Limits::default()), options)
}

fn proxied(options: Options) -> Server {
    server(&["127.0.0.0/8"], options)
}

fn limited() -> Server {
    proxied(Options { rate_limit: Some(rate_limit(3, 1, &[])), ..options() })
}

fn header(client: &str) -> String {
    format!("PROXY TCP4 {client} 192.0.2.200 4711 443\r\n")
}

/// The status of a request after this header, on a connection of its own; `None` if it is closed.
fn ask(server: &Server, header: &str) -> Option<u16> {
    server.connect().try_ask(&format!("{header}{ASK}")).map(|response| response.status)
}

#[test]
fn the_limits_count_the_client_that_the_proxy_names() {
    let server = limited();
    let others: Vec<_> = (0..30).map(|number| ask(&server, &header(&format!("192.0.2.{number}")))).collect();
    assert_eq!(others, [Some(200); 30]);
    let same: Vec<_> = (0..30).map(|_| ask(&server, &header("198.51.100.7"))).collect();
    assert!(same.iter().any(|status| *status != Some(200)), "{same:?}");
}

#[test]
fn a_proxy_that_names_no_client_counts_itself() {
    let server = limited();
    let own: Vec<_> = (0..30).map(|_| ask(&server, "PROXY UNKNOWN\r\n")).collect();
    assert!(own.contains(&Some(200)) && own.iter().any(|status| *status != Some(200)), "{own:?}");
    assert_eq!(ask(&server, &header("192.0.2.1")), Some(200));
}

#[test]
fn a_named_proxy_must_send_a_header_and_only_one() {
    let server = proxied(options());
    assert_eq!(ask(&server, ""), None);
    assert_eq!(ask(&server, "PROXY TCP4 192.0.2.1\r\n"), None);
    // The second one is no HTTP.
    assert_eq!(ask(&server, &header("192.0.2.1").repeat(2)), Some(400));
    // Requests after the first one have none.
    let mut client = server.connect();
    assert_eq!(client.ask(&format!("{}{ASK}", header("192.0.2.1"))).status, 200);
    assert_eq!(client.ask(ASK).status, 200);
    assert_eq!(client.ask(&format!("{}{ASK}", header("192.0.2.1"))).status, 400);
}

#[test]
fn a_header_from_others_is_no_http() {
    let server = server(&["192.0.2.0/24", "::1/128"], options());
    assert_eq!(ask(&server, &header("192.0.2.1")), Some(400));
    let binary = "\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x01\x01\x01\x01\x01\x01\x01\x01\0\x01\0\x01";
    assert_eq!(ask(&server, binary), Some(400));
    assert_eq!(ask(&server, ""), Some(200));
}

#[test]
fn a_slow_header_ends_the_connection_in_the_time_of_a_head() {
    let server = proxied(Options { request_timeout: Duration::from_millis(100), ..options() });
    for begin in ["", "PROXY TCP4 192.0.2.1 192.0.2.2 1", "\r\n\r\n\0\r\nQUIT\n\x21"] {
        let mut client: Client = server.connect();
        client.send(begin);
        client.assert_gone();
    }
}

#[test]
fn connections_of_one_client_are_limited_behind_a_proxy_too() {
    let mut options = Options { rate_limit: Some(rate_limit(1000, 1000, &[])), ..options() };
    options.connections_per_address_max = NonZeroUsize::MIN;
    let server = proxied(options);
    let open = |client: &str| {
        let mut connection = server.connect();
        assert_eq!(connection.ask(&format!("{}{ASK}", header(client))).status, 200);
        connection
    };
    let (mut first, mut other) = (open("192.0.2.1"), open("192.0.2.2"));
    let _second = open("192.0.2.1");
    first.assert_closed();
    assert_eq!(other.ask(ASK).status, 200);
}

#[test]
fn a_banned_client_behind_a_proxy_closes_no_connection_of_others() {
    let limit = RateLimit { ban_threshold: NonZeroU32::MIN, ..rate_limit(3, 1, &[]) };
    let connections_max = NonZeroUsize::new(2).unwrap();
    let server = proxied(Options { rate_limit: Some(limit), connections_max, ..options() });
    let flooder = header("198.51.100.7");
    // Only a ban, which lasts 300 seconds, sends such a long `retry-after`.
    let is_banned = |response: &Response| response.header("retry-after").is_some_and(|text| text.len() > 1);
    let (mut client, start) = (server.connect(), now());
    client.send(&flooder);
    while !is_banned(&client.ask(ASK)) {
        assert!(now() - start < Duration::from_secs(20), "it is never banned");
    }

    let mut idle = ["192.0.2.1", "192.0.2.2"].map(|name| {
        let mut client = server.connect();
        assert_eq!(client.ask(&format!("{}{ASK}", header(name))).status, 200);
        client
    });
    for _ in 0..10 {
        assert_ne!(ask(&server, &flooder), Some(200));
    }
    // A connection that names nobody closes none of them either.
    let _silent: Vec<_> = (0..20).map(|_| server.connect()).collect();
    for client in &mut idle {
        assert_eq!(client.ask(ASK).status, 200);
    }
}
