//! The relay's key file: one root key, from which the relay derives a key for each purpose. The
//! first start creates it; later starts only read it.
//!
//! The file is text: the line `relay key 1` and the line `root` with 64 hexadecimal digits. The
//! relay never overwrites it, follows no symbolic link to it, and does not use it if other users
//! can read it. No message contains any part of its content.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use relay_http::CursorKey;
#[cfg(feature = "redb")]
use relay_store_redb::KeyId;
use relay_wake::WakeKey;

#[cfg(feature = "redb")]
use crate::recipients::RecipientHasher;

/// The file name in the storage directory, and in a backup.
pub(crate) const FILE_NAME: &str = "relay.key";

const HEAD: &str = "relay key 1\nroot ";
const KEY_BYTES: usize = 32;
const FILE_BYTES: usize = HEAD.len() + 2 * KEY_BYTES + 1;

/// The purpose of a derived key. A different text gives a different key.
const CURSORS: &str = "relay key 1, cursors";
#[cfg(feature = "redb")]
const RECIPIENTS: &str = "relay key 1, recipients";
#[cfg(feature = "redb")]
const ID: &str = "relay key 1, id";

/// The secret from which all other keys are derived. It does not implement `Debug`.
#[derive(PartialEq, Eq)]
pub(crate) struct RootKey([u8; KEY_BYTES]);

/// The key of a relay that starts. A new key is written once the store is open: before that, the
/// directory may be missing, or contain no store and must not change.
pub(crate) struct KeyForStart {
    pub(crate) root: RootKey,
    unwritten: Option<PathBuf>,
}

/// A key file that the relay cannot use or create.
#[derive(Debug, thiserror::Error)]
#[error("key file {}: {fault}", path.display())]
pub struct KeyFileError {
    /// The path of the file.
    pub path: PathBuf,
    /// What is wrong with the file.
    pub fault: KeyFileFault,
}

/// Why the relay cannot use or create a key file.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileFault {
    /// The relay cannot read the file.
    #[error("cannot be read: {0}")]
    Unreadable(io::Error),
    /// The relay cannot write the file or its directory.
    #[error("cannot be created: {0}")]
    NotMade(io::Error),
    /// A symbolic link, a directory, a pipe or a device.
    #[error("is not a regular file; give the path of the file itself, without a symbolic link at its end")]
    NotAFile,
    /// The group or other users can read or change the file.
    #[error("has mode {mode:04o}, so users other than its owner can use this secret; run `chmod 600` on it")]
    Exposed {
        /// The permissions of the file.
        mode: u32,
    },
    /// The file does not contain a key.
    #[error(
        "does not contain a key: expected the line `relay key 1` and the line `root` with 64 hexadecimal digits, and nothing else; \
         restore the file; without it, a store with plain recipients gets a new key if you move the file away"
    )]
    Malformed,
    /// The file does not contain a key for wakes.
    #[error(
        "does not contain a key: expected 64 hexadecimal digits, as `openssl rand -hex 32` prints them, and nothing else"
    )]
    MalformedWake,
    /// The file does not exist, and the store needs its key.
    #[error(
        "does not exist, and the recipients of the store in {} were hashed with key {id}; nothing was changed; restore the file, or \
         set privacy.key_path to it; without it, nobody can find the queues of this store",
        store.display()
    )]
    Lost {
        /// The directory of the store.
        store: PathBuf,
        /// The id of the key.
        id: String,
    },
    /// The file does not exist.
    #[error("does not exist")]
    Missing,
    /// The file did not exist when the relay started, and does now.
    #[error("was created by another process in the meantime; start again to use it")]
    Exists,
}

impl RootKey {
    /// A new key from the operating system.
    pub(crate) fn random() -> io::Result<Self> {
        let mut key = [0; KEY_BYTES];
        getrandom::fill(&mut key)?;
        Ok(Self(key))
    }

    /// The key that encrypts cursors.
    pub(crate) fn cursors(&self) -> CursorKey {
        CursorKey::new(&blake3::derive_key(CURSORS, &self.0))
    }

    /// Hashes the recipients of a store.
    #[cfg(feature = "redb")]
    pub(crate) fn recipients(&self) -> RecipientHasher {
        RecipientHasher::new(blake3::derive_key(RECIPIENTS, &self.0))
    }

