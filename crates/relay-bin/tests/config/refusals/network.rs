//! Tests refused addresses, host names, origins, networks and TLS files.

use relay_bin::config::{RelayConfig, TlsConfig};

use crate::{CERTS, Given, env, file, flags};

#[test]
fn every_invalid_network_is_listed() {
    let line = |found: &str, origin: &str| {
        format!(
            "rate_limit.trusted_proxies: must list networks such as \"10.0.0.0/8\" or \"2001:db8::/32\", or single addresses, found {found} ({origin})"
        )
    };
    file("rate_limit.trusted_proxies = [\"10.0.0.0/33\", \"10.0.0.1\", \"proxy\", 7]").refused(&[
        &line("\"10.0.0.0/33\"", "relay.toml line 1"),
        &line("\"proxy\"", "relay.toml line 1"),
        &line("7", "relay.toml line 1"),
    ]);
    env(&[("RELAY__RATE_LIMIT__TRUSTED_PROXIES", "10.0.0.1,,::1")])
        .refused(&[&line("\"\"", "environment variable RELAY__RATE_LIMIT__TRUSTED_PROXIES")]);
}

#[test]
fn an_address_is_a_host_and_a_port() {
    for good in ["127.0.0.1:0", "[::1]:7000", "localhost:7000", "relay-1.example.org:443", "my_relay:65535"] {
        assert_eq!(flags(&["--address", good]).load().unwrap().config.address, good);
    }
    let shape = "address: must be host:port, such as 127.0.0.1:7000, [::1]:7000 or localhost:7000;";
    for (bad, why) in [
        ("localhost", "\"localhost\" has no port"),
        ("localhost:", "\"localhost:\" has no port from 0 to 65535"),
        ("localhost:+1", "\"localhost:+1\" has no port from 0 to 65535"),
        ("127.0.0.1:65536", "\"127.0.0.1:65536\" has no port from 0 to 65535"),
        (":7000", "\":7000\" has no valid host name or IP address"),
        ("*:7000", "\"*:7000\" has no valid host name or IP address"),
        ("a..b:7000", "\"a..b:7000\" has no valid host name or IP address"),
        (" localhost:7000", "\" localhost:7000\" has no valid host name or IP address"),
        ("300.0.0.1:7000", "\"300.0.0.1:7000\" has no valid host name or IP address"),
        ("::1:7000", "\"::1:7000\" is not an IPv6 address in brackets with a port"),
        ("[::g]:7000", "\"[::g]:7000\" is not an IPv6 address in brackets with a port"),
        ("http://localhost:7000", "\"http://localhost:7000\" is a URL"),
        ("", "it is empty"),
    ] {
        flags(&["--address", bad]).refused(&[&format!("{shape} {why} (command line --address)")]);
    }
}

#[test]
fn an_address_may_be_a_socket_of_this_machine() {
    for good in ["unix:/run/relay/relay.sock", "systemd:relay.socket"] {
        assert_eq!(flags(&["--address", good]).load().unwrap().config.address, good);
    }
    let long = format!("unix:/{}", "x".repeat(90));
    for (bad, why) in [
        (
            "unix:relay.sock",
            "must be unix: and an absolute path; \"relay.sock\" is not the absolute path of a socket",
        ),
        (
            &*long,
            "must be unix: and an absolute path; \"/xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...\" has 91 bytes, \
             and a Unix socket may have 90 here",
        ),
        (
            "systemd:a b",
            "must be systemd: and the name of a socket (FileDescriptorName=, or the name of its unit, such as relay.socket); \
             \"a b\" is none",
        ),
    ] {
        flags(&["--address", bad]).refused(&[&format!("address: {why} (command line --address)")]);
    }
    file("admin.address = \"unix:/run/admin.sock\"").refused(&[
        "admin.address: must be host:port, such as 127.0.0.1:7000, [::1]:7000 or localhost:7000; \
         \"unix:/run/admin.sock\" has no port from 0 to 65535 (relay.toml line 1)",
    ]);
    file("socket_mode = \"rw-rw----\"").refused(&[
        "socket_mode: must be permissions in octal digits such as \"0660\", found \"rw-rw----\" (relay.toml line 1)",
    ]);
}

