//! Writes a batch in pieces and syncs each, so that one large batch does not delay other syncs of
//! the same disk for long.

use std::io;
use std::mem;

use relay_disk::DiskFile;

/// Writes `parts` in sequence from `offset` on, and syncs after every `piece_bytes`.
pub(crate) fn write_and_sync(
    file: &dyn DiskFile,
    parts: &[&[u8]],
    mut offset: u64,
    piece_bytes: u64,
) -> io::Result<()> {
    for piece in pieces(parts, piece_bytes) {
        file.write_all_at(&piece, offset)?;
        file.sync()?;
        offset += piece.iter().map(|part| part.len() as u64).sum::<u64>();
    }
    Ok(())
}

/// Splits `parts` into pieces of at most `piece_bytes`. Returns at least one piece, which may be
/// empty.
fn pieces<'a>(parts: &[&'a [u8]], piece_bytes: u64) -> Vec<Vec<&'a [u8]>> {
    let piece_bytes = usize::try_from(piece_bytes).unwrap_or(usize::MAX).max(1);
    let (mut pieces, mut piece, mut capacity) = (Vec::new(), Vec::new(), piece_bytes);
    for mut part in parts.iter().copied() {
        while part.len() > capacity {
            let (head, rest) = part.split_at(capacity);
            piece.push(head);
            pieces.push(mem::take(&mut piece));
            (part, capacity) = (rest, piece_bytes);
        }
        capacity -= part.len();
        piece.push(part);
    }
    pieces.push(piece);
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_have_the_same_bytes_as_the_parts() {
        let parts: [&[u8]; 5] = [b"", b"abc", b"defghij", b"", b"k"];
        for (bytes, expected) in [
            (1, "a b c d e f g h i j k"),
            (2, "ab cd ef gh ij k"),
            (4, "abcd efgh ijk"),
            (5, "abcde fghij k"),
            (11, "abcdefghijk"),
            (u64::MAX, "abcdefghijk"),
        ] {
            let pieces: Vec<String> = pieces(&parts, bytes)
                .into_iter()
                .map(|piece| String::from_utf8(piece.concat()).unwrap())
                .collect();
            assert_eq!(pieces.join(" "), expected, "pieces of {bytes}");
        }
        assert_eq!(pieces(&[], 5), [Vec::<&[u8]>::new()]);
    }
}