    /// Identifies the key and reveals nothing of it, so a store may contain it.
    #[cfg(feature = "redb")]
    pub(crate) fn id(&self) -> KeyId {
        let derived = blake3::derive_key(ID, &self.0);
        KeyId::from_bytes(derived.first_chunk().copied().unwrap_or_default())
    }

    /// Reads the key from a file; `None` if the file does not exist.
    ///
    /// # Errors
    /// [`KeyFileError`], if the file cannot be used.
    pub(crate) fn read(path: &Path) -> Result<Option<Self>, KeyFileError> {
        let failed = |fault| KeyFileError { path: path.to_owned(), fault };
        let Some(text) = read_secret(path, FILE_BYTES).map_err(failed)? else { return Ok(None) };
        parse(&text).map(Some).ok_or_else(|| failed(KeyFileFault::Malformed))
    }

    /// Writes the key durably to a new file that only its owner can read. After a crash, the file
    /// is complete or does not exist.
    ///
    /// # Errors
    /// [`KeyFileError`]; [`KeyFileFault::Exists`] if the file exists, which does not change then.
    pub(crate) fn write_new(&self, path: &Path) -> Result<(), KeyFileError> {
        self.try_write_new(path).map_err(|error| {
            let fault = match error.kind() {
                io::ErrorKind::AlreadyExists => KeyFileFault::Exists,
                _ => KeyFileFault::NotMade(error),
            };
            KeyFileError { path: path.to_owned(), fault }
        })
    }

    fn try_write_new(&self, path: &Path) -> io::Result<()> {
        let directory = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        // Two processes never write to the same temporary file.
        let mut random = [0; 8];
        getrandom::fill(&mut random)?;
        let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
        name.push(format!(".{:016x}.new", u64::from_le_bytes(random)));
        let temporary = directory.join(name);
        let moved = self.write_all(&temporary).and_then(|()| move_new(&temporary, path));
        if moved.is_err() {
            // The first error matters, not this one.
            drop(fs::remove_file(&temporary));
        }
        moved?;
        sync_directory(directory)
    }

    fn write_all(&self, path: &Path) -> io::Result<()> {
        let digits: String = self.0.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(path)?;
        file.write_all(format!("{HEAD}{digits}\n").as_bytes())?;
        file.sync_all()
    }
}

impl KeyForStart {
    /// The key in the file, or a new key if the file does not exist or no path is given.
    ///
    /// # Errors
    /// [`KeyFileError`], if the file exists and cannot be used.
    pub(crate) fn find(path: Option<PathBuf>) -> Result<Self, KeyFileError> {
        if let Some(root) = path.as_deref().map(RootKey::read).transpose()?.flatten() {
            return Ok(Self { root, unwritten: None });
        }
        match RootKey::random() {
            Ok(root) => Ok(Self { root, unwritten: path }),
            Err(error) => {
                let path = path.unwrap_or_else(|| FILE_NAME.into());
                Err(KeyFileError { path, fault: KeyFileFault::NotMade(error) })
            }
        }
    }

    /// A key for a file, which is written if it does not exist yet.
    ///
    /// # Errors
    /// [`KeyFileError`], if the file exists and cannot be used.
    #[cfg(feature = "redb")]
    pub(crate) fn of(root: RootKey, path: &Path) -> Result<Self, KeyFileError> {
        let is_written = RootKey::read(path)?.is_some();
        Ok(Self { root, unwritten: (!is_written).then(|| path.to_owned()) })
    }

    /// Whether the key has no file yet.
    #[cfg(feature = "redb")]
    pub(crate) const fn is_new(&self) -> bool {
        self.unwritten.is_some()
    }

    /// The same key, which is in its file now.
    ///
    /// # Errors
    /// Those of [`Self::write_if_new`].
    #[cfg(feature = "postgres")]
    pub(crate) fn written(self) -> Result<Self, KeyFileError> {
        if let Some(path) = &self.unwritten {
            self.root.write_new(path)?;
            tracing::info!(path = %path.display(), "created a new key file");
        }
        Ok(Self { unwritten: None, ..self })
    }

