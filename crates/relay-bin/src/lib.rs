//! The relay as a program, and as a server to embed. This crate only connects the other crates.
//!
//! ```no_run
//! use relay_bin::config::{RelayConfig, StorageKind};
//!
//! # async fn embed() -> Result<(), relay_bin::RelayError> {
//! let mut config = RelayConfig::default();
//! config.storage.kind = StorageKind::Memory;
//! let relay = relay_bin::start(config).await?;
//! println!("pushes go to {}/push", relay.base_url);
//!
//! // Sending stops the relay. `handle` resolves when the relay has ended.
//! relay.shutdown.send(()).ok();
//! relay.handle.await.expect("the relay's task does not panic")?;
//! # Ok(())
//! # }
//! ```
//!
//! Only [`run_program`] accesses the process: its arguments, environment, signals and exit code.

#![warn(missing_docs)]

#[cfg(feature = "redb")]
mod backup;
mod check_token;
pub mod cli;
mod clock;
#[cfg(feature = "redb")]
mod commands;
pub mod config;
#[cfg(feature = "redb")]
mod control;
mod deferred_store;
mod docs;
mod error;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod health;
#[cfg(feature = "tls")]
mod issuer_file;
#[cfg(not(feature = "tls"))]
#[path = "no_issuer_file.rs"]
mod issuer_file;
mod key_file;
mod keygen;
#[cfg(unix)]
mod lock_file;
#[cfg(feature = "redb")]
mod lock_like;
mod logging;
#[cfg(unix)]
mod passed_sockets;
#[cfg(not(unix))]
#[path = "no_passed_sockets.rs"]
mod passed_sockets;
mod program;
#[cfg(feature = "redb")]
mod recipients;
#[cfg(feature = "redb")]
mod reports;
mod running;
#[cfg(unix)]
mod service_manager;
#[cfg(not(unix))]
#[path = "no_service_manager.rs"]
mod service_manager;
#[cfg(feature = "tls")]
mod small_file;
mod supervision;
mod wiring;

pub use clock::SystemClock;
pub use error::RelayError;
pub use issuer_file::IssuerFileError;
#[cfg(feature = "tls")]
pub use issuer_file::IssuerFileFault;
pub use key_file::{KeyFileError, KeyFileFault};
pub use program::run as run_program;
pub use running::{RunningRelay, start, start_opening, start_with_store};
