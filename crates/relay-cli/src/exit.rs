//! How the program ends: what people and scripts are told, and the exit code.

use std::io;
use std::process::ExitCode;

use serde_json::json;

use crate::failure::{EXIT_FAILED, EXIT_USAGE, Failure};
use crate::output::Output;

/// Tells why a command failed.
pub(crate) fn report(failure: &Failure, output: &Output) -> ExitCode {
    if !matches!(failure, Failure::OutputClosed) {
        let mut text = failure.to_string();
        if let Failure::Client(error) = failure
            && let Some(refusal) = error.refusal()
            && let Some(reason) = &refusal.reason
        {
            text.push_str(&format!(" ({reason})"));
        }
        if output.is_json() {
            output.error(&json!({"error": {"code": failure.code(), "message": text}}).to_string());
        } else {
            output.error(&format!("relay-cli: {text}"));
        }
    }
    ExitCode::from(failure.exit_code())
}

/// Prints the help or the version that was asked for, or a usage error.
pub(crate) fn of_usage(error: &clap::Error) -> ExitCode {
    match error.print() {
        _ if error.use_stderr() => ExitCode::from(EXIT_USAGE),
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => ExitCode::from(EXIT_FAILED),
        _ => ExitCode::SUCCESS,
    }
}
