//! Times for which a scenario states a figure. A test allows more, and tells what it took in a line of its own, which
//! `cargo xtask test` gathers from all tests, prints at its end and, with `--figures`, keeps in `docs/benchmarks.md`.

/// Tells in how many seconds something happened for which a scenario, such as `S6`, states so many. The same may be told
/// as often as it happens.
pub fn told(scenario: &str, what: &str, seconds: f64, stated: f64) {
    println!("{}", line(scenario, what, seconds, stated));
}

fn line(scenario: &str, what: &str, seconds: f64, stated: f64) -> String {
    let number = scenario.strip_prefix('S');
    assert!(
        number.is_some_and(|number| number.parse::<u8>().is_ok()),
        "{scenario:?} is no scenario"
    );
    assert!(!what.contains('|'), "{what:?} is more than one cell");
    format!("time | {scenario} | {what} | {seconds:.2} | {stated}")
}

#[test]
fn a_time_is_one_line_with_what_is_stated() {
    assert_eq!(
        line("S6", "an aborted task's pod is gone", 1.234, 3.0),
        "time | S6 | an aborted task's pod is gone | 1.23 | 3"
    );
    assert_eq!(
        line("S6", "SIGTERM", 0.0, 2.5),
        "time | S6 | SIGTERM | 0.00 | 2.5"
    );
}
