//! Entry points for fuzzers and their tests, which treat any bytes as an operator's configuration.
//! The feature `fuzzing` enables them; they may change at any time.

use crate::config::{ConfigErrors, Loaded, RelayConfig, Sources};

/// Loads a configuration file and, after a zero byte, variables with one `NAME=value` per line.
/// The result must be a configuration that reads back as printed, or errors with messages.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (file, variables) = text.split_once('\0').unwrap_or((text, ""));
    check(RelayConfig::from_toml(file));
    let env = variables.lines().filter_map(|line| line.split_once('='));
    let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    check(RelayConfig::load(Sources { env, ..Sources::default() }));
}

fn check(loaded: Result<Loaded, ConfigErrors>) {
    match loaded {
        Ok(Loaded { config, warnings }) => {
            assert_eq!(config.validate().ok(), Some(warnings));
            let again = RelayConfig::from_toml(&config.to_toml());
            assert_eq!(
                again.ok().map(|loaded| loaded.config),
                Some(config),
                "the printed configuration reads back differently"
            );
        }
        Err(errors) => {
            assert!(!errors.problems().is_empty(), "refused without a reason");
            assert_eq!(errors.to_string().lines().count(), errors.problems().len());
        }
    }
}