#[test]
fn further_addresses_are_checked_as_the_first_one() {
    let line = |message: &str| format!("listen: {message} (relay.toml line 1)");
    for (tables, message) in [
        (
            "1",
            "must be a list of at most 64 tables such as [{ address = \"[::]:443\", mode = \"tls\" }, ...], found 1",
        ),
        ("[{ mode = \"tls\" }]", "table 1 has no address"),
        ("[{ address = 1 }]", "table 1 must have a text as address, found 1"),
        (
            "[{ address = \"a:1\", x = 1 }]",
            "table 1 has the unknown key \"x\"; it has: address, mode, proxy_protocol, tls",
        ),
        (
            "[{ address = \"a:1\", mode = \"quic\" }]",
            "table 1 must have \"http\" or \"tls\" as mode, found \"quic\"",
        ),
        (
            "[{ address = \"a:1\", proxy_protocol = [\"x\"] }]",
            "table 1 has a proxy_protocol that must list networks such as \"10.0.0.0/8\" or \"2001:db8::/32\", or single addresses, found \"x\"",
        ),
        (
            "[{ address = \"a:1\", tls = { cert = 1 } }]",
            "table 1 has the unknown key \"cert\" in tls; it has: cert_pem_path, key_pem_path, client_ca_pem_path, client_crl_pem_path",
        ),
        (
            "[{ address = \"unix:a\" }]",
            "table 1: address must be unix: and an absolute path; \"a\" is not the absolute path of a socket",
        ),
        (
            "[{ address = \"127.0.0.1:7000\" }]",
            "table 1 has the address of another listener, \"127.0.0.1:7000\"",
        ),
        (
            "[{ address = \"a:1\" }, { address = \"a:1\" }]",
            "table 2 has the address of another listener, \"a:1\"",
        ),
        (
            "[{ address = \"a:1\", tls = { cert_pem_path = \"c\" } }]",
            "table 1: tls.cert_pem_path: is set, but mode = \"http\" would serve clear text; set mode = \"tls\", or remove the key",
        ),
        (
            "[{ address = \"a:1\", mode = \"tls\", tls = { cert_pem_path = \"c\" } }]",
            "table 1: tls.key_pem_path: must be the path of a PEM file when mode = \"tls\"; it is missing or empty",
        ),
    ] {
        file(&format!("listen = {tables}")).refused(&[&line(message)]);
    }
}

#[test]
fn further_addresses_need_a_certificate_and_may_replace_the_first_one() {
    let missing = "must be the path of a PEM file when mode = \"tls\"; it is missing or empty";
    file("listen = [{ address = \"a:1\", mode = \"tls\" }]")
        .refused(&[&format!("tls.cert_pem_path: {missing}"), &format!("tls.key_pem_path: {missing}")]);
    let off = "address = \"\"\nadmin.address = \"\"\nlisten = [{ address = \"127.0.0.1:1\" }]";
    assert_eq!(file(off).load().unwrap().warnings, Vec::<String>::new());
    file("admin.address = \"127.0.0.1:1\"\nlisten = [{ address = \"127.0.0.1:1\" }]").refused(&[
        "admin.address: must not be the public address; clients could read the counters (relay.toml line 1)",
    ]);
}

#[test]
fn the_admin_address_differs_from_the_public_one() {
    let shape = "admin.address: must be host:port, such as 127.0.0.1:7000, [::1]:7000 or localhost:7000;";
    file("admin.address = \"7001\"").refused(&[&format!("{shape} \"7001\" has no port (relay.toml line 1)")]);
    file("admin.address = \"127.0.0.1:7000\"").refused(&[
        "admin.address: must not be the public address; clients could read the counters (relay.toml line 1)",
    ]);
    for good in ["", "127.0.0.1:0", "localhost:9"] {
        let given = format!("admin.address = {good:?}");
        let both = Given { file: &given, flags: &["--address", "127.0.0.1:0"], env: &[] };
        assert_eq!(both.load().unwrap().config.admin.address, good);
    }
}

#[test]
fn tls_requires_its_files() {
    let missing = "must be the path of a PEM file when mode = \"tls\"; it is missing or empty";
    file("mode = \"tls\"")
        .refused(&[&format!("tls.cert_pem_path: {missing}"), &format!("tls.key_pem_path: {missing}")]);
    file("mode = \"tls\"\n[tls]\ncert_pem_path = \"c\"\nkey_pem_path = \"\"\nclient_ca_pem_path = \"\"")
        .refused(&[
            &format!("tls.key_pem_path: {missing} (relay.toml line 4)"),
            "tls.client_ca_pem_path: must be a path; it is empty (relay.toml line 5)",
        ]);
    // A path of the wrong type is not also reported as missing.
    file("mode = \"tls\"\n[tls]\ncert_pem_path = 1\nkey_pem_path = \"k\"")
        .refused(&["tls.cert_pem_path: must be text, found 1 (relay.toml line 3)"]);
    let config = file(&format!("mode = \"tls\"\n{CERTS}")).load().unwrap().config;
    let tls = TlsConfig {
        cert_pem_path: "cert.pem".into(),
        key_pem_path: "key.pem".into(),
        client_ca_pem_path: None,
        client_crl_pem_path: None,
    };
    assert_eq!(config.tls, Some(tls));
}

