//! Prometheus itself reads the alerts and the queries of the dashboard, and evaluates each alert
//! over figures by which it should fire, and others by which it should not. The tests of relay-http
//! compare the names in them with the metrics. Without `promtool`, these tests are skipped.

use std::path::Path;
use std::process::Command;

use relay_tests::skip_without;
use serde_json::{Value, json};

const ALERTS: &str = include_str!("../../../deploy/alerts.yaml");
const ALERT_TESTS: &str = include_str!("../../../deploy/alerts.test.yaml");
const DASHBOARD: &str = include_str!("../../../deploy/grafana-dashboard.json");

/// Runs `promtool`, which must be content; does nothing without it.
fn promtool(arguments: [&str; 2], file: &Path) {
    let Ok(output) = Command::new("promtool").args(arguments).arg(file).output() else {
        return skip_without("promtool");
    };
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "{}", text.concat());
}

fn deploy(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(name)
}

#[test]
fn each_alert_fires_when_it_should_and_not_otherwise() {
    promtool(["check", "rules"], &deploy("alerts.yaml"));
    promtool(["test", "rules"], &deploy("alerts.test.yaml"));
}

#[test]
fn each_alert_has_a_test_that_fires_it_and_one_that_does_not() {
    for name in ALERTS.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        for expected in [format!("alertname: {name}, exp_alerts: []"), fires(name)] {
            assert!(ALERT_TESTS.contains(&expected), "{expected}");
        }
    }
}

fn fires(name: &str) -> String {
    format!("alertname: {name}\n        exp_alerts:\n          - exp_labels:")
}

/// Grafana fills in the variables; Prometheus sees queries like these.
#[test]
fn the_queries_of_the_dashboard_are_queries() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().unwrap());
    let rules: Vec<Value> = targets
        .enumerate()
        .map(|(number, target)| {
            let query = target["expr"].as_str().unwrap();
            let query = query.replace("$__rate_interval", "1m").replace("$instance", ".*");
            assert!(!query.contains('$'), "{query}");
            json!({"record": format!("query:{number}"), "expr": query})
        })
        .collect();
    assert!(rules.len() > 40, "{}", rules.len());
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("queries.yaml");
    // JSON is YAML.
    std::fs::write(&file, json!({"groups": [{"name": "dashboard", "rules": rules}]}).to_string()).unwrap();
    promtool(["check", "rules"], &file);
}
