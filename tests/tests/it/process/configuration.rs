//! Tests of the sources of the configuration, and of the values in force.

use std::path::Path;

use relay_tests::{Process, push_body};

use super::text;
use crate::PROGRAM;

/// Every key with a value other than the default. Lists and paths contain characters that TOML
/// escapes.
const EVERY_KEY: &str = r#"
address = "[::1]:7001"
socket_mode = "0600"
proxy_protocol = ["192.0.2.0/24", "unix"]
listen = [{ address = "unix:/run/relay \"1\".sock", mode = "http", proxy_protocol = [] }, { address = "[::]:443", mode = "tls", proxy_protocol = ["10.0.0.0/8"], tls = { cert_pem_path = "a\"b", key_pem_path = "k", client_ca_pem_path = "c", client_crl_pem_path = "d" } }]
mode = "tls"

[server]
drain_seconds = 0
request_timeout_seconds = 31
keep_alive_seconds = 76
pull_wait_max_ms = 77000
start_wait_seconds = 6
max_connections = 77
max_connections_per_address = 7
max_connection_age_seconds = 78
max_inflight_bytes = 1048576
public_stats = false
allowed_hosts = ["relay.example.org", "*"]

[admin]
address = ""
allowed_hosts = ["relay"]
control_path = ""

[log]
access = "on"
access_addresses = "full"

[tls]
cert_pem_path = "c\"ert.pem"
key_pem_path = "k\\ey.pem"
client_ca_pem_path = "ca\n.pem"
client_crl_pem_path = "crl\t.pem"

[storage]
kind = "memory"
path = "é🦀"
cache_bytes = 2097152
min_free_bytes = 0
max_bytes = 67108864
trust_clock = true

[storage.postgres]
dsn = ""
shards = [{ dsn = "host=db user=relay", slots = "0-199" }, { dsn = "host=db2 user=relay", slots = "200-255" }]
password_path = "password"
tls = "off"
ca_path = "db-ca.pem"
durability = "managed"
write_connections = 5
read_connections = 3

[privacy]
key_path = "a key"
hash_recipients = false

[auth]
locks = false
plain_names = "token"
push = "token"
audiences = ["https://relay.example.org"]
issuer = "https://accounts.example.org"
issuer_jwks_path = "keys.json"

[relay]
max_message_bytes = 1
max_batch_bytes = 2
max_queue_bytes_per_user = 2
max_messages_per_user = 3
message_ttl_seconds = 4
gc_interval_seconds = 5
pull_batch_max = 6
pull_bytes_max = 7
dedup_window_seconds = 0

[rate_limit]
enabled = false
per_ip_rps = 8
burst = 9
max_wait_ms = 15
push_bytes_per_second = 16
push_items_per_second = 17
push_per_recipient_rps = 17
per_name_rps = 18
names_per_address = 19
ban_seconds = 0
ban_threshold = 10
ipv6_prefix = 48
trusted_proxies = ["10.0.0.0/8", "2001:db8::/32", "unix"]
exempt = ["192.0.2.0/24"]
max_tracked_addresses = 11

[rate_limit.endpoints]
push_rps = 12
pull_rps = 13
ack_rps = 14

[cors]
allowed_origins = ["https://app.example.org", "tauri://localhost"]

[wake]
url = "https://push.example.org/wake?a=b"
key_path = "wake\"key"
ca_path = "ca\n.pem"
allow_http = true
grace_ms = 1
confirm_seconds = 2
quiet_seconds = 3
timeout_seconds = 4
attempts = 6
max_queues = 7
max_concurrent_calls = 9
max_calls_per_second = 10
"#;

/// The output of `check-config`, parsed.
fn in_force(arguments: &[&str], environment: &[(&str, &str)]) -> toml::Table {
    checked(arguments, environment).parse().unwrap()
}

fn checked(arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let arguments = [&["check-config"], arguments].concat();
    let ended = Process::run(PROGRAM, &arguments, environment).unwrap();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    ended.stdout
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
}

