//! `cargo xtask bench`: measures on the real cluster and writes `docs/benchmarks.md`.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use anyhow::{Context, Result, bail};

use crate::{cluster, dirs, test};

/// What to measure.
#[derive(clap::Args)]
pub struct Arguments {
    /// Only the benches whose name contains this; the document is left as it is
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
}

/// One figure: name, unit, goal, and the values of the runs.
struct Figure {
    name: String,
    unit: String,
    goal: f64,
    values: Vec<f64>,
}

impl Figure {
    fn parse(line: &str) -> Option<Self> {
        let mut cells = line.strip_prefix("figure | ")?.split(" | ");
        let name = cells.next()?.to_owned();
        let unit = cells.next()?.to_owned();
        let goal = cells.next()?.parse().ok()?;
        let values: Vec<f64> = cells
            .next()?
            .split(' ')
            .filter_map(|value| value.parse().ok())
            .collect();
        (!values.is_empty()).then_some(Self {
            name,
            unit,
            goal,
            values,
        })
    }

    fn sorted(&self) -> Vec<f64> {
        let mut values = self.values.clone();
        values.sort_by(f64::total_cmp);
        values
    }

    fn row(&self) -> String {
        let sorted = self.sorted();
        let (Some(least), Some(most)) = (sorted.first(), sorted.last()) else {
            return String::new();
        };
        let median = sorted[sorted.len() / 2];
        let held = if median <= self.goal { "yes" } else { "no" };
        format!(
            "| {} | {median:.2} {unit} | {least:.2} – {most:.2} | {} | ≤ {} {unit} | {held} |",
            self.name,
            sorted.len(),
            self.goal,
            unit = self.unit,
        )
    }
}

/// Measures, prints the table, and writes the document.
pub fn main(arguments: &Arguments) -> Result<()> {
    cluster::install_missing()?;
    let place = test::prepare()?;
    let filter = format!("bench::{}", arguments.only.as_deref().unwrap_or_default());
    let mut command = test::with(
        &place,
        test::cargo(&[
            "test",
            "--test",
            "it",
            "--",
            &filter,
            "--nocapture",
            "--test-threads=1",
        ]),
    );
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("could not start cargo")?;
    let mut figures = Vec::new();
    for line in BufReader::new(child.stdout.take().context("cargo has no output")?).lines() {
        let line = line?;
        println!("{line}");
        // The harness writes "test name ... " in front of the first line that a test prints.
        if let Some(at) = line.find("figure | ") {
            figures.extend(Figure::parse(&line[at..]));
        }
    }
    let status = child.wait()?;
    if !status.success() || figures.is_empty() {
        bail!("the benches failed ({status})");
    }
    let mut table = String::from(
        "| figure | median | least – most | runs | goal | held |\n|---|---|---|---|---|---|\n",
    );
    for figure in &figures {
        writeln!(table, "{}", figure.row())?;
    }
    println!("\n{table}");
    if arguments.only.is_none() {
        let path = dirs::repository().join("docs/benchmarks.md");
        fs::write(&path, document(&table))?;
        println!("wrote docs/benchmarks.md");
    }
    Ok(())
}

fn document(table: &str) -> String {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("?");
    format!(
        "# Benchmarks\n\n\
         Made by `cargo xtask bench` on the cluster of `cargo xtask cluster up`: {cores} shared cores, load {load} at the\n\
         end, control plane, node, server, controller and tasks all on them; controller-manager with\n\
         `--kube-api-qps 1000`. The programs are those of the image (profile `image`: optimised for size, not for speed).\n\n{table}\n\
         \"Container start\" is the start of the container's process 1, read from `/proc` by the script itself. Tests\n\
         assert behaviour only; these figures are kept here. A pod sends 7 requests before user code (goal ≤ 7), 5 of them from\n\
         the task's container (goal ≤ 5): counted by name and order in `tests/it/exec/fence.rs`.\n"
    )
}
