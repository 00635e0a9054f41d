//! Error responses are short and repeat nothing of the request. Each part of these requests
//! contains a mark that must not appear in a response, in any encoding.

use std::time::Duration;

use relay_core::Limits;
use relay_http::Options;
use serde_json::{Value, json};

use crate::support::{MESSAGE_ID, Response, Server, gzip, memory, options, post_head, push_of};

/// A mark that is also valid in paths, methods and header names.
const MARK: &str = "m4rk3d";

/// The mark in numbers.
const DIGITS: &str = "73459872";

const RESPONSE_BYTES_MAX: usize = 2048;

const LARGE_BYTES: usize = 10 * 1000 * 1000;

const ENDPOINTS: [&str; 6] = ["/push", "/push/batch", "/pull", "/ack", "/purge", "/stream"];

/// A server on which no pull waits.
fn server() -> Server {
    Server::with(memory(Limits::default()), Options { pull_wait_max: Duration::ZERO, ..options() })
}

/// All encodings of the mark.
fn spellings() -> Vec<String> {
    let escaped: String = MARK.bytes().map(|byte| format!("\\u{byte:04x}")).collect();
    let percent: String = MARK.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let hex: String = MARK.bytes().map(|byte| format!("{byte:02x}")).collect();
    // "m4rk3d" in base64, at each offset within a group of three, without the characters that
    // neighbours share.
    let base64 = ["bTRyazNk", "00cmszZ", "tNHJrM2"].map(str::to_owned);
    [
        vec![
            MARK.to_owned(),
            escaped,
            percent,
            hex,
            DIGITS.to_owned(),
            "\u{7f}\u{7f}".to_owned(),
            "u{7f}".to_owned(),
        ],
        base64.to_vec(),
    ]
    .concat()
}

fn assert_bounded(response: &Response, what: &str) {
    if response.status < 400 {
        return;
    }
    let what = &what[..what.floor_char_boundary(200)];
    let bytes = response.head.len() + response.body.len();
    assert!(bytes <= RESPONSE_BYTES_MAX, "{what}: a response of {bytes} bytes");
    assert_repeats_nothing(response, what);
}

fn assert_repeats_nothing(response: &Response, what: &str) {
    let text = format!("{}{}", response.head, response.body);
    let lower = text.to_lowercase();
    for spelling in spellings() {
        assert!(!lower.contains(&spelling.to_lowercase()), "{what}: {response:?}");
    }
}

/// Sends any bytes, and checks the response if there is one.
fn ask(server: &Server, request: &[u8], what: &str) {
    let mut client = server.connect();
    client.try_send(request);
    client.try_finish_sending();
    if let Some(response) = client.response_or_end() {
        assert_bounded(&response, what);
    }
}

fn post(server: &Server, path: &str, body: &str) {
    let packed = gzip(body.as_bytes());
    let (plain, unpacked) = (
        answer(server, path, "", body.as_bytes()),
        answer(server, path, "content-encoding: gzip\r\n", &packed),
    );
    for response in [&plain, &unpacked] {
        assert_bounded(response, body);
        // The errors of single items are in a successful response.
        if path == "/push/batch" {
            assert_repeats_nothing(response, body);
        }
    }
    // The second of two valid pushes is a duplicate.
    let is_same = plain.status == unpacked.status && (plain.status < 400 || plain.body == unpacked.body);
    assert!(is_same, "{plain:?} {unpacked:?}");
}

/// The response to a request; of a stream only its head.
fn answer(server: &Server, path: &str, headers: &str, body: &[u8]) -> Response {
    let mut client = server.connect();
    client.send([post_head(path, headers, body.len()).as_bytes(), body].concat());
    client.response_or_head()
}

/// A valid request for each endpoint that accepts one.
fn valid(path: &str) -> Value {
    match path {
        "/push" => {
            let mut push = push_of("alice", 0, "aGVsbG8=");
            push["proof"] = "A".repeat(43).into();
            push["ttl_seconds"] = json!(60);
            push
        }
        "/push/batch" => json!({"items": [valid("/push")]}),
        "/pull" => json!({"recipient": "alice", "cursor": null, "max": 1, "wait_ms": 0, "tail": true}),
        "/stream" => json!({"recipient": "alice", "cursor": null, "keepalive_ms": 1}),
        "/purge" => json!({"recipient": "alice"}),
        _ => {
            let entry = json!({"message_id": MESSAGE_ID, "chunk_index": 0});
            json!({"recipient": "alice", "ack": [entry], "ack_before": null})
        }
    }
}