#[test]
fn the_shipped_file_equals_the_defaults() {
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/relay.toml");
    let defaults = in_force(&[], &[]);
    assert_eq!(defaults, in_force(&["--config", shipped], &[]));
    let mut documented: toml::Table = std::fs::read_to_string(shipped).unwrap().parse().unwrap();
    // All keys of this table are comments.
    assert_eq!(documented.remove("tls"), Some(toml::Table::new().into()));
    assert_eq!(defaults, documented);
}

#[test]
fn the_printed_configuration_can_be_loaded_again() {
    let directory = tempfile::tempdir().unwrap();
    let [given, printed] = ["given.toml", "printed.toml"].map(|name| directory.path().join(name));
    write(&given, EVERY_KEY);
    let first = checked(&["--config", text(&given)], &[]);
    assert_eq!(first.parse::<toml::Table>().unwrap(), EVERY_KEY.parse().unwrap());
    write(&printed, &first);
    assert_eq!(checked(&["--config", text(&printed)], &[]), first);
}

#[test]
fn check_config_prints_warnings_to_standard_error() {
    let arguments = ["check-config"];
    let ended = Process::run(PROGRAM, &arguments, &[("RELAY__STORAGE__KIND", "memory")]).unwrap();
    assert_eq!(ended.status.code(), Some(0));
    assert!(ended.stderr.starts_with("warning: storage.kind: \"memory\" "), "{}", ended.stderr);
    assert!(ended.stdout.contains("\nkind = \"memory\"\n"), "{}", ended.stdout);
}

#[test]
fn the_environment_overrides_the_file_and_the_command_line_overrides_both() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("relay.toml");
    write(
        &file,
        "address = \"127.0.0.1:1\"\nstorage.path = \"f\"\n[relay]\npull_batch_max = 11\npull_bytes_max = 11",
    );
    let environment = [
        ("RELAY__ADDRESS", "127.0.0.1:2"),
        ("RELAY__STORAGE__PATH", "e"),
        ("RELAY__RELAY__PULL_BYTES_MAX", "12"),
        ("RELAY__RATE_LIMIT__TRUSTED_PROXIES", "10.0.0.1, ::1"),
    ];
    let flags = ["--config", text(&file), "--address", "127.0.0.1:3", "--storage-path", "c"];
    let check = |arguments: &[&str], environment: &[(&str, &str)], address: &str, path: &str, bytes: i64| {
        let found = in_force(arguments, environment);
        assert_eq!(found["address"].as_str(), Some(address));
        assert_eq!(found["storage"]["path"].as_str(), Some(path));
        assert_eq!(found["relay"]["pull_bytes_max"].as_integer(), Some(bytes));
        found
    };
    check(&[], &[], "127.0.0.1:7000", "./relay_db", 8_388_608);
    check(&flags[..2], &[], "127.0.0.1:1", "f", 11);
    check(&flags[..2], &environment, "127.0.0.1:2", "e", 12);
    let all = check(&flags, &environment, "127.0.0.1:3", "c", 12);
    assert_eq!(all["relay"]["pull_batch_max"].as_integer(), Some(11));
    assert_eq!(all["relay"]["max_message_bytes"].as_integer(), Some(8_388_608));
    assert_eq!(all["rate_limit"]["trusted_proxies"].to_string(), r#"["10.0.0.1/32", "::1/128"]"#);
    check(&flags[2..], &[], "127.0.0.1:3", "c", 8_388_608);
}

#[test]
fn environment_variables_apply_while_serving() {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("store");
    let environment = [("RELAY__RELAY__MAX_MESSAGE_BYTES", "4"), ("RELAY__STORAGE__PATH", text(&store))];
    let log = directory.path().join("log");
    let process = Process::start_logging(PROGRAM, &[], &environment, &log).unwrap();
    let mut client = process.connect().unwrap();
    assert_eq!(client.post("/push", &push_body("alice", 1, b"1234")).unwrap().status, 200);
    assert_eq!(client.post("/push", &push_body("alice", 2, b"12345")).unwrap().status, 413);
    assert!(store.is_dir());
}
