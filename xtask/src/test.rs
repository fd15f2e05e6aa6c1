//! `cargo xtask test`: everything that is checked, in one command, and all that the pipeline calls.
//!
//! Each check is one line; the tests of Rust are counted as such. A check that cannot run says why and counts as
//! failed. The output ends with `N passed, N failed`.

mod needs;

use std::collections::{HashMap, VecDeque};
use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::cluster::leftovers::{self, Held};
use crate::cluster::{self, Cluster};
use crate::{dirs, image, sh, tools};

/// What to check.
#[derive(clap::Args)]
pub struct Arguments {
    /// Only the Rust tests whose path contains this (`claim`, `e2e::`, `e2e::limits`), without the other checks
    #[arg(long, value_name = "PATH")]
    only: Option<String>,
    /// Long forms too: scenarios that take minutes each, for every change of the claim and for a release
    #[arg(long)]
    long: bool,
    /// Leave the cluster running
    #[arg(long)]
    keep: bool,
    /// How many scenarios run side by side on the cluster
    #[arg(long, default_value_t = 4)]
    threads: usize,
    #[command(flatten)]
    which: cluster::Which,
}

/// Results so far.
#[derive(Default)]
struct Tally {
    passed: usize,
    failed: Vec<Failed>,
    /// Long forms that were not asked for.
    left: Vec<String>,
    long: bool,
}

/// A check or test that did not pass, and the end of what it said.
struct Failed {
    name: String,
    words: Vec<String>,
}

impl From<String> for Failed {
    fn from(name: String) -> Self {
        let words = Vec::new();
        Self { name, words }
    }
}

/// What `cargo test` told.
#[derive(Default)]
struct Count {
    passed: usize,
    failed: Vec<Failed>,
    ignored: Vec<String>,
}

impl Tally {
    /// Runs one check; its failure does not end the others.
    fn check(&mut self, name: &str, work: impl FnOnce() -> Result<()>) {
        let begun = Instant::now();
        println!("── {name}");
        match work() {
            Ok(()) => {
                self.passed += 1;
                println!("   ok: {name} ({:.0} s)", begun.elapsed().as_secs_f64());
            }
            Err(error) => self.fail(name, &error),
        }
    }

    /// Counts what could not be done as a failed check.
    fn fail(&mut self, name: &str, error: &anyhow::Error) {
        println!("   FAILED: {name}: {error:#}");
        self.failed.push(Failed {
            name: name.to_owned(),
            words: vec![format!("{error:#}")],
        });
    }

    /// Runs tests of Rust and counts them one by one.
    fn rust_tests(&mut self, name: &str, command: &mut Command) {
        let begun = Instant::now();
        println!("── {name}");
        if self.long {
            command.arg("--include-ignored");
        }
        match count(command) {
            Ok(Count {
                passed,
                failed,
                ignored,
            }) => {
                self.passed += passed;
                if passed + failed.len() == 0 {
                    self.failed.push(format!("{name}: no test ran").into());
                }
                self.failed.extend(failed);
                self.left.extend(ignored);
                println!(
                    "   {name}: {passed} passed ({:.0} s)",
                    begun.elapsed().as_secs_f64()
                );
            }
            Err(error) => self.fail(name, &error),
        }
    }
}

