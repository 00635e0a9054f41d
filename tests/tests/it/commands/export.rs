//! `export` and `import`: what comes out goes in again, once, in order, and whatever happens on the
//! way.

use std::os::unix::fs::PermissionsExt;

use relay_core::testing::ManualClock;
use relay_core::{Ack, Limits, Recipient, Relay as _, Timestamp};
use relay_store_redb::{Options, RedbRelay};
use relay_tests::Process;
use relay_tests::process::Ended;

use super::{LIMIT_BYTES, Place, envelope, is_front_of, items, open, push};

#[test]
fn what_was_exported_is_imported_once() {
    let place = Place::filled();
    let whole = place.queues("store");
    let told = place.done("store", &["export"], "x");
    assert!(told.contains("/x: 700 items of "), "{told}");
    assert_eq!(place.path("x").metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!place.path("x.part").exists());

    let told = place.done("other", &["import"], "x");
    assert!(told.contains("700 items stored, 0 known already"), "{told}");
    assert_eq!(place.queues("other"), whole);
    let told = place.done("other", &["import"], "x");
    assert!(told.contains("0 items stored, 700 known already (0 of them"), "{told}");
    assert_eq!(place.queues("other"), whole);
    assert_eq!(place.queues("store"), whole);
}

/// As builds from before the first release wrote it, whose stores are not read.
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
fn what_an_earlier_build_has_exported_is_imported() {
    let place = Place::new();
    std::fs::write(place.path("x"), EXPORT_1).unwrap();
    let told = place.done("store", &["import"], "x");
    assert!(told.contains("2 items stored, 0 known already"), "{told}");
    let queues = place.queues("store");
    let [alice] = queues["alice"].as_slice() else { panic!("{queues:?}") };
    assert_eq!((&*alice.body, alice.total_len, alice.sent_ms), (&b"hello"[..], 5, 7));
    assert_eq!(alice.arrival.as_ms(), 1_767_225_600_000);
    let [third] = queues["a \"third\"\n:one"].as_slice() else { panic!("{queues:?}") };
    assert_eq!((&*third.body, third.kind.as_str()), (&b"world"[..], "text"));
    assert_eq!((third.chunk.index(), third.chunk.count()), (1, 3));
}

#[test]
fn what_cannot_be_read_is_told_and_the_rest_is_written() {
    let place = Place::filled();
    let mut whole = place.queues("store");
    let payload = whole["alice"][77].body.clone();
    let segment = place.path("store/journal-0000000001.seg");
    let mut bytes = std::fs::read(&segment).unwrap();
    let at = bytes.windows(payload.len()).position(|window| window == payload).unwrap();
    bytes[at] ^= 1;
    std::fs::write(&segment, bytes).unwrap();

    let ended = place.run("store", &["export"], "x");
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stdout);
    let lines: Vec<&str> = ended.stdout.lines().collect();
    assert!(lines.len() == 2 && lines[0].contains("item 78: "), "{lines:?}");
    assert!(
        lines[1].contains("x: 699 items of ") && lines[1].ends_with("; 1 could not be read"),
        "{lines:?}"
    );
    place.done("other", &["import"], "x");
    whole.get_mut("alice").unwrap().remove(77);
    assert_eq!(place.queues("other"), whole);
}

#[test]
fn an_export_that_was_killed_has_no_file_and_is_repeated() {
    let place = Place::filled();
    let whole = place.queues("store");
    place.killed("store", &["export"], "x", LIMIT_BYTES);
    assert!(!place.path("x").exists());
    assert_eq!(place.path("x.part").metadata().unwrap().len(), LIMIT_BYTES);
    assert_eq!(place.queues("store"), whole);

    place.done("store", &["export"], "x");
    place.done("other", &["import"], "x");
    assert_eq!(place.queues("other"), whole);
}

/// Runs a script of bash, in which `$P` is the program; everything in its pipes has to end well.
fn script(place: &Place, script: &str, code: i32) -> Ended {
    let script =
        format!("set -o pipefail; cd '{}'; P='{}'; {script}", place.0.path().display(), crate::PROGRAM);
    let ended = Process::run("bash", &["-c", &script], &[]).unwrap();
    assert_eq!(ended.status.code(), Some(code), "{script}: {}{}", ended.stdout, ended.stderr);
    ended
}

