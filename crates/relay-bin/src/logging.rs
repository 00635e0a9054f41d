//! Where log lines go, and how they look. Lines go to standard error; standard output is for what the program was asked for.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

use crate::cli::LogFormat;

/// The environment variable that chooses what is logged, such as `debug` or `relay_http=debug`.
const FILTER_VARIABLE: &str = "RUST_LOG";

/// What is logged when nobody chooses. The framework's own life cycle says nothing that the relay does not say better, and it takes
/// every malformed request for an error of ours.
const DEFAULT_FILTER: &str = "info,actix_server=warn,actix_http=off";

/// Starts logging for the whole process.
pub(crate) fn start(format: LogFormat) {
    let filter = EnvFilter::try_from_env(FILTER_VARIABLE).unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
    let terminal = io::stderr().is_terminal();
    // Whoever read the log may be gone, and to complain about that where nobody reads would panic.
    let builder = tracing_subscriber::fmt()
        .log_internal_errors(false)
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(terminal);
    // A logger that is there already, as in a test, stays.
    let outcome = match format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Auto if !terminal => builder.json().flatten_event(true).try_init(),
        LogFormat::Auto | LogFormat::Text => builder.try_init(),
    };
    drop(outcome);
}
