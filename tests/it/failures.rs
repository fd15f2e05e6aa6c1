//! What `docs/failures.md` and the example alerts say is compared with the code.

use std::collections::BTreeSet;
use std::path::Path;

use trainyard::diagnose::{Category, Patience, patience};
use trainyard::telemetry::metrics::Metrics;

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path))
        .unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Rows of the table below a heading, without its head.
fn table(text: &str, heading: &str) -> Vec<Vec<String>> {
    let (_, rest) = text
        .split_once(&format!("## {heading}\n"))
        .unwrap_or_else(|| panic!("heading {heading:?}"));
    let rest = rest.split("\n## ").next().unwrap_or_default();
    rest.lines()
        .filter(|line| line.starts_with('|'))
        .skip(2)
        .map(|line| {
            line.trim_matches('|')
                .split('|')
                .map(|cell| cell.trim().trim_matches('`').to_owned())
                .collect()
        })
        .collect()
}

#[test]
fn every_category_is_explained_and_no_other() {
    let told: BTreeSet<String> = table(&read("docs/failures.md"), "Categories")
        .into_iter()
        .map(|row| row[0].clone())
        .collect();
    let known: BTreeSet<String> = Category::ALL
        .iter()
        .map(|category| category.as_str().to_owned())
        .collect();
    assert_eq!(told, known);
}

#[test]
fn patience_is_what_the_table_says() {
    let told: BTreeSet<(String, String, String)> = table(&read("docs/failures.md"), "Patience")
        .into_iter()
        .map(|row| (row[0].clone(), row[1].clone(), row[2].clone()))
        .collect();
    let known: BTreeSet<(String, String, String)> = Category::OF_WAITING
        .iter()
        .map(|category| {
            let (time, then) = match patience(*category) {
                Patience::AsBound => ("pendingTimeout".to_owned(), "onPendingTimeout"),
                Patience::Then(time) => (format!("{} s", time.as_secs()), "onPendingTimeout"),
                Patience::ThenFail(time) => (format!("{} s", time.as_secs()), "fail"),
            };
            (category.as_str().to_owned(), time, then.to_owned())
        })
        .collect();
    assert_eq!(told, known);
}

/// Names of metrics that a text speaks of.
fn metrics_in(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| word.starts_with("trainyard_"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn alerts_speak_of_metrics_that_are_there_and_of_runbooks_that_are_written() {
    let metrics = Metrics::new().expect("metrics are registered");
    let known: BTreeSet<String> = metrics.names().into_iter().collect();
    let (alerts, operations) = (read("examples/alerts.yaml"), read("docs/operations.md"));
    for (place, text) in [
        ("examples/alerts.yaml", &alerts),
        ("docs/operations.md", &operations),
    ] {
        let unknown: Vec<_> = metrics_in(text).difference(&known).cloned().collect();
        assert!(unknown.is_empty(), "{place} speaks of {unknown:?}");
    }
    let silent: Vec<_> = known
        .difference(&metrics_in(&operations))
        .cloned()
        .collect();
    assert!(silent.is_empty(), "docs/operations.md lacks {silent:?}");
    let rules: serde_json::Value = serde_saphyr::from_str(&alerts).expect("alerts are YAML");
    let rules = rules["groups"][0]["rules"]
        .as_array()
        .expect("rules")
        .clone();
    assert!(rules.len() >= 9);
    for rule in rules {
        let name = rule["alert"].as_str().expect("an alert has a name");
        assert!(
            operations.contains(&format!("### {name}\n")),
            "{name} has no runbook"
        );
        let link = rule["annotations"]["runbook_url"]
            .as_str()
            .unwrap_or_default();
        assert_eq!(link, format!("docs/operations.md#{}", name.to_lowercase()));
    }
}
