//! `relay-bin import FILE`: puts the items of an export at the end of their queues. The file is read twice: the first time tells whether
//! all of it is good, before the store is touched.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use relay_core::{Carried, Seq};
use relay_store_redb::{Imported, RedbRelay};

use super::lines::{Fault, Reader};
use super::progress::Progress;
use super::{CommandError, Outcome, open, wait_for};
use crate::config::RelayConfig;

/// What is imported at once, in items and payload bytes, unless a single one is larger.
const BUNDLE_ITEMS: usize = 256;
const BUNDLE_BYTES: u64 = 1024 * 1024;

pub(super) fn run(config: &RelayConfig, path: &Path) -> Result<Outcome, CommandError> {
    let mut source = Source { path, payload_bytes_max: config.relay.max_message_bytes };
    source.check()?;
    let imported = source.import_into(&open(config)?)?;
    let Imported { stored, known, conflicts, expired, .. } = imported;
    let path = path.display();
    Ok(Outcome::good(format!(
        "{path}: {stored} items stored, {known} known already ({conflicts} of them with another payload, which stays), {expired} expired\n"
    )))
}

struct Source<'a> {
    path: &'a Path,
    payload_bytes_max: u64,
}

/// Items that follow each other, and the line of the first one.
#[derive(Default)]
struct Bundle {
    line: u64,
    items: Vec<Carried>,
    bytes: u64,
}

impl Source<'_> {
    fn open(&self) -> Result<(Reader<BufReader<File>>, u64), CommandError> {
        let failed = |source| CommandError::File { path: self.path.to_owned(), source };
        let file = File::open(self.path).map_err(failed)?;
        let bytes = file.metadata().map_err(failed)?.len();
        Ok((Reader::new(BufReader::new(file), self.payload_bytes_max), bytes))
    }

    /// Reads all of it.
    fn check(&mut self) -> Result<(), CommandError> {
        let (mut reader, bytes) = self.open()?;
        let bar = Progress::of_bytes("checking", bytes);
        let checked = reader.header().and_then(|_| {
            while reader.item()?.is_some() {
                bar.at(reader.bytes, bytes);
            }
            Ok(())
        });
        checked.map_err(|fault| self.told(reader.line, fault))
    }

    fn import_into(&self, store: &RedbRelay) -> Result<Imported, CommandError> {
        let (mut reader, bytes) = self.open()?;
        let bar = Progress::of_bytes("importing", bytes);
        let header = reader.header().map_err(|fault| self.told(reader.line, fault))?;
        store.raise_arrival_numbers(Seq::new(header.last_arrival_number));
        let mut imported = Imported::default();
        loop {
            let bundle = Bundle::read(&mut reader).map_err(|fault| self.told(reader.line, fault))?;
            if bundle.items.is_empty() {
                return Ok(imported);
            }
            let line = bundle.line;
            let mut taken = wait_for(store.import(bundle.items))?;
            if let Some(refusal) = taken.refused.take() {
                let line = line + taken.items();
                return Err(CommandError::Refused { path: self.path.to_owned(), line, refusal });
            }
            imported = imported.plus(taken);
            bar.at(reader.bytes, bytes);
        }
    }

    fn told(&self, line: u64, fault: Fault) -> CommandError {
        let path = self.path.to_owned();
        match fault {
            Fault::Io(source) => CommandError::File { path, source },
            Fault::Line(what) => CommandError::BadLine { path, line, what },
        }
    }
}

impl Bundle {
    /// The next items; none when all were read.
    fn read(reader: &mut Reader<BufReader<File>>) -> Result<Self, Fault> {
        let mut bundle = Self { line: reader.line + 1, ..Self::default() };
        while bundle.items.len() < BUNDLE_ITEMS && bundle.bytes < BUNDLE_BYTES {
            let Some(item) = reader.item()? else { break };
            bundle.bytes += item.envelope.payload_bytes();
            bundle.items.push(item);
        }
        Ok(bundle)
    }
}
