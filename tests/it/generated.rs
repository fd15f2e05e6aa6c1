//! Generated files are committed; each is compared with what makes it, and the failure prints what mends it.

#![expect(clippy::panic, reason = "helpers of tests fail the test")]

use std::path::PathBuf;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_default()
}

/// Fails with `mend` if the committed file differs from `made`.
pub fn assert_same(path: &str, made: &str, mend: &str) {
    let committed = read(path);
    if committed == made {
        return;
    }
    let line = committed
        .lines()
        .zip(made.lines())
        .take_while(|(a, b)| a == b)
        .count()
        + 1;
    panic!("{path} is out of date from line {line} on; mend it by\n    {mend}");
}

/// The same of a reference that the program itself prints.
fn assert_reference(path: &str, made: &str, name: &str) {
    let mend = format!("cargo run -- reference {name} > {path}");
    assert_same(path, made, &mend);
}

#[test]
fn crds_are_what_the_types_say() {
    let made = trainyard::crd::crd_yaml();
    assert_same(
        "crds/queuebindings.yaml",
        &made,
        "cargo run -- crd > crds/queuebindings.yaml",
    );
}

#[test]
fn chart_and_kustomization_have_the_same_crds() {
    let made = trainyard::crd::crd_yaml();
    for folder in ["charts/trainyard/crds", "deploy"] {
        assert_same(
            &format!("{folder}/queuebindings.yaml"),
            &made,
            &format!("cp crds/queuebindings.yaml {folder}/"),
        );
    }
}

#[test]
fn reference_of_the_command_line_is_what_is_parsed() {
    let made = trainyard::cli::reference();
    assert_reference("docs/reference/command-line.md", &made, "command-line");
}

#[test]
fn reference_of_environment_variables_is_what_the_table_says() {
    let made = trainyard::config::env::reference();
    assert_reference(
        "docs/reference/environment-variables.md",
        &made,
        "environment-variables",
    );
}

#[test]
fn reference_of_an_agents_configuration_is_what_the_keys_say() {
    let made = trainyard::config::agent::reference();
    assert_reference(
        "docs/reference/agent-configuration.md",
        &made,
        "agent-configuration",
    );
}

#[test]
fn reference_of_the_binding_is_what_the_schema_says() {
    let made = trainyard::crd::reference();
    assert_reference("docs/queuebinding.md", &made, "queuebinding");
}
