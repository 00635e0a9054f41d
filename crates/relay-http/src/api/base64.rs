//! The base64 of payloads: the standard alphabet, padded, and nothing else is read. It goes by the
//! vector instructions of the processor where it has them, which takes a tenth of the time: with
//! them, base64 is no more the largest part of a page.

use base64::DecodeError;

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(crate) use base64::engine::general_purpose::STANDARD;

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(crate) static STANDARD: std::sync::LazyLock<base64::engine::Simd> =
    std::sync::LazyLock::new(|| base64::engine::Simd::standard(base64::engine::general_purpose::PAD));

/// Why this is not the base64 of anything, without its characters.
pub(super) fn reason(error: DecodeError) -> String {
    match error {
        DecodeError::InvalidByte(at, _) => {
            format!("not standard base64: the character at {at} has no place there")
        }
        DecodeError::InvalidLength(_) => {
            "not standard base64: it does not consist of groups of four".to_owned()
        }
        DecodeError::InvalidLastSymbol { offset: at, .. } => {
            format!("not standard base64: the last character, at {at}, has bits that stand for nothing")
        }
        DecodeError::InvalidPadding => "not standard base64: its padding is wrong".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose;

    /// Long enough for the widest instructions and what is left behind them.
    const BYTES_MAX: usize = 400;

    #[test]
    fn it_writes_what_the_plain_engine_writes() {
        let bytes: Vec<u8> =
            (0..=u8::MAX).cycle().map(|byte| byte.wrapping_mul(151)).take(BYTES_MAX).collect();
        for len in 0..BYTES_MAX {
            let text = super::STANDARD.encode(&bytes[..len]);
            assert_eq!(text, general_purpose::STANDARD.encode(&bytes[..len]));
            assert_eq!(super::STANDARD.decode(text).unwrap(), &bytes[..len]);
        }
    }

    #[test]
    fn it_refuses_what_the_plain_engine_refuses() {
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
