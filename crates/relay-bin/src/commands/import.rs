//! `relay-bin import FILE`: puts the items of an export at the end of their queues. A file is read
//! twice: the first time tells whether all of it is good, before the store is touched. What can be
//! read only once, such as a pipe, is imported as it comes, and a mistake in it stops the import
//! there.

use std::fs::File;
use std::io::{self, BufReader, Seek as _, SeekFrom};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use relay_core::{ImportItem, Seq};
use relay_store_redb::{Imported, RedbRelay};

use super::lines::{Fault, Reader};
use super::progress::Progress;
use super::{CommandError, Outcome, open, wait_for};
use crate::config::RelayConfig;

/// What is imported at once, in items and payload bytes, unless a single one is larger.
const BUNDLE_ITEMS: usize = 256;
const BUNDLE_BYTES: u64 = 1024 * 1024;

pub(super) fn run(config: &RelayConfig, path: &Path) -> Result<Outcome, CommandError> {
    let source = Source::open(path, config.relay.max_message_bytes)?;
    if source.begin.is_some() {
        source.check()?;
    }
    let imported = source.import(|| Ok(open(config)?))?;
    let Imported { stored, known, conflicts, expired, .. } = imported;
    let path = source.path.display();
    Ok(Outcome::good(format!(
        "{path}: {stored} items stored, {known} known already ({conflicts} of them with another payload, which stays), {expired} expired\n"
    )))
}

struct Source {
    /// What errors call it.
    path: PathBuf,
    file: File,
    /// Where it begins, if it can be read again from there.
    begin: Option<u64>,
    /// 0 if nobody knows.
    bytes: u64,
    payload_bytes_max: u64,
}

/// Items that follow each other, and the line of the first one.
#[derive(Default)]
struct Bundle {
    line: u64,
    items: Vec<ImportItem>,
    bytes: u64,
}

impl Source {
    fn open(path: &Path, payload_bytes_max: u64) -> Result<Self, CommandError> {
        let is_stdin = path == Path::new("-") || path == Path::new("/dev/stdin");
        let path = if is_stdin { PathBuf::from("standard input") } else { path.to_owned() };
        let failed = |source| CommandError::File { path: path.clone(), source };
        let file = if is_stdin {
            io::stdin().as_fd().try_clone_to_owned().map(File::from)
        } else {
            File::open(&path)
        };
        let mut file = file.map_err(failed)?;
        let found = file.metadata().map_err(failed)?;
        let begin = if found.is_file() { Some(file.stream_position().map_err(failed)?) } else { None };
        Ok(Self { path, file, begin, bytes: found.len(), payload_bytes_max })
    }

    /// Reads it from its begin, or, if that is gone, from here on.
    fn reader(&self) -> Result<Reader<BufReader<&File>>, CommandError> {
        if let Some(begin) = self.begin {
            let sought = (&self.file).seek(SeekFrom::Start(begin));
            sought.map_err(|source| CommandError::File { path: self.path.clone(), source })?;
        }
        Ok(Reader::new(BufReader::new(&self.file), self.payload_bytes_max))
    }

    /// Reads all of it.
    fn check(&self) -> Result<(), CommandError> {
        let mut reader = self.reader()?;
        let bar = Progress::of_bytes("checking", self.bytes);
        let checked = reader.header().and_then(|_| {
            while reader.item()?.is_some() {
                bar.at(reader.bytes, self.bytes);
            }
            Ok(())
        });
        checked.map_err(|fault| self.nothing(reader.line, fault))
    }

    /// Puts all of it into the store, which is opened once it is known to be an export.
    fn import(
        &self,
        open: impl FnOnce() -> Result<RedbRelay, CommandError>,
    ) -> Result<Imported, CommandError> {
        let mut reader = self.reader()?;
        let bar = Progress::of_bytes("importing", self.bytes);
        let header = reader.header().map_err(|fault| self.nothing(reader.line, fault))?;
        let store = open()?;
        store.raise_arrival_numbers(Seq::new(header.last_arrival_number));
        let mut imported = Imported::default();
        loop {
            let (bundle, fault) = Bundle::read(&mut reader);
            let (line, is_last) = (bundle.line, bundle.items.is_empty());
            if !is_last {
                let mut taken = wait_for(store.import(bundle.items))?;
                if let Some(refusal) = taken.refused.take() {
                    return Err(self.partly(line + taken.items(), refusal.to_string()));
                }
                imported = imported.plus(taken);
                bar.at(reader.bytes, self.bytes);
            }
            match fault {
                Some(Fault::Io(error)) => return Err(self.partly(reader.line, error.to_string())),
                Some(Fault::Line(what)) => return Err(self.partly(reader.line, what)),
                None if is_last => {
                    // The arrival numbers that were raised are durable with it, also where nothing
                    // was stored.
                    drop(wait_for(store.snapshots().take())?);
                    return Ok(imported);
                }
                None => {}
            }
        }
    }

    /// Why nothing was imported.
    fn nothing(&self, line: u64, fault: Fault) -> CommandError {
        let path = self.path.clone();
        match fault {
            Fault::Io(source) => CommandError::File { path, source },
            Fault::Line(what) => CommandError::BadLine { path, line, what },
        }
    }

    /// Why no more was imported.
    fn partly(&self, line: u64, what: String) -> CommandError {
        CommandError::Partly { path: self.path.clone(), line, what }
    }
}

impl Bundle {
    /// The next items, none when all were read; and why there are not more, if something is wrong
    /// behind them.
    fn read(reader: &mut Reader<BufReader<&File>>) -> (Self, Option<Fault>) {
        let mut bundle = Self { line: reader.line + 1, ..Self::default() };
        while bundle.items.len() < BUNDLE_ITEMS && bundle.bytes < BUNDLE_BYTES {
            match reader.item() {
                Ok(Some(item)) => {
                    bundle.bytes += item.envelope.payload_bytes();
                    bundle.items.push(item);
                }
                Ok(None) => break,
                Err(fault) => return (bundle, Some(fault)),
            }
        }
        (bundle, None)
    }
}
