//! Why a request is refused.

use crate::malformed::Malformed;
use crate::name::MalformedLock;
use crate::token::InvalidToken;

/// Why a request is refused. The texts repeat nothing of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The name begins like a lock and is not spelled like one.
    #[error(transparent)]
    Name(#[from] MalformedLock),
    /// The name needs a proof, and there is none.
    #[error("this recipient needs a proof: Authorization: Bearer PROOF")]
    NoProof,
    /// The header is not a proof.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The token could open this name, and is not valid.
    #[error(transparent)]
    Token(#[from] InvalidToken),
    /// The proof is for another name, or of another kind.
    #[error("the proof does not open this recipient")]
    WrongProof,
    /// The token does not allow this operation.
    #[error("the token does not allow this operation")]
    WrongOperation,
    /// Nobody may read plain names.
    #[error("this relay does not serve plain recipients; use one with a lock")]
    PlainDenied,
}

impl Refusal {
    /// A word for `details.reason` of an error response, and for metrics.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Name(_) => "malformed_name",
            Self::NoProof => "no_proof",
            Self::Malformed(_) => "malformed_proof",
            Self::Token(InvalidToken::NoAudience) => "no_audience",
            Self::Token(InvalidToken::Audience) => "wrong_audience",
            Self::Token(InvalidToken::Life) => "token_lives_too_long",
            Self::Token(InvalidToken::Early) => "token_not_valid_yet",
            Self::Token(InvalidToken::Expired) => "token_expired",
            Self::Token(InvalidToken::Issuer) => "wrong_issuer",
            Self::Token(InvalidToken::Key) => "unknown_key",
            Self::Token(InvalidToken::Signature) => "wrong_signature",
            Self::WrongProof => "wrong_proof",
            Self::WrongOperation => "wrong_operation",
            Self::PlainDenied => "plain_names_denied",
        }
    }

    /// Whether there was a proof, and it was wrong.
    #[must_use]
    pub const fn is_wrong_proof(&self) -> bool {
        !matches!(
            self,
            Self::Name(_) | Self::NoProof | Self::PlainDenied | Self::Token(InvalidToken::NoAudience)
        )
    }

    /// Whether there was no usable proof at all (401), rather than a wrong one (403).
    #[must_use]
    pub const fn is_unauthorized(&self) -> bool {
        matches!(self, Self::NoProof | Self::Malformed(_) | Self::Token(InvalidToken::NoAudience))
    }
}