/// Runs everything; the exit code says whether all passed.
pub fn main(arguments: &Arguments) -> ExitCode {
    let begun = Instant::now();
    let mut tally = Tally {
        // Who names a test wants it run.
        long: arguments.long || arguments.only.is_some(),
        ..Tally::default()
    };
    if let Err(error) = run(&mut tally, arguments) {
        tally.fail("what the tests need", &error);
    }
    println!();
    if !tally.left.is_empty() {
        println!(
            "left to the long form (cargo xtask test --long): {}",
            tally.left.join(", ")
        );
    }
    for failed in &tally.failed {
        println!("FAILED: {}", failed.name);
        for word in &failed.words {
            println!("    {word}");
        }
    }
    println!("took {:.0} s", begun.elapsed().as_secs_f64());
    println!("{} passed, {} failed", tally.passed, tally.failed.len());
    if tally.failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn run(tally: &mut Tally, arguments: &Arguments) -> Result<()> {
    let kubeconfig = arguments.which.foreign()?;
    let kubeconfig = kubeconfig.as_deref();
    cluster::install_for_tests(kubeconfig)?;
    let Some(only) = &arguments.only else {
        everything(tally, arguments, kubeconfig);
        return Ok(());
    };
    let place = if needs::place(only)? {
        Some(prepare(kubeconfig)?)
    } else {
        None
    };
    let mut command = cargo(&[
        "test",
        "--package",
        "trainyard",
        "--lib",
        "--test",
        "it",
        "--",
        only,
        // Figures of a long form, say.
        "--show-output",
    ]);
    arguments_of(&mut command, place.as_ref(), arguments.threads);
    tally.rust_tests(&format!("tests of {only}"), &mut command);
    Ok(())
}

fn everything(tally: &mut Tally, arguments: &Arguments, kubeconfig: Option<&Path>) {
    tally.check("formatting", || {
        sh::show(&mut cargo(&["fmt", "--all", "--check"]))
    });
    tally.check("spelling", || {
        sh::show(Command::new(tools::program("typos")?).current_dir(dirs::repository()))
    });
    tally.check("licences, sources and bans", || {
        let deny = tools::cargo_deny()?;
        sh::show(
            Command::new(deny)
                .args(["--workspace", "check", "bans", "licenses", "sources"])
                .current_dir(dirs::repository()),
        )
    });
    tally.check("clippy", || {
        sh::show(&mut cargo(&[
            "clippy",
            "--workspace",
            "--all-targets",
            "--",
            "--deny",
            "warnings",
        ]))
    });
    // Some tests use the cluster's helm and uv, so both are there before any test runs.
    let place = match prepare(kubeconfig) {
        Ok(place) => place,
        Err(error) => {
            tally.fail("the cluster", &error);
            return;
        }
    };
    tally.rust_tests(
        "unit tests",
        &mut with(
            &place,
            cargo(&["test", "--workspace", "--lib", "--bins", "--"]),
        ),
    );
    tally.rust_tests(
        "integration tests",
        &mut with(
            &place,
            cargo(&[
                "test",
                "--test",
                "it",
                "--",
                "--skip",
                "e2e::",
                "--skip",
                "bench::",
                "--test-threads=4",
            ]),
        ),
    );
    let mut scenarios = cargo(&["test", "--test", "it", "--", "e2e::"]);
    arguments_of(&mut scenarios, Some(&place), arguments.threads);
    tally.rust_tests("scenarios on the cluster", &mut scenarios);
    tally.check("demo", || {
        let program = std::env::current_exe().context("where is this program")?;
        sh::show(
            Command::new(program)
                .args(["demo", "--kubeconfig"])
                .arg(&place.cluster.kubeconfig)
                .current_dir(dirs::repository()),
        )
    });
    if !arguments.keep && place.cluster.is_ours() {
        end(tally, &place.cluster);
    }
}

/// What is asked of the cluster itself; afterwards it is gone.
fn end(tally: &mut Tally, cluster: &Cluster) {
    tally.check("a cluster that was killed comes up again", || {
        cluster::crash::occupy(cluster)?;
        let held = Held::now()?;
        cluster::crash::kill()?;
        let begun = Instant::now();
        cluster::up(None)?;
        let took = begun.elapsed();
        held.check_gone()?;
        if took > Duration::from_secs(20) {
            bail!(
                "a cluster whose programs are built takes {:.0} s to come up",
                took.as_secs_f64()
            );
        }
        Ok(())
    });
    tally.check("the cluster goes down and leaves nothing", || {
        let held = cluster::crash::occupy(cluster).and_then(|()| Held::now());
        cluster::down()?;
        leftovers::check()?;
        held?.check_gone()
    });
}

/// What scenarios need: the cluster, the images, the SDK.
pub struct Place {
    pub cluster: Cluster,
    image: String,
    sdk_python: std::path::PathBuf,
    agent_python: std::path::PathBuf,
    rattler_python: std::path::PathBuf,
    bindings_python: std::path::PathBuf,
    trains_python: std::path::PathBuf,
    uv: std::path::PathBuf,
    program: std::path::PathBuf,
}

/// Brings up the cluster, or takes that of `kubeconfig`, and builds what scenarios run.
pub fn prepare(kubeconfig: Option<&Path>) -> Result<Place> {
    let cluster = cluster::up(kubeconfig)?;
    let image = image::build(&cluster)?;
    cluster::publish(&cluster, None)?;
    let sdk_python = tools::sdk_python()?;
    let agent_python = tools::agent_python()?;
    let bindings_python = tools::bindings_python()?;
    let trains_python = tools::trains_python()?;
    let rattler_python = tools::rattler_python()?;
    let dist = dirs::repository().join("dist");
    Ok(Place {
        cluster,
        image,
        sdk_python,
        agent_python,
        bindings_python,
        trains_python,
        rattler_python,
        uv: dist.join("uv"),
        program: dist.join("trainyard"),
    })
}

/// Finds the value of a variable.
type Value = fn(&Place) -> OsString;

/// The variables that tell a test where things are.
const TOLD: [(&str, Value); 16] = [
    ("TRAINYARD_E2E_KUBECONFIG", |place| {
        place.cluster.kubeconfig.clone().into()
    }),
    ("TRAINYARD_E2E_GATEWAY", |place| {
        place.cluster.gateway.to_string().into()
    }),
    ("TRAINYARD_E2E_IMAGE", |place| place.image.clone().into()),
    ("TRAINYARD_E2E_TASK_IMAGE", |place| {
        place.cluster.task_image.clone().into()
    }),
    ("TRAINYARD_E2E_REGISTRY", |place| {
        place.cluster.registry.clone().into()
    }),
    ("TRAINYARD_E2E_INDEX_URL", |place| {
        place.cluster.index_url.clone().into()
    }),
    ("TRAINYARD_E2E_BIN", |place| {
        place.cluster.bin.clone().into()
    }),
    ("TRAINYARD_E2E_SDK_PYTHON", |place| {
        place.sdk_python.clone().into()
    }),
    ("TRAINYARD_E2E_AGENT_PYTHON", |place| {
        place.agent_python.clone().into()
    }),
    ("TRAINYARD_E2E_BINDINGS_PYTHON", |place| {
        place.bindings_python.clone().into()
    }),
    ("TRAINYARD_E2E_TRAINS_PYTHON", |place| {
        place.trains_python.clone().into()
    }),
    ("TRAINYARD_RATTLER_PYTHON", |place| {
        place.rattler_python.clone().into()
    }),
    ("TRAINYARD_E2E_PROGRAM", |place| {
        place.program.clone().into()
    }),
    ("TRAINYARD_HELM", |place| {
        place.cluster.bin.join("helm").into()
    }),
    ("TRAINYARD_KUBECTL", |place| {
        place.cluster.bin.join("kubectl").into()
    }),
    ("TRAINYARD_UV", |place| place.uv.clone().into()),
];

/// Tells a test where things are.
pub fn with(place: &Place, mut command: Command) -> Command {
    command.envs(TOLD.map(|(name, value)| (name, value(place))));
    command
}

fn arguments_of(command: &mut Command, place: Option<&Place>, threads: usize) {
    let mut own = std::mem::replace(command, Command::new("true"));
    if let Some(place) = place {
        own = with(place, own);
    }
    own.arg(format!("--test-threads={threads}"));
    *command = own;
}

pub fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    command
        .args(arguments)
        .current_dir(dirs::repository())
        .env("INSTA_UPDATE", "no")
        // A test says what is wrong in words.
        .env("RUST_BACKTRACE", "0")
        .env("CARGO_TERM_COLOR", "never");
    command
}

