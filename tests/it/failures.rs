//! What `docs/failures.md`, `docs/operations.md` and the example alerts say is compared with the code.

use std::collections::BTreeSet;
use std::fs;

use trainyard::diagnose::{Category, Patience, patience};
use trainyard::telemetry::metrics::Metrics;

use crate::sources::{root, shipped};

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
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

/// Reasons of Events that a source names.
fn reasons_in(source: &str) -> BTreeSet<String> {
    let code = source.split("#[cfg(test)]\nmod tests").next();
    let lines = code.unwrap_or_default().lines().map(str::trim);
    let lines: Vec<&str> = lines.filter(|line| !line.starts_with("//")).collect();
    let code = lines.join(" ");
    let reason = |(at, quote): (usize, &str)| {
        let (word, after) = code[at + quote.len()..].split_once('"')?;
        (is_word(word) && is_reason(&code[..at], after)).then(|| word.to_owned())
    };
    code.match_indices('"').filter_map(reason).collect()
}

fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_uppercase())
        && text.chars().all(|c| c.is_ascii_alphabetic())
        && text.chars().any(|c| c.is_ascii_lowercase())
}

/// Whether a word between these is the reason of an Event: it follows on a condition that is told so, or on the type of
/// an Event, or is the first of a pair, or of a call that is not about room (`Waiting`).
fn is_reason(before: &str, after: &str) -> bool {
    let before = before.trim_end();
    let of_condition = before
        .strip_suffix(',')
        .and_then(|before| before.rsplit_once("condition::"))
        .is_some_and(|(_, name)| {
            name != "CAPACITY_AVAILABLE" && name.chars().all(|c| c.is_ascii_uppercase() || c == '_')
        });
    let is_first = before.ends_with('(') && !before.ends_with("Waiting::new(");
    let of_event = before.ends_with("EventType::Warning,");
    of_condition || (after.starts_with(',') && (is_first || of_event))
}

/// The reasons that `docs/operations.md` explains, with the type of each one's Events.
pub fn reasons_of_events() -> Vec<(String, String)> {
    table(&read("docs/operations.md"), "Reasons of Events")
        .into_iter()
        .map(|row| (row[0].clone(), row[1].clone()))
        .collect()
}

#[test]
fn s28_every_reason_of_an_event_is_explained_and_no_other() {
    let told = reasons_of_events().into_iter();
    let told: BTreeSet<String> = told.map(|(reason, _)| reason).collect();
    // What is found by those that only ask is no Event.
    let known: BTreeSet<String> = shipped("src/controller")
        .iter()
        .filter(|file| !file.ends_with("foresee.rs"))
        .flat_map(|file| reasons_in(&fs::read_to_string(file).expect("a source")))
        .collect();
    assert_eq!(told, known);
}

#[test]
fn reasons_are_found_wherever_they_stand() {
    let source = "// \"Comment\",\n\
        Trouble::new(\n    condition::TEMPLATE_VALID,\n    \"Invalid\",\n    \"words, \\\"quoted\\\"\",\n);\n\
        (condition::CREDENTIALS_VALID, \"Refused\"),\n\
        refused(\"NotYaml\", message);\n\
        writer.event(binding, EventType::Warning, \"JobRefused\", &note);\n\
        Trouble::new(condition::CAPACITY_AVAILABLE, \"Room\", \"\");\n\
        Waiting::new(\"NoRoom\", \"Words\"); of(\"Evicted\"); tell(\"ERROR\", \"\");\n\
        #[cfg(test)]\nmod tests { refused(\"Other\", \"\") }\n";
    let wanted = ["Invalid", "JobRefused", "NotYaml", "Refused"];
    assert_eq!(
        reasons_in(source),
        BTreeSet::from(wanted.map(str::to_owned))
    );
}

/// Names of metrics that a text speaks of.
fn metrics_in(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| word.starts_with("trainyard_"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn what_an_alert_counts_as_interruptions_is_counted_from_0_on() {
    let alerts = read("examples/alerts.yaml");
    let (_, rest) = alerts
        .split_once("category=~\"")
        .expect("an alert counts categories");
    let words = rest.split('"').next().unwrap_or_default();
    let told: BTreeSet<&str> = words.split('|').collect();
    let known = BTreeSet::from(Category::INTERRUPTING.map(Category::as_str));
    assert_eq!(told, known);
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
