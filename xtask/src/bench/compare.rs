//! Ours and the incumbent's, measured in one run: medians, spread and ratio.

/// One line `compare | name | unit | ours… | incumbent…` of a bench, perhaps with ` | times` at its end: how many times
/// ours the incumbent's has to be.
pub struct Comparison {
    name: String,
    unit: String,
    ours: Vec<f64>,
    incumbent: Vec<f64>,
    goal: Option<f64>,
}

/// Head of the table whose rows are `Comparison::row`.
pub const HEAD: &str = "| figure | ours: median (least – most) | incumbent: median (least – most) | incumbent ÷ ours | goal, held |\n\
     |---|---|---|---|---|\n";

impl Comparison {
    pub fn parse(line: &str) -> Option<Self> {
        let mut cells = line.strip_prefix("compare | ")?.split(" | ");
        let name = cells.next()?.to_owned();
        let unit = cells.next()?.to_owned();
        let mut values = || -> Option<Vec<f64>> {
            let mut values: Vec<f64> = cells
                .next()?
                .split_whitespace()
                .filter_map(|value| value.parse().ok())
                .collect();
            values.sort_by(f64::total_cmp);
            (!values.is_empty()).then_some(values)
        };
        let (ours, incumbent) = (values()?, values()?);
        Some(Self {
            name,
            unit,
            ours,
            incumbent,
            goal: cells.next().and_then(|times| times.trim().parse().ok()),
        })
    }

    pub fn row(&self) -> String {
        let times = median(&self.incumbent) / median(&self.ours);
        let goal = self.goal.map_or(String::new(), |goal| {
            let held = if times >= goal { "yes" } else { "no" };
            format!("≥ {goal}, {held}")
        });
        let ratio = if times.is_finite() {
            format!("{times:.1}")
        } else {
            "–".to_owned()
        };
        format!(
            "| {} | {} | {} | {ratio} | {goal} |",
            self.name,
            cell(&self.ours, &self.unit),
            cell(&self.incumbent, &self.unit)
        )
    }
}

/// The middle of sorted values; between the two in the middle where their number is even.
pub fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    match (sorted.get(middle), sorted.len() % 2) {
        (Some(value), 1) => *value,
        (Some(value), _) => f64::midpoint(sorted[middle - 1], *value),
        (None, _) => f64::NAN,
    }
}

fn cell(sorted: &[f64], unit: &str) -> String {
    let least = sorted.first().copied().unwrap_or(f64::NAN);
    let most = sorted.last().copied().unwrap_or(f64::NAN);
    format!(
        "{:.2} {unit} ({least:.2} – {most:.2}, {} runs)",
        median(sorted),
        sorted.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_becomes_a_row_with_medians_spread_and_ratio() {
        let line = "compare | first line | s | 2.0 1.0 3.0 | 8.0 10.0 12.0";
        let row = Comparison::parse(line).map(|comparison| comparison.row());
        let expected = "| first line | 2.00 s (1.00 – 3.00, 3 runs) | 10.00 s (8.00 – 12.00, 3 runs) | 5.0 |  |";
        assert_eq!(row.as_deref(), Some(expected));
        let row = Comparison::parse(&format!("{line} | 7")).map(|comparison| comparison.row());
        assert!(row.is_some_and(|row| row.ends_with("| 5.0 | ≥ 7, no |")));
        assert!((median(&[1.0, 2.0, 4.0, 9.0]) - 3.0).abs() < 1e-9);
        assert!(median(&[]).is_nan());
        assert!(Comparison::parse("compare | nothing | s |  | 1.0").is_none());
    }
}
