//! `docs/scenarios.md` says which tests show which scenario. Each test that it names is there, and each test whose name
//! begins with the number of a scenario is named in its row.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::sources::{below, root};

/// Scenarios that there are.
const LAST: usize = 60;

/// A row of the table.
struct Row {
    /// Such as `S12`.
    number: String,
    tests: Vec<String>,
    not_shown: String,
}

fn rows() -> Vec<Row> {
    let text = fs::read_to_string(root().join("docs/scenarios.md"))
        .expect("docs/scenarios.md is readable");
    let table = text
        .lines()
        .skip_while(|line| !line.starts_with("| number | scenario |"))
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    table
        .map(|line| {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            assert_eq!(cells.len(), 6, "four cells make a row, not {line}");
            let tests = cells[3].split('`').skip(1).step_by(2);
            Row {
                number: cells[1].to_owned(),
                tests: tests.map(str::to_owned).collect(),
                not_shown: cells[4].to_owned(),
            }
        })
        .collect()
}

/// The name of the function that a line begins.
fn function(line: &str) -> Option<&str> {
    let (before, rest) = line.split_once("fn ")?;
    let is_plain = before
        .split_whitespace()
        .all(|word| ["pub", "async"].contains(&word));
    let (name, _) = rest.split_once('(')?;
    is_plain.then_some(name)
}

/// Names of the tests of a source.
fn tests_of(text: &str) -> BTreeSet<&str> {
    let mut found = BTreeSet::new();
    let mut is_test = false;
    for line in text.lines().map(str::trim) {
        if line == "#[test]" || line == "#[tokio::test]" {
            is_test = true;
        } else if let Some(name) = function(line) {
            if is_test {
                found.insert(name);
            }
            is_test = false;
        }
    }
    found
}

/// Whether a source has this test; a macro makes tests of the names that it is given, one a line.
fn has(text: &str, test: &str) -> bool {
    tests_of(text).contains(test)
        || text
            .lines()
            .any(|line| line.trim().trim_end_matches(',') == test)
}

/// Files in which the tests of this module may lie.
fn files(module: &str) -> Vec<PathBuf> {
    if module.starts_with("src/") {
        return vec![root().join(module)];
    }
    let path = root().join("tests/it").join(module.replace("::", "/"));
    vec![path.with_extension("rs"), path.join("mod.rs")]
}

fn is_name(text: &str) -> bool {
    let may_stand = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    !text.is_empty() && text.chars().all(may_stand)
}

/// What is wrong with the name of a test, in one sentence.
fn fault(test: &str) -> Option<String> {
    let parts = test.rsplit_once("::");
    let Some((module, name)) = parts.filter(|(_, name)| is_name(name)) else {
        return Some(format!(
            "`{test}` is not the whole path of a test, such as `e2e::limits::NAME` or `src/FILE.rs::NAME`"
        ));
    };
    let texts: Vec<String> = files(module)
        .iter()
        .filter_map(|file| fs::read_to_string(file).ok())
        .collect();
    if texts.is_empty() {
        return Some(format!("there is no file of the module of `{test}`"));
    }
    let is_there = texts.iter().any(|text| has(text, name));
    (!is_there).then(|| format!("there is no test `{test}`"))
}

/// Scenarios that a test's name begins with: `s3_s4_every_kind` is of S3 and S4.
fn numbers(name: &str) -> Vec<String> {
    name.split('_')
        .map_while(|word| word.strip_prefix('s'))
        .take_while(|digits| !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit()))
        .map(|digits| format!("S{digits}"))
        .collect()
}

/// The module of a file of `tests/it`, as paths of tests have it.
fn module_of(file: &Path) -> String {
    let name = file
        .strip_prefix(root().join("tests/it"))
        .expect("a test lies below tests/it")
        .with_extension("")
        .display()
        .to_string();
    name.strip_suffix("/mod")
        .unwrap_or(&name)
        .replace('/', "::")
}

#[test]
fn each_scenario_has_a_row_and_one_without_tests_says_why() {
    let rows = rows();
    let told: Vec<&str> = rows.iter().map(|row| row.number.as_str()).collect();
    let known: Vec<String> = (1..=LAST).map(|number| format!("S{number}")).collect();
    assert_eq!(told, known);
    for row in rows {
        assert!(
            !row.tests.is_empty() || !row.not_shown.is_empty(),
            "docs/scenarios.md, {}: say why nothing shows it",
            row.number
        );
    }
}

#[test]
fn each_test_that_a_scenario_names_is_there() {
    let mut faults = Vec::new();
    for row in rows() {
        let found = row.tests.iter().filter_map(|test| fault(test));
        faults.extend(found.map(|why| format!("docs/scenarios.md, {}: {why}", row.number)));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn each_test_with_the_number_of_a_scenario_is_named_by_it() {
    let rows = rows();
    let named: BTreeSet<(&str, &str)> = rows
        .iter()
        .flat_map(|row| {
            let tests = row.tests.iter();
            tests.map(move |test| (row.number.as_str(), test.as_str()))
        })
        .collect();
    let (mut count, mut faults) = (0, Vec::new());
    for file in below("tests/it") {
        let text = fs::read_to_string(&file).expect("a test is readable");
        let module = module_of(&file);
        for name in tests_of(&text) {
            let test = format!("{module}::{name}");
            for number in numbers(name) {
                count += 1;
                if !named.contains(&(number.as_str(), test.as_str())) {
                    faults.push(format!(
                        "docs/scenarios.md, {number}: it does not name the test `{test}`"
                    ));
                }
            }
        }
    }
    faults.sort();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(count >= 50, "only {count} tests carry a number");
}

#[test]
fn a_name_that_is_wrong_is_found() {
    for test in [
        "e2e::limits::no_such_test",
        "e2e::no_such_module::no_such_test",
        "e2e::limits::two_bindings_keep_their_limits_...",
        "two_bindings_keep_their_limits_and_the_order_of_what_waits",
        "src/capacity/mod.rs::no_such_test",
        // A helper is no test.
        "e2e::limits::task_of",
    ] {
        assert!(fault(test).is_some(), "{test}");
    }
    assert_eq!(numbers("s3_s4_every_kind_of_code"), ["S3", "S4"]);
    assert!(numbers("sdk_task_init").is_empty());
}
