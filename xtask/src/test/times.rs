//! Times of scenarios, gathered from what their tests print: lines `time | S6 | what | 1.23 | 3` of seconds, the stated
//! ones last.

use std::collections::BTreeMap;

use crate::bench::figure::Figure;

/// Number of the scenario, what took the time, and what is stated.
type Key = (u8, String, String);

/// All that was told, in the order of the scenarios.
#[derive(Default)]
pub struct Times(BTreeMap<Key, Figure>);

const HEAD: &str =
    "| time | median | least – most | runs | stated | held |\n|---|---|---|---|---|---|\n";

impl Times {
    /// Takes in a line of a test; one that tells no time is left alone.
    pub fn hear(&mut self, line: &str) {
        if let Some((key, figure)) = parse(line) {
            self.put(key, figure);
        }
    }

    /// Takes in what another program of tests told.
    pub fn add(&mut self, others: Self) {
        for (key, figure) in others.0 {
            self.put(key, figure);
        }
    }

    fn put(&mut self, key: Key, figure: Figure) {
        self.0
            .entry(key)
            .and_modify(|known| known.values.extend(&figure.values))
            .or_insert(figure);
    }

    /// A row for each of them; empty if none was told.
    pub fn table(&self) -> String {
        if self.0.is_empty() {
            return String::new();
        }
        let rows = self.0.values().map(|figure| figure.row() + "\n");
        HEAD.to_owned() + &rows.collect::<String>()
    }
}

fn parse(line: &str) -> Option<(Key, Figure)> {
    let cells: Vec<&str> = line.strip_prefix("time | ")?.split(" | ").collect();
    let &[scenario, what, seconds, stated] = cells.as_slice() else {
        return None;
    };
    let number = scenario.strip_prefix('S')?.parse().ok()?;
    let figure = Figure {
        name: format!("{scenario}: {what}"),
        unit: "s".to_owned(),
        goal: stated.parse().ok()?,
        at_least: false,
        values: vec![seconds.parse().ok()?],
    };
    Some(((number, what.to_owned(), stated.to_owned()), figure))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_one_name_are_one_row_and_scenarios_follow_each_other() {
        let (mut times, mut others) = (Times::default(), Times::default());
        for line in [
            "time | S10 | work goes on | 51.00 | 10",
            "time | S6 | a pod is gone | 1.00 | 3",
            "time | S6 | a pod is gone | 4.00 | 3",
        ] {
            times.hear(line);
        }
        others.hear("time | S6 | a pod is gone | 2.50 | 3");
        others.hear("time | S6 | SIGTERM | 0.25 | 2.5");
        times.add(others);
        let rows = "\
            | S6: SIGTERM | 0.25 s | 0.25 – 0.25 | 1 | ≤ 2.5 s | yes |\n\
            | S6: a pod is gone | 2.50 s | 1.00 – 4.00 | 3 | ≤ 3 s | yes |\n\
            | S10: work goes on | 51.00 s | 51.00 – 51.00 | 1 | ≤ 10 s | no |\n";
        assert_eq!(times.table(), format!("{HEAD}{rows}"));
    }

    #[test]
    fn what_tells_no_time_makes_no_row() {
        let mut times = Times::default();
        for line in [
            "",
            "test e2e::s6 ... ok",
            "the time | S6 | a pod is gone | 1.00 | 3",
            "time | S6 | a pod is gone | soon | 3",
            "time | S6 | a pod is gone | 1.00",
            "time | S6 | a pod | is gone | 1.00 | 3",
            "time | six | a pod is gone | 1.00 | 3",
        ] {
            times.hear(line);
        }
        assert_eq!(times.table(), "");
    }
}
