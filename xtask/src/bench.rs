//! `cargo xtask bench`: measures on the real cluster and writes `docs/benchmarks.md`.

mod compare;
mod document;
pub mod figure;

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
use document::PARTS;
use figure::Figure;

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
    /// Compare ours and the incumbent on this ClearML server, as pods reach it, instead of on `trainyard server`: for NAME
    /// `incumbent`, or what begins with it; keys by CLEARML_API_ACCESS_KEY and CLEARML_API_SECRET_KEY, other ports than 8080 and 8081 by CLEARML_WEB_HOST and
    /// CLEARML_FILES_HOST. The document, whose figures are those of our own server, is left as it is
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    #[command(flatten)]
    which: cluster::Which,
}

/// The benches of the executor need no cluster; they bring their package index along.
const EXECUTOR: &str = "executor";
/// Those of the server need nothing but the program and a browser.
const SERVER: &str = "server";
/// Those that set the incumbent beside the controller, on any server.
const INCUMBENT: &str = "incumbent";
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
    let mut only = arguments.name.as_deref().or(arguments.only.as_deref());
    if let Some(server) = &arguments.server {
        only = Some(compared(only)?);
        check_given(server)?;
    }
    let kubeconfig = arguments.which.foreign()?;
    let is_of = |part: &str| only.is_some_and(|only| only.starts_with(part));
    if is_of(SERVER) {
        cluster::install_for_page(kubeconfig.as_deref())?;
    } else {
        cluster::install_missing(kubeconfig.as_deref())?;
    }
    let filter = format!("bench::{}", only.unwrap_or_default());
    let mut command = test::it();
    command.args([filter.as_str(), "--nocapture", "--test-threads=1"]);
    let index;
    if is_of(EXECUTOR) {
        index = Index::start()?;
        command = with_executor(&index, command)?;
    } else if is_of(SERVER) {
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
        table += document::BESIDE;
    }
    println!("\n{table}");
    if let Some(server) = &arguments.server {
        println!("figures of {server}: docs/benchmarks.md is left as it is");
        return Ok(());
    }
    match only {
        None => rewrite(|before| document::whole(&table, before)),
        Some(name) if PARTS.contains(&name) => {
            rewrite(|before| document::with_part(before, name, &table))
        }
        Some(_) => Ok(()),
    }
}

/// Writes into the document what scenarios took, by this command with so many tests side by side.
pub fn keep_times(command: &str, threads: u8, table: &str) -> Result<()> {
    rewrite(|before| document::with_scenarios(before, command, threads, table))
}

/// Writes the document anew.
fn rewrite(change: impl FnOnce(&str) -> String) -> Result<()> {
    let path = dirs::repository().join("docs/benchmarks.md");
    let before = fs::read_to_string(&path).unwrap_or_default();
    fs::write(&path, change(&before))
        .with_context(|| format!("{} could not be written", path.display()))?;
    println!("wrote docs/benchmarks.md");
    Ok(())
}

/// Which benches run on a server that was named: the others measure our own, or need one that they may kill.
fn compared(only: Option<&str>) -> Result<&str> {
    let name = only.unwrap_or(INCUMBENT);
    if !name.starts_with(INCUMBENT) {
        bail!(
            "`{name}` measures `trainyard server` alone: with --server name `{INCUMBENT}`, a bench whose name begins with it, or nothing"
        );
    }
    Ok(name)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_a_server_that_is_named_nothing_runs_but_the_comparison() {
        for (asked, runs) in [
            (None, INCUMBENT),
            (Some("incumbent"), "incumbent"),
            (Some("incumbent::glue_requests"), "incumbent::glue_requests"),
        ] {
            assert_eq!(compared(asked).ok(), Some(runs));
        }
        for name in ["server", "executor", "controller", "inc", ""] {
            let told = compared(Some(name)).map_err(|error| error.to_string());
            let told = told.err().unwrap_or_default();
            assert!(
                told.starts_with(&format!("`{name}` measures `trainyard server` alone")),
                "{told}"
            );
        }
    }
}
