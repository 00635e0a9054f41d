//! The `openssl` command as a client that shares no code with the relay, and as a maker of keys in
//! old formats. Without it, these tests are skipped.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use super::pki::{Authority, TlsFiles};
use super::relay;

/// Runs `openssl` with this input; `None` if it is not installed.
pub(super) fn openssl(arguments: &[&str], input: &str) -> Option<Output> {
    let mut command = Command::new("openssl");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut child) = command.spawn() else {
        relay_tests::skip_without("openssl");
        return None;
    };
    // The command may end before it has read everything.
    drop(child.stdin.take().unwrap().write_all(input.as_bytes()));
    Some(child.wait_with_output().unwrap())
}

/// The major and minor version.
fn version() -> Option<(u32, u32)> {
    let text = String::from_utf8(openssl(&["version"], "")?.stdout).unwrap();
    let mut numbers = text.split(' ').nth(1)?.split('.').map(|number| number.parse().unwrap_or(0));
    Some((numbers.next()?, numbers.next()?))
}

/// Connects with these options and gets `/health`. Returns standard output and standard error.
fn connect(base_url: &str, files: &TlsFiles, options: &[&str]) -> Option<String> {
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

fn serve() -> (relay_tests::Relay, TlsFiles) {
    let authority = Authority::new("authority");
    let files = TlsFiles::new(&authority.identity());
    files.add("ca.pem", &authority.pem());
    (relay(&files), files)
}

#[test]
fn tls_1_2_and_1_3_are_supported() {
    let (relay, files) = serve();
    for (option, version) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let Some(output) = connect(&relay.base_url, &files, &[option]) else { return };
        assert!(output.contains(&format!("New, {version}, Cipher is ")), "{option}: {output}");
        assert!(output.contains("Verify return code: 0 (ok)"), "{option}: {output}");
        assert!(
            output.contains("HTTP/1.1 200 OK") && output.contains(r#"{"status":"ok"}"#),
            "{option}: {output}"
        );
    }
}

#[test]
fn tls_1_1_and_older_is_refused_by_the_relay() {
    let (relay, files) = serve();
    for option in ["-tls1_1", "-tls1"] {
        // At its default security level, openssl would not offer this version.
        let options = [option, "-cipher", "ALL:@SECLEVEL=0"];
        let Some(output) = connect(&relay.base_url, &files, &options) else { return };
        assert!(
            output.contains("Cipher is (NONE)") && !output.contains("HTTP/1.1 200"),
            "{option}: {output}"
        );
        assert!(output.contains("SSL alert number "), "openssl refused, not the relay: {option}: {output}");
    }
}

#[test]
fn http_2_is_chosen_before_http_1() {
    let (relay, files) = serve();
    for (offered, chosen) in [("h2,http/1.1", "h2"), ("http/1.1,h2", "h2"), ("http/1.1", "http/1.1")] {
        let Some(output) = connect(&relay.base_url, &files, &["-alpn", offered]) else { return };
        assert!(output.contains(&format!("ALPN protocol: {chosen}\n")), "{offered}: {output}");
    }
}

#[test]
fn the_key_exchange_is_post_quantum_if_the_client_supports_it() {
    let (relay, files) = serve();
    // openssl before 3.5 does not know this group; the tests in `handshake` cover it.
    if version().is_none_or(|version| version < (3, 5)) {
        println!("skipped: this openssl is older than 3.5");
        return;
    }
    let output = connect(&relay.base_url, &files, &["-tls1_3"]).unwrap();
    assert!(output.contains("X25519MLKEM768"), "{output}");
}