#[test]
fn both_ends_take_pipes() {
    let place = Place::filled();
    let whole = place.queues("store");
    place.done("store", &["export"], "x");
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
        let ended = script(&place, &format!("{pipes} {store}"), 0);
        assert!(ended.stdout.contains("700 items stored, 0 known already"), "{pipes}: {}", ended.stdout);
        assert_eq!(place.queues(&store), whole, "{pipes}");
    }
    let written = std::fs::read_to_string(place.path("y")).unwrap();
    assert!(written.starts_with("{\"relay_export\"") && written.ends_with("}}\n"), "nothing else is in it");
    let ended = script(&place, "$P export - --storage-path store 2>&1 >/dev/null", 0);
    assert!(ended.stdout.contains("-: 700 items of "), "the sum is told elsewhere: {}", ended.stdout);
}

#[test]
fn a_pipe_is_imported_up_to_its_first_mistake() {
    let place = Place::filled();
    let whole = place.queues("store");
    place.done("store", &["export"], "x");
    let bad = "sed '400s/.*/garbage/' x | $P import - --storage-path other";
    let ended = script(&place, bad, 1);
    assert!(ended.stderr.contains("standard input, line 400: expected value"), "{}", ended.stderr);
    assert!(ended.stderr.contains("what stands before it is imported"), "{}", ended.stderr);
    let part = place.queues("other");
    assert!(items(&part) == 398 && is_front_of(&part, &whole), "{} items", items(&part));

    let ended = script(&place, "head -n 600 x | $P import - --storage-path other", 1);
    assert!(ended.stderr.contains("line 601: the file ends before its last line"), "{}", ended.stderr);
    let ended = script(&place, "$P import - --storage-path other < x", 0);
    assert!(ended.stdout.contains("101 items stored, 599 known already"), "{}", ended.stdout);
    assert_eq!(place.queues("other"), whole);
}

#[test]
fn what_is_no_export_makes_no_store() {
    let place = Place::filled();
    for input in ["</dev/null", "< <(echo garbage)", "< <(:)"] {
        let ended = script(&place, &format!("$P import - --storage-path other {input}"), 1);
        assert!(ended.stderr.contains("nothing was imported"), "{}", ended.stderr);
        assert!(!place.path("other").exists());
    }
}

#[test]
fn an_export_that_fails_leaves_nothing_and_says_so() {
    let place = Place::filled();
    // With the signal ignored, a file that gets too long is an error, as a full disk is.
    let ended = script(&place, "trap '' XFSZ; ulimit -f 1024; $P export x --storage-path store", 1);
    assert!(ended.stderr.contains("x: File too large"), "{}", ended.stderr);
    assert!(!place.path("x").exists() && !place.path("x.part").exists());
    let ended = script(&place, "$P export - --storage-path store > /dev/full", 1);
    assert!(ended.stderr.contains("No space left on device"), "{}", ended.stderr);
    let ended = script(&place, "$P export /dev/full --storage-path store", 1);
    assert!(ended.stderr.contains("/dev/full: No space left on device"), "{}", ended.stderr);
    // Nobody takes half of it for all.
    let ended =
        script(&place, "set +o pipefail; { $P export - --storage-path store; echo $? >&2; } | true", 0);
    assert!(
        ended.stderr.trim_end().ends_with('1') && ended.stderr.contains("Broken pipe"),
        "{}",
        ended.stderr
    );
}

#[test]
fn an_import_that_was_killed_is_repeated() {
    let place = Place::filled();
    let whole = place.queues("store");
    place.done("store", &["export"], "x");
    place.killed("other", &["import"], "x", LIMIT_BYTES);
    let part = place.queues("other");
    assert!(items(&part) >= 200 && is_front_of(&part, &whole), "{} items", items(&part));
    assert!(items(&part) < items(&whole));

    place.done("other", &["import"], "x");
    assert_eq!(place.queues("other"), whole);
}

#[test]
fn a_bad_line_is_named_and_nothing_is_imported() {
    let place = Place::filled();
    place.done("store", &["export"], "x");
    let text = std::fs::read_to_string(place.path("x")).unwrap();
    let check = |name: &str, text: String, expected: &str| {
        std::fs::write(place.path(name), text).unwrap();
        let told = place.refused("other", &["import"], name);
        assert!(told.contains(expected) && told.ends_with("nothing was imported"), "{told}");
        assert!(!place.path("other").exists());
    };
    let lines: Vec<&str> = text.lines().collect();
    let changed = |at: usize, line: &str| {
        let mut lines = lines.clone();
        lines[at] = line;
        lines.join("\n") + "\n"
    };
    check("garbage", changed(400, "{\"item\":garbage}"), "garbage, line 401: expected");
    let cut = text.lines().nth(9).unwrap().replace("payload_b64\":\"", "payload_b64\":\"?");
    check("base64", changed(9, &cut), "base64, line 10: payload_b64");
    check("cut", text[..text.len() / 2].to_owned(), ", line ");
    check("ended", text[..text.rfind("{\"end\"").unwrap()].to_owned(), "it was cut");
    check("missing", changed(5, lines[6]).replace(lines[6], ""), ", line 6: ");
}

