//! `cargo xtask bench`: measures on the real cluster and writes `docs/benchmarks.md`.

mod compare;

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::image::programs;
use crate::{cluster, dirs, index, sh, test, tools};
use compare::Comparison;

/// What to measure.
#[derive(clap::Args)]
pub struct Arguments {
    /// Only the benches whose name begins with this. `controller`, `executor`, `incumbent` and `server` write their own
    /// part of the document; otherwise it is left as it is
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// The same
    #[arg(long, value_name = "NAME", conflicts_with = "name")]
    only: Option<String>,
    /// Compare ours and the incumbent on this ClearML server, as pods reach it, instead of on `trainyard server`; keys
    /// by CLEARML_API_ACCESS_KEY and CLEARML_API_SECRET_KEY, other ports than 8080 and 8081 by CLEARML_WEB_HOST and
    /// CLEARML_FILES_HOST. The document, whose figures are those of our own server, is left as it is
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    #[command(flatten)]
    which: cluster::Which,
}

/// One figure: name, unit, goal, and the values of the runs.
struct Figure {
    name: String,
    unit: String,
    goal: f64,
    /// Whether more is better.
    at_least: bool,
    values: Vec<f64>,
}

impl Figure {
    fn parse(line: &str) -> Option<Self> {
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

    fn row(&self) -> String {
        let sorted = self.sorted();
        let (Some(least), Some(most)) = (sorted.first(), sorted.last()) else {
            return String::new();
        };
        let median = sorted[sorted.len() / 2];
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

/// The benches of the executor need no cluster; they bring their package index along.
const EXECUTOR: &str = "executor";
/// Those of the server need nothing but the program.
const SERVER: &str = "server";
/// What the executor installs.
const FORTY: &str = "tests/wheels/forty.txt";

/// The package index of [`FORTY`], ended with its value.
struct Index {
    child: Child,
    url: String,
}

impl Index {
    fn start() -> Result<Self> {
        let wheels = index::ensure_wheels_of(FORTY, index::Metadata::Within)?;
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|free| free.local_addr());
        let address = free.context("no free port")?;
        let mut serve = Command::new(std::env::current_exe().context("where is this program")?);
        serve.args(["index", "serve", "--files"]).arg(wheels);
        serve.args(["--listen", &address.to_string()]);
        let child = serve.spawn().context("could not start the package index")?;
        let url = format!("http://{address}/simple/");
        let index = Self { child, url };
        // It reads every wheel once before it listens.
        let until = Instant::now() + Duration::from_mins(1);
        while TcpStream::connect(address).is_err() {
            if Instant::now() > until {
                bail!("the package index does not listen on {address}");
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(index)
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Tells the benches where the optimised program is.
fn with_program(mut command: Command) -> Result<Command> {
    let programs = sh::timed("image programs", programs::ensure)?;
    command.env("TRAINYARD_E2E_PROGRAM", programs.trainyard);
    Ok(command)
}

/// Tells the benches of the executor where things are.
fn with_executor(index: &Index, command: Command) -> Result<Command> {
    let mut command = with_program(command)?;
    command
        .env("TRAINYARD_E2E_AGENT_PYTHON", tools::agent_python()?)
        .env("TRAINYARD_E2E_INDEX_URL", &index.url);
    Ok(command)
}

/// Measures, prints the table, and writes the document.
pub fn main(arguments: &Arguments) -> Result<()> {
    if let Some(server) = &arguments.server {
        check_given(server)?;
    }
    let kubeconfig = arguments.which.foreign()?;
    cluster::install_missing(kubeconfig.as_deref())?;
    let only = arguments.name.as_deref().or(arguments.only.as_deref());
    // The other benches measure our own server, or need one that they may kill.
    let only = only.or(arguments.server.is_some().then_some("incumbent"));
    let filter = format!("bench::{}", only.unwrap_or_default());
    let mut command = test::it();
    command.args([filter.as_str(), "--nocapture", "--test-threads=1"]);
    let index;
    if only.is_some_and(|only| only.starts_with(EXECUTOR)) {
        index = Index::start()?;
        command = with_executor(&index, command)?;
    } else if only.is_some_and(|only| only.starts_with(SERVER)) {
        command = with_program(command)?;
    } else {
        command = test::with(&test::prepare(kubeconfig.as_deref())?, command);
    }
    if let Some(server) = &arguments.server {
        command.env("TRAINYARD_BENCH_SERVER", server);
    }
    // Those that load the machine for long are asked for by name.
    if only.is_none() {
        for part in PARTS {
            command.args(["--skip", &format!("bench::{part}")]);
        }
    }
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("could not start cargo")?;
    let mut figures = Vec::new();
    let mut comparisons = Vec::new();
    for line in BufReader::new(child.stdout.take().context("cargo has no output")?).lines() {
        let line = line?;
        println!("{line}");
        // The harness writes "test name ... " in front of the first line that a test prints.
        if let Some(at) = line.find("figure | ") {
            figures.extend(Figure::parse(&line[at..]));
        }
        if let Some(at) = line.find("compare | ") {
            comparisons.extend(Comparison::parse(&line[at..]));
        }
    }
    let status = child.wait()?;
    if !status.success() || figures.is_empty() && comparisons.is_empty() {
        bail!("the benches failed ({status})");
    }
    let mut table = String::new();
    if !figures.is_empty() {
        table +=
            "| figure | median | least – most | runs | goal | held |\n|---|---|---|---|---|---|\n";
    }
    for figure in &figures {
        writeln!(table, "{}", figure.row())?;
    }
    if !comparisons.is_empty() {
        if !figures.is_empty() {
            table += "\n### Beside the incumbent\n\n";
        }
        table += compare::HEAD;
        for comparison in &comparisons {
            writeln!(table, "{}", comparison.row())?;
        }
        table += INCUMBENT;
    }
    println!("\n{table}");
    if let Some(server) = &arguments.server {
        println!("figures of {server}: docs/benchmarks.md is left as it is");
        return Ok(());
    }
    let path = dirs::repository().join("docs/benchmarks.md");
    let before = fs::read_to_string(&path).unwrap_or_default();
    let text = match only {
        None => renewed(&before, &table),
        Some(name) if PARTS.contains(&name) => {
            with_section(&before, name, &format!("{}{table}", head(name)))
        }
        Some(_) => return Ok(()),
    };
    fs::write(&path, text)?;
    println!("wrote docs/benchmarks.md");
    Ok(())
}

/// A server that cannot be used is told before anything is started for it.
fn check_given(server: &str) -> Result<()> {
    if !server.starts_with("http://") && !server.starts_with("https://") {
        bail!("--server must be an address with http:// or https://, not {server:?}");
    }
    for name in ["CLEARML_API_ACCESS_KEY", "CLEARML_API_SECRET_KEY"] {
        if std::env::var_os(name).is_none_or(|value| value.is_empty()) {
            bail!("{name} is not set: the benches need a key pair of {server}");
        }
    }
    Ok(())
}

/// Parts of the document that a run of their own makes; each stands between lines of its own, so that every run leaves
/// the others' alone.
const PARTS: [&str; 4] = ["controller", EXECUTOR, SERVER, "incumbent"];

/// A part that is written by hand, and that every run leaves alone: the last outputs of scenarios in their long form.
const LONG_FORMS: &str = "long forms";

fn marks(part: &str) -> (String, String) {
    (
        format!("<!-- {part} -->\n"),
        format!("<!-- end of {part} -->\n"),
    )
}

/// A part of a document; empty if it is not there.
fn section<'a>(document: &'a str, part: &str) -> &'a str {
    let (begin, end) = marks(part);
    let found = document
        .split_once(&begin)
        .and_then(|(_, rest)| rest.split_once(&end));
    found.map_or("", |(text, _)| text)
}

/// The document with this text as its part instead of its own.
fn with_section(document: &str, part: &str, text: &str) -> String {
    let (begin, end) = marks(part);
    let (head, tail) = match document.split_once(&begin) {
        Some((head, rest)) => (head, rest.split_once(&end).map_or("", |(_, tail)| tail)),
        None => (document, ""),
    };
    if text.is_empty() {
        return format!("{head}{tail}");
    }
    let gap = if head.ends_with("\n\n") { "" } else { "\n" };
    format!("{head}{gap}{begin}{text}{end}{tail}")
}

/// The document with this table, and with the parts that it has had.
fn renewed(before: &str, table: &str) -> String {
    let parts = PARTS.into_iter().chain([LONG_FORMS]);
    parts.fold(document(table), |text, part| {
        with_section(&text, part, section(before, part))
    })
}

/// What a part begins with.
fn head(part: &str) -> String {
    let (title, how) = match part {
        EXECUTOR => (
            "The executor",
            "without a cluster: the programs of a pod's three containers as processes of\n\
             one machine. \"Container start\" is the start of process 1.",
        ),
        "controller" => (
            "The controller",
            "on the cluster of `cargo xtask cluster up`, pods on simulated nodes (kwok).",
        ),
        SERVER => (
            "The server",
            "on one machine: server and clients side by side, data on its disk.",
        ),
        _ => (
            "Beside the incumbent",
            "both controllers on the same cluster, server and image, in turns.",
        ),
    };
    format!(
        "## {title}\n\n\
         Made by `cargo xtask bench {part}`, {how}\n\
         {}.\n\n",
        machine()
    )
}

/// What the figures were taken on, and its load at this moment.
fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let hardware = hardware(&read("/proc/cpuinfo"), &read("/proc/meminfo"));
    let load = read("/proc/loadavg");
    format!(
        "{cores} shared cores of {hardware},\nLinux {}, load {} at the end",
        read("/proc/sys/kernel/osrelease").trim(),
        load.split(' ').next().unwrap_or("?")
    )
}

/// Model of the processor and size of the memory, as the kernel tells them.
fn hardware(cpuinfo: &str, meminfo: &str) -> String {
    let model = told(cpuinfo, "model name").unwrap_or("an unknown model");
    let memory = told(meminfo, "MemTotal")
        .and_then(|text| text.strip_suffix(" kB")?.parse::<f64>().ok())
        .map_or("?".to_owned(), |kib| format!("{:.1}", kib / 1_048_576.0));
    format!("{model}, {memory} GiB of memory")
}

/// The first value of this name in a file of lines `name: value`.
fn told<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.trim() == name)
        .map(|(_, value)| value.trim())
}

/// What the figures of the incumbent are.
const INCUMBENT: &str = "
Incumbent: `clearml-agent` 3.0.3 in the same run, with the same server, package index, Python and task: its Kubernetes
glue with the real kubectl; its daemon, whose tasks are processes of this machine, beside our pods; and where no pod is
named `clearml-agent execute` beside the three programs of a pod, all as processes of one machine. In its favour it
finds agent, virtualenv, pip and uv ready, where its pods would install git, pip and the agent at every start.
";

fn document(table: &str) -> String {
    let machine = machine();
    format!(
        "# Benchmarks\n\n\
         Made by `cargo xtask bench` on the cluster of `cargo xtask cluster up`:\n\
         {machine}; control plane, node,\n\
         server, controller and tasks are all on them; controller-manager with `--kube-api-qps 1000`,\n\
         `--concurrent-job-syncs` as it comes (5).\n\
         The programs are those of the image (profile `image`: optimised for size, not for speed).\n\n{table}\n\
         \"Container start\" is the start of the container's process 1, read from `/proc` by the script itself. Tests\n\
         assert behaviour only; these figures are kept here. The requests before user code are compared by name and order in\n\
         `tests/it/exec/fence.rs`, too.\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_told_as_the_kernel_knows_it() {
        let cpuinfo = "processor\t: 0\nmodel name\t: Some CPU @ 2.00GHz\n\nprocessor\t: 1\nmodel name\t: Another\n";
        let meminfo = "MemTotal:        8388608 kB\nMemFree:         1000 kB\n";
        assert_eq!(
            hardware(cpuinfo, meminfo),
            "Some CPU @ 2.00GHz, 8.0 GiB of memory"
        );
        assert_eq!(hardware("", ""), "an unknown model, ? GiB of memory");
    }

    #[test]
    fn each_run_leaves_the_others_parts_of_the_document_alone() {
        let one = with_section("# Benchmarks\n", "executor", "old\n");
        let first = with_section(&one, "server", "fast\n");
        assert_eq!(section(&first, "executor"), "old\n");
        let second = with_section(&first, "executor", "new\n");
        assert_eq!(second, first.replace("old", "new"));
        assert_eq!(section(&second, "server"), "fast\n");
        assert_eq!(section(&second, "incumbent"), "");
        assert_eq!(with_section("# Others\n", "server", ""), "# Others\n");
    }

    #[test]
    fn what_is_written_by_hand_outlives_every_run() {
        let path = dirs::repository().join("docs/benchmarks.md");
        let before = fs::read_to_string(path).unwrap();
        let by_hand = section(&before, LONG_FORMS);
        for scenario in ["S10", "S31", "S32", "S35"] {
            assert!(by_hand.contains(scenario), "{scenario} in {by_hand:?}");
        }
        let all = renewed(&before, "| a table |\n");
        assert!(all.contains("| a table |"), "{all}");
        let one = with_section(&all, "controller", "new\n");
        for after in [&all, &one] {
            assert_eq!(section(after, LONG_FORMS), by_hand);
        }
    }
}
