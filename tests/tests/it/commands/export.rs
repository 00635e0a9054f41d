//! Tests of `export` and `import`: an import stores every exported item once and in order, even
//! after interruptions.

use std::os::unix::fs::PermissionsExt;

use relay_core::testing::ManualClock;
use relay_core::{Ack, Limits, Recipient, Relay as _, Timestamp};
use relay_store_redb::{Options, RedbRelay};
use relay_tests::Process;
use relay_tests::process::ProcessOutput;

use super::{LIMIT_BYTES, TestDir, envelope, is_prefix_of, items, open, push};

#[test]
fn exported_items_are_imported_once() {
    let dir = TestDir::with_store();
    let original = dir.queues("store");
    let output = dir.succeeds("store", &["export"], "x");
    assert!(output.contains("/x: 700 items of "), "{output}");
    assert_eq!(dir.path("x").metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!dir.path("x.part").exists());

    let output = dir.succeeds("other", &["import"], "x");
    assert!(output.contains("700 items stored, 0 already known"), "{output}");
    assert_eq!(dir.queues("other"), original);
    let output = dir.succeeds("other", &["import"], "x");
    assert!(output.contains("0 items stored, 700 already known (0 of them"), "{output}");
    assert_eq!(dir.queues("other"), original);
    assert_eq!(dir.queues("store"), original);
}

/// An export of a build before the first release. Stores of such builds are not supported.
const EXPORT_1: &str = concat!(
    r#"{"relay_export":{"version":1,"exported_ms":1767225700000,"last_arrival_number":2000}}"#,
    "\n",
    r#"{"item":{"recipient":"alice","message_id":"00000000-0000-4000-8000-000000000001","chunk_index":0,"chunk_count":1,"#,
    r#""kind":"opaque","total_len":5,"sent_ms":7,"arrival_ms":1767225600000,"deadline_ms":9768435200000,"payload_b64":"aGVsbG8="}}"#,
    "\n",
    r#"{"item":{"recipient":"a \"third\"\n:one","message_id":"00000000-0000-4000-8000-000000000002","chunk_index":1,"chunk_count":3,"#,
    r#""kind":"text","total_len":15,"sent_ms":0,"arrival_ms":1767225601000,"deadline_ms":9768435201000,"payload_b64":"d29ybGQ="}}"#,
    "\n",
    r#"{"end":{"items":2,"payload_bytes":10}}"#,
    "\n",
);

#[test]
fn an_export_of_an_earlier_build_is_imported() {
    let dir = TestDir::new();
    std::fs::write(dir.path("x"), EXPORT_1).unwrap();
    let output = dir.succeeds("store", &["import"], "x");
    assert!(output.contains("2 items stored, 0 already known"), "{output}");
    let queues = dir.queues("store");
    let [alice] = queues["alice"].as_slice() else { panic!("{queues:?}") };
    assert_eq!((&*alice.body, alice.total_len, alice.sent_ms), (&b"hello"[..], 5, 7));
    assert_eq!(alice.arrival.as_ms(), 1_767_225_600_000);
    let [third] = queues["a \"third\"\n:one"].as_slice() else { panic!("{queues:?}") };
    assert_eq!((&*third.body, third.kind.as_str()), (&b"world"[..], "text"));
    assert_eq!((third.chunk.index(), third.chunk.count()), (1, 3));
}

#[test]
fn unreadable_items_are_reported_and_the_rest_is_exported() {
    let dir = TestDir::with_store();
    let mut original = dir.queues("store");
    let payload = original["alice"][77].body.clone();
    let segment = dir.path("store/journal-0000000001.seg");
    let mut bytes = std::fs::read(&segment).unwrap();
    let at = bytes.windows(payload.len()).position(|window| window == payload).unwrap();
    bytes[at] ^= 1;
    std::fs::write(&segment, bytes).unwrap();

    let ended = dir.run("store", &["export"], "x");
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stdout);
    let lines: Vec<&str> = ended.stdout.lines().collect();
    assert!(lines.len() == 2 && lines[0].contains("item 78: "), "{lines:?}");
    assert!(
        lines[1].contains("x: 699 items of ") && lines[1].ends_with("; 1 could not be read"),
        "{lines:?}"
    );
    dir.succeeds("other", &["import"], "x");
    original.get_mut("alice").unwrap().remove(77);
    assert_eq!(dir.queues("other"), original);
}

