//! The names in a client's certificate: URIs of the form `relay:NAME` among its subject alternative
//! names (RFC 5280, section 4.2.1.6).
//!
//! A name may contain any character, and a URI may not. What a path of RFC 3986 cannot contain is
//! percent-encoded: the bytes of UTF-8, each as `%` and two hexadecimal digits.

use std::fmt;

/// The scheme, in lower case.
const SCHEME: &str = "relay:";

/// The most names of one certificate.
const NAMES_MAX: usize = 64;

/// The most bytes of them together, encoded.
const BYTES_MAX: usize = 8192;

/// The names that the holder of a certificate may read.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct CertifiedNames(Vec<String>);

/// A certificate has more than 64 names, or more than 8192 bytes of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a certificate may have 64 names of the form relay:NAME, in 8192 bytes together")]
pub struct TooManyNames;

impl CertifiedNames {
    /// No names.
    pub const NONE: Self = Self(Vec::new());

    /// Reads the names in these URIs. URIs of other schemes name nothing, and neither do malformed
    /// ones.
    ///
    /// # Errors
    /// If there are too many. Such a certificate names nothing.
    pub fn from_uris<'a>(uris: impl IntoIterator<Item = &'a str>) -> Result<Self, TooManyNames> {
        let (mut names, mut bytes) = (Vec::new(), 0_usize);
        for encoded in uris.into_iter().filter_map(|uri| uri.strip_prefix(SCHEME)) {
            bytes = bytes.saturating_add(encoded.len());
            if names.len() == NAMES_MAX || bytes > BYTES_MAX {
                return Err(TooManyNames);
            }
            names.extend(decode(encoded));
        }
        Ok(Self(names))
    }

    /// Whether it has this name.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.0.iter().any(|certified| certified == name)
    }

    /// The first name.
    #[must_use]
    pub fn first(&self) -> Option<&str> {
        self.0.first().map(String::as_str)
    }

    /// Whether it has no name.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Hidden: they are recipients.
impl fmt::Debug for CertifiedNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CertifiedNames(..)")
    }
}

/// The name in the rest of a URI, if that is a path. `//` would begin a host.
fn decode(encoded: &str) -> Option<String> {
    if encoded.is_empty() || encoded.starts_with("//") {
        return None;
    }
    let mut name = Vec::with_capacity(encoded.len());
    let mut bytes = encoded.bytes();
    while let Some(byte) = bytes.next() {
        name.push(match byte {
            b'%' => hex(bytes.next()?)? << 4 | hex(bytes.next()?)?,
            _ if is_literal(byte) => byte,
            _ => return None,
        });
    }
    String::from_utf8(name).ok()
}

/// Whether a path may contain it as it is.
fn is_literal(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/".contains(&byte)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(uri: &str) -> Option<String> {
        CertifiedNames::from_uris([uri]).unwrap().0.pop()
    }

    #[test]
    fn a_uri_of_the_scheme_is_a_name() {
        for (uri, expected) in [
            ("relay:bob", "bob"),
            ("relay:bob@example.org", "bob@example.org"),
            ("relay:a/b:c+d", "a/b:c+d"),
            ("relay:J%C3%BCrgen%20%f0%9f%A6%80", "J\u{fc}rgen \u{1f980}"),
            ("relay:%62ob", "bob"),
            ("relay:%2F%2Fbob", "//bob"),
            ("relay:%2562ob", "%62ob"),
            ("relay:%00", "\0"),
            ("relay:*", "*"),
            ("relay:relay:bob", "relay:bob"),
        ] {
            assert_eq!(name(uri).as_deref(), Some(expected), "{uri}");
        }
    }

    #[test]
    fn anything_else_names_nothing() {
        for uri in [
            "",
            "relay",
            "bob",
            "relay:",
            "RELAY:bob",
            "Relay:bob",
            " relay:bob",
            "relay :bob",
            "https://bob",
            "relay://bob",
            "relay:///bob",
            "relay:bob?",
            "relay:bob#x",
            "relay:a b",
            "relay:bob\n",
            "relay:bob\0",
            "relay:J\u{fc}rgen",
            "relay:%",
            "relay:%6",
            "relay:%6x",
            "relay:%x6",
            "relay:%+6",
            "relay:% 6",
            "relay:%u0062",
            "relay:%C3",
            "relay:%FF",
            "relay:%C0%AF",
            "relay:%ED%A0%80",
            "relay:[bob]",
            "relay:\"bob\"",
            "relay:bob\\",
            "relay:<bob>",
            "relay:\u{ff42}ob",
        ] {
            assert_eq!(name(uri), None, "{uri:?}");
        }
    }

    #[test]
    fn the_number_and_size_of_names_are_bounded() {
        let count = |uris: &[String]| {
            CertifiedNames::from_uris(uris.iter().map(String::as_str)).map(|names| names.0.len())
        };
        let many: Vec<_> = (0..65).map(|number| format!("relay:{number}")).collect();
        assert_eq!(count(&many[..64]), Ok(64));
        assert_eq!(count(&many), Err(TooManyNames));
        let long = |bytes| [format!("relay:{}", "x".repeat(bytes)), "https://x".repeat(1000)];
        assert_eq!(count(&long(8192)), Ok(1));
        assert_eq!(count(&long(8193)), Err(TooManyNames));
        // Malformed ones count by their size, so that they cost no more than others.
        assert_eq!(count(&vec!["relay:%".to_owned(); 8193]), Err(TooManyNames));
        assert_eq!(format!("{:?}", CertifiedNames::from_uris(["relay:bob"]).unwrap()), "CertifiedNames(..)");
    }
}
