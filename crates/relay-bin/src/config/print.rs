//! Formats a configuration as TOML text, every key with its value.

use std::path::PathBuf;

use toml::Value;

use super::keys::{self, Key, Kind};
use super::postgres::without_password;
use super::{ListenConfig, PostgresShard, RelayConfig, TlsConfig, listen};

pub(super) fn to_toml(config: &RelayConfig) -> String {
    let mut text = String::new();
    let mut current = "";
    for key in keys::KEYS {
        let Some(value) = value(key, config) else { continue };
        let (table, leaf) = keys::split(key.name);
        if table != current {
            text.push_str(&format!("\n[{table}]\n"));
            current = table;
        }
        text.push_str(&format!("{leaf} = {value}\n"));
    }
    text
}

/// The value in TOML; `None` for an optional one that is not set.
pub(super) fn value(key: &Key, config: &RelayConfig) -> Option<String> {
    Some(match &key.kind {
        Kind::Text(read) => quoted(&read(config)?),
        Kind::Choice(_, read) => quoted(read(config)),
        Kind::Flag(read) => read(config).to_string(),
        Kind::Number { read, .. } => read(config).to_string(),
        Kind::Rate(read) => read(config).to_string(),
        Kind::Networks(read) => list(read(config)),
        Kind::Peers(read) => list(read(config)),
        Kind::Texts(read) => list(read(config)),
        Kind::Shards(read) => shards(read(config)),
        Kind::Listeners(read) => listeners(read(config)),
    })
}

fn quoted(text: &str) -> String {
    Value::String(text.to_owned()).to_string()
}

fn list(items: &[impl ToString]) -> String {
    let items: Vec<String> = items.iter().map(|item| quoted(&item.to_string())).collect();
    format!("[{}]", items.join(", "))
}

fn listeners(listeners: &[ListenConfig]) -> String {
    let listener = |listener: &ListenConfig| {
        let ListenConfig { address, mode, proxy_protocol, tls } = listener;
        let (address, mode) = (quoted(address), quoted(keys::mode(*mode)));
        let tls = tls.as_ref().map(|tls| format!(", tls = {{ {} }}", paths(tls))).unwrap_or_default();
        format!("{{ address = {address}, mode = {mode}, proxy_protocol = {}{tls} }}", list(proxy_protocol))
    };
    format!("[{}]", listeners.iter().map(listener).collect::<Vec<_>>().join(", "))
}

fn paths(tls: &TlsConfig) -> String {
    let path =
        |(key, path): (&str, Option<&PathBuf>)| Some(format!("{key} = {}", quoted(&path?.to_string_lossy())));
    listen::paths(tls).into_iter().filter_map(path).collect::<Vec<_>>().join(", ")
}

fn shards(shards: &[PostgresShard]) -> String {
    let shard = |shard: &PostgresShard| {
        format!("{{ dsn = {}, slots = {} }}", quoted(&without_password(&shard.dsn)), quoted(&shard.slots))
    };
    format!("[{}]", shards.iter().map(shard).collect::<Vec<_>>().join(", "))
}
