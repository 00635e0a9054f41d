//! Tables of requests and the expected decisions.

use actix_web::http::header::HeaderValue;

use super::*;

const OK: Result<(), Denied> = Ok(());
const OTHER_SITE: Result<(), Denied> = Err(Denied::Origin);
const WRONG_HOST: Result<(), Denied> = Err(Denied::Host);

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

fn check_one(lines: &str, origins: &[&str], hosts: &AllowedHosts) -> Result<(), Denied> {
    let origins: Vec<Origin> = origins.iter().map(|text| Origin::parse(text).unwrap()).collect();
    check(&Uri::from_static("/push"), &headers(lines), &origins, hosts)
}

fn table(origins: &[&str], hosts: &AllowedHosts, rows: &[(&str, Result<(), Denied>)]) {
    for (lines, expected) in rows {
        assert_eq!(check_one(lines, origins, hosts), *expected, "{lines}");
    }
}

#[test]
fn requests_of_other_programs_are_not_checked() {
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
fn sec_fetch_site_decides_if_it_is_present() {
    table(
        &["https://app.example.org"],
        &AllowedHosts::any(),
        &[
            ("host: r | sec-fetch-site: same-origin", OK),
            ("host: r | sec-fetch-site: none", OK),
            ("host: r | sec-fetch-site: none | sec-fetch-mode: navigate", OK),
            ("host: r | Sec-Fetch-Site: cross-site", OTHER_SITE),
            ("host: r | sec-fetch-site: same-site", OTHER_SITE),
            ("host: r | sec-fetch-site: something-new", OTHER_SITE),
            ("host: r | sec-fetch-site: ", OTHER_SITE),
            ("host: r | sec-fetch-site: none | sec-fetch-site: same-origin", OTHER_SITE),
            // A proxy dropped the port. The browser knows it.
            ("host: r | sec-fetch-site: same-origin | origin: https://r:8443", OK),
            ("host: r | sec-fetch-site: cross-site | origin: https://r", OTHER_SITE),
            ("host: r | sec-fetch-site: cross-site | origin: https://app.example.org", OK),
            ("host: r | sec-fetch-site: same-site | origin: https://APP.example.org:443", OK),
            ("host: r | sec-fetch-site: cross-site | origin: http://app.example.org", OTHER_SITE),
            ("host: r | sec-fetch-site: cross-site | origin: null", OTHER_SITE),
            // Without either field, nothing indicates another site.
            ("host: r | sec-fetch-mode: cors", OK),
        ],
    );
}

#[test]
fn without_sec_fetch_site_the_origin_is_compared_with_the_host() {
    table(
        &[],
        &AllowedHosts::any(),
        &[
            ("host: relay.example.org | origin: https://relay.example.org", OK),
            ("host: Relay.Example.Org. | origin: HTTPS://relay.example.org", OK),
            ("host: relay.example.org | origin: http://relay.example.org", OK),
            ("host: relay.example.org:443 | origin: https://relay.example.org", OK),
            ("host: relay.example.org:80 | origin: http://relay.example.org", OK),
            ("host: relay.example.org:80 | origin: https://relay.example.org", OTHER_SITE),
            ("host: relay.example.org: | origin: https://relay.example.org:443", OK),
            ("host: localhost:7000 | origin: http://localhost:7000", OK),
            ("host: localhost:7000 | origin: http://localhost:8080", OTHER_SITE),
            ("host: localhost:7000 | origin: http://localhost", OTHER_SITE),
            ("host: localhost:7000 | origin: http://127.0.0.1:7000", OTHER_SITE),
            ("host: [::1]:7000 | origin: http://[0:0::1]:7000", OK),
            ("host: [::ffff:127.0.0.1]:7000 | origin: http://127.0.0.1:7000", OK),
            ("host: [::1] | origin: http://[::2]", OTHER_SITE),
            ("host: relay.example.org | origin: https://evil.example", OTHER_SITE),
            ("host: relay.example.org | origin: https://relay.example.org.evil.example", OTHER_SITE),
            ("host: relay.example.org | origin: https://relay.example.org@evil.example", OTHER_SITE),
            ("host: relay.example.org | origin: https://relay.example.org/", OTHER_SITE),
            ("host: relay.example.org | origin: null", OTHER_SITE),
            ("host: relay.example.org | origin: ", OTHER_SITE),
            ("host: relay.example.org | origin: relay.example.org", OTHER_SITE),
            ("host: localhost | origin: tauri://localhost", OTHER_SITE),
            ("host: localhost | origin: file://", OTHER_SITE),
            ("origin: http://relay.example.org", OTHER_SITE),
            ("host: r | origin: http://r | origin: http://r", OTHER_SITE),
            ("host: r | host: r | origin: http://r", WRONG_HOST),
            ("host: r@r | origin: http://r", WRONG_HOST),
            ("host: r:99999 | origin: http://r", WRONG_HOST),
            ("host: r:+80 | origin: http://r", WRONG_HOST),
            ("host: [::1 | origin: http://r", WRONG_HOST),
            ("host: a b | origin: http://r", WRONG_HOST),
            ("host: \u{e4} | origin: http://r", WRONG_HOST),
            ("host: | origin: http://r", WRONG_HOST),
        ],
    );
}

#[test]
fn origins_with_custom_schemes_may_be_listed() {
    table(
        &["tauri://localhost", "app://.", "chrome-extension://abcdefgh", "file://", "http://[::1]:8080"],
        &AllowedHosts::any(),
        &[
            ("host: r | origin: tauri://localhost", OK),
            ("host: r | origin: Tauri://LOCALHOST", OK),
            ("host: r | origin: tauri://localhost:1", OTHER_SITE),
            ("host: r | origin: app://.", OK),
            ("host: r | origin: app://..", OTHER_SITE),
            ("host: r | origin: chrome-extension://abcdefgh", OK),
            ("host: r | origin: chrome-extension://abcdefgi", OTHER_SITE),
            ("host: r | origin: file://", OK),
            ("host: r | origin: http://[::1]:8080", OK),
            ("host: r | origin: http://[::1]", OTHER_SITE),
            ("host: r | origin: https://[::1]:8080", OTHER_SITE),
        ],
    );
}

#[test]
fn a_host_name_that_is_not_allowed_is_refused() {
    let rows = [
        ("host: relay.example.org", OK),
        ("host: RELAY.example.org.:7001", OK),
        ("host: rebound.evil.example:7001", WRONG_HOST),
        ("host: example.org", WRONG_HOST),
        ("host: a.relay.example.org", WRONG_HOST),
        ("host: localhost", OK),
        ("host: LocalHost.:7001", OK),
        ("host: relay.localhost:7001", OK),
        ("host: localhost.evil.example", WRONG_HOST),
        ("host: notlocalhost", WRONG_HOST),
        ("host: 127.0.0.1:7001", OK),
        ("host: 10.1.2.3:7001", OK),
        ("host: [::1]:7001", OK),
        ("host: [fe80::1%25eth0]:7001", WRONG_HOST),
        ("host: 127.0.0.1.evil.example", WRONG_HOST),
        ("host: relay.example.org | host: relay.example.org", WRONG_HOST),
        ("host: relay.example.org, evil.example", WRONG_HOST),
        ("host: ", WRONG_HOST),
        // HTTP/1.0, as some health checks of load balancers send.
        ("", OK),
        ("sec-fetch-site: same-origin", WRONG_HOST),
        ("host: rebound.evil.example | sec-fetch-site: same-origin", WRONG_HOST),
        ("host: rebound.evil.example | origin: http://rebound.evil.example", WRONG_HOST),
        ("host: relay.example.org | origin: http://relay.example.org", OK),
        ("host: localhost:7001 | sec-fetch-site: cross-site", OTHER_SITE),
    ];
    table(&[], &AllowedHosts::only(["Relay.example.org"]), &rows);
}

#[test]
fn a_check_of_browsers_ignores_requests_of_proxies() {
    table(
        &["https://app.example.org"],
        &AllowedHosts::only([]).of_browsers(),
        &[
            ("host: relay.example.org", OK),
            ("host: rebound.evil.example:7000 | origin: http://rebound.evil.example:7000", WRONG_HOST),
            ("host: rebound.evil.example:7000 | sec-fetch-mode: cors", WRONG_HOST),
            ("host: localhost:7000 | origin: http://localhost:7000", OK),
            ("host: localhost:7000 | origin: https://app.example.org", OK),
            // A listed origin does not allow a host name.
            ("host: relay.example.org | origin: https://app.example.org", WRONG_HOST),
        ],
    );
}

#[test]
fn a_star_allows_any_name() {
    for hosts in [AllowedHosts::default(), AllowedHosts::only(["a", "*"])] {
        assert_eq!(check_one("host: whatever.example", &[], &hosts), OK);
    }
    for (name, is_valid) in [
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
        assert_eq!(AllowedHosts::is_name(name), is_valid, "{name}");
    }
}

#[test]
fn the_target_of_http_2_and_of_proxies_counts_as_the_host() {
    let check_target = |target: &'static str, lines: &str| {
        let hosts = AllowedHosts::only(["relay.example.org"]);
        check(&Uri::from_static(target), &headers(lines), &[], &hosts)
    };
    for (target, lines, expected) in [
        ("https://relay.example.org/push", "", OK),
        ("https://evil.example/push", "", WRONG_HOST),
        ("https://relay.example.org/push", "origin: https://relay.example.org", OK),
        ("https://relay.example.org/push", "origin: https://evil.example", OTHER_SITE),
        ("https://relay.example.org/push", "host: relay.example.org", OK),
        ("https://relay.example.org/push", "host: localhost", WRONG_HOST),
        ("https://evil.example/push", "host: relay.example.org", WRONG_HOST),
        ("*", "host: relay.example.org", OK),
        ("*", "host: evil.example", WRONG_HOST),
    ] {
        assert_eq!(check_target(target, lines), expected, "{target} {lines}");
    }
}

#[test]
fn texts_that_are_not_origins_are_rejected() {
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
