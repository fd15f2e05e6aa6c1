//! Logs that are compared as a whole: byte for byte.

/// Fails with the first line that differs.
pub fn assert_same(found: &str, wanted: &str) {
    let line = |text: &str, number: usize| {
        let line: Option<String> = text
            .lines()
            .nth(number)
            .map(|line| line.chars().take(300).collect());
        line.map_or_else(|| "nothing".to_owned(), |line| format!("{line:?}"))
    };
    let (have, want) = (found.lines().count(), wanted.lines().count());
    let equal = found
        .lines()
        .zip(wanted.lines())
        .take_while(|(found, wanted)| found == wanted)
        .count();
    assert!(
        found == wanted,
        "{have} lines for {want}; line {equal} is {}, not {}",
        line(found, equal),
        line(wanted, equal)
    );
}
