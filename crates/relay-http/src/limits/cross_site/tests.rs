//! The rule as a table: what is asked for by whom, and what becomes of it.

use actix_web::http::header::HeaderValue;

use super::*;

const OK: Result<(), Denied> = Ok(());
const FOREIGN: Result<(), Denied> = Err(Denied::Origin);
const MISCALLED: Result<(), Denied> = Err(Denied::Host);

/// Header fields as lines, separated by `|`.
fn headers(lines: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines.split('|').filter(|line| !line.trim().is_empty()) {
        let (name, value) = line.split_once(':').unwrap();
        let name = HeaderName::from_bytes(name.trim().as_bytes()).unwrap();
        headers.append(name, HeaderValue::from_bytes(value.trim().as_bytes()).unwrap());
    }
    headers
}

fn ask(lines: &str, origins: &[&str], hosts: &AllowedHosts) -> Result<(), Denied> {
    let origins: Vec<Origin> = origins.iter().map(|text| Origin::parse(text).unwrap()).collect();
    check(&Uri::from_static("/push"), &headers(lines), &origins, hosts)
}

fn table(origins: &[&str], hosts: &AllowedHosts, rows: &[(&str, Result<(), Denied>)]) {
    for (lines, expected) in rows {
        assert_eq!(ask(lines, origins, hosts), *expected, "{lines}");
    }
}

#[test]
fn what_no_browser_has_sent_is_not_looked_at() {
    let rows = [
        ("", OK),
        ("host: relay.example.org", OK),
        ("Host: 10.0.0.1:7000 | Referer: https://evil.example/", OK),
        ("host: a | host: b", OK),
        ("host: user@[::", OK),
        ("host: ", OK),
    ];
    table(&[], &AllowedHosts::any(), &rows);
    table(&[], &AllowedHosts::only([]).of_browsers(), &rows);
}

#[test]
fn sec_fetch_site_decides_where_it_is() {
    table(
        &["https://app.example.org"],
        &AllowedHosts::any(),
        &[
            ("host: r | sec-fetch-site: same-origin", OK),
            ("host: r | sec-fetch-site: none", OK),
            ("host: r | sec-fetch-site: none | sec-fetch-mode: navigate", OK),
            ("host: r | Sec-Fetch-Site: cross-site", FOREIGN),
            ("host: r | sec-fetch-site: same-site", FOREIGN),
            ("host: r | sec-fetch-site: something-new", FOREIGN),
            ("host: r | sec-fetch-site: ", FOREIGN),
            ("host: r | sec-fetch-site: none | sec-fetch-site: same-origin", FOREIGN),
            // The port was lost on the way, and the browser knows better.
            ("host: r | sec-fetch-site: same-origin | origin: https://r:8443", OK),
            ("host: r | sec-fetch-site: cross-site | origin: https://r", FOREIGN),
            ("host: r | sec-fetch-site: cross-site | origin: https://app.example.org", OK),
            ("host: r | sec-fetch-site: same-site | origin: https://APP.example.org:443", OK),
            ("host: r | sec-fetch-site: cross-site | origin: http://app.example.org", FOREIGN),
            ("host: r | sec-fetch-site: cross-site | origin: null", FOREIGN),
            // Without it there is nothing to go by.
            ("host: r | sec-fetch-mode: cors", OK),
        ],
    );
}

#[test]
fn without_it_the_origin_is_compared_with_the_host() {
    table(
        &[],
        &AllowedHosts::any(),
        &[
            ("host: relay.example.org | origin: https://relay.example.org", OK),
            ("host: Relay.Example.Org. | origin: HTTPS://relay.example.org", OK),
            ("host: relay.example.org | origin: http://relay.example.org", OK),
            ("host: relay.example.org:443 | origin: https://relay.example.org", OK),
            ("host: relay.example.org:80 | origin: http://relay.example.org", OK),
            ("host: relay.example.org:80 | origin: https://relay.example.org", FOREIGN),
            ("host: relay.example.org: | origin: https://relay.example.org:443", OK),
            ("host: localhost:7000 | origin: http://localhost:7000", OK),
            ("host: localhost:7000 | origin: http://localhost:8080", FOREIGN),
            ("host: localhost:7000 | origin: http://localhost", FOREIGN),
            ("host: localhost:7000 | origin: http://127.0.0.1:7000", FOREIGN),
            ("host: [::1]:7000 | origin: http://[0:0::1]:7000", OK),
            ("host: [::ffff:127.0.0.1]:7000 | origin: http://127.0.0.1:7000", OK),
            ("host: [::1] | origin: http://[::2]", FOREIGN),
            ("host: relay.example.org | origin: https://evil.example", FOREIGN),
            ("host: relay.example.org | origin: https://relay.example.org.evil.example", FOREIGN),
            ("host: relay.example.org | origin: https://relay.example.org@evil.example", FOREIGN),
            ("host: relay.example.org | origin: https://relay.example.org/", FOREIGN),
            ("host: relay.example.org | origin: null", FOREIGN),
            ("host: relay.example.org | origin: ", FOREIGN),
            ("host: relay.example.org | origin: relay.example.org", FOREIGN),
            ("host: localhost | origin: tauri://localhost", FOREIGN),
            ("host: localhost | origin: file://", FOREIGN),
            ("origin: http://relay.example.org", FOREIGN),
            ("host: r | origin: http://r | origin: http://r", FOREIGN),
            ("host: r | host: r | origin: http://r", MISCALLED),
            ("host: r@r | origin: http://r", MISCALLED),
            ("host: r:99999 | origin: http://r", MISCALLED),
            ("host: r:+80 | origin: http://r", MISCALLED),
            ("host: [::1 | origin: http://r", MISCALLED),
            ("host: a b | origin: http://r", MISCALLED),
            ("host: \u{e4} | origin: http://r", MISCALLED),
            ("host: | origin: http://r", MISCALLED),
        ],
    );
}