/// Runs `cargo test`, shows its output, and gives what passed, what failed with its words, and what was left out.
fn count(command: &mut Command) -> Result<Count> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .context("could not start cargo")?;
    let stdout = child.stdout.take().context("cargo has no output")?;
    let mut told = Count::default();
    let mut closed = false;
    let mut words = Words::default();
    for line in BufReader::new(stdout).lines() {
        let line = line.context("cargo's output cannot be read")?;
        println!("   {line}");
        words.hear(&line);
        if let Some(rest) = line.strip_prefix("test ") {
            match rest.rsplit_once(" ... ") {
                Some((_, "ok")) => told.passed += 1,
                Some((name, "FAILED")) => told.failed.push(name.to_owned().into()),
                Some((name, why)) if why.starts_with("ignored") => {
                    told.ignored.push(name.to_owned());
                }
                _ => {}
            }
        }
        closed |= line.starts_with("test result:");
    }
    let status = child.wait()?;
    if !status.success() && told.failed.is_empty() {
        bail!(
            "cargo failed ({status}){}",
            if closed { "" } else { " before any test ran" }
        );
    }
    for failed in &mut told.failed {
        failed.words = words.of(&failed.name);
    }
    Ok(told)
}

/// What failed tests have said: cargo shows it before the next hundred lines, and whoever reads wants it at the end.
#[derive(Default)]
struct Words {
    by_test: HashMap<String, VecDeque<String>>,
    of: Option<String>,
}

impl Words {
    /// Most lines that are kept of one test.
    const MOST: usize = 30;

    fn hear(&mut self, line: &str) {
        if let Some(name) = line.strip_prefix("---- ") {
            self.of = name.strip_suffix(" stdout ----").map(str::to_owned);
        } else if line == "failures:" || line == "successes:" {
            self.of = None;
        } else if let Some(name) = &self.of
            && !line.is_empty()
        {
            let kept = self.by_test.entry(name.clone()).or_default();
            if kept.len() == Self::MOST {
                kept.pop_front();
            }
            kept.push_back(line.chars().take(500).collect());
        }
    }

    fn of(&mut self, test: &str) -> Vec<String> {
        self.by_test.remove(test).unwrap_or_default().into()
    }
}
