//! The dashboards, the alerts and docs/operations.md refer only to existing metrics. Grafana's
//! dashboard and the document cover all of them, and the relay's own dashboard has the same alerts.

use std::collections::BTreeSet;

use relay_http::{Code, Metric, MetricKind};
use serde_json::Value;

const DASHBOARD: &str = include_str!("../../../../deploy/grafana-dashboard.json");
const ALERTS: &str = include_str!("../../../../deploy/alerts.yaml");
/// The scripts of the relay's own dashboard that name metrics.
const PAGE_ALERTS: &str = include_str!("../../src/server/admin/page/alerts.js");
const PAGE_PANELS: &str = include_str!("../../src/server/admin/page/panels.js");

const DOCUMENT: &str = include_str!("../../../../docs/operations.md");

/// The names under which a query may refer to a metric.
fn names_of(metric: Metric) -> Vec<String> {
    let name = metric.name();
    match metric.kind() {
        MetricKind::Histogram => ["bucket", "sum", "count"].map(|part| format!("{name}_{part}")).into(),
        MetricKind::Counter | MetricKind::Gauge | MetricKind::Info => vec![name.to_owned()],
    }
}

/// The metric names of ours in a query.
fn names(query: &str) -> BTreeSet<String> {
    let words = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("relay_")).map(str::to_owned).collect()
}

fn queries(dashboard: &Value) -> Vec<String> {
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().unwrap());
    targets.map(|target| target["expr"].as_str().unwrap().to_owned()).collect()
}

/// The values that a query compares a label with: `code="a"`, or `code=~"a|b"`.
fn values<'a>(query: &'a str, label: &str) -> Vec<&'a str> {
    let matchers = query.split([',', '{', '}']).map(str::trim);
    let of_label = matchers.filter_map(|matcher| matcher.strip_prefix(label)?.split('"').nth(1));
    of_label.flat_map(|values| values.split('|')).collect()
}

#[test]
fn the_dashboard_and_the_alerts_use_existing_metrics() {
    let known: BTreeSet<_> = Metric::ALL.into_iter().flat_map(names_of).collect();
    let mut all = queries(&serde_json::from_str(DASHBOARD).unwrap());
    assert!(all.iter().all(|query| !names(query).is_empty()));
    // The whole file, so that the texts of the rules are checked, too.
    all.push(ALERTS.to_owned());
    for query in &all {
        let unknown: Vec<_> = names(query).into_iter().filter(|name| !known.contains(name)).collect();
        assert!(unknown.is_empty(), "{unknown:?} in {query}");
        for code in values(query, "code") {
            let is_code = Code::ALL.iter().any(|known| known.as_str() == code);
            assert!(is_code || ["ok", "gone"].contains(&code), "{code} in {query}");
        }
        for endpoint in values(query, "endpoint") {
            assert!(["push", "pull", "ack"].contains(&endpoint), "{endpoint} in {query}");
        }
    }
}

#[test]
fn every_metric_is_on_the_dashboard() {
    let queries = queries(&serde_json::from_str(DASHBOARD).unwrap());
    let shown: BTreeSet<_> = queries.iter().flat_map(|query| names(query)).collect();
    for metric in Metric::ALL {
        assert!(names_of(metric).iter().any(|name| shown.contains(name)), "{}", metric.name());
    }
}

#[test]
fn the_operators_page_lists_every_metric_with_its_labels_and_every_alert() {
    let row = |line: &str| {
        let mut cells = line.strip_prefix("| `relay_")?.split('|').map(str::trim);
        let name = format!("relay_{}", cells.next()?.trim_end_matches('`'));
        Some((name, cells.next()?.replace('`', "")))
    };
    let listed: Vec<_> = DOCUMENT.lines().filter_map(row).collect();
    let expected = Metric::ALL.map(|metric| (metric.name().to_owned(), metric.labels().join(", ")));
    assert_eq!(listed, expected);

    let alerts: Vec<_> = ALERTS.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    let explained: Vec<_> =
        DOCUMENT.lines().filter_map(|line| line.strip_prefix("| `Relay")?.split('`').next()).collect();
    assert_eq!(explained, alerts.iter().map(|alert| alert.trim_start_matches("Relay")).collect::<Vec<_>>());
}

/// An alert: its name, severity, seconds until it fires, and condition.
type Rule = (String, String, u64, String);

/// The rules in a file, each of which begins with `start`, by the parts of its text.
fn rules(file: &str, start: &str, parts: impl Fn(&str) -> Rule) -> Vec<Rule> {
    file.split(start).skip(1).map(parts).collect()
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    text.split_once(start)?.1.split_once(end).map(|(part, _)| part)
}

/// One space where the text has any.
fn in_one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A time such as `10m`, in seconds.
fn seconds(time: &str) -> u64 {
    let (number, unit) = time.split_at(time.len() - 1);
    number.parse::<u64>().unwrap() * if unit == "h" { 3600 } else { 60 }
}

#[test]
fn the_page_of_the_relay_has_the_same_alerts() {
    let expected = rules(ALERTS, "- alert: ", |rule| {
        let expr = between(rule, "expr:", "\n        labels:").unwrap();
        let (expr, time) = expr.split_once("\n        for: ").unwrap_or((expr, "0m"));
        let expr = expr.trim_start().trim_start_matches('|').trim_start_matches(">-");
        let name = rule.lines().next().unwrap().to_owned();
        let severity = between(rule, "severity: ", "}").unwrap().to_owned();
        (name, severity, seconds(time), in_one_line(expr))
    });
    let shown = rules(PAGE_ALERTS, "    name: \"", |rule| {
        let name = rule.split('"').next().unwrap().to_owned();
        let severity = between(rule, "severity: \"", "\"").unwrap().to_owned();
        let after = between(rule, "after: ", ",").unwrap().parse().unwrap();
        (name, severity, after, in_one_line(between(rule, "expr: `", "`").unwrap()))
    });
    assert_eq!(shown, expected);
}

#[test]
fn the_page_of_the_relay_uses_existing_metrics() {
    let known: BTreeSet<_> = Metric::ALL.into_iter().map(|metric| metric.name()).collect();
    for word in names(PAGE_ALERTS).into_iter().chain(names(PAGE_PANELS)) {
        let name = ["_bucket", "_count", "_sum"].iter().find_map(|part| word.strip_suffix(part));
        assert!(known.contains(name.unwrap_or(&word)) || known.contains(&*word), "{word}");
    }
}
