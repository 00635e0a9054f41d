//! The base64 of payloads: the standard alphabet with padding, and nothing else. It uses the vector
//! instructions of the processor where there are some. That takes a tenth of the time, which would
//! otherwise be the largest part of a pull.

use base64::DecodeError;

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(crate) use base64::engine::general_purpose::STANDARD;

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(crate) static STANDARD: std::sync::LazyLock<base64::engine::Simd> =
    std::sync::LazyLock::new(|| base64::engine::Simd::standard(base64::engine::general_purpose::PAD));

/// Explains the error without repeating the text.
pub(super) fn reason(error: DecodeError) -> String {
    match error {
        DecodeError::InvalidByte(offset, _) => {
            format!("not standard base64: invalid character at offset {offset}")
        }
        DecodeError::InvalidLength(_) => "not standard base64: not in groups of four characters".to_owned(),
        DecodeError::InvalidLastSymbol { offset, .. } => {
            format!("not standard base64: the last character, at offset {offset}, has unused bits set")
        }
        DecodeError::InvalidPadding => "not standard base64: wrong padding".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose;

    /// Enough for the widest instructions and a remainder.
    const BYTES_MAX: usize = 400;

    #[test]
    fn it_encodes_like_the_scalar_engine() {
        let bytes: Vec<u8> =
            (0..=u8::MAX).cycle().map(|byte| byte.wrapping_mul(151)).take(BYTES_MAX).collect();
        for len in 0..BYTES_MAX {
            let text = super::STANDARD.encode(&bytes[..len]);
            assert_eq!(text, general_purpose::STANDARD.encode(&bytes[..len]));
            assert_eq!(super::STANDARD.decode(text).unwrap(), &bytes[..len]);
        }
    }

    #[test]
    fn it_refuses_like_the_scalar_engine() {
        for len in 0..BYTES_MAX {
            let text = general_purpose::STANDARD.encode(vec![0xfb; len]).into_bytes();
            for wrong in *b"=-_ \n\0\xff.A" {
                for at in (0..text.len()).step_by(7).chain(text.len().saturating_sub(5)..text.len()) {
                    let mut text = text.clone();
                    text[at] = wrong;
                    assert_eq!(super::STANDARD.decode(&text), general_purpose::STANDARD.decode(&text));
                    text.truncate(at);
                    assert_eq!(super::STANDARD.decode(&text), general_purpose::STANDARD.decode(&text));
                }
            }
        }
    }
}
