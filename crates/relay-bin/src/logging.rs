//! Sets up the log on standard error. Standard output is for the results of commands.

use std::io::{self, IsTerminal};
#[cfg(feature = "redb")]
use std::sync::PoisonError;
use std::sync::{Arc, Mutex};

use clap::ValueEnum;
use relay_core::excerpt;
use tracing_subscriber::filter::{Directive, LevelFilter};
use tracing_subscriber::{EnvFilter, reload};

/// The environment variable with the log filter, such as `debug` or `relay_http=debug`.
pub(crate) const FILTER_VARIABLE: &str = "RUST_LOG";

/// The default filter. The relay logs its life cycle itself, so the framework's is left out.
const DEFAULT_FILTER: &str = "info,actix_server=warn";

/// The framework logs every malformed request as an error, so any client could fill the log. The
/// client of the database logs what it sends, so recipients and payloads.
const SILENT: [&str; 2] = ["actix_http", "tokio_postgres"];

/// How many bytes of invalid directives the log repeats.
const EXCERPT_BYTES_MAX: usize = 200;

/// The format of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// Human-readable lines.
    Text,
    /// One JSON object per line.
    Json,
}

#[derive(Debug, PartialEq, Eq)]
struct Filter {
    /// Valid directives of [`EnvFilter`].
    directives: String,
    invalid: Vec<String>,
}

/// The filter of the running log. Clones change the same log.
#[derive(Clone)]
#[cfg_attr(not(feature = "redb"), expect(dead_code, reason = "only commands change it"))]
pub(crate) struct LogFilter {
    apply: Arc<dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync>,
    directives: Arc<Mutex<String>>,
}

impl std::fmt::Debug for LogFilter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogFilter").finish_non_exhaustive()
    }
}

#[cfg(feature = "redb")]
impl LogFilter {
    /// The directives in force.
    pub(crate) fn directives(&self) -> String {
        self.directives.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes the filter, by the rules of [`FILTER_VARIABLE`]. Empty text is the default.
    ///
    /// # Errors
    /// What cannot be understood; then nothing changes.
    pub(crate) fn set(&self, text: &str) -> Result<(), String> {
        let Filter { directives, invalid } = Filter::parse(Some(text));
        if !invalid.is_empty() {
            return Err(format!("the filter has invalid parts: {:?}", listed(&invalid)));
        }
        let mut current = self.directives.lock().unwrap_or_else(PoisonError::into_inner);
        (self.apply)(EnvFilter::new(&directives)).map_err(|error| error.to_string())?;
        *current = directives;
        drop(current);
        tracing::info!(filter = self.directives(), "the filter of the log has changed");
        Ok(())
    }
}

/// Starts logging for the process, with the value of [`FILTER_VARIABLE`].
pub(crate) fn start(format: LogFormat, filter: Option<&str>) -> LogFilter {
    let Filter { directives, invalid } = Filter::parse(filter);
    let terminal = io::stderr().is_terminal();
    // If standard error is closed, reporting that there would panic.
    let builder = tracing_subscriber::fmt()
        .log_internal_errors(false)
        .with_env_filter(EnvFilter::new(&directives))
        .with_writer(io::stderr)
        .with_ansi(terminal);
    let is_json = match format {
        LogFormat::Json => true,
        LogFormat::Auto => !terminal,
        LogFormat::Text => false,
    };
    // `try_init` fails if the process has a logger already, as in a test.
    let apply: Arc<dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync> = if is_json {
        let builder = builder.json().flatten_event(true).with_filter_reloading();
        let handle = builder.reload_handle();
        drop(builder.try_init());
        Arc::new(move |filter| handle.reload(filter))
    } else {
        let builder = builder.with_filter_reloading();
        let handle = builder.reload_handle();
        drop(builder.try_init());
        Arc::new(move |filter| handle.reload(filter))
    };
    if !invalid.is_empty() {
        let invalid = listed(&invalid);
        tracing::error!(?invalid, "{FILTER_VARIABLE} has invalid parts, which are ignored");
    }
    LogFilter { apply, directives: Arc::new(Mutex::new(directives)) }
}

/// Invalid parts of a filter, not too long for a message.
fn listed(invalid: &[String]) -> String {
    excerpt(&invalid.join(","), EXCERPT_BYTES_MAX)
}

impl Filter {
    fn parse(text: Option<&str>) -> Self {
        let parts = text.unwrap_or_default().split(',').map(str::trim).filter(|part| !part.is_empty());
        let (valid, invalid): (Vec<&str>, Vec<&str>) = parts.partition(|part| is_valid(part));
        let mut directives = if valid.is_empty() { DEFAULT_FILTER.to_owned() } else { valid.join(",") };
        for library in SILENT {
            if !valid.iter().any(|part| part.starts_with(library)) {
                directives = format!("{directives},{library}=off");
            }
        }
        Self { directives, invalid: invalid.into_iter().map(str::to_owned).collect() }
    }
}

/// Whether this is a useful directive. [`EnvFilter`] accepts any word as the name of a crate. A
/// mistyped level would then select a crate that logs nothing, and turn off the whole log. So a
/// word without a level has to look like a crate's name.
fn is_valid(part: &str) -> bool {
    let target = part.split(['=', '[']).next().unwrap_or_default();
    let is_path =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_:-".contains(&byte));
    let is_alone = target.len() == part.len();
    let is_named = is_path(target) && (!is_alone || target.contains(['_', ':']));
    (is_named || part.parse::<LevelFilter>().is_ok()) && part.parse::<Directive>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: Option<&str>, directives: &str, invalid: &[&str]) {
        let invalid = invalid.iter().map(|&part| part.to_owned()).collect();
        assert_eq!(Filter::parse(text), Filter { directives: directives.to_owned(), invalid }, "{text:?}");
    }

