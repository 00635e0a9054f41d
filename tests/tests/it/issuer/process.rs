//! The issuer's keys while the relay serves, what the log says, and `check-token`.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use relay_tests::{Client, Process, eventually, pull_body};
use serde_json::json;

use super::{AUDIENCE, ISSUER, Issuer, outcome, post};
use crate::PROGRAM;

/// A process with this issuer, which logs at trace.
struct Logged {
    process: Process,
    log: PathBuf,
}

fn configuration(issuer: &Issuer) -> PathBuf {
    let path = issuer.directory().join("relay.toml");
    let text = format!(
        "storage.kind = \"memory\"\nrate_limit.enabled = false\n[auth]\nplain_names = \"token\"\n\
         audiences = [\"{AUDIENCE}\"]\nissuer = \"{ISSUER}\"\nissuer_jwks_path = {:?}\n",
        issuer.path()
    );
    std::fs::write(&path, text).unwrap();
    path
}

impl Logged {
    fn start(issuer: &Issuer) -> Self {
        let (config, log) = (configuration(issuer), issuer.directory().join("log"));
        let arguments = ["--config", config.to_str().unwrap()];
        let environment = [("RUST_LOG", "trace")];
        let process = Process::start_logging(PROGRAM, &arguments, &environment, &log).unwrap();
        Self { process, log }
    }

    fn connect(&self) -> Client {
        self.process.connect().unwrap()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    fn await_log(&self, words: &str, count: usize) {
        let is_logged = || (self.log().matches(words).count() >= count).then_some(());
        assert!(eventually(is_logged).is_some(), "{words}: {}", self.log());
    }
}

fn pull(client: &mut Client, proof: &str) -> (u16, String) {
    outcome(&post(client, "/pull", &pull_body("bob", None, None), proof))
}

const UNUSABLE: &str = "new keys of the issuer cannot be used; the old ones stay in use";

#[test]
fn keys_are_replaced_without_a_restart() {
    let issuer = Issuer::new();
    let old = issuer.reader("bob");
    let relay = Logged::start(&issuer);
    let mut client = relay.connect();
    assert_eq!(pull(&mut client, &old).0, 200);
    let issuer = issuer.with_key(8, "second");
    let new = issuer.reader("bob");
    assert_eq!(pull(&mut client, &new), (403, "unknown_key".to_owned()));
    issuer.publish(&[issuer.jwk()]);
    relay.await_log("new keys of the issuer are in use", 1);
    // The same connection, and a token that was verified before.
    assert_eq!(pull(&mut client, &old), (403, "unknown_key".to_owned()));
    assert_eq!(pull(&mut client, &new).0, 200);
}

#[test]
fn unusable_keys_leave_the_old_ones_in_use_and_are_logged_once() {
    let issuer = Issuer::new();
    let token = issuer.reader("bob");
    let relay = Logged::start(&issuer);
    let mut client = relay.connect();
    let private = json!({"kty": "OKP", "crv": "Ed25519", "kid": "x", "x": "secret-x", "d": "secret-d"});
    issuer.publish(&[issuer.jwk(), private]);
    relay.await_log(UNUSABLE, 1);
    assert_eq!(pull(&mut client, &token).0, 200);
    std::fs::remove_file(issuer.path()).unwrap();
    relay.await_log(UNUSABLE, 2);
    std::fs::create_dir(issuer.path()).unwrap();
    relay.await_log(UNUSABLE, 3);
    // Requests to reload are answered each time; without one, nothing repeats.
    relay.process.signal("HUP").unwrap();
    relay.await_log(UNUSABLE, 4);
    std::fs::remove_dir(issuer.path()).unwrap();
    issuer.publish(&[issuer.jwk()]);
    relay.await_log("new keys of the issuer are in use", 1);
    relay.process.signal("HUP").unwrap();
    relay.await_log("the issuer's keys have not changed", 1);
    assert_eq!(pull(&mut client, &token).0, 200);
    let log = relay.log();
    assert_eq!(log.matches(UNUSABLE).count(), 4, "{log}");
    assert!(log.contains("has a key, number 2, that is not public") && !log.contains("secret-"), "{log}");
}

#[test]
fn a_relay_does_not_start_without_usable_keys() {
    let issuer = Issuer::new();
    let config = configuration(&issuer);
    for keys in ["", "{}", "{\"keys\":[]}"] {
        std::fs::write(issuer.path(), keys).unwrap();
        let output = Process::run(PROGRAM, &["--config", config.to_str().unwrap()], &[]).unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", output.stderr);
        assert!(output.stderr.contains(issuer.path().to_str().unwrap()), "{}", output.stderr);
    }
}

#[test]
fn no_log_has_a_token_or_a_name_of_it() {
    let issuer = Issuer::new();
    let mut relay = Logged::start(&issuer);
    let mut client = relay.connect();
    let name = "a-recipient-that-nobody-else-has";
    let expired =
        json!({"iss": ISSUER, "aud": AUDIENCE, "exp": 1, "relay": {"read": [name]}, "sub": "a-subject"});
    let tokens = [issuer.reader(name), issuer.reader("bob"), issuer.token(&expired)];
    for token in tokens.iter().map(String::as_str).chain(["a-malformed.token-of.some-kind"]) {
        post(&mut client, "/pull", &pull_body(name, None, None), token);
    }
    relay.process.signal("HUP").unwrap();
    relay.await_log("the issuer's keys have not changed", 1);
    relay.process.signal("TERM").unwrap();
    assert_eq!(relay.process.wait_a_while().unwrap().code(), Some(0));
    let log = relay.log();
    assert!(log.contains("answered"), "the log is at trace");
    let x = issuer.jwk()["x"].as_str().unwrap().to_owned();
    let parts = tokens.iter().flat_map(|token| token.split('.'));
    for word in parts.chain([name, "a-subject", "a-malformed", "token-of", &x, ISSUER]) {
        assert!(!log.contains(word), "{word} is in the log");
    }
}

#[test]
fn check_token_knows_the_issuer_of_the_configuration() {
    let issuer = Issuer::new();
    let config = configuration(&issuer);
    let check = |proof: &str| {
        let mut command = Command::new(PROGRAM);
        command.args(["--config", config.to_str().unwrap(), "check-token", "bob"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(proof.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    };
    assert_eq!(check(&issuer.reader("bob")), (Some(0), "the proof opens the recipient\n".to_owned()));
    for (proof, reason) in [
        (issuer.reader("carol"), "wrong_proof"),
        (Issuer::new().with_key(9, "first").reader("bob"), "wrong_signature"),
        (Issuer::new().with_key(9, "other").reader("bob"), "unknown_key"),
        ("a.b.c".to_owned(), "malformed_proof"),
    ] {
        let (code, output) = check(&proof);
        assert!(
            code == Some(1) && output.contains(&format!("({reason})")) && !output.contains(&proof),
            "{output}"
        );
    }
    std::fs::remove_file(issuer.path()).unwrap();
    let (code, output) = check(&issuer.reader("bob"));
    assert!(code == Some(1) && output.contains("keys.json"), "{output}");
}