/// The JSON pointers to all values.
fn pointers(value: &Value) -> Vec<String> {
    let inner: Vec<(String, &Value)> = match value {
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), value)).collect(),
        Value::Array(elements) => {
            elements.iter().enumerate().map(|(at, value)| (at.to_string(), value)).collect()
        }
        _ => Vec::new(),
    };
    let deeper = inner
        .into_iter()
        .flat_map(|(name, value)| pointers(value).into_iter().map(move |rest| format!("/{name}{rest}")));
    std::iter::once(String::new()).chain(deeper).collect()
}

/// JSON values of every kind that contain the mark.
fn marked() -> Vec<String> {
    let escaped: String = MARK.bytes().map(|byte| format!("\\u{byte:04x}")).collect();
    let nested = |depth| format!("{}\"{MARK}\"{}", "[".repeat(depth), "]".repeat(depth));
    vec![
        format!("\"{MARK}\""),
        format!("\"{escaped}\""),
        format!("\"{}\"", MARK.repeat(20_000)),
        format!("\"{}\"", "\u{7f}".repeat(20_000)),
        format!("\"\\u0000{MARK}\\uffff\\ud83e\\udd80\\\"\\\\\""),
        format!("\"{MARK}\\x\""),
        format!("\"{MARK}\\ud800\""),
        format!("\"{MARK}\n\""),
        format!("\"{MARK}"),
        format!("{DIGITS}{DIGITS}"),
        format!("{DIGITS}99999999999999999999"),
        format!("-{DIGITS}"),
        format!("{DIGITS}.5"),
        format!("{DIGITS}e3"),
        format!("{DIGITS}e400"),
        DIGITS.repeat(10_000),
        format!("true{MARK}"),
        "true".to_owned(),
        "null".to_owned(),
        MARK.to_owned(),
        format!("[\"{MARK}\"]"),
        format!("{{\"{MARK}\":\"{MARK}\"}}"),
        format!("{{\"{}\":1}}", MARK.repeat(10_000)),
        format!("{{\"{MARK}\""),
        format!("[{{\"{MARK}\":{DIGITS}}},\"{MARK}\",{DIGITS}]"),
        nested(100),
        nested(10_000),
    ]
}

/// `body` with `json` instead of the value at `pointer`.
fn with(body: &Value, pointer: &str, json: &str) -> String {
    const PLACE: &str = "the place";
    let mut body = body.clone();
    *body.pointer_mut(pointer).unwrap() = PLACE.into();
    body.to_string().replacen(&format!("\"{PLACE}\""), json, 1)
}

#[test]
fn no_value_of_a_body_is_repeated() {
    let server = server();
    for path in ENDPOINTS {
        let body = valid(path);
        for pointer in pointers(&body) {
            for json in marked() {
                post(&server, path, &with(&body, &pointer, &json));
            }
        }
    }
}

#[test]
fn the_valid_requests_have_all_fields() {
    let document: Value = serde_json::from_str(include_str!("../../../../docs/openapi.json")).unwrap();
    let resolve = |schema: &Value| {
        let reference =
            schema["$ref"].as_str().map(|reference| document.pointer(&reference[1..]).unwrap().clone());
        reference.unwrap_or_else(|| schema.clone())
    };
    for path in ENDPOINTS {
        let schema = &document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"];
        let mut open = vec![(resolve(schema), valid(path))];
        while let Some((schema, value)) = open.pop() {
            for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
                assert!(value.get(name).is_some(), "{path} has a field {name}, which no test here knows");
                open.push((resolve(schema), value[name].clone()));
            }
            if schema["items"].is_object() {
                open.push((resolve(&schema["items"]), value[0].clone()));
            }
        }
    }
}

#[test]
fn no_key_of_a_body_is_repeated() {
    let server = server();
    let long = MARK.repeat(20_000);
    for path in ENDPOINTS {
        let text = valid(path).to_string();
        for key in [MARK, &long, "\\u006d4rk3d", "m4rk3d\\ud800"] {
            // After each brace, so in every object. Unknown keys are ignored, broken ones are not.
            for (at, _) in text.match_indices('{') {
                let (begin, rest) = text.split_at(at + 1);
                for field in [
                    format!("\"{key}\":1,"),
                    format!("\"{key}\","),
                    format!("\"{key}\":1,\"{key}\":"),
                    format!("{key}:1,"),
                ] {
                    post(&server, path, &format!("{begin}{field}{rest}"));
                }
            }
        }
    }
}

