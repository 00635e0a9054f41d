//! Where log lines go, and how they look. Lines go to standard error; standard output is for what
//! the program was asked for.

use std::io::{self, IsTerminal};

use relay_core::excerpt;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{Directive, LevelFilter};

use crate::cli::LogFormat;

/// The environment variable that chooses what is logged, such as `debug` or `relay_http=debug`.
pub(crate) const FILTER_VARIABLE: &str = "RUST_LOG";

/// What is logged when nobody chooses. The framework's own life cycle says nothing that the relay
/// does not say better.
const DEFAULT_FILTER: &str = "info,actix_server=warn";

/// The framework takes every malformed request for an error of ours, so anybody could fill the log.
const FRAMEWORK: &str = "actix_http";

/// What is told of a filter that is not understood.
const WORDS_BYTES_MAX: usize = 200;

/// What is to be logged.
#[derive(Debug, PartialEq, Eq)]
struct Filter {
    /// In the words of [`EnvFilter`], all of which it understands.
    directives: String,
    /// What is not understood of what was asked for.
    odd: Vec<String>,
}

/// Starts logging for the whole process, as the operator asks for by [`FILTER_VARIABLE`].
pub(crate) fn start(format: LogFormat, asked: Option<&str>) {
    let Filter { directives, odd } = Filter::choose(asked);
    let terminal = io::stderr().is_terminal();
    // Whoever read the log may be gone, and to complain about that where nobody reads would panic.
    let builder = tracing_subscriber::fmt()
        .log_internal_errors(false)
        .with_env_filter(EnvFilter::new(directives))
        .with_writer(io::stderr)
        .with_ansi(terminal);
    // A logger that is there already, as in a test, stays.
    let outcome = match format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Auto if !terminal => builder.json().flatten_event(true).try_init(),
        LogFormat::Auto | LogFormat::Text => builder.try_init(),
    };
    drop(outcome);
    if !odd.is_empty() {
        let odd = excerpt(&odd.join(","), WORDS_BYTES_MAX);
        tracing::error!(?odd, "{FILTER_VARIABLE} has parts that are not understood; the others count");
    }
}

impl Filter {
    fn choose(asked: Option<&str>) -> Self {
        let parts = asked.unwrap_or_default().split(',').map(str::trim).filter(|part| !part.is_empty());
        let (good, odd): (Vec<&str>, Vec<&str>) = parts.partition(|part| is_understood(part));
        let mut directives = if good.is_empty() { DEFAULT_FILTER.to_owned() } else { good.join(",") };
        if !good.iter().any(|part| part.starts_with(FRAMEWORK)) {
            directives = format!("{directives},{FRAMEWORK}=off");
        }
        Self { directives, odd: odd.into_iter().map(str::to_owned).collect() }
    }
}

/// Whether this means something. [`EnvFilter`] takes any word for the name of a crate, and a
/// mistyped level for one that has nothing to say: then nothing at all is logged. So a word that
/// stands alone has to look like a crate's.
fn is_understood(part: &str) -> bool {
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

    fn check(asked: Option<&str>, directives: &str, odd: &[&str]) {
        let odd = odd.iter().map(|&part| part.to_owned()).collect();
        assert_eq!(Filter::choose(asked), Filter { directives: directives.to_owned(), odd }, "{asked:?}");
    }

    #[test]
    fn what_is_empty_chooses_nothing() {
        for asked in [None, Some(""), Some("  "), Some(" , ,")] {
            check(asked, "info,actix_server=warn,actix_http=off", &[]);
        }
    }

    #[test]
    fn the_framework_is_silent_unless_it_is_named() {
        check(Some("info"), "info,actix_http=off", &[]);
        check(Some("relay_http=debug"), "relay_http=debug,actix_http=off", &[]);
        check(Some("off"), "off,actix_http=off", &[]);
        check(Some("actix=trace"), "actix=trace,actix_http=off", &[]);
        check(Some("info, actix_http=warn"), "info,actix_http=warn", &[]);
        check(Some("actix_http::h1=debug"), "actix_http::h1=debug", &[]);
    }

    #[test]
    fn what_is_not_understood_is_left_out_and_told() {
        for odd in ["nonsense!", "verbose", "warning", "relay http", "!=debug"] {
            check(Some(odd), "info,actix_server=warn,actix_http=off", &[odd]);
        }
        for good in [
            "DEBUG",
            "relay_http",
            "relay_http::body",
            "h2=trace",
            "[request]=debug",
            "relay_http[request]=debug",
        ] {
            check(Some(good), &format!("{good},actix_http=off"), &[]);
        }
        check(Some("relay_http=verbose"), "info,actix_server=warn,actix_http=off", &["relay_http=verbose"]);
        check(Some("warn,a=b,relay_http=debug,!"), "warn,relay_http=debug,actix_http=off", &["a=b", "!"]);
    }
}
