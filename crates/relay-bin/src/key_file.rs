//! The file of the relay's own secret: one root key, of which every key that the relay uses is
//! derived by its purpose. It is made at the first start and only read from then on.
//!
//! It is text: the line `relay key 1` and the line `root` with 64 hexadecimal digits. It is never
//! overwritten, never followed through a symbolic link, never used while others than its owner may
//! read it, and nothing of what is in it ever stands in a message.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use relay_http::CursorKey;

/// The file in the storage directory, and beside a backup.
pub(crate) const FILE_NAME: &str = "relay.key";

const HEAD: &str = "relay key 1\nroot ";
const KEY_BYTES: usize = 32;
const FILE_BYTES: usize = HEAD.len() + 2 * KEY_BYTES + 1;

/// What keys are derived for. Another text is another key.
const CURSORS: &str = "relay key 1, cursors";

/// A secret of which all other keys are derived. Without `Debug`.
#[derive(PartialEq, Eq)]
pub(crate) struct RootKey([u8; KEY_BYTES]);

/// The key of a relay that starts, and where it has to be written once the store is open. Before
/// that, the directory may be missing, or be no store at all and not be touched.
pub(crate) struct KeyForStart {
    pub(crate) root: RootKey,
    unwritten: Option<PathBuf>,
}

/// A key file that cannot be used or made.
#[derive(Debug, thiserror::Error)]
#[error("key file {}: {fault}", path.display())]
pub struct KeyFileError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub fault: KeyFileFault,
}

/// Why a key file cannot be used or made.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileFault {
    /// The operating system does not hand it out.
    #[error("cannot be read: {0}")]
    Unreadable(io::Error),
    /// It cannot be written, or its directory cannot.
    #[error("cannot be made: {0}")]
    NotMade(io::Error),
    /// A symbolic link, a directory, a pipe or a device.
    #[error("is not a regular file; give the path of the file itself, without a symbolic link at its end")]
    NotAFile,
    /// Group or others may read or change it.
    #[error("has mode {mode:04o}, so others than its owner may use this secret; run `chmod 600` on it")]
    Exposed {
        /// The permissions that it has.
        mode: u32,
    },
    /// It holds something else.
    #[error(
        "does not hold a key: expected are the line `relay key 1` and the line `root` with 64 hexadecimal digits, and nothing else; \
         put back the file as it was, or move it away, and the relay makes a new key"
    )]
    Malformed,
    /// It is there, and was not before.
    #[error("was made by somebody else in the meantime; start again to use it")]
    Exists,
}

impl RootKey {
    /// A key that nobody knows, from the operating system.
    pub(crate) fn random() -> io::Result<Self> {
        let mut key = [0; KEY_BYTES];
        getrandom::fill(&mut key)?;
        Ok(Self(key))
    }

    /// The key of the cursors.
    pub(crate) fn cursors(&self) -> CursorKey {
        CursorKey::new(&blake3::derive_key(CURSORS, &self.0))
    }