    /// Writes a new key to its file, for the next start.
    ///
    /// # Errors
    /// [`KeyFileError`], if the file exists now or cannot be written.
    pub(crate) fn write_if_new(self) -> Result<(), KeyFileError> {
        let Some(path) = self.unwritten else { return Ok(()) };
        self.root.write_new(&path)?;
        tracing::info!(path = %path.display(), "created a new key file; older cursors are rejected");
        Ok(())
    }
}

/// Reads the key that the relay shares with the gateway for wakes.
///
/// # Errors
/// [`KeyFileError`], if the file does not exist or cannot be used.
pub(crate) fn read_wake_key(path: &Path) -> Result<WakeKey, KeyFileError> {
    let failed = |fault| KeyFileError { path: path.to_owned(), fault };
    // The digits and a line break, also that of Windows.
    let text = read_secret(path, 2 * WakeKey::BYTES + 2).map_err(failed)?;
    let text = text.ok_or_else(|| failed(KeyFileFault::Missing))?;
    let line = text.strip_suffix(b"\n").unwrap_or(&text);
    let digits = line.strip_suffix(b"\r").unwrap_or(line);
    parse_digits(digits).map(|key| WakeKey::new(&key)).ok_or_else(|| failed(KeyFileFault::MalformedWake))
}

/// Reads a file that only its owner can use, and at most one byte more than `bytes_max`. `None` if
/// the file does not exist.
fn read_secret(path: &Path, bytes_max: usize) -> Result<Option<Vec<u8>>, KeyFileFault> {
    let file = match open(path) {
        Ok(file) => file,
        Err(KeyFileFault::Unreadable(error)) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(fault) => return Err(fault),
    };
    let mut text = Vec::with_capacity(bytes_max + 1);
    file.take(bytes_max as u64 + 1).read_to_end(&mut text).map_err(KeyFileFault::Unreadable)?;
    Ok(Some(text))
}

/// Renames a file, unless the new name exists.
fn move_new(from: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(from, to) {
        Ok(()) => fs::remove_file(from),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
        // Without hard links, a file that another process creates at this moment is lost.
        Err(_) if to.symlink_metadata().is_ok() => Err(io::ErrorKind::AlreadyExists.into()),
        Err(_) => fs::rename(from, to),
    }
}

fn parse(text: &[u8]) -> Option<RootKey> {
    parse_digits(text.strip_prefix(HEAD.as_bytes())?.strip_suffix(b"\n")?).map(RootKey)
}

fn parse_digits(digits: &[u8]) -> Option<[u8; KEY_BYTES]> {
    let mut key = [0; KEY_BYTES];
    let (pairs, []) = digits.as_chunks::<2>() else { return None };
    if pairs.len() != KEY_BYTES {
        return None;
    }
    for (byte, pair) in key.iter_mut().zip(pairs) {
        let [high, low] = pair.map(|digit| char::from(digit).to_digit(16));
        *byte = u8::try_from(high? << 4 | low?).ok()?;
    }
    Some(key)
}

/// Opens a file that only its owner can use. It checks the open file, not the path, so the checked
/// file is the one that is read.
#[cfg(unix)]
fn open(path: &Path) -> Result<File, KeyFileFault> {
    use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};

    use rustix::fs::OFlags;

    // Without `NONBLOCK`, opening a pipe may wait forever for its other end.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let opened = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path);
    let file = opened.map_err(|error| match error.raw_os_error() {
        Some(number) if number == rustix::io::Errno::LOOP.raw_os_error() => KeyFileFault::NotAFile,
        _ => KeyFileFault::Unreadable(error),
    })?;
    let metadata = file.metadata().map_err(KeyFileFault::Unreadable)?;
    if !metadata.is_file() {
        return Err(KeyFileFault::NotAFile);
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 == 0 { Ok(file) } else { Err(KeyFileFault::Exposed { mode }) }
}

#[cfg(not(unix))]
fn open(path: &Path) -> Result<File, KeyFileFault> {
    let metadata = path.symlink_metadata().map_err(KeyFileFault::Unreadable)?;
    if metadata.is_file() {
        File::open(path).map_err(KeyFileFault::Unreadable)
    } else {
        Err(KeyFileFault::NotAFile)
    }
}

#[cfg(unix)]
fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Other systems cannot open a directory.
#[cfg(not(unix))]
fn sync_directory(_: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(all(test, unix))]
mod tests;
