//! What an operator does to a store by hand, as real processes: `export`, `import`, `stats`,
//! `backup`, `restore`, `compact`. Each that writes is also killed in the middle.
//!
//! The kernel does the killing: with a limit on the length of files it sends SIGXFSZ at the first
//! byte beyond, which ends a process as `kill -9` does, always at the same place.

mod backup;
mod compact;
mod export;
mod key;
mod live;
mod stats;
mod terminal;

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use relay_bin::SystemClock;
use relay_core::{Chunk, Envelope, Item, Kind, Limits, MessageId, Recipient, Relay as _};
use relay_store_redb::{Options, RedbRelay};
use relay_tests::Process;
use relay_tests::process::Ended;

/// The payload that lies in a file of its own, and makes every copy of the store pass the limit.
const LARGE_BYTES: usize = 3 << 20;

/// Less than that, and more than any other file of the store.
const LIMIT_BYTES: u64 = 2560 << 10;

/// SIGXFSZ of Linux.
const FILE_TOO_LARGE: i32 = 25;

/// The items of each queue, without the arrival numbers.
type Queues = BTreeMap<String, Vec<Item<Bytes>>>;

/// A directory with the store of a test, and whatever else it makes.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// With three queues, of which the second has the large payload in its middle.
    fn filled() -> Self {
        let place = Self::new();
        let store = open(&place.path("store"));
        for queue in ["alice", "bob", "a \"third\"\n:one"] {
            push(
                &store,
                (0..200).map(|number| envelope(queue, number, 1000 + usize::try_from(number).unwrap())),
            );
            if queue == "bob" {
                push(&store, [envelope(queue, 200, LARGE_BYTES)]);
                push(&store, (201..300).map(|number| envelope(queue, number, 10)));
            }
        }
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs a command on the store called `store`, with a path of this place as its last word
    /// unless that is empty.
    fn run(&self, store: &str, command: &[&str], name: &str) -> Ended {
        Process::run(crate::PROGRAM, &as_text(&self.words(store, command, name)), &[]).unwrap()
    }

    /// As [`Place::run`]; it must end well. Returns its standard output.
    fn done(&self, store: &str, command: &[&str], name: &str) -> String {
        let ended = self.run(store, command, name);
        assert_eq!(ended.status.code(), Some(0), "{command:?}: {}{}", ended.stdout, ended.stderr);
        ended.stdout
    }

    /// As [`Place::run`]; it must end with 1. Returns the sentence on its standard error.
    fn refused(&self, store: &str, command: &[&str], name: &str) -> String {
        let ended = self.run(store, command, name);
        assert_eq!(ended.status.code(), Some(1), "{command:?}: {}{}", ended.stdout, ended.stderr);
        assert_eq!(ended.stdout, "");
        let sentences: Vec<_> = ended.stderr.lines().filter(|line| !line.starts_with('{')).collect();
        let [sentence] = sentences.as_slice() else { panic!("{sentences:?}") };
        (*sentence).to_owned()
    }

    /// As [`Place::run`], until the kernel kills it over a file that passes `bytes`.
    fn killed(&self, store: &str, command: &[&str], name: &str, bytes: u64) {
        let limit = format!("--fsize={bytes}");
        let mut words = vec!["--core=0".to_owned(), limit, crate::PROGRAM.to_owned()];
        words.extend(self.words(store, command, name));
        let ended = Process::run("prlimit", &as_text(&words), &[]).unwrap();
        assert_eq!(
            ended.status.signal(),
            Some(FILE_TOO_LARGE),
            "{command:?}: {}{}",
            ended.stdout,
            ended.stderr
        );
    }

    fn words(&self, store: &str, command: &[&str], name: &str) -> Vec<String> {
        let mut words: Vec<String> = command.iter().map(|&word| word.to_owned()).collect();
        words.extend((!name.is_empty()).then(|| self.text(name)));
        words.extend(["--storage-path".to_owned(), self.text(store)]);
        words
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// What the store holds, all of which must add up.
    fn queues(&self, store: &str) -> Queues {
        let store = open(&self.path(store));
        assert_eq!(store.verify().unwrap(), Vec::<String>::new());
        let mut queues = Queues::new();
        let lost = store.export(|recipient, item| {
            let item = Item { seq: relay_core::Seq::ZERO, ..item };
            queues.entry(recipient.as_str().to_owned()).or_default().push(item);
            std::ops::ControlFlow::Continue(())
        });
        assert_eq!(lost.unwrap(), Vec::<String>::new());
        queues
    }
}

fn as_text(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

fn open(path: &Path) -> RedbRelay {
    RedbRelay::open(path, Limits::default(), Arc::new(SystemClock), Options::default()).unwrap()
}

/// Pushes many at a time, all of which must be new.
fn push(store: &RedbRelay, envelopes: impl IntoIterator<Item = Envelope>) {
    let pushes = envelopes.into_iter().map(|envelope| store.push(envelope));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for outcome in runtime.block_on(futures_util::future::join_all(pushes)) {
        assert!(outcome.unwrap().is_stored());
    }
}

fn envelope(to: &str, number: u64, payload_bytes: usize) -> Envelope {
    let number_bytes = number.to_le_bytes();
    let payload: Vec<u8> = number_bytes.iter().copied().cycle().take(payload_bytes).collect();
    Envelope {
        recipient: Recipient::parse(to).unwrap(),
        message_id: MessageId::from_bytes(u128::from(number).to_be_bytes()),
        chunk: Chunk::new(u32::try_from(number % 3).unwrap(), 3).unwrap(),
        kind: Kind::parse("a \u{1f980} kind").unwrap(),
        total_len: u64::MAX,
        sent_ms: number,
        payload: payload.into(),
    }
}

/// Whether each queue is what stands at the front of the same one in `whole`.
fn is_front_of(part: &Queues, whole: &Queues) -> bool {
    part.iter().all(|(name, items)| whole.get(name).is_some_and(|all| all.starts_with(items)))
}

fn items(queues: &Queues) -> usize {
    queues.values().map(Vec::len).sum()
}
