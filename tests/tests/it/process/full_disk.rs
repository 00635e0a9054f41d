//! The file system takes no more. Here it is the process's own limit on the size of a file that says no, which needs no mount.

use std::path::Path;

use relay_tests::{Client, Process, ack_body, pull_body, push_body};

/// In blocks of 512 bytes, as the shell counts: 8 MiB.
const FILE_BLOCKS_MAX: u32 = 16_384;

/// Starts the program so that no file of it grows beyond the limit. Ignoring the signal turns the limit into a failed write.
const LIMITED: &str = r#"trap "" XFSZ; ulimit -f "$1"; shift; exec "$@""#;

fn start_limited(directory: &Path) -> Process {
    let config = directory.join("relay.toml");
    std::fs::write(&config, "[rate_limit]\nenabled = false\n").unwrap();
    let (config, store) = (config.to_string_lossy(), directory.join("store"));
    let blocks = FILE_BLOCKS_MAX.to_string();
    let store = store.to_string_lossy();
    let shell = ["-c", LIMITED, "sh", &blocks, crate::PROGRAM];
    let relay = ["--address", "127.0.0.1:0", "--config", &config, "--storage-path", &store];
    Process::start("sh", &[&shell[..], &relay[..]].concat()).unwrap()
}

/// Pushes until the store says no. Tells how many it took.
fn fill(client: &mut Client) -> u128 {
    for message in 0..10_000 {
        let answer = client.post("/push", &push_body("alice", message, &[b'x'; 100_000])).unwrap();
        if answer.status != 200 {
            assert!([503, 507].contains(&answer.status), "{}", answer.json());
            return message;
        }
    }
    panic!("the store never said no");
}

fn queued(client: &mut Client) -> u64 {
    let page = client.post("/pull", &pull_body("alice", None, Some(1))).unwrap();
    assert_eq!(page.status, 200, "{}", page.json());
    page.json()["items"].as_array().unwrap().len() as u64
        + page.json()["remaining_estimate"].as_u64().unwrap()
}

#[test]
fn a_full_disk_loses_nothing_and_heals_without_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let process = start_limited(directory.path());
    let mut client = process.connect().unwrap();
    let stored = fill(&mut client);
    assert!(stored > 10, "only {stored} were stored");
    assert_eq!(u128::from(queued(&mut client)), stored);
    // Once there is room again, everything goes on by itself.
    let half: Vec<u128> = (0..stored / 2).collect();
    let acked = client.post("/ack", &ack_body("alice", &half)).unwrap();
    assert_eq!(acked.json()["deleted"], half.len(), "{}", acked.json());
    let again = client.post("/push", &push_body("alice", 1 << 64, b"small")).unwrap();
    assert_eq!(again.json()["stored"], true, "{}", again.json());
    assert_eq!(u128::from(queued(&mut client)), stored - stored / 2 + 1);
}
