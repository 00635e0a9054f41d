//! Runs the fuzz targets on a stable toolchain: with every file of `fuzz/corpus`, with mutations of
//! those files, and with random bytes. A target panics if an assertion fails.
//!
//! `FUZZ_SECONDS` sets how long each target runs instead of a fixed number of cases; `cargo xtask
//! fuzz` sets it. Unlike cargo-fuzz, mutation is not guided by coverage.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use relay_tests::at_length;

use crate::stopwatch::Stopwatch;

/// The function that a target calls with each input.
type TargetFn = fn(&[u8]);

/// Defines one test module per target: name, function, and the number of cases in a full and in a
/// short run.
macro_rules! targets {
    ($($name:ident: $body:path, $full:literal or $short:literal;)*) => {
        const NAMES: &[&str] = &[$(stringify!($name)),*];

        $(mod $name {
            #[test]
            fn the_corpus_passes() {
                super::run_corpus(stringify!($name), $body);
            }

            #[test]
            fn mutated_and_random_inputs_pass() {
                super::run_random(stringify!($name), $body, $full, $short);
            }
        })*
    };
}

targets! {
    frame: relay_journal::fuzzing::frame, 200_000 or 5_000;
    segment: relay_journal::fuzzing::segment, 20_000 or 1_000;
    damage: relay_journal::fuzzing::damage, 10_000 or 500;
    record: relay_store_redb::fuzzing::record, 200_000 or 5_000;
    rows: relay_store_redb::fuzzing::rows, 200_000 or 5_000;
    order: relay_store_redb::fuzzing::order, 200_000 or 5_000;
    operations: relay_store_redb::fuzzing::operations, 600 or 40;
    push: relay_http::fuzzing::push, 100_000 or 5_000;
    batch: relay_http::fuzzing::batch, 50_000 or 3_000;
    cbor: relay_http::fuzzing::cbor, 100_000 or 5_000;
    pull: relay_http::fuzzing::pull, 100_000 or 5_000;
    ack: relay_http::fuzzing::ack, 100_000 or 5_000;
    cursor: relay_http::fuzzing::cursor, 100_000 or 5_000;
    gzip: relay_http::fuzzing::gzip, 10_000 or 500;
    base64: relay_http::fuzzing::base64, 100_000 or 5_000;
    framing: relay_http::fuzzing::framing, 50_000 or 3_000;
    forwarded: relay_http::fuzzing::forwarded, 100_000 or 5_000;
    lock: relay_auth::fuzzing::lock, 100_000 or 5_000;
    proof: relay_auth::fuzzing::proof, 20_000 or 1_000;
    certificate: relay_auth::fuzzing::certificate, 50_000 or 3_000;
    issuer_token: relay_auth::fuzzing::issuer_token, 10_000 or 500;
    jwks: relay_auth::fuzzing::jwks, 50_000 or 3_000;
    config: relay_bin::fuzzing::config, 4_000 or 200;
}

/// A mutation of an input.
#[derive(Clone, Debug)]
enum Mutation {
    Flip(Index, u8),
    Set(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, Index),
    Cut(Index),
    /// Replaces the end with the end of another input.
    Splice(Index, Index),
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}

fn names_in(directory: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned()).collect()
}

/// The committed corpus of a target, by path.
fn corpus(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(directory().join("corpus").join(name))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    files.sort();
    files
}

fn run_corpus(name: &str, body: TargetFn) {
    let files = corpus(name);
    assert!(!files.is_empty(), "fuzz/corpus/{name} is empty");
    for (path, bytes) in files {
        eprintln!("{}", path.display());
        body(&bytes);
    }
}

fn run_random(name: &str, body: TargetFn, full: u64, short: u64) {
    let seeds: Vec<_> = corpus(name).into_iter().map(|(_, bytes)| bytes).collect();
    let strategy = input(seeds);
    let (stopwatch, time) = (Stopwatch::start(), time());
    let cases = at_length(full, short);
    for seed in 0_u64.. {
        let is_over = time.map_or(seed >= cases.div_ceil(CASES_PER_SEED), |time| stopwatch.elapsed() >= time);
        if is_over {
            return;
        }
        run_seed(name, body, &strategy, seed);
    }
}

