//! The restore drill of docs/operations.md works as it is printed.

use std::process::Command;

use relay_tests::{Process, push_body};

use super::TestDir;

const DOCUMENT: &str = include_str!("../../../../docs/operations.md");

#[test]
#[expect(clippy::disallowed_methods, reason = "the shell needs the search path of the test")]
fn the_restore_drill_of_the_document_works() {
    let (_, drill) = DOCUMENT.split_once("**A restore drill**").unwrap();
    let block = drill.split("```sh\n").nth(1).unwrap().split_once("```").unwrap().0;
    // Hashed recipients, so the restored store needs the key of the backup.
    let dir = TestDir::hashing();
    let relay = Process::start_on(crate::PROGRAM, dir.0.path(), &[]).unwrap();
    let mut client = relay.connect().unwrap();
    for message in 0..20 {
        let response = client.post("/push", &push_body("alice", message, b"payload")).unwrap();
        assert_eq!(response.status, 200);
    }
    dir.succeeds("store", &["backup"], "backup/monday");
    std::fs::write(dir.path("relay.toml"), format!("storage.path = {:?}\n", dir.text("store"))).unwrap();
    std::os::unix::fs::symlink(crate::PROGRAM, dir.path("relay-bin")).unwrap();
    let block = block.replace("/etc/relay", &dir.text("")).replace("/srv", &dir.text(""));
    let mut shell = Command::new("sh");
    let path = format!("{}:{}", dir.text(""), std::env::var("PATH").unwrap());
    let output = shell.args(["-ec", &block]).env("PATH", path).output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stdout}\n{stderr}");
    for expected in ["with a key file; 0 corrupt", "20 items", "0 findings"] {
        assert!(stdout.contains(expected), "{expected}: {stdout}\n{stderr}");
    }
    assert!(!dir.path("drill").exists() && dir.path("backup/tuesday").exists());
}
