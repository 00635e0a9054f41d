//! The manifest of a backup, as text: a head line, a line for each file with its checksum, length
//! and name, and a last line with the number of files and the checksum of the lines before it.

use crate::io::files;

/// The name of the manifest in the directory of a backup.
pub(crate) const FILE_NAME: &str = "relay.backup";

const HEAD: &str = "relay store backup 1\n";
/// How the manifest of a backup from before the first release begins. This version cannot read the
/// store in such a backup.
const EARLIER_HEAD: &str = "relay backup ";

/// A file of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) bytes: u64,
    /// CRC-32C of the file.
    pub(super) checksum: u32,
}

/// Why a manifest cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ManifestError {
    /// The backup is from before the first release.
    Earlier,
    Corrupted,
}

pub(super) fn encode(entries: &[Entry]) -> String {
    let lines =
        entries.iter().map(|Entry { name, bytes, checksum }| format!("{checksum:08x} {bytes} {name}\n"));
    let text: String = std::iter::once(HEAD.to_owned()).chain(lines).collect();
    let (files, checksum) = (entries.len(), crc32c::crc32c(text.as_bytes()));
    format!("{text}end {files} {checksum:08x}\n")
}

/// The inverse of [`encode`].
pub(super) fn decode(bytes: &[u8]) -> Result<Vec<Entry>, ManifestError> {
    if bytes.starts_with(EARLIER_HEAD.as_bytes()) {
        return Err(ManifestError::Earlier);
    }
    parse(bytes).ok_or(ManifestError::Corrupted)
}

fn parse(bytes: &[u8]) -> Option<Vec<Entry>> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (listed, end) = text.strip_suffix('\n')?.rsplit_once('\n')?;
    let listed = text.get(..listed.len() + 1)?;
    let (files, checksum) = end.strip_prefix("end ")?.split_once(' ')?;
    if u32::from_str_radix(checksum, 16).ok()? != crc32c::crc32c(listed.as_bytes()) {
        return None;
    }
    let entries: Option<Vec<Entry>> = listed.strip_prefix(HEAD)?.lines().map(parse_line).collect();
    entries.filter(|entries| files.parse() == Ok(entries.len()))
}

fn parse_line(line: &str) -> Option<Entry> {
    let (checksum, rest) = line.split_once(' ')?;
    let (bytes, name) = rest.split_once(' ')?;
    let checksum = u32::from_str_radix(checksum, 16).ok()?;
    // A forged manifest must not lead out of the directory.
    can_list(name).then_some(Entry { name: name.to_owned(), bytes: bytes.parse().ok()?, checksum })
}

/// Whether a backup can contain a file of this name.
pub(super) fn can_list(name: &str) -> bool {
    name == files::INDEX_FILE || name.ends_with(".seg") && !name.contains(['/', '\0'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries() -> Vec<Entry> {
        let entry = |name: &str, bytes, checksum| Entry { name: name.to_owned(), bytes, checksum };
        vec![entry("relay.redb", 4096, 0xdead_beef), entry("journal-0000000007.seg", 36, 7)]
    }

    #[test]
    fn a_manifest_is_text() {
        let expected = "relay store backup 1\ndeadbeef 4096 relay.redb\n00000007 36 journal-0000000007.seg\nend 2 08c66698\n";
        assert_eq!(encode(&entries()), expected);
        assert_eq!(decode(expected.as_bytes()), Ok(entries()));
        assert_eq!(decode(encode(&[]).as_bytes()), Ok(Vec::new()));
    }

    #[test]
    fn a_manifest_from_before_the_first_release_is_not_reported_as_corrupt() {
        let earlier =
            "relay backup 1\ndeadbeef 4096 relay.redb\n00000007 36 journal-0000000007.seg\nend 2 bbf62abc\n";
        assert_eq!(decode(earlier.as_bytes()), Err(ManifestError::Earlier));
    }

    #[test]
    fn a_truncated_or_changed_manifest_is_corrupt() {
        let original = encode(&entries()).into_bytes();
        for length in 0..original.len() {
            assert_eq!(decode(&original[..length]), Err(ManifestError::Corrupted), "cut at {length}");
            let mut changed = original.clone();
            changed[length] ^= 1;
            assert_eq!(decode(&changed), Err(ManifestError::Corrupted), "changed at {length}");
        }
    }

    #[test]
    fn a_listed_file_name_cannot_lead_out_of_the_directory() {
        for name in ["../relay.redb", "/etc/x.seg", "lock", "relay.backup", ""] {
            let entry = Entry { name: name.to_owned(), bytes: 0, checksum: 0 };
            assert_eq!(decode(encode(&[entry]).as_bytes()), Err(ManifestError::Corrupted), "{name:?}");
        }
    }
}