#[test]
fn nothing_of_a_truncated_or_overlong_body_is_repeated() {
    let server = server();
    for path in ENDPOINTS {
        let body = valid(path).to_string().replace("alice", MARK);
        for end in 0..body.len() {
            post(&server, path, &body[..end]);
        }
        for rest in [MARK, "{}", "\"m4rk3d\"", "]", "\u{feff}"] {
            post(&server, path, &format!("{body}{rest}"));
            post(&server, path, &format!("{rest}{body}"));
        }
    }
}

#[test]
fn values_of_megabytes_get_short_responses() {
    let server = server();
    let texts = [
        MARK.repeat(LARGE_BYTES / MARK.len()),
        "\u{7f}".repeat(LARGE_BYTES),
        "\\u007f".repeat(LARGE_BYTES / 6),
    ];
    let values = texts.iter().map(|text| format!("\"{text}\""));
    let others = [
        DIGITS.repeat(LARGE_BYTES / DIGITS.len()),
        "[".repeat(LARGE_BYTES),
        format!("{{\"{}\":1}}", texts[0]),
        format!("[{}1]", "1,".repeat(LARGE_BYTES / 2)),
    ];
    for value in values.chain(others) {
        let packed = |path: &str, pointer: &str| {
            let body = with(&valid(path), pointer, &value);
            let response =
                server.connect().post_with(path, "content-encoding: gzip\r\n", &gzip(body.as_bytes()));
            assert!(response.status >= 400, "{}", &value[..20]);
            assert_bounded(&response, &value[..20]);
        };
        packed("/pull", "/max");
        packed("/pull", "/recipient");
        packed("/push", "/meta");
        packed("/push", "/meta/sent_ms");
        packed("/ack", "/ack");
        packed("/ack", "/ack/0");
    }
    let body = with(&valid("/pull"), "/max", &format!("\"{}\"", texts[1]));
    assert_bounded(&server.connect().post_with("/pull", "", body.as_bytes()), "a large body");
}

const FIELDS: [&str; 20] = [
    "content-type",
    "content-encoding",
    "transfer-encoding",
    "content-length",
    "expect",
    "upgrade",
    "connection",
    "host",
    "x-forwarded-for",
    "forwarded",
    "traceparent",
    "authorization",
    "cookie",
    "origin",
    "te",
    "trailer",
    "accept",
    "range",
    "m4rk3d",
    "m4rk3d m4rk3d",
];

#[test]
fn nothing_of_a_field_is_repeated() {
    let server = server();
    let long = MARK.repeat(2000);
    for value in [MARK, "m4rk3d/m4rk3d", "\u{ff}m4rk3d", &long, "m4rk3d, m4rk3d;q=1", "\"m4rk3d", "73459872"]
    {
        for name in FIELDS {
            for path in ["/push", "/health", "/m4rk3d"] {
                let head = format!("POST {path} HTTP/1.1\r\nhost: relay\r\n{name}: {value}\r\n\r\n");
                ask(&server, head.as_bytes(), &head);
            }
        }
    }
}

#[test]
fn nothing_of_a_target_is_repeated() {
    let server = server();
    let methods =
        ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT", "M4RK3D", "m4rk3d"];
    let known = ["/push", "/pull", "/ack", "/health", "/ready", "/stats", "/openapi.json", ""];
    for method in methods {
        for path in known {
            for more in [
                "/m4rk3d",
                "?m4rk3d=m4rk3d",
                "/%6d%34%72%6b%33%64",
                "/\u{7f}m4rk3d",
                "/../m4rk3d",
                "m4rk3d#m4rk3d",
            ] {
                let head = format!("{method} {path}{more} HTTP/1.1\r\nhost: relay\r\n\r\n");
                // A response to HEAD has no body.
                if method != "HEAD" {
                    ask(&server, head.as_bytes(), &head);
                }
            }
        }
    }
    for line in [
        "GET /health HTTP/m4rk3d",
        "m4rk3d",
        "GET m4rk3d HTTP/1.1",
        "GET /m4rk3d",
        "GET http://m4rk3d/m4rk3d HTTP/1.1",
    ] {
        ask(&server, format!("{line}\r\nhost: relay\r\n\r\n").as_bytes(), line);
    }
}
