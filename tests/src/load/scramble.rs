//! Numbers that look random, and their digits. The same number gives the same ones in every run.

/// Scrambles a number with the bijective finalizer of SplitMix64.
pub const fn mix(number: u64) -> u64 {
    let mut word = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// Appends the plain name with this number: 64 hexadecimal digits.
pub(super) fn write_name(number: u64, text: &mut Vec<u8>) {
    let first = mix(number);
    for word in [first, mix(first), mix(!first), mix(first.rotate_left(32))] {
        write_hex(word, text);
    }
}

fn write_hex(word: u64, text: &mut Vec<u8>) {
    for half in halves(word) {
        text.extend_from_slice(&digits(half));
    }
}

pub(super) const fn halves(word: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = word.to_be_bytes();
    [u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h])]
}

/// Eight lower-case hexadecimal digits, computed in parallel: each byte of a word holds one digit.
pub(super) const fn digits(number: u32) -> [u8; 8] {
    let mut word = number as u64;
    word = (word | word << 16) & 0x0000_ffff_0000_ffff;
    word = (word | word << 8) & 0x00ff_00ff_00ff_00ff;
    word = (word | word << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    // 1 in each byte that is 10 or more. Those become letters: `a` is 39 after the character that
    // follows `9`.
    let letters = ((word + 0x0606_0606_0606_0606) >> 4) & 0x0101_0101_0101_0101;
    (word + 0x3030_3030_3030_3030 + letters * 39).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_hexadecimal() {
        for number in [0, 9, 10, 0x1234_5678, 0x9abc_def0, u32::MAX] {
            assert_eq!(digits(number), format!("{number:08x}").as_bytes());
        }
    }
}