/// The most bytes that one mutation removes.
const REMOVED_BYTES_MAX: usize = 40;

/// The number of cases per seed.
const CASES_PER_SEED: u64 = 100;

fn run_seed(name: &str, body: TargetFn, strategy: &impl Strategy<Value = Vec<u8>>, seed: u64) {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    for case in 0..CASES_PER_SEED {
        let input = strategy.new_tree(&mut runner).unwrap().current();
        let outcome = std::panic::catch_unwind(|| body(&input));
        if let Err(panic) = outcome {
            let file = std::env::temp_dir().join(format!("relay-fuzz-{name}-{seed}-{case}"));
            fs::write(&file, &input).unwrap();
            eprintln!(
                "target {name}, seed {seed}, case {case}: the input is in {}; add it to fuzz/corpus/{name}",
                file.display()
            );
            std::panic::resume_unwind(panic);
        }
    }
}

/// How long each target runs, if `FUZZ_SECONDS` is set.
fn time() -> Option<Duration> {
    #[expect(clippy::disallowed_methods, reason = "the caller decides how long to fuzz")]
    let seconds = std::env::var("FUZZ_SECONDS").ok()?;
    Some(Duration::from_secs_f64(seconds.parse().expect("FUZZ_SECONDS is a number")))
}

fn input(seeds: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let pair = (prop::sample::select(seeds.clone()), prop::sample::select(seeds), vec(mutation(), 0..6));
    let mutated = pair.prop_map(|(bytes, other, mutations)| {
        mutations.iter().fold(bytes, |bytes, mutation| mutation.apply(bytes, &other))
    });
    prop_oneof![6 => mutated, 1 => vec(any::<u8>(), 0..64), 1 => vec(any::<u8>(), 0..600)]
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let at = any::<Index>;
    prop_oneof![
        3 => (at(), 0..8_u8).prop_map(|(at, bit)| Mutation::Flip(at, 1 << bit)),
        3 => (at(), prop_oneof![any::<u8>(), Just(0), Just(0xff), Just(b'"'), Just(b',')]).prop_map(|(at, byte)| Mutation::Set(at, byte)),
        2 => (at(), vec(any::<u8>(), 1..5)).prop_map(|(at, bytes)| Mutation::Insert(at, bytes)),
        2 => (at(), at()).prop_map(|(from, to)| Mutation::Remove(from, to)),
        1 => at().prop_map(Mutation::Cut),
        1 => (at(), at()).prop_map(|(at, from)| Mutation::Splice(at, from)),
    ]
}

impl Mutation {
    fn apply(&self, mut bytes: Vec<u8>, other: &[u8]) -> Vec<u8> {
        let position = |at: &Index, length: usize| at.index(length + 1);
        let length = bytes.len();
        match self {
            Self::Flip(at, mask) => {
                if let Some(byte) = bytes.get_mut(position(at, length)) {
                    *byte ^= mask;
                }
            }
            Self::Set(at, new) => {
                if let Some(byte) = bytes.get_mut(position(at, length)) {
                    *byte = *new;
                }
            }
            Self::Insert(at, new) => {
                let at = position(at, length);
                bytes.splice(at..at, new.iter().copied());
            }
            Self::Remove(from, to) => {
                let (from, to) = (position(from, length), position(to, length));
                bytes.drain(from.min(to)..from.max(to).min(from.min(to) + REMOVED_BYTES_MAX));
            }
            Self::Cut(at) => bytes.truncate(position(at, length)),
            Self::Splice(at, from) => {
                let rest = &other[position(from, other.len())..];
                bytes.splice(position(at, length).., rest.iter().copied());
            }
        }
        bytes
    }
}

#[test]
fn every_target_has_a_program_and_a_corpus() {
    let names: BTreeSet<_> = NAMES.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(names_in(&directory().join("fuzz_targets")), names);
    assert_eq!(names_in(&directory().join("corpus")), names);
    let manifest: toml::Table = fs::read_to_string(directory().join("Cargo.toml")).unwrap().parse().unwrap();
    let programs =
        manifest["bin"].as_array().unwrap().iter().map(|bin| bin["name"].as_str().unwrap().to_owned());
    assert_eq!(programs.collect::<BTreeSet<_>>(), names);
}
