//! Tests of a full file system. The first test needs no mount: it limits the size of the process's
//! files. The others mount a small file system where that is allowed.

use std::path::Path;
use std::process::{Command, Stdio};

use relay_tests::{Client, Process, ack_body, eventually, pull_body, push_body};

use super::text;

/// 8 MiB, in blocks of 512 bytes, as the shell counts.
const FILE_BLOCKS_MAX: u32 = 16_384;

/// Starts the program with a limit on file sizes. Ignoring the signal turns the limit into a failed
/// write.
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

/// Pushes until the store refuses. Returns how many it took.
fn fill(client: &mut Client) -> u128 {
    for message in 0..10_000 {
        let response = client.post("/push", &push_body("alice", message, &[b'x'; 100_000])).unwrap();
        if response.status != 200 {
            assert!([503, 507].contains(&response.status), "{}", response.json());
            return message;
        }
    }
    panic!("the store never refused a push");
}

fn queued(client: &mut Client) -> u64 {
    let page = client.post("/pull", &pull_body("alice", None, Some(1))).unwrap();
    assert_eq!(page.status, 200, "{}", page.json());
    page.json()["items"].as_array().unwrap().len() as u64
        + page.json()["remaining_estimate"].as_u64().unwrap()
}

#[test]
fn a_full_disk_loses_nothing_and_recovers_without_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let process = start_limited(directory.path());
    let mut client = process.connect().unwrap();
    let stored = fill(&mut client);
    assert!(stored > 10, "only {stored} were stored");
    assert_eq!(u128::from(queued(&mut client)), stored);
    // Once space is free, everything works again without a restart.
    let half: Vec<u128> = (0..stored / 2).collect();
    let acked = client.post("/ack", &ack_body("alice", &half)).unwrap();
    assert_eq!(acked.json()["deleted"], half.len(), "{}", acked.json());
    let fresh = client.post("/push", &push_body("alice", 1 << 64, b"small")).unwrap();
    assert_eq!(fresh.json()["stored"], true, "{}", fresh.json());
    assert_eq!(u128::from(queued(&mut client)), stored - stored / 2 + 1);
}

/// The size of the small file system. The journal preallocates no segment on it, since fewer than
/// four would fit, and grows as it is written.
const SMALL_BYTES: u64 = 96 << 20;

/// Runs a program in its own mount namespace, where `directory` is a file system of so many bytes.
/// Both end with the program.
const MOUNTED: &str = r#"mount -t tmpfs -o size="$1" tmpfs "$2" && shift 2 && exec "$@""#;

/// Payloads of this size are blobs.
const LARGE: usize = 1_000_000;

/// The arguments of `unshare` that this machine allows: as root, or as an ordinary user. `None` if
/// it allows neither.
fn unshare_arguments(directory: &Path) -> Option<&'static [&'static str]> {
    let options: [&[&str]; 2] = [&["-m"], &["-U", "-r", "-m"]];
    options.into_iter().find(|arguments| {
        let tried = Command::new("unshare")
            .args(*arguments)
            .args(["sh", "-c", MOUNTED, "sh", "1048576", text(directory), "true"])
            .stderr(Stdio::null())
            .status();
        tried.is_ok_and(|status| status.success())
    })
}

/// Starts a relay on the small file system, which keeps `min_free_bytes` free, and returns it with
/// its log. `None` if mounting is not allowed.
fn start_mounted(directory: &Path, min_free_bytes: u64) -> Option<(Process, std::path::PathBuf)> {
    let (config, mount, log) = (directory.join("relay.toml"), directory.join("small"), directory.join("log"));
    std::fs::create_dir(&mount).unwrap();
    let lines = format!(
        "storage.min_free_bytes = {min_free_bytes}\nrelay.gc_interval_seconds = 1\n[rate_limit]\nenabled = false\n"
    );
    std::fs::write(&config, lines).unwrap();
    let Some(arguments) = unshare_arguments(&mount) else {
        eprintln!("skipped: this machine does not let the test mount a file system");
        return None;
    };
    let (store, bytes) = (mount.join("store"), SMALL_BYTES.to_string());
    let shell = ["sh", "-c", MOUNTED, "sh", &bytes, text(&mount), crate::PROGRAM];
    let relay = ["--address", "127.0.0.1:0", "--config", text(&config), "--storage-path", text(&store)];
    let process =
        Process::start_logging("unshare", &[arguments, &shell, &relay].concat(), &[], &log).unwrap();
    Some((process, log))
}

/// Fills the file system, then frees space by acks. Returns how many payloads it took.
fn fill_and_ack(process: &Process) -> u128 {
    let mut client = process.connect().unwrap();
    let push = |client: &mut Client, message| {
        let response = client.post("/push", &push_body("alice", message, &[b'x'; LARGE])).unwrap();
        (response.status, response.code())
    };
    let stored = (0..).find(|message| push(&mut client, *message).0 != 200).unwrap();
    for message in stored..stored + 20 {
        assert_eq!(push(&mut client, message), (507, "storage_full".to_owned()));
    }
    assert_eq!(u128::from(queued(&mut client)), stored, "refused pushes are not stored");
    let acked: Vec<u128> = (1..stored).collect();
    let response = client.post("/ack", &ack_body("alice", &acked)).unwrap();
    assert_eq!(response.json()["deleted"], acked.len(), "{}", response.json());
    // The sweep frees the space within a second or two.
    assert!(eventually(|| (push(&mut client, 1 << 64).0 == 200).then_some(())).is_some());
    assert_eq!(queued(&mut client), 2);
    stored
}

#[test]
fn pushes_stop_before_the_file_system_is_full() {
    let directory = tempfile::tempdir().unwrap();
    let Some((mut process, log)) = start_mounted(directory.path(), 40 << 20) else { return };
    let stored = fill_and_ack(&process);
    assert!((40..60).contains(&stored), "{stored} were stored beside an index and what is kept free");
    process.signal("TERM").unwrap();
    assert_eq!(process.wait_a_while().unwrap().code(), Some(0));
    let log = std::fs::read_to_string(log).unwrap();
    for line in ["rejecting pushes", "accepting pushes"] {
        assert_eq!(log.matches(line).count(), 1, "{line}: {log}");
    }
}

#[test]
fn a_completely_full_file_system_still_takes_acks() {
    let directory = tempfile::tempdir().unwrap();
    let Some((process, _)) = start_mounted(directory.path(), 0) else { return };
    let stored = fill_and_ack(&process);
    assert!(stored > 50, "only {stored} were stored");
}
