//! Tests refused and unusual values of `[wake]`.

use crate::{env, file};

/// A file with this URL and a key.
fn with_url(url: &str) -> String {
    format!("[wake]\nkey_path = \"w\"\nurl = {url:?}\n")
}

#[test]
fn a_gateway_needs_a_key() {
    file("[wake]\nurl = \"https://push.example/wake\"").refused(&[
        "wake.key_path: must be the path of the key that the gateway shares when wake.url is set; it is empty",
    ]);
    file(&with_url("https://push.example/wake")).warned(&[]);
}

#[test]
fn a_url_that_no_call_can_use_is_refused_and_not_repeated() {
    let refused = |why: &str| {
        format!(
            "wake.url: must be a URL such as \"https://push.example.org/wake\", or empty for no calls; {why} (relay.toml line 3)"
        )
    };
    for (url, why) in [
        (
            "push.example/secret",
            "it is no URL with a host; write a host name that is not ASCII in its xn-- form",
        ),
        ("https:///secret", "it is no URL with a host; write a host name that is not ASCII in its xn-- form"),
        ("ftp://push.example/secret", "its scheme is neither http nor https"),
        (
            "https://user:secret@push.example/",
            "it has a user name or a password, which the relay does not send",
        ),
        ("https://push.example/#secret", "it has a fragment (#), which is never sent"),
        ("https://push.example:70000/secret", "its port is not from 1 to 65535"),
    ] {
        file(&with_url(url)).refused(&[&refused(why)]);
    }
    file(&with_url(&format!("https://push.example/{}", "x".repeat(2048))))
        .refused(&[&refused("it is longer than 2048 bytes")]);
}

#[test]
fn clear_text_stays_on_this_machine_unless_allowed() {
    let line = "wake.url: must be an https URL, unless the gateway is on this machine: the network would see when messages \
                arrive for whom; set wake.allow_http = true if that is no concern there (relay.toml line 3)";
    for url in [
        "http://gateway:8080/",
        "http://192.0.2.1/",
        "http://localhost.example.org/",
        "http://[2001:db8::1]/",
    ] {
        file(&with_url(url)).refused(&[line]);
        file(&format!("{}allow_http = true", with_url(url))).warned(&[]);
    }
    for url in ["http://localhost:8080/", "http://127.0.0.1/wake", "http://[::1]:9/"] {
        file(&with_url(url)).warned(&[]);
    }
}

#[test]
fn all_mistakes_are_listed() {
    file(
        "[wake]\nurl = \"http://push.example/\"\nkey_path = \"a\\u0000b\"\nca_path = \"\\u0000\"\ngrace_ms = -1\nquiet_seconds = 0\n\
         timeout_seconds = 0\nattempts = 0\nmax_queues = 0\nmax_concurrent_calls = 257\nmax_calls_per_second = 0\nconfirm_seconds = 86_401",
    )
    .refused(&[
        "wake.grace_ms: must be a whole number from 0 to 3600000, found -1 (relay.toml line 5)",
        "wake.max_concurrent_calls: must be a whole number from 1 to 256, found 257 (relay.toml line 10)",
        "wake.confirm_seconds: must be a whole number from 0 to 86400, found 86401 (relay.toml line 12)",
        "wake.key_path: must be a path; a path cannot contain a NUL character (relay.toml line 3)",
        "wake.ca_path: must be a path; a path cannot contain a NUL character (relay.toml line 4)",
        "wake.url: must be an https URL, unless the gateway is on this machine: the network would see when messages \
         arrive for whom; set wake.allow_http = true if that is no concern there (relay.toml line 2)",
        "wake.quiet_seconds: must be a whole number from 1 to 86400, found 0 (relay.toml line 6)",
        "wake.timeout_seconds: must be a whole number from 1 to 300, found 0 (relay.toml line 7)",
        "wake.attempts: must be a whole number from 1 to 20, found 0 (relay.toml line 8)",
        "wake.max_queues: must be a whole number from 1 to 1000000, found 0 (relay.toml line 9)",
        "wake.max_calls_per_second: must be a whole number from 1 to 10000, found 0 (relay.toml line 11)",
    ]);
}

#[test]
fn keys_without_effect_give_a_warning() {
    env(&[("RELAY__WAKE__KEY_PATH", "w"), ("RELAY__WAKE__CA_PATH", "a")]).warned(&[
        "wake.key_path: without effect, because wake.url is empty",
        "wake.ca_path: without effect, because wake.url is empty",
    ]);
    file(&format!("{}ca_path = \"a\"", with_url("http://localhost/")))
        .warned(&["wake.ca_path: without effect, because wake.url is not an https URL"]);
}