    /// Reads the key of a file; none if there is no such file.
    ///
    /// # Errors
    /// [`KeyFileError`], in words for the operator.
    pub(crate) fn read(path: &Path) -> Result<Option<Self>, KeyFileError> {
        let failed = |fault| KeyFileError { path: path.to_owned(), fault };
        let file = match open(path) {
            Ok(file) => file,
            Err(KeyFileFault::Unreadable(error)) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(None);
            }
            Err(fault) => return Err(failed(fault)),
        };
        let mut text = Vec::with_capacity(FILE_BYTES + 1);
        let read = file.take(FILE_BYTES as u64 + 1).read_to_end(&mut text);
        read.map_err(KeyFileFault::Unreadable).map_err(failed)?;
        parse(&text).map(Some).ok_or_else(|| failed(KeyFileFault::Malformed))
    }

    /// Writes the key into a new file, durably, for its owner alone. After a crash it is there as a
    /// whole or not at all.
    ///
    /// # Errors
    /// [`KeyFileError`]; [`KeyFileFault::Exists`] when a file is there already, which stays as it
    /// is.
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
        // Two processes that come here at once do not write into the same file.
        let mut random = [0; 8];
        getrandom::fill(&mut random)?;
        let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
        name.push(format!(".{:016x}.new", u64::from_le_bytes(random)));
        let unfinished = directory.join(name);
        let moved = self.write_all(&unfinished).and_then(|()| move_new(&unfinished, path));
        if moved.is_err() {
            // What went wrong before is what has to be told.
            drop(fs::remove_file(&unfinished));
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
    /// The key of this file, or a new one if it is not there yet or there is to be none.
    ///
    /// # Errors
    /// [`KeyFileError`] when it is there and cannot be used.
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

    /// Writes a new key to where the next start looks for it.
    ///
    /// # Errors
    /// [`KeyFileError`].
    pub(crate) fn keep(self) -> Result<(), KeyFileError> {
        let Some(path) = self.unwritten else { return Ok(()) };
        self.root.write_new(&path)?;
        tracing::info!(path = %path.display(), "created a new cursor key; older cursors are rejected");
        Ok(())
    }
}

/// Gives a file its name, if nothing has that yet.
fn move_new(from: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(from, to) {
        Ok(()) => fs::remove_file(from),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
        // Not every file system has hard links. There a file that is made in this very moment is
        // lost.
        Err(_) if to.symlink_metadata().is_ok() => Err(io::ErrorKind::AlreadyExists.into()),
        Err(_) => fs::rename(from, to),
    }
}

fn parse(text: &[u8]) -> Option<RootKey> {
    let digits = text.strip_prefix(HEAD.as_bytes())?.strip_suffix(b"\n")?;
    let mut key = [0; KEY_BYTES];
    let (pairs, []) = digits.as_chunks::<2>() else { return None };
    if pairs.len() != KEY_BYTES {
        return None;
    }
    for (byte, pair) in key.iter_mut().zip(pairs) {
        let [high, low] = pair.map(|digit| char::from(digit).to_digit(16));
        *byte = u8::try_from(high? << 4 | low?).ok()?;
    }
    Some(RootKey(key))
}

/// Opens a file that nobody but its owner may use. What is asked is asked of the open file, so that
/// it is the one that is read.
#[cfg(unix)]
fn open(path: &Path) -> Result<File, KeyFileFault> {
    use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};

    use rustix::fs::OFlags;

    // A pipe would wait for its other end, perhaps for ever.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let opened = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path);
    let file = opened.map_err(|error| match error.raw_os_error() {
        Some(number) if number == rustix::io::Errno::LOOP.raw_os_error() => KeyFileFault::NotAFile,
        _ => KeyFileFault::Unreadable(error),
    })?;
    let found = file.metadata().map_err(KeyFileFault::Unreadable)?;
    if !found.is_file() {
        return Err(KeyFileFault::NotAFile);
    }
    let mode = found.mode() & 0o7777;
    if mode & 0o077 == 0 { Ok(file) } else { Err(KeyFileFault::Exposed { mode }) }
}

#[cfg(not(unix))]
fn open(path: &Path) -> Result<File, KeyFileFault> {
    let found = path.symlink_metadata().map_err(KeyFileFault::Unreadable)?;
    if found.is_file() {
        File::open(path).map_err(KeyFileFault::Unreadable)
    } else {
        Err(KeyFileFault::NotAFile)
    }
}

