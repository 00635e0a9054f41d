//! Who may read and who may send: names that carry their own lock, and the proofs that open them.
//!
//! A recipient's name is its own access rule. `sha256:<digest>` opens to whoever shows the secret
//! with this digest; `ed25519:<key>` opens to whoever shows a token that the key has signed. So
//! nothing is registered, several relays share no state, and the answer is the same whether a queue
//! exists or not. Every other name is plain, and the operator decides who may read it.
//!
//! The crate does no I/O and reads no clock. Its only state is a bounded cache of tokens whose
//! signature was verified.
//!
//! - [`Locks`]: the locks that a name carries, and how they are spelled.
//! - [`Proof`]: what the `Authorization` header of a request shows.
//! - [`Policy`]: whether a proof opens a name.
//! - [`keygen`]: new locks.

#![warn(missing_docs)]

#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod keygen;
mod malformed;
mod name;
mod policy;
mod proof;
mod refusal;
mod token;

pub use malformed::Malformed;
pub use name::{Digest, Locks, MalformedLock, PublicKey, ReadLock};
pub use policy::{Granted, Owner, PlainNames, Policy, Settings};
pub use proof::{HEADER_BYTES_MAX, Proof, SECRET_BYTES_MAX, SECRET_BYTES_MIN, Secret};
pub use refusal::Refusal;
pub use relay_core::Operation;
pub use token::{InvalidToken, LIFE_SECONDS_MAX, ReadToken};
