//! Who may read and who may send: names that carry their own lock, and the proofs that open them.
//!
//! A recipient's name is its own access rule. `sha256:<digest>` opens to whoever shows the secret
//! with this digest; `ed25519:<key>` opens to whoever shows a token that the key has signed. So
//! nothing is registered, several relays share no state, and the answer is the same whether a queue
//! exists or not. Every other name is plain, and the operator decides who may read it: everybody,
//! nobody, or whoever has a token of the operator's issuer or a certificate for it.
//!
//! The crate does no I/O and reads no clock. Its only state is a bounded cache of tokens whose
//! signature was verified, and the keys of the issuer, which the caller replaces.
//!
//! - [`Locks`]: the locks that a name carries, and how they are spelled.
//! - [`Proof`]: what the `Authorization` header of a request shows.
//! - [`Policy`]: whether a proof opens a name.
//! - [`CertifiedNames`]: the names in a client's certificate.
//! - [`Issuer`]: the issuer of tokens for plain names, and its keys. With the feature `issuer`,
//!   which needs a C compiler.
//! - [`keygen`]: new locks.

#![warn(missing_docs)]

mod certified_names;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(feature = "issuer")]
mod issuer;
#[cfg(not(feature = "issuer"))]
#[path = "no_issuer.rs"]
mod issuer;
#[cfg_attr(not(feature = "issuer"), allow(dead_code, reason = "only an issuer verifies its tokens"))]
mod issuer_token;
mod json;
pub mod keygen;
mod malformed;
mod name;
mod policy;
mod proof;
mod refusal;
mod token;

pub use certified_names::{CertifiedNames, TooManyNames};
pub use issuer::Issuer;
#[cfg(feature = "issuer")]
pub use issuer::{JWKS_BYTES_MAX, Jwks, JwksError, KeyFault};
pub use issuer_token::IssuerToken;
pub use malformed::Malformed;
pub use name::{Digest, Locks, MalformedLock, PublicKey, ReadLock};
pub use policy::{Granted, Owner, PlainNames, Policy, PushPlain, Settings, Verification};
pub use proof::{HEADER_BYTES_MAX, Proof, SECRET_BYTES_MAX, SECRET_BYTES_MIN, Secret};
pub use refusal::Refusal;
pub use relay_core::Operation;
pub use token::{InvalidToken, LIFE_SECONDS_MAX, ReadToken};
