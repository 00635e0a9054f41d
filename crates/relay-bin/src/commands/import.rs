//! `relay-bin import FILE`: appends the items of an export to their queues. The command first
//! checks a whole file, before it changes the store. It can read a pipe only once, so it imports
//! the items of a pipe at once, and stops at the first mistake.

use std::fs::File;
use std::io::{self, BufReader, Seek as _, SeekFrom};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use relay_core::{ImportItem, Imported, Seq};

use super::header::Header;
use super::import_target::Target;
use super::lines::{Fault, Reader};
use super::progress::Progress;
use super::{CommandError, Outcome};
use crate::config::RelayConfig;
use crate::lock_like::LockLikeNames;

/// The size of a bundle in items, and in payload bytes unless a single item is larger.
const BUNDLE_ITEMS: usize = 256;
const BUNDLE_BYTES: u64 = 1024 * 1024;

pub(super) fn run(config: &RelayConfig, path: &Path, key: Option<&Path>) -> Result<Outcome, CommandError> {
    let source = Source::open(path, config.relay.max_message_bytes)?;
    if source.start.is_some() {
        source.check()?;
    }
    let (imported, names) = source
        .import(|header| Target::open(config, header.key_id(), key, Seq::new(header.last_arrival_number)))?;
    let Imported { stored, known, conflicts, expired, .. } = imported;
    let path = source.path.display();
    let names = if config.auth.locks { names.line("items") } else { String::new() };
    Ok(Outcome::success(format!(
        "{path}: {stored} items stored, {known} already known ({conflicts} of them with a different payload, which the store keeps), {expired} expired\n{names}"
    )))
}

struct Source {
    /// The path for error messages.
    path: PathBuf,
    file: File,
    /// The offset of the export, if it can be read twice.
    start: Option<u64>,
    /// The size for the progress bar; 0 if unknown.
    bytes: u64,
    payload_bytes_max: u64,
}

/// Consecutive items that are imported together.
#[derive(Default)]
struct Bundle {
    /// The line of the first item.
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
        let metadata = file.metadata().map_err(failed)?;
        let start = if metadata.is_file() { Some(file.stream_position().map_err(failed)?) } else { None };
        Ok(Self { path, file, start, bytes: metadata.len(), payload_bytes_max })
    }

    /// Reads from the start of a file, or the rest of a pipe.
    fn reader(&self) -> Result<Reader<BufReader<&File>>, CommandError> {
        if let Some(start) = self.start {
            let seeked = (&self.file).seek(SeekFrom::Start(start));
            seeked.map_err(|source| CommandError::File { path: self.path.clone(), source })?;
        }
        Ok(Reader::new(BufReader::new(&self.file), self.payload_bytes_max))
    }

    /// Reads the whole file, to find mistakes.
    fn check(&self) -> Result<(), CommandError> {
        let mut reader = self.reader()?;
        let bar = Progress::of_bytes("checking", self.bytes);
        let checked = reader.header().and_then(|_| {
            while reader.item()?.is_some() {
                bar.set(reader.bytes, self.bytes);
            }
            Ok(())
        });
        checked.map_err(|fault| self.nothing_imported(reader.line, fault))
    }

    /// Imports all items, and counts those whose plain recipient begins like a lock. It opens the
    /// store after it has read the header.
    fn import(
        &self,
        open: impl FnOnce(Header) -> Result<Target, CommandError>,
    ) -> Result<(Imported, LockLikeNames), CommandError> {
        let mut reader = self.reader()?;
        let bar = Progress::of_bytes("importing", self.bytes);
        let header = reader.header().map_err(|fault| self.nothing_imported(reader.line, fault))?;
        let target = open(header)?;
        let (mut imported, mut names) = (Imported::default(), LockLikeNames::default());
        loop {
            let (bundle, fault) = Bundle::read(&mut reader);
            let (line, is_last) = (bundle.line, bundle.items.is_empty());
            if header.key_id().is_none() {
                bundle.items.iter().for_each(|item| names.note(&item.envelope.recipient));
            }
            if !is_last {
                let mut part = target.import(bundle.items_for(&target))?;
                if let Some(refusal) = part.refused.take() {
                    return Err(self.partly_imported(line + part.items(), refusal.to_string()));
                }
                imported = imported.plus(part);
                bar.set(reader.bytes, self.bytes);
            }
            match fault {
                Some(Fault::Io(error)) => return Err(self.partly_imported(reader.line, error.to_string())),
                Some(Fault::Line(what)) => return Err(self.partly_imported(reader.line, what)),
                None if is_last => {
                    target.finish()?;
                    return Ok((imported, names));
                }
                None => {}
            }
        }
    }

    /// The error if nothing was imported.
    fn nothing_imported(&self, line: u64, fault: Fault) -> CommandError {
        let path = self.path.clone();
        match fault {
            Fault::Io(source) => CommandError::File { path, source },
            Fault::Line(what) => CommandError::BadLine { path, line, what },
        }
    }

    /// The error if the lines before this one were imported.
    fn partly_imported(&self, line: u64, what: String) -> CommandError {
        CommandError::Partly { path: self.path.clone(), line, what }
    }
}

impl Bundle {
    fn items_for(self, target: &Target) -> Vec<ImportItem> {
        self.items.into_iter().map(|item| target.item(item)).collect()
    }

    /// The next items, none at the end; and the fault after them, if any.
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
