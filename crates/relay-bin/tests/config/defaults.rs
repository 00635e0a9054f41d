//! Tests that the shipped file has the documented defaults, and that parts have the same ones
//! alone.

use relay_bin::config::{
    AdminConfig, AuthConfig, CorsConfig, EndpointRateLimit, Loaded, PrivacyConfig, RateLimitConfig,
    RelayConfig, RelayLimits, ServerConfig, StorageConfig, WakeConfig,
};

use super::{Given, file};
use crate::values::{SHIPPED, documented_defaults};

#[test]
fn the_shipped_file_is_the_documented_default() {
    assert_eq!(Given::default().load().unwrap().config, documented_defaults());
    assert_eq!(file(SHIPPED).load().unwrap(), Loaded { config: documented_defaults(), warnings: Vec::new() });

    let admin = AdminConfig { address: String::new(), ..documented_defaults().admin };
    let library = RelayConfig { address: "127.0.0.1:0".to_owned(), admin, ..documented_defaults() };
    assert_eq!(AdminConfig::default(), library.admin);
    assert_eq!(RelayConfig::default(), library);
    assert_eq!(RelayConfig::from_toml("").unwrap(), Loaded { config: library.clone(), warnings: Vec::new() });
    assert_eq!(library.validate().unwrap(), Vec::<String>::new());
}

#[test]
fn parts_have_the_defaults_of_the_shipped_file() {
    let all = documented_defaults();
    assert_eq!(ServerConfig::default(), all.server);
    assert_eq!(StorageConfig::default(), all.storage);
    assert_eq!(PrivacyConfig::default(), all.privacy);
    assert_eq!(AuthConfig::default(), all.auth);
    assert_eq!(RelayLimits::default(), all.relay);
    assert_eq!(RateLimitConfig::default(), all.rate_limit);
    assert_eq!(EndpointRateLimit::default(), all.rate_limit.endpoints);
    assert_eq!(CorsConfig::default(), all.cors);
    assert_eq!(WakeConfig::default(), all.wake);
}