#[test]
fn a_killed_export_leaves_no_file_and_can_be_repeated() {
    let dir = TestDir::with_store();
    let original = dir.queues("store");
    dir.run_until_killed("store", &["export"], "x", LIMIT_BYTES);
    assert!(!dir.path("x").exists());
    assert_eq!(dir.path("x.part").metadata().unwrap().len(), LIMIT_BYTES);
    assert_eq!(dir.queues("store"), original);

    dir.succeeds("store", &["export"], "x");
    dir.succeeds("other", &["import"], "x");
    assert_eq!(dir.queues("other"), original);
}

/// Runs a bash script that must end with exit code `code`. `$P` is the program, and a failure
/// anywhere in a pipe counts.
fn script(dir: &TestDir, script: &str, code: i32) -> ProcessOutput {
    let script =
        format!("set -o pipefail; cd '{}'; P='{}'; {script}", dir.0.path().display(), crate::PROGRAM);
    let ended = Process::run("bash", &["-c", &script], dir.1).unwrap();
    assert_eq!(ended.status.code(), Some(code), "{script}: {}{}", ended.stdout, ended.stderr);
    ended
}

#[test]
fn export_and_import_work_with_pipes() {
    let dir = TestDir::with_store();
    let original = dir.queues("store");
    dir.succeeds("store", &["export"], "x");
    for (number, pipes) in [
        "$P export - --storage-path store | $P import - --storage-path",
        "$P export /dev/stdout --storage-path store | $P import /dev/stdin --storage-path",
        "$P export - --storage-path store > y; $P import - < y --storage-path",
        "mkfifo p; $P export p --storage-path store & $P import p --storage-path",
        "cat x | gzip > x.gz; $P import <(zcat x.gz) --storage-path",
        "$P export >(gzip > z.gz; mv z.gz done.gz) --storage-path store; until [ -e done.gz ]; do :; done; zcat done.gz | $P import - --storage-path",
    ]
    .iter()
    .enumerate()
    {
        let store = format!("other{number}");
        let ended = script(&dir, &format!("{pipes} {store}"), 0);
        assert!(ended.stdout.contains("700 items stored, 0 already known"), "{pipes}: {}", ended.stdout);
        assert_eq!(dir.queues(&store), original, "{pipes}");
    }
    let written = std::fs::read_to_string(dir.path("y")).unwrap();
    assert!(
        written.starts_with("{\"relay_export\"") && written.ends_with("}}\n"),
        "standard output contains only the export"
    );
    let ended = script(&dir, "$P export - --storage-path store 2>&1 >/dev/null", 0);
    assert!(
        ended.stdout.contains("-: 700 items of "),
        "the summary goes to standard error: {}",
        ended.stdout
    );
}

#[test]
fn a_pipe_is_imported_up_to_its_first_error() {
    let dir = TestDir::with_store();
    let original = dir.queues("store");
    dir.succeeds("store", &["export"], "x");
    let bad = "sed '400s/.*/garbage/' x | $P import - --storage-path other";
    let ended = script(&dir, bad, 1);
    assert!(ended.stderr.contains("standard input, line 400: expected value"), "{}", ended.stderr);
    assert!(ended.stderr.contains("the lines before it are imported"), "{}", ended.stderr);
    let part = dir.queues("other");
    assert!(items(&part) == 398 && is_prefix_of(&part, &original), "{} items", items(&part));

    let ended = script(&dir, "head -n 600 x | $P import - --storage-path other", 1);
    assert!(ended.stderr.contains("line 601: the file ends before its last line"), "{}", ended.stderr);
    let ended = script(&dir, "$P import - --storage-path other < x", 0);
    assert!(ended.stdout.contains("101 items stored, 599 already known"), "{}", ended.stdout);
    assert_eq!(dir.queues("other"), original);
}

