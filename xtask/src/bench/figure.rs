//! Figures of benches, and times of scenarios: what was measured beside what it is held to.

use super::compare::median;

/// One figure: name, unit, goal, and the values of the runs.
pub struct Figure {
    pub name: String,
    pub unit: String,
    pub goal: f64,
    /// Whether more is better.
    pub at_least: bool,
    pub values: Vec<f64>,
}

impl Figure {
    /// Reads a line `figure | name | unit | goal | values…` of a bench.
    pub fn parse(line: &str) -> Option<Self> {
        let mut cells = line.strip_prefix("figure | ")?.split(" | ");
        let name = cells.next()?.to_owned();
        let unit = cells.next()?.to_owned();
        let goal = cells.next()?;
        let (goal, at_least) = match goal.strip_prefix(">=") {
            Some(goal) => (goal, true),
            None => (goal, false),
        };
        let goal = goal.parse().ok()?;
        let values: Vec<f64> = cells
            .next()?
            .split(' ')
            .filter_map(|value| value.parse().ok())
            .collect();
        (!values.is_empty()).then_some(Self {
            name,
            unit,
            goal,
            at_least,
            values,
        })
    }

    fn sorted(&self) -> Vec<f64> {
        let mut values = self.values.clone();
        values.sort_by(f64::total_cmp);
        values
    }

    /// Its row in a table: median, spread, number of values, goal, and whether the median keeps it.
    pub fn row(&self) -> String {
        let sorted = self.sorted();
        let (Some(least), Some(most)) = (sorted.first(), sorted.last()) else {
            return String::new();
        };
        let median = median(&sorted);
        let (reached, sign) = if self.at_least {
            (median >= self.goal, '≥')
        } else {
            (median <= self.goal, '≤')
        };
        let held = if reached { "yes" } else { "no" };
        format!(
            "| {} | {median:.2} {unit} | {least:.2} – {most:.2} | {} | {sign} {} {unit} | {held} |",
            self.name,
            sorted.len(),
            self.goal,
            unit = self.unit,
        )
    }
}
