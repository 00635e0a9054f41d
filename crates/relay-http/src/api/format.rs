//! The two formats of bodies, JSON and CBOR (RFC 8949), and how requests choose them.

use bytes::Bytes;
use serde::Serialize;

/// How a body is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Format {
    #[default]
    Json,
    Cbor,
}

/// Bytes that share the memory of their body may waste one part in so many of it.
const SHARED_WASTE: usize = 16;

/// The body of a request.
#[derive(Debug)]
pub(crate) struct Encoded {
    pub(crate) format: Format,
    pub(crate) bytes: Bytes,
    /// How many bytes of memory `bytes` keeps.
    pub(crate) held_bytes: usize,
}

impl Encoded {
    pub(crate) fn new(format: Format, bytes: Vec<u8>) -> Self {
        let held_bytes = bytes.capacity();
        Self { format, bytes: bytes.into(), held_bytes }
    }

    /// Bytes of this body, for longer than the body is needed. They share its memory if they need
    /// almost all of it. Otherwise a small payload would keep the memory of a large body.
    pub(super) fn keep(&self, bytes: &[u8]) -> Bytes {
        if bytes.len() >= self.held_bytes - self.held_bytes / SHARED_WASTE {
            self.bytes.slice_ref(bytes)
        } else {
            Bytes::copy_from_slice(bytes)
        }
    }
}

impl Format {
    /// The format of a body with this media type. JSON has more than one.
    pub(crate) fn of(media_type: &str) -> Option<Self> {
        let subtype = media_type.strip_prefix("application/")?;
        match subtype {
            "cbor" => Some(Self::Cbor),
            "json" => Some(Self::Json),
            _ => subtype.strip_suffix("+json").filter(|name| !name.is_empty()).map(|_| Self::Json),
        }
    }

    /// The format of the response to a request with these `Accept` headers: CBOR if they name it.
    pub(crate) fn accepted<'a>(values: impl Iterator<Item = &'a [u8]> + Clone) -> Self {
        let is_named = |format: Self| names(values.clone(), format.content_type());
        // Who reads sequences of CBOR also reads an error response in CBOR.
        if is_named(Self::Cbor) || names(values.clone(), CBOR_SEQUENCE) { Self::Cbor } else { Self::Json }
    }

    pub(crate) const fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Cbor => "application/cbor",
        }
    }

    /// The bytes of a response.
    pub(crate) fn encode(self, value: &impl Serialize) -> Vec<u8> {
        match self {
            Self::Json => serde_json::to_vec(value).expect("the types of the API always serialize"),
            Self::Cbor => {
                cbor4ii::serde::to_vec(Vec::new(), value).expect("the types of the API always serialize")
            }
        }
    }
}

/// The media type of a sequence of CBOR values (RFC 8742).
pub(crate) const CBOR_SEQUENCE: &str = "application/cbor-seq";

/// Whether `Accept` headers name a media type. Quality values do not matter.
pub(crate) fn names<'a>(mut values: impl Iterator<Item = &'a [u8]>, media_type: &str) -> bool {
    values.any(|value| {
        value.split(|byte| *byte == b',').any(|range| {
            let named = range.split(|byte| *byte == b';').next().unwrap_or_default();
            named.trim_ascii().eq_ignore_ascii_case(media_type.as_bytes())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_gets_cbor_only_if_it_names_it() {
        let accepted = |values: &[&str]| Format::accepted(values.iter().map(|value| value.as_bytes()));
        for values in [
            &[][..],
            &["*/*"],
            &["application/*"],
            &["application/json"],
            &["application/cborx"],
            &["x/application/cbor"],
            &["application/json;x=application/cbor"],
        ] {
            assert_eq!(accepted(values), Format::Json, "{values:?}");
        }
        for values in [
            &["application/cbor"][..],
            &["*/*", " Application/CBOR ;q=0.9"],
            &["application/json, application/cbor"],
            &["application/cbor-seq"],
        ] {
            assert_eq!(accepted(values), Format::Cbor, "{values:?}");
        }
    }
}
