//! The `openssl` command as a client that shares no code with the relay, and as a maker of keys in
//! old formats. Where it is not installed, its tests say so and end.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use super::pki::{Authority, Files};
use super::relay;

/// Runs `openssl` with this input; none when there is no such command.
pub(super) fn openssl(arguments: &[&str], input: &str) -> Option<Output> {
    let mut command = Command::new("openssl");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut child) = command.spawn() else {
        println!("skipped: there is no openssl here");
        return None;
    };
    // It may have ended before it has read everything.
    drop(child.stdin.take().unwrap().write_all(input.as_bytes()));
    Some(child.wait_with_output().unwrap())
}

/// The major and minor version.
fn version() -> Option<(u32, u32)> {
    let text = String::from_utf8(openssl(&["version"], "")?.stdout).unwrap();
    let mut numbers = text.split(' ').nth(1)?.split('.').map(|number| number.parse().unwrap_or(0));
    Some((numbers.next()?, numbers.next()?))
}

/// Connects with these options, asks for `/health`, and returns all that was said, on both outputs.
fn connect(base_url: &str, files: &Files, options: &[&str]) -> Option<String> {
    let address = base_url.trim_start_matches("https://");
    let ca = files.path().join("ca.pem");
    let common = [
        "s_client",
        "-connect",
        address,
        "-CAfile",
        ca.to_str().unwrap(),
        "-verify_return_error",
        "-ign_eof",
    ];
    let request = "GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let output = openssl(&[&common, options].concat(), request)?;
    Some(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

fn served() -> (relay_tests::Relay, Files) {
    let authority = Authority::new("authority");
    let files = Files::new(&authority.identity());
    files.add("ca.pem", &authority.pem());
    (relay(&files), files)
}

#[test]
fn tls_1_2_and_1_3_are_spoken() {
    let (relay, files) = served();
    for (option, version) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let Some(said) = connect(&relay.base_url, &files, &[option]) else { return };
        assert!(said.contains(&format!("New, {version}, Cipher is ")), "{option}: {said}");
        assert!(said.contains("Verify return code: 0 (ok)"), "{option}: {said}");
        assert!(said.contains("HTTP/1.1 200 OK") && said.contains(r#"{"status":"ok"}"#), "{option}: {said}");
    }
}

#[test]
fn tls_1_1_and_older_is_refused_by_the_relay() {
    let (relay, files) = served();
    for option in ["-tls1_1", "-tls1"] {
        // At its own level of security, openssl would not even ask.
        let options = [option, "-cipher", "ALL:@SECLEVEL=0"];
        let Some(said) = connect(&relay.base_url, &files, &options) else { return };
        assert!(said.contains("Cipher is (NONE)") && !said.contains("HTTP/1.1 200"), "{option}: {said}");
        assert!(said.contains("SSL alert number "), "the relay says no, and not openssl: {option}: {said}");
    }
}

#[test]
fn http_2_is_chosen_before_http_1() {
    let (relay, files) = served();
    for (offered, chosen) in [("h2,http/1.1", "h2"), ("http/1.1,h2", "h2"), ("http/1.1", "http/1.1")] {
        let Some(said) = connect(&relay.base_url, &files, &["-alpn", offered]) else { return };
        assert!(said.contains(&format!("ALPN protocol: {chosen}\n")), "{offered}: {said}");
    }
}

#[test]
fn the_key_exchange_is_safe_from_quantum_computers_if_the_client_is() {
    let (relay, files) = served();
    // Before 3.5, openssl knows no such group; then the client of `handshake` has to do.
    if version().is_none_or(|version| version < (3, 5)) {
        println!("skipped: this openssl is older than 3.5");
        return;
    }
    let said = connect(&relay.base_url, &files, &["-tls1_3"]).unwrap();
    assert!(said.contains("X25519MLKEM768"), "{said}");
}
