//! `compact`: the space of what is gone comes back, and a kill in the middle costs nothing.

use relay_core::{Ack, Recipient, Relay as _};

use super::{Place, envelope, open, push};

/// Just below the length from which a payload lies in a file of its own.
const PAYLOAD_BYTES: usize = 256 * 1024 - 1;

/// A bit more than a segment.
const ITEMS: u64 = 140;

/// A store whose first segment, of 32 MiB, holds little that lives, and whose second one has some 4
/// MiB.
fn holed() -> Place {
    let place = Place::new();
    let store = open(&place.path("store"));
    for number in 0..ITEMS {
        push(&store, [envelope("alice", number, PAYLOAD_BYTES)]);
    }
    let gone = (0..100).filter(|number| number % 5 != 0).map(|number| envelope("alice", number, 0).id());
    let ack = Ack::new(Recipient::parse("alice").unwrap(), gone.collect()).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    assert_eq!(runtime.block_on(store.ack(ack)).unwrap().deleted, 80);
    place
}

fn segments(place: &Place) -> Vec<(String, u64)> {
    let files = place.path("store").read_dir().unwrap().map(Result::unwrap);
    let mut found: Vec<_> = files
        .map(|file| (file.file_name().into_string().unwrap(), file.metadata().unwrap().len()))
        .filter(|(name, _)| name.starts_with("journal-"))
        .collect();
    found.sort();
    found
}

#[test]
fn space_comes_back_and_a_kill_in_the_middle_costs_nothing() {
    let place = holed();
    let whole = place.queues("store");
    let before = segments(&place);
    assert_eq!(before.len(), 2, "{before:?}");
    place.killed("store", &["compact"], "", 6 << 20);
    let between = segments(&place);
    assert!(between[1].1 > before[1].1 && between[0] == before[0], "{before:?}, then {between:?}");
    assert_eq!(place.queues("store"), whole);

    let told = place.done("store", &["compact"], "");
    assert!(told.contains("0 expired items reclaimed; ") && told.contains(" bytes before, "), "{told}");
    let after = segments(&place);
    assert!(!after.contains(&before[0]), "{after:?}");
    assert_eq!(place.queues("store"), whole);
    let bytes = |told: &str, word: &str| -> u64 {
        let (number, _) = told.split_once(word).unwrap();
        number.rsplit([' ', ';']).next().unwrap().parse().unwrap()
    };
    assert!(bytes(&told, " bytes after") < bytes(&told, " bytes before") / 2, "{told}");
}