#[test]
fn an_invalid_export_creates_no_store() {
    let dir = TestDir::with_store();
    for input in ["</dev/null", "< <(echo garbage)", "< <(:)"] {
        let ended = script(&dir, &format!("$P import - --storage-path other {input}"), 1);
        assert!(ended.stderr.contains("nothing was imported"), "{}", ended.stderr);
        assert!(!dir.path("other").exists());
    }
}

#[test]
fn a_failed_export_leaves_no_file_and_reports_the_error() {
    let dir = TestDir::with_store();
    // With the signal ignored, a file that becomes too long is a write error, as on a full disk.
    let ended = script(&dir, "trap '' XFSZ; ulimit -f 1024; $P export x --storage-path store", 1);
    assert!(ended.stderr.contains("x: File too large"), "{}", ended.stderr);
    assert!(!dir.path("x").exists() && !dir.path("x.part").exists());
    let ended = script(&dir, "$P export - --storage-path store > /dev/full", 1);
    assert!(ended.stderr.contains("No space left on device"), "{}", ended.stderr);
    let ended = script(&dir, "$P export /dev/full --storage-path store", 1);
    assert!(ended.stderr.contains("/dev/full: No space left on device"), "{}", ended.stderr);
    // A reader that stops early makes the export fail.
    let ended = script(&dir, "set +o pipefail; { $P export - --storage-path store; echo $? >&2; } | true", 0);
    assert!(
        ended.stderr.trim_end().ends_with('1') && ended.stderr.contains("Broken pipe"),
        "{}",
        ended.stderr
    );
}

#[test]
fn a_killed_import_can_be_repeated() {
    let dir = TestDir::with_store();
    let original = dir.queues("store");
    dir.succeeds("store", &["export"], "x");
    dir.run_until_killed("other", &["import"], "x", LIMIT_BYTES);
    let part = dir.queues("other");
    assert!(items(&part) >= 200 && is_prefix_of(&part, &original), "{} items", items(&part));
    assert!(items(&part) < items(&original));

    dir.succeeds("other", &["import"], "x");
    assert_eq!(dir.queues("other"), original);
}

#[test]
fn the_number_of_a_bad_line_is_reported_and_nothing_is_imported() {
    let dir = TestDir::with_store();
    dir.succeeds("store", &["export"], "x");
    let text = std::fs::read_to_string(dir.path("x")).unwrap();
    let check = |name: &str, text: String, expected: &str| {
        std::fs::write(dir.path(name), text).unwrap();
        let output = dir.fails("other", &["import"], name);
        assert!(output.contains(expected) && output.ends_with("nothing was imported"), "{output}");
        assert!(!dir.path("other").exists());
    };
    let lines: Vec<&str> = text.lines().collect();
    let changed = |at: usize, line: &str| {
        let mut lines = lines.clone();
        lines[at] = line;
        lines.join("\n") + "\n"
    };
    check("garbage", changed(400, "{\"item\":garbage}"), "garbage, line 401: expected");
    let invalid_base64 = text.lines().nth(9).unwrap().replace("payload_b64\":\"", "payload_b64\":\"?");
    check("base64", changed(9, &invalid_base64), "base64, line 10: payload_b64");
    check("cut", text[..text.len() / 2].to_owned(), ", line ");
    check("ended", text[..text.rfind("{\"end\"").unwrap()].to_owned(), "it is truncated");
    check("missing", changed(5, lines[6]).replace(lines[6], ""), ", line 6: ");
}

