//! The commands on a store in PostgreSQL: the tables, statistics, and the way there and back.

use relay_store_postgres::testing::{execute, is_left_out};

use super::{Queues, TestDir};
use crate::database::Database;

#[test]
fn an_export_moves_to_postgresql_and_back() {
    if is_left_out() {
        return;
    }
    let dir = TestDir::with_store();
    let original = dir.queues("store");
    dir.succeeds("store", &["export"], "x");
    let program = Database::new(dir.0.path(), false);
    assert_eq!(program.succeeds(&["migrate"]), "created the tables of schema 2\n");
    assert_eq!(program.succeeds(&["migrate"]), "the tables have schema 2 already\n");

    let imported = program.succeeds(&["import", &dir.text("x")]);
    assert!(imported.contains("700 items stored, 0 already known"), "{imported}");
    let imported = program.succeeds(&["import", &dir.text("x")]);
    assert!(imported.contains("0 items stored, 700 already known (0 of them"), "{imported}");
    let stats = program.succeeds(&["stats"]);
    assert!(stats.contains("recipients              plain\nqueues                  3\n"), "{stats}");
    assert!(program.succeeds(&["stats", "--json"]).contains("\"items\":700"));
    is_exported_as_it_came(&program, &dir, &original);

    execute(&program.dsn, "UPDATE relay.queue SET items = items + 1").unwrap();
    let ended = program.run(&["verify"]);
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.stdout.contains("queue 0: the recorded usage is"), "{}", ended.stdout);
}

/// The store in the database is in order, and goes back to a redb store as it came.
fn is_exported_as_it_came(program: &Database, dir: &TestDir, original: &Queues) {
    let verified = program.succeeds(&["verify"]);
    assert!(
        verified.starts_with("3 queues, 700 items of ") && verified.ends_with("; 0 findings\n"),
        "{verified}"
    );

    let exported = program.succeeds(&["export", &dir.text("y")]);
    assert!(exported.contains("/y: 700 items of "), "{exported}");
    let back = dir.succeeds("back", &["import"], "y");
    assert!(back.contains("700 items stored"), "{back}");
    assert_eq!(&dir.queues("back"), original);
}

#[test]
fn all_commands_work_on_several_databases() {
    if is_left_out() {
        return;
    }
    let dir = TestDir::with_store();
    let original = dir.queues("store");
    dir.succeeds("store", &["export"], "x");
    let mut program = Database::new(dir.0.path(), false);
    let (first, second) = (program.dsn.clone(), program.server.create_database().unwrap());
    program.set_shards(&[(&first, "0-119"), (&second, "120-255")]);
    assert_eq!(
        program.succeeds(&["migrate"]),
        "shard 1: created the tables of schema 2\nshard 2: created the tables of schema 2\n"
    );
    let imported = program.succeeds(&["import", &dir.text("x")]);
    assert!(imported.contains("700 items stored, 0 already known"), "{imported}");
    let stats = program.succeeds(&["stats"]);
    assert!(stats.contains("recipients              plain\nqueues                  3\n"), "{stats}");
    let counts = [&first, &second].map(|dsn| {
        execute(dsn, "SELECT count(*) || ' queues, ' || sum(items) || ' items' FROM relay.queue").unwrap()
    });
    assert!(!counts.contains(&String::new()), "both have some: {counts:?}");
    for (number, counts) in (1..).zip(&counts) {
        assert!(stats.contains(&format!("shard {number}                 {counts} of ")), "{stats}");
    }
    let json: serde_json::Value = program.succeeds(&["stats", "--json"]).parse().unwrap();
    let shards = json["shards"].as_array().unwrap();
    assert_eq!(shards.iter().map(|shard| shard["items"].as_u64().unwrap()).sum::<u64>(), 700);
    assert_eq!(json["items"], 700);
    is_exported_as_it_came(&program, &dir, &original);

    // Another map is refused, and the queues have to be copied first.
    program.set_shards(&[(&first, "0-200"), (&second, "201-255")]);
    for arguments in [vec!["stats"], vec!["verify"], vec!["migrate", "--set-slots"]] {
        let ended = program.run(&arguments);
        assert_eq!(ended.status.code(), Some(1), "{arguments:?}");
        assert!(ended.stderr.contains("shard "), "{}", ended.stderr);
    }
    execute(&second, "UPDATE relay.queue SET items = items + 1").unwrap();
    program.set_shards(&[(&first, "0-119"), (&second, "120-255")]);
    let ended = program.run(&["verify"]);
    assert!(ended.stdout.contains("shard 2: queue 0: the recorded usage is"), "{}", ended.stdout);
}

#[test]
fn hashed_recipients_move_with_their_key() {
    if is_left_out() {
        return;
    }
    let dir = TestDir::with_store();
    dir.succeeds("store", &["export"], "x");
    let first = Database::new(dir.0.path(), true);
    first.succeeds(&["migrate"]);
    first.succeeds(&["import", &dir.text("x")]);
    let names =
        execute(&first.dsn, "SELECT convert_from(recipient, 'UTF8') FROM relay.queue ORDER BY 1").unwrap();
    assert!(!names.contains("alice") && names.lines().count() == 3, "{names}");
    first.succeeds(&["export", &dir.text("y")]);

    // Another database with the same key takes them, and one with another key does not.
    let mut second = Database::new(dir.0.path(), true);
    second.key = dir.text("other.key");
    second.succeeds(&["migrate"]);
    let refused = second.run(&["import", &dir.text("y")]);
    assert_eq!(refused.status.code(), Some(1), "{}", refused.stdout);
    second.key = dir.text("relay.key");
    let imported = second.succeeds(&["import", &dir.text("y")]);
    assert!(imported.contains("700 items stored"), "{imported}");
    assert_eq!(
        execute(&second.dsn, "SELECT convert_from(recipient, 'UTF8') FROM relay.queue ORDER BY 1").unwrap(),
        names
    );
}

#[test]
fn commands_that_the_database_has_itself_say_so() {
    if is_left_out() {
        return;
    }
    let dir = TestDir::new();
    let program = Database::new(dir.0.path(), false);
    for (arguments, instead) in [
        (vec!["backup", "d"], "use pg_basebackup or pg_dump"),
        (vec!["restore", "d"], "restore the database"),
        (vec!["compact"], "autovacuum frees the space"),
        (vec!["verify"], "run `relay-bin migrate`"),
        (vec!["serve", "--address", "127.0.0.1:0"], "run `relay-bin migrate`"),
    ] {
        let ended = program.run(&arguments);
        assert_eq!(ended.status.code(), Some(1), "{arguments:?}");
        assert!(ended.stderr.contains(instead), "{arguments:?}: {}", ended.stderr);
    }
}
