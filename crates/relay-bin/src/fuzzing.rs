//! What fuzzers and their tests run: bytes of any origin, taken for what an operator wrote.
//! Compiled with the feature `fuzzing` alone; nothing of it is part of a running relay, and nothing
//! is promised to stay.

use crate::config::{ConfigErrors, Loaded, RelayConfig, Sources};

/// A configuration file, and behind a zero byte variables, one `NAME=value` to a line. What comes
/// of it is a configuration that prints and reads back, or lines to read.
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
                "it does not read back what it prints"
            );
        }
        Err(errors) => {
            assert!(!errors.problems().is_empty(), "refused without a word");
            assert_eq!(errors.to_string().lines().count(), errors.problems().len());
        }
    }
}
