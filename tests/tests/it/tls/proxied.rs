//! Tests of TLS behind a proxy that speaks the PROXY protocol, and of several addresses with
//! certificates of their own.

use relay_bin::config::{ListenConfig, Mode};
use relay_tests::Process;

use super::pki::{Authority, TlsFiles};
use super::relay_with;
use super::wire::{ask, ask_after};
use crate::PROGRAM;

#[test]
fn the_header_comes_before_the_handshake() {
    let authority = Authority::new("authority");
    let files = TlsFiles::new(&authority.identity());
    let relay = relay_with(&files, |config| config.proxy_protocol = vec!["127.0.0.1/32".parse().unwrap()]);
    let client = authority.client(None);
    let header = b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n";
    assert!(ask_after(header, &relay.base_url, &client).unwrap().is_ok());
    assert!(ask(&relay.base_url, &client).is_err());
}

#[test]
fn each_address_shows_its_own_certificate_and_all_are_reloaded() {
    let authority = Authority::new("authority");
    let (first, second) = (TlsFiles::new(&authority.identity()), TlsFiles::new(&authority.identity()));
    let client = authority.client(None);
    let table = format!(
        "listen = [{{ address = \"127.0.0.1:0\", mode = \"tls\", tls = {{ cert_pem_path = {:?}, key_pem_path = {:?} }} }}]\n",
        second.cert, second.key
    );
    let text = format!("storage.kind = \"memory\"\n{table}{}", first.lines());
    let config = first.add("relay.toml", &text);
    let log = config.with_file_name("log");
    let process =
        Process::start_logging(PROGRAM, &["--config", config.to_str().unwrap()], &[], &log).unwrap();
    let lines = std::fs::read_to_string(log).unwrap();
    let line = lines.lines().find(|line| line.contains("listening on several addresses")).unwrap();
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    let other = line["urls"].as_str().unwrap().split(' ').nth(1).unwrap().to_owned();
    let shown = |url: &str| ask(url, &client).unwrap().certificate;
    let replaced = authority.identity();
    assert_ne!(shown(&process.base_url), shown(&other));
    second.replace(&replaced);
    process.signal("HUP").unwrap();
    let is_new = || (shown(&other) == replaced.cert_der()).then_some(());
    assert!(relay_tests::eventually(is_new).is_some(), "the second certificate is reloaded");
    assert_ne!(shown(&process.base_url), replaced.cert_der());
}

#[test]
fn addresses_without_a_certificate_share_that_of_the_relay() {
    let authority = Authority::new("authority");
    let files = TlsFiles::new(&authority.identity());
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("relay.sock");
    let relay = relay_with(&files, |config| {
        config.listen = vec![ListenConfig {
            address: format!("unix:{}", path.display()),
            mode: Mode::Tls,
            proxy_protocol: Vec::new(),
            tls: None,
        }];
    });
    let client = authority.client(None);
    assert!(ask(&relay.base_url, &client).unwrap().is_ok());
    let mut connection = rustls::ClientConnection::new(client, "127.0.0.1".try_into().unwrap()).unwrap();
    let mut socket = std::os::unix::net::UnixStream::connect(&path).unwrap();
    // Fails unless the relay shows a certificate of the authority.
    while connection.is_handshaking() {
        connection.complete_io(&mut socket).unwrap();
    }
}