#[test]
fn what_does_not_fit_stops_the_import_and_the_rest_follows_in_order_once_it_does() {
    let place = Place::filled();
    let whole = place.queues("store");
    place.done("store", &["export"], "x");
    let limit = "[relay]\nmax_messages_per_user = 250\n";
    std::fs::write(place.path("relay.toml"), limit).unwrap();
    let config = place.text("relay.toml");
    let told = place.refused("other", &["--config", &config, "import"], "x");
    assert!(told.contains("x, line 452: the recipient's queue is full by count: 250 of 250"), "{told}");
    let part = place.queues("other");
    assert!(items(&part) == 450 && is_front_of(&part, &whole));
    place.done("other", &["import"], "x");
    assert_eq!(place.queues("other"), whole);
}

#[test]
fn an_import_leaves_the_room_that_pushes_leave() {
    let place = Place::filled();
    let whole = place.queues("store");
    place.done("store", &["export"], "x");
    // No disk has a petabyte free.
    std::fs::write(place.path("relay.toml"), "[storage]\nmin_free_bytes = 1_000_000_000_000_000\n").unwrap();
    let config = place.text("relay.toml");
    let told = place.refused("other", &["--config", &config, "import"], "x");
    assert!(told.contains("no space left"), "{told}");
    assert_eq!(items(&place.queues("other")), 0);
    place.done("other", &["import"], "x");
    assert_eq!(place.queues("other"), whole);
}

#[test]
fn cursors_of_the_other_store_pass_over_nothing_that_is_imported() {
    let place = Place::filled();
    place.done("store", &["export"], "x");
    place.done("other", &["import"], "x");
    let last = open(&place.path("store")).last_arrival_number();
    let store = open(&place.path("other"));
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
fn what_expires_or_is_acked_meanwhile_stays_away() {
    let place = Place::new();
    {
        // An hour after the epoch: all of it has expired by a clock that is believed.
        let clock = ManualClock::default();
        clock.set(Timestamp::from_ms(3_600_000));
        let path = place.path("store");
        let store = RedbRelay::open(&path, Limits::default(), std::sync::Arc::new(clock), Options::default());
        push(&store.unwrap(), (0..3).map(|number| envelope("alice", number, 10)));
    }
    let options = Options { trust_clock: true, ..Options::default() };
    let store = RedbRelay::open(
        &place.path("store"),
        Limits::default(),
        std::sync::Arc::new(relay_bin::SystemClock),
        options,
    );
    push(&store.unwrap(), (3..6).map(|number| envelope("bob", number, 10)));
    assert!(place.done("store", &["export"], "x").contains("x: 3 items of 30 bytes"));
    {
        let store = open(&place.path("store"));
        let ack = Ack::new(Recipient::parse("bob").unwrap(), vec![envelope("bob", 4, 0).id()]).unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        assert_eq!(runtime.block_on(store.ack(ack)).unwrap().deleted, 1);
    }
    let told = place.done("store", &["import"], "x");
    assert!(told.contains("0 items stored, 3 known already"), "{told}");
    assert_eq!(items(&place.queues("store")), 2);
}

#[test]
fn what_is_there_is_not_overwritten_and_what_is_not_there_not_made() {
    let place = Place::filled();
    std::fs::write(place.path("x"), "mine").unwrap();
    assert!(place.refused("store", &["export"], "x").ends_with("is there already, and is not overwritten"));
    assert_eq!(std::fs::read_to_string(place.path("x")).unwrap(), "mine");
    assert!(place.refused("missing", &["export"], "y").contains("missing cannot be used"));
    assert!(!place.path("missing").exists() && !place.path("y").exists() && !place.path("y.part").exists());
    assert!(place.refused("missing", &["import"], "nothing").contains("nothing: "));
    assert!(!place.path("missing").exists());
}
