//! The list of the files of a backup, as text: a line that says what it is, one for each file with
//! its checksum, length and name, and one that says how many there were and has the checksum of all
//! before it.

use crate::io::files;

/// The file in the directory of a backup.
pub(crate) const FILE_NAME: &str = "relay.backup";

const HEAD: &str = "relay store backup 1\n";
/// What the list begins with in a backup from before the first release, of a store that is not read
/// here.
const EARLIER_HEAD: &str = "relay backup ";

/// A file of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) bytes: u64,
    /// CRC-32C of all of it.
    pub(crate) checksum: u32,
}

/// Why a file is no list of a backup that is read here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoList {
    /// A build from before the first release wrote it.
    Earlier,
    Corrupted,
}

pub(crate) fn encode(entries: &[Entry]) -> String {
    let lines =
        entries.iter().map(|Entry { name, bytes, checksum }| format!("{checksum:08x} {bytes} {name}\n"));
    let text: String = std::iter::once(HEAD.to_owned()).chain(lines).collect();
    let (files, checksum) = (entries.len(), crc32c::crc32c(text.as_bytes()));
    format!("{text}end {files} {checksum:08x}\n")
}

/// What [`encode`] made.
pub(crate) fn decode(bytes: &[u8]) -> Result<Vec<Entry>, NoList> {
    if bytes.starts_with(EARLIER_HEAD.as_bytes()) {
        return Err(NoList::Earlier);
    }
    entries(bytes).ok_or(NoList::Corrupted)
}

fn entries(bytes: &[u8]) -> Option<Vec<Entry>> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (listed, end) = text.strip_suffix('\n')?.rsplit_once('\n')?;
    let listed = text.get(..listed.len() + 1)?;
    let (files, checksum) = end.strip_prefix("end ")?.split_once(' ')?;
    if u32::from_str_radix(checksum, 16).ok()? != crc32c::crc32c(listed.as_bytes()) {
        return None;
    }
    let entries: Option<Vec<Entry>> = listed.strip_prefix(HEAD)?.lines().map(entry).collect();
    entries.filter(|entries| files.parse() == Ok(entries.len()))
}

fn entry(line: &str) -> Option<Entry> {
    let (checksum, rest) = line.split_once(' ')?;
    let (bytes, name) = rest.split_once(' ')?;
    let checksum = u32::from_str_radix(checksum, 16).ok()?;
    // Nothing that was put into the list can lead out of the directory.
    is_listed(name).then_some(Entry { name: name.to_owned(), bytes: bytes.parse().ok()?, checksum })
}

/// Whether it is the name of a file that a backup consists of.
pub(crate) fn is_listed(name: &str) -> bool {
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
    fn a_list_is_text() {
        let expected = "relay store backup 1\ndeadbeef 4096 relay.redb\n00000007 36 journal-0000000007.seg\nend 2 08c66698\n";
        assert_eq!(encode(&entries()), expected);
        assert_eq!(decode(expected.as_bytes()), Ok(entries()));
        assert_eq!(decode(encode(&[]).as_bytes()), Ok(Vec::new()));
    }

    #[test]
    fn a_list_of_an_earlier_build_is_told_from_damage() {
        let earlier =
            "relay backup 1\ndeadbeef 4096 relay.redb\n00000007 36 journal-0000000007.seg\nend 2 bbf62abc\n";
        assert_eq!(decode(earlier.as_bytes()), Err(NoList::Earlier));
    }

    #[test]
    fn what_is_cut_or_changed_is_none() {
        let whole = encode(&entries()).into_bytes();
        for length in 0..whole.len() {
            assert_eq!(decode(&whole[..length]), Err(NoList::Corrupted), "cut at {length}");
            let mut changed = whole.clone();
            changed[length] ^= 1;
            assert_eq!(decode(&changed), Err(NoList::Corrupted), "changed at {length}");
        }
    }

    #[test]
    fn no_name_leads_elsewhere() {
        for name in ["../relay.redb", "/etc/x.seg", "lock", "relay.backup", ""] {
            let entry = Entry { name: name.to_owned(), bytes: 0, checksum: 0 };
            assert_eq!(decode(encode(&[entry]).as_bytes()), Err(NoList::Corrupted), "{name:?}");
        }
    }
}