#[test]
fn a_quota_stops_an_import_and_a_later_one_continues_in_order() {
    let dir = TestDir::with_store();
    let original = dir.queues("store");
    dir.succeeds("store", &["export"], "x");
    let limit = "[relay]\nmax_messages_per_user = 250\n";
    std::fs::write(dir.path("relay.toml"), limit).unwrap();
    let config = dir.text("relay.toml");
    let output = dir.fails("other", &["--config", &config, "import"], "x");
    assert!(output.contains("x, line 452: the recipient's queue is full by count: 250 of 250"), "{output}");
    let part = dir.queues("other");
    assert!(items(&part) == 450 && is_prefix_of(&part, &original));
    dir.succeeds("other", &["import"], "x");
    assert_eq!(dir.queues("other"), original);
}

#[test]
fn an_import_leaves_the_free_space_that_pushes_leave() {
    let dir = TestDir::with_store();
    let original = dir.queues("store");
    dir.succeeds("store", &["export"], "x");
    // No disk has a petabyte free.
    std::fs::write(dir.path("relay.toml"), "[storage]\nmin_free_bytes = 1_000_000_000_000_000\n").unwrap();
    let config = dir.text("relay.toml");
    let output = dir.fails("other", &["--config", &config, "import"], "x");
    assert!(output.contains("no space left"), "{output}");
    assert_eq!(items(&dir.queues("other")), 0);
    dir.succeeds("other", &["import"], "x");
    assert_eq!(dir.queues("other"), original);
}

#[test]
fn cursors_of_the_other_store_skip_no_imported_item() {
    let dir = TestDir::with_store();
    dir.succeeds("store", &["export"], "x");
    dir.succeeds("other", &["import"], "x");
    let last = open(&dir.path("store")).last_arrival_number();
    let store = open(&dir.path("other"));
    let mut first = None;
    store
        .export(|_, item| {
            first = first.or(Some(item.seq));
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(first, Some(last.next()));
}

#[test]
fn expired_and_acked_items_are_not_imported_again() {
    let dir = TestDir::new();
    {
        // An hour after the epoch: by a trusted clock, all of it has expired.
        let clock = ManualClock::default();
        clock.set(Timestamp::from_ms(3_600_000));
        let path = dir.path("store");
        let store = RedbRelay::open(&path, Limits::default(), std::sync::Arc::new(clock), Options::default());
        push(&store.unwrap(), (0..3).map(|number| envelope("alice", number, 10)));
    }
    let options = Options { trust_clock: true, ..Options::default() };
    let store = RedbRelay::open(
        &dir.path("store"),
        Limits::default(),
        std::sync::Arc::new(relay_bin::SystemClock),
        options,
    );
    push(&store.unwrap(), (3..6).map(|number| envelope("bob", number, 10)));
    assert!(dir.succeeds("store", &["export"], "x").contains("x: 3 items of 30 bytes"));
    {
        let store = open(&dir.path("store"));
        let ack = Ack::new(Recipient::parse("bob").unwrap(), vec![envelope("bob", 4, 0).id()]).unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        assert_eq!(runtime.block_on(store.ack(ack)).unwrap().deleted, 1);
    }
    let output = dir.succeeds("store", &["import"], "x");
    assert!(output.contains("0 items stored, 3 already known"), "{output}");
    assert_eq!(items(&dir.queues("store")), 2);
}

#[test]
fn existing_files_are_not_overwritten_and_missing_stores_are_not_created() {
    let dir = TestDir::with_store();
    std::fs::write(dir.path("x"), "mine").unwrap();
    assert!(dir.fails("store", &["export"], "x").ends_with("exists, and the export does not overwrite it"));
    assert_eq!(std::fs::read_to_string(dir.path("x")).unwrap(), "mine");
    assert!(dir.fails("missing", &["export"], "y").contains("missing cannot be used"));
    assert!(!dir.path("missing").exists() && !dir.path("y").exists() && !dir.path("y.part").exists());
    assert!(dir.fails("missing", &["import"], "nothing").contains("nothing: "));
    assert!(!dir.path("missing").exists());
}
