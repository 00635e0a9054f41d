//! Tests of the commands on a store, as real processes: `export`, `import`, `stats`, `backup`,
//! `restore`, `compact`. Each command that writes is also killed in the middle.
//!
//! The kernel kills the process: with a limit on file sizes, it sends SIGXFSZ at the first byte
//! beyond. That ends a process as `kill -9` does, and always at the same point.

mod backup;
mod compact;
mod drill;
mod export;
mod hashed;
mod incremental;
mod key;
mod live;
mod postgres;
mod running;
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
use relay_tests::process::ProcessOutput;

/// The size of the one large payload. It is a blob, and makes every copy of the store exceed the
/// limit.
const LARGE_BYTES: usize = 3 << 20;

/// The limit: less than the large payload, and more than any other file of the store.
const LIMIT_BYTES: u64 = 2560 << 10;

/// SIGXFSZ of Linux.
const FILE_TOO_LARGE: i32 = 25;

/// The items of each queue, without their arrival numbers.
type Queues = BTreeMap<String, Vec<Item<Bytes>>>;

/// The environment of commands that create plain stores, whose items a test can find by name.
const PLAIN: &[(&str, &str)] = &[("RELAY__PRIVACY__HASH_RECIPIENTS", "false")];

/// A temporary directory with the stores and other files of a test, and the environment of its
/// commands.
struct TestDir(tempfile::TempDir, &'static [(&'static str, &'static str)]);

impl TestDir {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap(), PLAIN)
    }

    /// Like [`TestDir::new`], with commands that create stores with hashed recipients, as they do
    /// by default.
    fn hashing() -> Self {
        Self(tempfile::tempdir().unwrap(), &[])
    }

    /// A directory with a store of three queues. The second one has the large payload in its
    /// middle.
    fn with_store() -> Self {
        let dir = Self::new();
        let store = open(&dir.path("store"));
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
        dir
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs a command on the store called `store`. Its last argument is the path of `name` in this
    /// directory, unless that is empty.
    fn run(&self, store: &str, command: &[&str], name: &str) -> ProcessOutput {
        Process::run(crate::PROGRAM, &as_strs(&self.arguments(store, command, name)), self.1).unwrap()
    }

    /// Like [`TestDir::run`]; the command must succeed. Returns its standard output.
    fn succeeds(&self, store: &str, command: &[&str], name: &str) -> String {
        let ended = self.run(store, command, name);
        assert_eq!(ended.status.code(), Some(0), "{command:?}: {}{}", ended.stdout, ended.stderr);
        ended.stdout
    }

    /// Like [`TestDir::run`]; the command must end with exit code 1. Returns the only line of
    /// standard error that is not a log line.
    fn fails(&self, store: &str, command: &[&str], name: &str) -> String {
        let ended = self.run(store, command, name);
        assert_eq!(ended.status.code(), Some(1), "{command:?}: {}{}", ended.stdout, ended.stderr);
        assert_eq!(ended.stdout, "");
        let messages: Vec<_> = ended.stderr.lines().filter(|line| !line.starts_with('{')).collect();
        let [message] = messages.as_slice() else { panic!("{messages:?}") };
        (*message).to_owned()
    }

    /// Like [`TestDir::run`], until the kernel kills the command over a file of more than `bytes`.
    fn run_until_killed(&self, store: &str, command: &[&str], name: &str, bytes: u64) {
        let limit = format!("--fsize={bytes}");
        let mut arguments = vec!["--core=0".to_owned(), limit, crate::PROGRAM.to_owned()];
        arguments.extend(self.arguments(store, command, name));
        let ended = Process::run("prlimit", &as_strs(&arguments), self.1).unwrap();
        assert_eq!(
            ended.status.signal(),
            Some(FILE_TOO_LARGE),
            "{command:?}: {}{}",
            ended.stdout,
            ended.stderr
        );
    }

    fn arguments(&self, store: &str, command: &[&str], name: &str) -> Vec<String> {
        let mut arguments: Vec<String> = command.iter().map(|&word| word.to_owned()).collect();
        arguments.extend((!name.is_empty()).then(|| self.text(name)));
        arguments.extend(["--storage-path".to_owned(), self.text(store)]);
        arguments
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// The contents of a store, which must pass verification.
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

fn as_strs(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

fn open(path: &Path) -> RedbRelay {
    RedbRelay::open(path, Limits::default(), Arc::new(SystemClock), Options::default()).unwrap()
}

/// Pushes all envelopes at once. All must be new.
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
        ttl_ms: None,
        payload: payload.into(),
    }
}

/// Whether each queue in `part` is a prefix of the same queue in `all`.
fn is_prefix_of(part: &Queues, all: &Queues) -> bool {
    part.iter().all(|(name, items)| all.get(name).is_some_and(|longer| longer.starts_with(items)))
}

fn items(queues: &Queues) -> usize {
    queues.values().map(Vec::len).sum()
}