#[cfg(unix)]
fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// A directory cannot be opened there.
#[cfg(not(unix))]
fn sync_directory(_: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(all(test, unix))]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    const TEXT: &str = "relay key 1\nroot 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n";

    /// A directory with a key file of this content and mode.
    fn with(text: &[u8], mode: u32) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("relay.key");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        (directory, path)
    }

    /// Why it cannot be read.
    fn fault(path: &Path) -> String {
        let Err(error) = RootKey::read(path) else { panic!("it was read") };
        assert_eq!(error.path, path);
        error.fault.to_string()
    }

    fn key() -> RootKey {
        RootKey(std::array::from_fn(|number| u8::try_from(number).unwrap()))
    }

    #[test]
    fn the_text_never_changes() {
        let (directory, path) = with(TEXT.as_bytes(), 0o600);
        assert!(RootKey::read(&path).unwrap() == Some(key()));
        let copy = directory.path().join("copy");
        key().write_new(&copy).unwrap();
        assert_eq!(fs::read_to_string(&copy).unwrap(), TEXT);
        assert_eq!(copy.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(directory.path().read_dir().unwrap().count(), 2, "nothing else is left");
        assert!(RootKey::random().unwrap() != RootKey::random().unwrap());
    }

    #[test]
    fn what_is_not_there_is_no_mistake() {
        let directory = tempfile::tempdir().unwrap();
        assert!(RootKey::read(&directory.path().join("relay.key")).unwrap().is_none());
        assert!(RootKey::read(&directory.path().join("no/relay.key")).unwrap().is_none());
    }

    #[test]
    fn what_is_there_is_never_overwritten() {
        let (directory, path) = with(b"something else", 0o644);
        let dangling = directory.path().join("dangling");
        symlink("elsewhere", &dangling).unwrap();
        for path in [&path, &dangling] {
            let error = key().write_new(path).unwrap_err();
            assert!(matches!(error.fault, KeyFileFault::Exists), "{error}");
        }
        assert_eq!(fs::read(&path).unwrap(), b"something else");
        assert!(!directory.path().join("elsewhere").exists());
        assert_eq!(directory.path().read_dir().unwrap().count(), 2, "nothing else is left");
        let error = key().write_new(&directory.path().join("no/relay.key")).unwrap_err();
        assert!(matches!(error.fault, KeyFileFault::NotMade(_)), "{error}");
    }

    #[test]
    fn what_others_may_use_is_refused() {
        for mode in [0o604, 0o640, 0o620, 0o602, 0o610, 0o601, 0o777] {
            let (_directory, path) = with(TEXT.as_bytes(), mode);
            assert_eq!(
                fault(&path),
                format!(
                    "has mode {mode:04o}, so others than its owner may use this secret; run `chmod 600` on it"
                )
            );
        }
        let (_directory, path) = with(TEXT.as_bytes(), 0o400);
        assert!(RootKey::read(&path).is_ok());
    }

    #[test]
    fn what_is_no_file_is_refused() {
        let (directory, path) = with(TEXT.as_bytes(), 0o600);
        let (link, pipe) = (directory.path().join("link"), directory.path().join("pipe"));
        symlink(&path, &link).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        for path in [link.as_path(), &pipe, directory.path()] {
            assert!(fault(path).starts_with("is not a regular file"), "{}", path.display());
        }
    }

    #[test]
    fn what_is_cut_longer_or_changed_is_refused_and_not_shown() {
        let upper = TEXT.replace("0a0b0c", "0A0B0C");
        let (_directory, path) = with(upper.as_bytes(), 0o600);
        assert!(RootKey::read(&path).unwrap() == Some(key()), "digits are digits");
        let cut = (0..TEXT.len()).map(|length| TEXT.as_bytes()[..length].to_vec());
        let changed = (0..TEXT.len()).map(|place| {
            let mut bytes = TEXT.as_bytes().to_vec();
            bytes[place] ^= 0x80;
            bytes
        });
        let others = [
            TEXT.to_owned() + "\n",
            TEXT.to_owned() + "x",
            TEXT.replace("key 1", "key 2"),
            "x".repeat(1 << 20),
        ];
        for bytes in cut.chain(changed).chain(others.map(String::into_bytes)) {
            fs::write(&path, &bytes).unwrap();
            let fault = fault(&path);
            assert!(fault.starts_with("does not hold a key: ") && !fault.contains("0203"), "{fault}");
        }
    }
}