#[test]
fn files_of_tls_are_refused_in_http_mode() {
    let line = |key: &str, origin: &str| {
        format!(
            "{key}: is set, but mode = \"http\" would serve clear text; set mode = \"tls\", or remove the key ({origin})"
        )
    };
    file(CERTS).refused(&[
        &line("tls.cert_pem_path", "relay.toml line 2"),
        &line("tls.key_pem_path", "relay.toml line 3"),
    ]);
    for key in ["client_ca_pem_path", "client_crl_pem_path"] {
        let variable = format!("RELAY__TLS__{}", key.to_uppercase());
        env(&[(&variable, "ca.pem")])
            .refused(&[&line(&format!("tls.{key}"), &format!("environment variable {variable}"))]);
    }
    // An empty path counts as not set.
    file("[tls]\ncert_pem_path = \"\"").warned(&[]);
}

#[test]
fn revocation_lists_require_authorities() {
    file(&format!("mode = \"tls\"\n{CERTS}client_crl_pem_path = \"crl.pem\"")).refused(&[
        "tls.client_crl_pem_path: needs tls.client_ca_pem_path: without authorities, no client needs a certificate (relay.toml line 5)",
    ]);
    file(&format!("mode = \"tls\"\n{CERTS}client_ca_pem_path = \"ca\"\nclient_crl_pem_path = \"\""))
        .refused(&["tls.client_crl_pem_path: must be a path; it is empty (relay.toml line 6)"]);
}

#[test]
fn ipv4_networks_written_as_ipv6_become_ipv4() {
    let proxies = |text: &str| file(text).load().map(|loaded| loaded.config.rate_limit.trusted_proxies);
    let written =
        "rate_limit.trusted_proxies = [\"::ffff:10.0.0.0/104\", \"::ffff:192.0.2.1\", \"::ffff:0:0/96\"]";
    let expected = ["10.0.0.0/8", "192.0.2.1/32", "0.0.0.0/0"].map(|network| network.parse().unwrap());
    assert_eq!(proxies(written).unwrap(), expected);
    let line = |found: &str| {
        format!(
            "rate_limit.trusted_proxies: must list IPv4 networks in the form \"10.0.0.0/8\", found \"{found}\""
        )
    };
    // This network contains more than IPv4 addresses, so it stays IPv6.
    file("rate_limit.trusted_proxies = [\"::ffff:10.0.0.0/90\"]")
        .refused(&[&format!("{} (relay.toml line 1)", line("::ffff:10.0.0.0/90"))]);
    let mut config = RelayConfig::default();
    config.rate_limit.trusted_proxies = vec!["::ffff:10.0.0.0/104".parse().unwrap()];
    assert_eq!(config.validate().unwrap_err().to_string(), line("::ffff:10.0.0.0/104"));
}

#[test]
fn host_names_and_origins_that_no_browser_sends_are_refused() {
    for name in ["", "relay:7000", "http://relay", "*.example.org", "a b", "::1", "r\u{e4}"] {
        for key in ["server.allowed_hosts", "admin.allowed_hosts"] {
            file(&format!("{key} = [\"good.example\", {name:?}]")).refused(&[&format!(
                "{key}: must list host names such as \"relay.example.org\", without a port, or \"*\" for any, found {name:?} (relay.toml line 1)"
            )]);
        }
    }
    for origin in ["", "*", "null", "app.example.org", "https://app.example.org/", "https://*.example.org"] {
        file(&format!("cors.allowed_origins = [{origin:?}]")).refused(&[&format!(
            "cors.allowed_origins: must list origins such as \"https://app.example.org\" or \"tauri://localhost\", without a path, found {origin:?} (relay.toml line 1)"
        )]);
    }
    file("cors.allowed_origins = [7]")
        .refused(&["cors.allowed_origins: must be a list of texts, found 7 in it (relay.toml line 1)"]);
    file("admin.allowed_hosts = \"relay\"").refused(&[
        "admin.allowed_hosts: must be a list of texts, found the text \"relay\" (relay.toml line 1)",
    ]);
}

#[test]
fn the_path_of_the_control_socket_fits_into_an_address() {
    for bytes in [107, 108] {
        let given = format!("admin.control_path = {:?}", "s".repeat(bytes));
        match file(&given) {
            fits if bytes == 107 => drop(fits.load().unwrap()),
            too_long => too_long.refused(&[
                "admin.control_path: has 108 bytes, and the path of a socket has at most 107; choose a shorter one (relay.toml line 1)",
            ]),
        }
    }
}
