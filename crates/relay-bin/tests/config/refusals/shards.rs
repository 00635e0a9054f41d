//! Tests refused databases of `[storage.postgres]`. No message repeats a connection string.

use crate::{env, file};

/// A file with these lines for the databases.
fn with(lines: &str) -> String {
    let rest = "[storage]\nkind = \"postgres\"\n[privacy]\nkey_path = \"k\"\n[storage.postgres]";
    format!("{rest}\ntls = \"verify-full\"\n{lines}")
}

/// Refused with these messages about the shards on line 7.
#[track_caller]
fn refused(shards: &str, messages: &[&str]) {
    refused_with("postgres", shards, messages);
}

/// Another kind of store needs no database, so nothing else is refused.
#[track_caller]
fn refused_with(kind: &str, shards: &str, messages: &[&str]) {
    let line = |message: &&str| format!("storage.postgres.shards: {message} (relay.toml line 7)");
    let lines: Vec<String> = messages.iter().map(line).collect();
    let text = with(&format!("shards = {shards}")).replacen("postgres", kind, 1);
    file(&text).refused(&lines.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn a_shard_is_a_table_with_two_texts() {
    let list = "must be a list of databases such as [{ dsn = \"host=a\", slots = \"0-127\" }, ...], found";
    let refused = |shards: &str, messages: &[&str]| refused_with("memory", shards, messages);
    refused("\"secret\"", &[&format!("{list} a text")]);
    refused("5", &[&format!("{list} 5")]);
    for (shard, message) in [
        ("5", "shard 1 must be a table, found 5"),
        ("\"secret\"", "shard 1 must be a table, found a text"),
        ("{ slots = \"0-255\" }", "shard 1 has no dsn"),
        ("{ dsn = \"secret\" }", "shard 1 has no slots"),
        ("{ dsn = \"secret\", slots = 7 }", "shard 1 must have a text as slots"),
        ("{ dsn = [\"secret\"], slots = \"0-255\" }", "shard 1 must have a text as dsn"),
        (
            "{ dsn = \"secret\", slot = \"0-255\" }",
            "shard 1 has the unknown key \"slot\"; it has: dsn, slots",
        ),
    ] {
        refused(&format!("[{shard}]"), &[message]);
    }
    refused("[{}, 1]", &["shard 1 has no dsn", "shard 2 must be a table, found 1"]);
    let variable = "RELAY__STORAGE__POSTGRES__SHARDS";
    for text in ["host=a password=secret", "", "[{ dsn = 'a' }]\nx = 1", "[{"] {
        env(&[(variable, text)]).refused(&[&format!(
            "storage.postgres.shards: {list} another text (environment variable {variable})"
        )]);
    }
}

#[test]
fn each_slot_is_in_one_shard() {
    let shards = |slots: &[&str]| {
        let shard = |slots: &&str| format!("{{ dsn = \"host=secret\", slots = \"{slots}\" }}");
        format!("[{}]", slots.iter().map(shard).collect::<Vec<_>>().join(", "))
    };
    let text = "slots must be numbers and ranges from 0 to 255, such as \"0-127\" or \"0-63,200\"";
    let huge = "1,".repeat(2_000);
    for slots in ["", "0-256", "9-1", "all", &huge] {
        refused(&shards(&["0-127", slots]), &[&format!("shard 2: {text}")]);
    }
    refused(&shards(&["0-3,2"]), &["shard 1: slot 2 is listed twice; each must be in one shard"]);
    refused(&shards(&["0-127", "127-255"]), &["slot 127 is listed twice; each must be in one shard"]);
    refused(&shards(&["0-99", "101-254"]), &["slots 100,255 are in no shard; all from 0 to 255 must be"]);
    let many: Vec<String> = (0..256).map(|slot| slot.to_string()).collect();
    refused(
        &shards(&many.iter().map(String::as_str).collect::<Vec<_>>()),
        &["256 shards are more than the 64 that a store may have"],
    );
    refused(
        "[{ dsn = \"\", slots = \"0-255\" }]",
        &["shard 1: dsn must be a connection string; it is empty"],
    );
}

#[test]
fn a_store_has_one_database_or_shards() {
    let shard = "[[storage.postgres.shards]]\ndsn = \"host=a password=secret\"\nslots = ";
    let two = format!("{shard}\"0-127\"\n{shard}\"128-255\"\n");
    let loaded = file(&with(&two)).load().unwrap();
    let printed = loaded.config.to_toml();
    let expected = r#"shards = [{ dsn = "host=a password=***", slots = "0-127" }, { dsn = "host=a password=***", slots = "128-255" }]"#;
    assert!(printed.contains(expected) && !printed.contains("secret"), "{printed}");
    file(&with(&format!("dsn = \"host=b\"\n{two}"))).refused(&[
        "storage.postgres.shards: must be empty when storage.postgres.dsn is set: a store has one database, or shards (relay.toml line 8)",
    ]);
    file(&with("")).refused(&[
        "storage.postgres.dsn: must be a connection string, such as \"host=db user=relay dbname=relay\"; it is empty",
    ]);
}
