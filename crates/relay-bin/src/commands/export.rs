//! `relay-bin export FILE`: writes every live item as a line of JSON. A file gets its name once it
//! is complete, and an incomplete file is removed. Standard output and pipes get the lines at once.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write as _};
use std::ops::ControlFlow;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use relay_core::Clock as _;

use super::exported::Exported;
use super::lines::{End, ItemLine, Line};
use super::progress::Progress;
use super::{CommandError, Outcome, count};
use crate::clock::SystemClock;
use crate::config::RelayConfig;

pub(super) fn run(config: &RelayConfig, path: &Path) -> Result<Outcome, CommandError> {
    let stream = stream(path)?;
    let store = Exported::open(config)?;
    let written = match stream {
        Some(stream) => to_stream(&store, stream),
        None => to_file(&store, path),
    };
    let (end, lost) = written.map_err(|error| match error {
        Failure::Store(error) => error,
        Failure::File(source) => CommandError::File { path: path.to_owned(), source },
    })?;
    let (name, items, bytes) = (path.display(), count(end.items, "item", "items"), end.payload_bytes);
    let summary = format!("{name}: {items} of {bytes} bytes; {} could not be read\n", lost.len());
    Ok(Outcome { to_stderr: is_stdout(path), ..Outcome::with_findings(&lost, summary) })
}

enum Failure {
    Store(CommandError),
    File(io::Error),
}

/// The last line, and a message for each item that could not be read.
type Written = (End, Vec<String>);

fn is_stdout(path: &Path) -> bool {
    path == Path::new("-") || path == Path::new("/dev/stdout")
}

/// Opens standard output, a pipe or a device. `None` for the path of a file, which must not exist.
fn stream(path: &Path) -> Result<Option<File>, CommandError> {
    let failed = |source| CommandError::File { path: path.to_owned(), source };
    if is_stdout(path) {
        return Ok(Some(io::stdout().as_fd().try_clone_to_owned().map_err(failed)?.into()));
    }
    match path.metadata().map(|metadata| metadata.file_type()) {
        Ok(file_type) if file_type.is_fifo() || file_type.is_char_device() => {
            OpenOptions::new().write(true).open(path).map(Some).map_err(failed)
        }
        Ok(_) => Err(CommandError::Exists { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

fn to_stream(store: &Exported, stream: File) -> Result<Written, Failure> {
    let mut lines = BufWriter::new(stream);
    let written = write(store, &mut lines)?;
    let flushed = lines.into_inner().map_err(io::IntoInnerError::into_error);
    // Standard output may be a file.
    let synced = flushed.and_then(|file| if file.metadata()?.is_file() { file.sync_all() } else { Ok(()) });
    synced.map_err(Failure::File)?;
    Ok(written)
}

fn to_file(store: &Exported, path: &Path) -> Result<Written, Failure> {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let mut file = BufWriter::new(create(&part).map_err(Failure::File)?);
    let written = write(store, &mut file)
        .and_then(|written| finish(file, &part, path).map(|()| written).map_err(Failure::File));
    if written.is_err() {
        // The incomplete file may fill the disk.
        drop(std::fs::remove_file(&part));
    }
    written
}

/// Creates the file, and replaces one that a killed export has left.
fn create(part: &Path) -> io::Result<File> {
    match std::fs::remove_file(part) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(part)
}

/// Writes all lines.
fn write(store: &Exported, file: &mut BufWriter<File>) -> Result<Written, Failure> {
    let (total, header) = store.begin(SystemClock.now()).map_err(Failure::Store)?;
    let bar = Progress::of_items("exporting", total);
    write_line(file, &Line::RelayExport(header)).map_err(Failure::File)?;
    let (mut end, mut failure) = (End::default(), None);
    let exported = store.each(|recipient, item| {
        end.count(item.payload_bytes);
        bar.advance(1);
        match write_line(file, &Line::Item(ItemLine::new(recipient, &item))) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failure = Some(error);
                ControlFlow::Break(())
            }
        }
    });
    if let Some(error) = failure {
        return Err(Failure::File(error));
    }
    let lost = exported.map_err(Failure::Store)?;
    write_line(file, &Line::End(end)).map_err(Failure::File)?;
    Ok((end, lost))
}

fn write_line(file: &mut BufWriter<File>, line: &Line<'_>) -> io::Result<()> {
    serde_json::to_writer(&mut *file, line)?;
    file.write_all(b"\n")
}

/// Renames the complete file durably.
fn finish(file: BufWriter<File>, part: &Path, path: &Path) -> io::Result<()> {
    file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    std::fs::rename(part, path)?;
    let parent = path.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}
