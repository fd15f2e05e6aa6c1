//! The example alerts, by Prometheus' own `promtool`: each fires when it should and not before.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::sources::root;

/// The groups of rules of `examples/alerts.yaml`.
pub fn groups() -> Value {
    let path = root().join("examples/alerts.yaml");
    let text = fs::read_to_string(&path).expect("the alerts are readable");
    serde_saphyr::from_str(&text).expect("the alerts are YAML")
}

/// The rules of all groups.
pub fn rules(groups: &mut Value) -> impl Iterator<Item = &mut Value> {
    let groups = groups["groups"].as_array_mut().into_iter().flatten();
    groups.flat_map(|group| group["rules"].as_array_mut().into_iter().flatten())
}

/// What `promtool test rules` says of a file, and whether it found all as it should be.
fn judge(tests: &Path) -> (bool, String) {
    let output = Command::new("promtool")
        .args(["test", "rules"])
        .arg(tests)
        .output()
        .expect("promtool runs: Debian has it in the package prometheus");
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

#[test]
fn s28_each_alert_fires_when_it_should_and_not_before() {
    let tests = root().join("examples/alerts.test.yaml");
    let (is_right, told) = judge(&tests);
    assert!(is_right, "{told}");

    // Each alert has a moment at which it fires and one at which it does not.
    let text = fs::read_to_string(&tests).expect("the tests of alerts are readable");
    let cases: Value = serde_saphyr::from_str(&text).expect("the tests of alerts are YAML");
    let cases = cases["tests"].as_array().into_iter().flatten();
    let moments = cases.flat_map(|case| case["alert_rule_test"].as_array().into_iter().flatten());
    let seen: BTreeSet<(String, bool)> = moments
        .map(|moment| {
            let fires = moment["exp_alerts"]
                .as_array()
                .is_some_and(|all| !all.is_empty());
            let name = moment["alertname"].as_str().unwrap_or_default();
            (name.to_owned(), fires)
        })
        .collect();
    let mut groups = groups();
    let mut names = BTreeSet::new();
    for rule in rules(&mut groups) {
        names.insert(rule["alert"].as_str().unwrap_or_default().to_owned());
        // The same alert, which now never fires.
        rule["expr"] = json!("vector(0) > 1");
    }
    assert!(names.len() >= 9, "{names:?}");
    let wanted: BTreeSet<(String, bool)> = names
        .iter()
        .flat_map(|name| [(name.clone(), false), (name.clone(), true)])
        .collect();
    assert_eq!(seen, wanted);

    // Where none fires each is missed, so none passes for another reason.
    let folder = tempfile::tempdir().expect("temp folder");
    let copy = folder.path().join("alerts.test.yaml");
    fs::copy(&tests, &copy).expect("the tests of alerts are copied");
    let silent = folder.path().join("alerts.yaml");
    fs::write(silent, groups.to_string()).expect("silent alerts are written");
    let (is_right, told) = judge(&copy);
    assert!(!is_right, "{told}");
    for name in names {
        let missed = format!("alertname: {name}, time: ");
        assert!(told.contains(&missed), "{name} is not missed: {told}");
    }
}
