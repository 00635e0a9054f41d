//! Why a header is not a proof.

/// Why a header is not a proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// There are several `Authorization` headers.
    #[error("a request may have only one Authorization header")]
    Several,
    /// The scheme is not `Bearer`.
    #[error("the Authorization header must have the form: Bearer PROOF")]
    Scheme,
    /// The value is longer than [`HEADER_BYTES_MAX`](crate::HEADER_BYTES_MAX).
    #[error("the Authorization header is longer than 4096 bytes")]
    TooLong,
    /// It is neither a token nor a secret of the right length.
    #[error("a secret must be 32 to 64 bytes in base64url without padding")]
    Secret,
    /// It has dots like a token, and is not a read token.
    #[error("the token is malformed: {0}")]
    Token(&'static str),
}
