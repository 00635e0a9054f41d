//! Tests random input.

use proptest::prelude::*;
use relay_bin::config::{Loaded, Overrides, RelayConfig, Sources};

use super::values::EVERY_KEY;

/// Keys, tables and values, and some random text.
fn toml_like() -> impl Strategy<Value = String> {
    let names: Vec<String> = EVERY_KEY
        .iter()
        .map(|row| row.0.to_owned())
        .chain(
            [
                "relay",
                "[relay]",
                "[[tls]]",
                "[rate_limit.endpoints]",
                "a[9]",
                "\"a[99999999999]\"",
                "\"\"",
                "[x.y]",
            ]
            .map(str::to_owned),
        )
        .collect();
    let values: Vec<String> = EVERY_KEY
        .iter()
        .map(|row| row.1.to_owned())
        .chain(
            ["-1", "1e400", "nan", "{}", "[[]]", "\"\"\"", "1979-05-27", "''", "{a.b=1}"].map(str::to_owned),
        )
        .collect();
    let name = prop_oneof![4 => prop::sample::select(names), 1 => any::<String>()];
    let value = prop_oneof![4 => prop::sample::select(values), 1 => any::<String>()];
    let line =
        (name, prop_oneof![4 => Just(" = "), 1 => Just("\n")], value).prop_map(|(n, is, v)| n + is + &v);
    prop::collection::vec(line, 0..6).prop_map(|lines| lines.join("\n"))
}

fn variables() -> impl Strategy<Value = Vec<(String, String)>> {
    let known: Vec<String> =
        EVERY_KEY.iter().map(|row| format!("RELAY__{}", row.0.to_uppercase().replace('.', "__"))).collect();
    let name = prop_oneof![
        4 => prop::sample::select(known),
        1 => any::<String>().prop_map(|rest| format!("RELAY__{rest}")),
        1 => any::<String>(),
    ];
    let value = prop_oneof![
        1 => prop::sample::select(EVERY_KEY).prop_map(|row| row.2.to_owned()),
        1 => any::<String>(),
    ];
    prop::collection::vec((name, value), 0..6)
}

proptest! {
    /// Any input gives a configuration that reads back as printed, or messages.
    #[test]
    fn any_input_gives_a_configuration_or_messages(text in prop_oneof![toml_like(), any::<String>()], env in variables(), address in any::<Option<String>>()) {
        let from_text = RelayConfig::from_toml(&text);
        let overrides = Overrides { address, ..Overrides::default() };
        for loaded in [from_text, RelayConfig::load(Sources { env, overrides, ..Sources::default() })] {
            match loaded {
                Ok(Loaded { config, warnings }) => {
                    prop_assert_eq!(config.validate().unwrap(), warnings);
                    prop_assert_eq!(RelayConfig::from_toml(&config.to_toml()).unwrap().config, config);
                }
                Err(errors) => {
                    prop_assert!(!errors.problems().is_empty());
                    prop_assert_eq!(errors.to_string().lines().count(), errors.problems().len());
                }
            }
        }
    }
}