    #[test]
    fn an_empty_filter_is_the_default() {
        for text in [None, Some(""), Some("  "), Some(" , ,")] {
            check(text, "info,actix_server=warn,actix_http=off,tokio_postgres=off", &[]);
        }
    }

    #[test]
    fn talkative_libraries_are_silent_unless_the_filter_names_them() {
        check(Some("info"), "info,actix_http=off,tokio_postgres=off", &[]);
        check(Some("relay_http=debug"), "relay_http=debug,actix_http=off,tokio_postgres=off", &[]);
        check(Some("off"), "off,actix_http=off,tokio_postgres=off", &[]);
        check(Some("actix=trace"), "actix=trace,actix_http=off,tokio_postgres=off", &[]);
        check(Some("info, actix_http=warn"), "info,actix_http=warn,tokio_postgres=off", &[]);
        check(Some("actix_http::h1=debug"), "actix_http::h1=debug,tokio_postgres=off", &[]);
        check(Some("warn,tokio_postgres=info"), "warn,tokio_postgres=info,actix_http=off", &[]);
    }

    #[test]
    fn invalid_directives_are_left_out_and_returned() {
        for invalid in ["nonsense!", "verbose", "warning", "relay http", "!=debug"] {
            check(Some(invalid), "info,actix_server=warn,actix_http=off,tokio_postgres=off", &[invalid]);
        }
        for valid in [
            "DEBUG",
            "relay_http",
            "relay_http::body",
            "h2=trace",
            "[request]=debug",
            "relay_http[request]=debug",
        ] {
            check(Some(valid), &format!("{valid},actix_http=off,tokio_postgres=off"), &[]);
        }
        check(
            Some("relay_http=verbose"),
            "info,actix_server=warn,actix_http=off,tokio_postgres=off",
            &["relay_http=verbose"],
        );
        check(
            Some("warn,a=b,relay_http=debug,!"),
            "warn,relay_http=debug,actix_http=off,tokio_postgres=off",
            &["a=b", "!"],
        );
    }
}
