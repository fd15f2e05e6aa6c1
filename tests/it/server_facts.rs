//! S57: The embedded server answers as a real ClearML server does: recorded facts and answers are replayed against it.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use crate::server_world::{InProcess, keys};

/// Runs a script of `tests/fixtures/wire` against a fresh server; returns its output.
fn replay(script: &str, arguments: &[&str]) -> String {
    let server = InProcess::start();
    let (key, secret) = keys(server.data.path());
    let script = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/wire")
        .join(script);
    let output = Command::new("python3")
        .arg(script)
        .args(["--url", &server.url, "--key", &key, "--secret", &secret])
        .args(arguments)
        .output()
        .expect("python3 must be installed");
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn all_facts_that_the_claim_rests_on_hold() {
    let output = replay("claim_facts.py", &[]);
    assert!(output.trim_end().ends_with("122 of 122 held"), "{output}");
}

#[test]
fn all_recorded_answers_are_given() {
    let output = replay("probe.py", &[]);
    assert!(output.trim_end().ends_with("175 of 175 held"), "{output}");
}

#[test]
fn the_compatibility_page_names_every_endpoint_that_is_served_and_no_other() {
    let page = include_str!("../../docs/compatibility.md");
    let (_, page) = page.split_once("### Endpoints").expect("the section");
    let (served, _) = page
        .split_once("| deliberately different")
        .expect("the table's end");
    let named: BTreeSet<&str> = served
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|name| name.contains('.'))
        .collect();
    let table = include_str!("../../src/server/routes.rs");
    let routes: BTreeSet<&str> = table
        .lines()
        .filter_map(|line| line.strip_prefix("    (\"")?.split('"').next())
        .filter(|name| name.contains('.'))
        .collect();
    assert_eq!(named, routes);
}
