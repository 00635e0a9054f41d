//! The files in deploy that no other tool checks agree with the workspace.

use std::{collections::BTreeSet, fs};

use serde_json::Value;

use crate::project_root;

fn read(path: &str) -> String {
    fs::read_to_string(project_root().join(path)).unwrap()
}

/// The keys that begin in this column, in lines such as `key: value`.
fn keys(yaml: &str, column: usize) -> BTreeSet<&str> {
    let mut found = BTreeSet::new();
    for line in yaml.lines() {
        let name = line.trim_start().split(':').next().unwrap_or_default();
        let is_key =
            !name.is_empty() && name.len() < line.trim().len() && name.chars().all(char::is_alphanumeric);
        if is_key && line.len() - line.trim_start().len() == column {
            found.insert(name);
        }
    }
    found
}

#[test]
fn the_chart_has_the_version_that_is_built() {
    assert!(read("deploy/helm/relay/Chart.yaml").contains(&format!("\nappVersion: {}\n", super::VERSION)));
}

#[test]
fn the_schema_of_the_chart_has_every_value_and_no_other() {
    let schema: Value = serde_json::from_str(&read("deploy/helm/relay/values.schema.json")).unwrap();
    let values = read("deploy/helm/relay/values.yaml");
    // `global` is Helm's own.
    let known = schema["properties"].as_object().unwrap().keys().map(String::as_str);
    assert_eq!(keys(&values, 0), known.filter(|key| *key != "global").collect());
    for (name, value) in schema["properties"].as_object().unwrap() {
        let Some(properties) = value.get("properties") else { continue };
        let (_, rest) = values.split_once(&format!("\n{name}:\n")).unwrap();
        let lines: Vec<_> = rest.lines().take_while(|line| line.starts_with(' ')).collect();
        let table = lines.join("\n");
        let known = properties.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys(&table, 2), known, "{name}");
    }
}

/// Docker sends what .dockerignore does not exclude. These files are built into the programs.
#[test]
fn the_build_of_the_image_gets_the_files_that_are_built_in() {
    let ignored = read(".dockerignore");
    for path in ["deploy/relay.toml", "docs/openapi.json"] {
        let (directory, _) = path.split_once('/').unwrap();
        assert!(ignored.lines().any(|line| line == format!("{directory}/*")), "{directory}");
        assert!(ignored.lines().any(|line| line == format!("!{path}")), "{path}");
    }
}