#[test]
fn origins_with_schemes_of_their_own_may_be_listed() {
    table(
        &["tauri://localhost", "app://.", "chrome-extension://abcdefgh", "file://", "http://[::1]:8080"],
        &AllowedHosts::any(),
        &[
            ("host: r | origin: tauri://localhost", OK),
            ("host: r | origin: Tauri://LOCALHOST", OK),
            ("host: r | origin: tauri://localhost:1", FOREIGN),
            ("host: r | origin: app://.", OK),
            ("host: r | origin: app://..", FOREIGN),
            ("host: r | origin: chrome-extension://abcdefgh", OK),
            ("host: r | origin: chrome-extension://abcdefgi", FOREIGN),
            ("host: r | origin: file://", OK),
            ("host: r | origin: http://[::1]:8080", OK),
            ("host: r | origin: http://[::1]", FOREIGN),
            ("host: r | origin: https://[::1]:8080", FOREIGN),
        ],
    );
}

#[test]
fn a_name_that_is_not_allowed_is_refused_however_it_is_asked_by() {
    let rows = [
        ("host: relay.example.org", OK),
        ("host: RELAY.example.org.:7001", OK),
        ("host: rebound.evil.example:7001", MISCALLED),
        ("host: example.org", MISCALLED),
        ("host: a.relay.example.org", MISCALLED),
        ("host: localhost", OK),
        ("host: LocalHost.:7001", OK),
        ("host: relay.localhost:7001", OK),
        ("host: localhost.evil.example", MISCALLED),
        ("host: notlocalhost", MISCALLED),
        ("host: 127.0.0.1:7001", OK),
        ("host: 10.1.2.3:7001", OK),
        ("host: [::1]:7001", OK),
        ("host: [fe80::1%25eth0]:7001", MISCALLED),
        ("host: 127.0.0.1.evil.example", MISCALLED),
        ("host: relay.example.org | host: relay.example.org", MISCALLED),
        ("host: relay.example.org, evil.example", MISCALLED),
        ("host: ", MISCALLED),
        // HTTP/1.0, as some load balancers check.
        ("", OK),
        ("sec-fetch-site: same-origin", MISCALLED),
        ("host: rebound.evil.example | sec-fetch-site: same-origin", MISCALLED),
        ("host: rebound.evil.example | origin: http://rebound.evil.example", MISCALLED),
        ("host: relay.example.org | origin: http://relay.example.org", OK),
        ("host: localhost:7001 | sec-fetch-site: cross-site", FOREIGN),
    ];
    table(&[], &AllowedHosts::only(["Relay.example.org"]), &rows);
}

#[test]
fn what_is_asked_of_browsers_alone_leaves_proxies_their_names() {
    table(
        &["https://app.example.org"],
        &AllowedHosts::only([]).of_browsers(),
        &[
            ("host: relay.example.org", OK),
            ("host: rebound.evil.example:7000 | origin: http://rebound.evil.example:7000", MISCALLED),
            ("host: rebound.evil.example:7000 | sec-fetch-mode: cors", MISCALLED),
            ("host: localhost:7000 | origin: http://localhost:7000", OK),
            ("host: localhost:7000 | origin: https://app.example.org", OK),
            // Whoever lists an origin has not listed a name.
            ("host: relay.example.org | origin: https://app.example.org", MISCALLED),
        ],
    );
}

#[test]
fn any_name_is_any_name() {
    for hosts in [AllowedHosts::default(), AllowedHosts::only(["a", "*"])] {
        assert_eq!(ask("host: whatever.example", &[], &hosts), OK);
    }
    for (name, is_one) in [
        ("relay", true),
        ("Relay.example.org.", true),
        ("10.0.0.1", true),
        ("[::1]", true),
        ("*", true),
        ("::1", false),
        ("relay:7000", false),
        ("http://relay", false),
        ("*.example.org", false),
        ("a..b", false),
        ("", false),
        (".", false),
    ] {
        assert_eq!(AllowedHosts::is_name(name), is_one, "{name}");
    }
}

#[test]
fn the_target_of_http_2_and_of_proxies_counts_as_the_host() {
    let asked = |target: &'static str, lines: &str| {
        let hosts = AllowedHosts::only(["relay.example.org"]);
        check(&Uri::from_static(target), &headers(lines), &[], &hosts)
    };
    for (target, lines, expected) in [
        ("https://relay.example.org/push", "", OK),
        ("https://evil.example/push", "", MISCALLED),
        ("https://relay.example.org/push", "origin: https://relay.example.org", OK),
        ("https://relay.example.org/push", "origin: https://evil.example", FOREIGN),
        ("https://relay.example.org/push", "host: relay.example.org", OK),
        ("https://relay.example.org/push", "host: localhost", MISCALLED),
        ("https://evil.example/push", "host: relay.example.org", MISCALLED),
        ("*", "host: relay.example.org", OK),
        ("*", "host: evil.example", MISCALLED),
    ] {
        assert_eq!(asked(target, lines), expected, "{target} {lines}");
    }
}

#[test]
fn what_is_no_origin_is_not_taken_for_one() {
    for text in [
        "",
        "*",
        "null",
        "https://",
        "https:/a",
        "://a",
        "1a://b",
        "a b://c",
        "https://a/",
        "https://a?b",
        "https://a#b",
        "https://*.example.org",
        "https://a:b",
        "https://a:65536",
        "https://[::1",
        "https://u@a",
        "app://a/b",
        "app://*",
        "app://\u{e4}",
        "app://a b",
    ] {
        assert_eq!(Origin::parse(text), None, "{text}");
    }
}
