//! What opens recipients, from a file that nobody else may read, or from the environment.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use relay_client::{Credentials, Key, Secret};

use crate::failure::Failure;

/// The largest file with credentials or keys.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// The words of a file with credentials, and the variables for the same.
const WORDS: [(&str, &str); 6] = [
    ("recipient", "RELAY_RECIPIENT"),
    ("secret", "RELAY_SECRET"),
    ("private_key", "RELAY_KEY"),
    ("audience", "RELAY_AUDIENCE"),
    ("token", "RELAY_TOKEN"),
    ("send_secret", "RELAY_SEND_SECRET"),
];

/// What a file or the environment says. It is never shown.
pub(crate) struct Proofs {
    pub(crate) recipient: Option<String>,
    pub(crate) reading: Credentials,
    /// A token of the issuer, which may open pushes as well.
    pub(crate) sending: Credentials,
    pub(crate) send_secret: Option<Secret>,
}

impl Proofs {
    /// Reads lines of a word and its value, as `keygen` prints them.
    pub(crate) fn of_file(path: &Path) -> Result<Self, Failure> {
        let text = read_private(path)?;
        let wrong =
            |line: usize, what: &str| Failure::Usage(format!("file {}, line {line}: {what}", path.display()));
        let mut values = BTreeMap::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (word, value) = line.split_once(' ').ok_or_else(|| wrong(index + 1, "has no value"))?;
            let known = WORDS.iter().find(|(known, _)| *known == word);
            let (known, _) = known.ok_or_else(|| wrong(index + 1, "begins with an unknown word"))?;
            if values.insert(*known, value.trim().to_owned()).is_some() {
                return Err(wrong(index + 1, "repeats a word"));
            }
        }
        Self::of_values(&values)
    }

    /// Reads variables of the environment.
    pub(crate) fn of_environment(variable: impl Fn(&str) -> Option<String>) -> Result<Self, Failure> {
        let values = WORDS.iter().filter_map(|(word, name)| Some((*word, variable(name)?)));
        Self::of_values(&values.collect())
    }

    fn of_values(values: &BTreeMap<&str, String>) -> Result<Self, Failure> {
        let value = |word: &str| values.get(word).map(String::as_str);
        let usage = |text: &str| Err(Failure::Usage(text.to_owned()));
        let mut sending = Credentials::none();
        let (own, reading) = match (value("secret"), value("private_key"), value("token")) {
            (None, None, None) => (None, Credentials::none()),
            (Some(secret), None, None) => {
                let secret = Secret::parse(secret)?;
                (Some(secret.recipient()), Credentials::secret(&secret))
            }
            (None, Some(key), None) => match value("audience") {
                Some(audience) => {
                    let key = Key::parse(key)?;
                    (Some(key.recipient()), Credentials::key(key, audience))
                }
                None => return usage("a key needs an audience: the relay's own name"),
            },
            (None, None, Some(token)) => {
                sending = Credentials::token(token)?;
                (None, sending.clone())
            }
            _ => return usage("there may be one of secret, key and token"),
        };
        let send_secret = value("send_secret").map(Secret::parse).transpose()?;
        let lock = send_secret.as_ref().map(Secret::send_lock).unwrap_or_default();
        let recipient = value("recipient").map(str::to_owned).or_else(|| own.map(|name| name + &lock));
        Ok(Self { recipient, reading, sending, send_secret })
    }
}

/// Reads a file that nobody else may read.
pub(crate) fn read_private(path: &Path) -> Result<String, Failure> {
    let unusable = |what: String| Failure::Usage(format!("file {}: {what}", path.display()));
    let unreadable = |error| unusable(format!("cannot be read: {error}"));
    // Opening a pipe could block for ever.
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(unusable("is not a regular file".to_owned()));
    }
    let file = File::open(path).map_err(unreadable)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = file.metadata().map_err(unreadable)?.permissions().mode();
        if mode & 0o077 != 0 {
            let name = path.display();
            return Err(unusable(format!(
                "others may use it (mode {:03o}); run: chmod 600 {name}",
                mode & 0o777
            )));
        }
    }
    let mut text = String::new();
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(unusable(format!("is larger than {FILE_BYTES_MAX} bytes")));
    }
    Ok(text)
}
