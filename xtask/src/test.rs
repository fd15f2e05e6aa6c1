//! `cargo xtask test`: everything that is checked, in one command, and all that the pipeline calls.
//!
//! Each check is one line; the tests of Rust are counted as such. A check that cannot run says why and counts as
//! failed. What scenarios took is printed as a table. The output ends with `N passed, N failed`.

mod commands;
mod count;
mod needs;
mod place;
mod times;

use std::path::Path;
use std::process::{Command, ExitCode};
use std::thread;
use std::time::Instant;

use anyhow::{Result, anyhow, bail};

use self::count::{Count, Failed, count};
pub use self::place::{Place, prepare, with};
use self::times::Times;
use crate::{bench, cluster, dirs, sh, tools};

/// What to check.
#[derive(clap::Args)]
pub struct Arguments {
    /// Only the Rust tests whose path contains this (`claim`, `e2e::`, `e2e::limits`), without the other checks
    #[arg(long, value_name = "PATH")]
    only: Option<String>,
    /// Long forms too: scenarios that take minutes each, for every change of the claim and for a release
    #[arg(long)]
    long: bool,
    /// Write what scenarios took into docs/benchmarks.md, if all passes; on the local cluster alone
    #[arg(long, conflicts_with = "only")]
    figures: bool,
    /// Leave the cluster running
    #[arg(long)]
    keep: bool,
    /// How many scenarios run side by side, which mostly wait; of the other tests half as many
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u8).range(1..))]
    threads: u8,
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
    /// What this machine has no device for.
    skipped: Vec<&'static str>,
    /// What scenarios took.
    times: Times,
    long: bool,
    /// Whether what tests print that pass is shown: figures of a long form, say.
    shows_all: bool,
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
    fn rust_tests(&mut self, name: &str, command: Command) {
        let lane = self.lane(name, command);
        self.ended(lane);
    }

    /// Begins a program of tests that others run beside.
    fn lane(&self, name: &str, mut command: Command) -> Lane {
        // The times that tests tell are in what they print.
        command.arg("--show-output");
        if self.long {
            command.arg("--include-ignored");
        }
        Lane::start(name, command, self.shows_all)
    }

    /// Waits for a program of tests and counts what it ran.
    fn ended(&mut self, lane: Lane) {
        let told = lane.reader.join();
        match told.unwrap_or_else(|_| bail!("its reader failed")) {
            Ok(told) => self.add(&lane.name, told),
            Err(error) => self.fail(&lane.name, &error),
        }
    }

    fn add(&mut self, name: &str, told: Count) {
        self.passed += told.passed;
        if told.passed + told.failed.len() == 0 {
            self.failed.push(format!("{name}: no test ran").into());
        }
        self.failed.extend(told.failed);
        self.left.extend(told.ignored);
        self.times.add(told.times);
    }
}

/// A program of tests that runs beside others.
struct Lane {
    name: String,
    reader: thread::JoinHandle<Result<Count>>,
}

impl Lane {
    fn start(name: &str, mut command: Command, shows_all: bool) -> Self {
        println!("── {name}");
        let told = name.to_owned();
        let reader = thread::spawn(move || {
            let begun = Instant::now();
            let count = count(&mut command, shows_all)?;
            let took = begun.elapsed().as_secs_f64();
            println!("   {told}: {} passed ({took:.0} s)", count.passed);
            Ok(count)
        });
        Self {
            name: name.to_owned(),
            reader,
        }
    }
}

/// Runs everything; the exit code says whether all passed.
pub fn main(arguments: &Arguments) -> ExitCode {
    let begun = Instant::now();
    let mut tally = Tally {
        // Who names a test wants it run.
        long: arguments.long || arguments.only.is_some(),
        shows_all: arguments.only.is_some(),
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
    if !tally.skipped.is_empty() {
        println!("skipped, needs a GPU: {}", tally.skipped.join(", "));
    }
    tell_times(&mut tally, arguments);
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

/// Prints what scenarios took, which fails nothing, and keeps it if that is asked for.
fn tell_times(tally: &mut Tally, arguments: &Arguments) {
    let table = tally.times.table();
    if !table.is_empty() {
        println!("{table}");
    }
    if !arguments.figures {
        return;
    }
    if table.is_empty() || !tally.failed.is_empty() {
        println!("docs/benchmarks.md is left as it is: not everything has run and passed");
        return;
    }
    let long = if arguments.long { " --long" } else { "" };
    let threads = arguments.threads;
    let command = format!("cargo xtask test --figures{long} --threads {threads}");
    if let Err(error) = bench::keep_times(&command, threads, &table) {
        tally.fail("docs/benchmarks.md", &error);
    }
}

fn run(tally: &mut Tally, arguments: &Arguments) -> Result<()> {
    let kubeconfig = arguments.which.foreign()?;
    if arguments.figures && kubeconfig.is_some() {
        bail!(
            "--figures keeps times of the local cluster: leave it out, or --kubeconfig and KUBECONFIG"
        );
    }
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
    let mut command = cargo(&["test", "--workspace", "--lib", "--test", "it", "--"]);
    command.arg(only);
    if let Some(place) = &place {
        command = with(place, command);
    }
    command.arg(side_by_side(arguments.threads / 2));
    if !has_gpu() && !only.starts_with(OF_A_GPU) {
        command.args(["--skip", OF_A_GPU]);
        if OF_A_GPU.contains(only.as_str()) {
            tally.skipped.push(OF_A_GPU);
        }
    }
    tally.rust_tests(&format!("tests of {only}"), command);
    Ok(())
}

/// What only the real driver can show.
const OF_A_GPU: &str = "nvml::s2_gpus_of_the_machine";

fn has_gpu() -> bool {
    Path::new("/dev/nvidiactl").exists()
}

/// The one kind of test that may be left out for want of a device, in sight.
fn on_a_gpu(tally: &mut Tally, place: &Place) {
    if !has_gpu() {
        tally.skipped.push(OF_A_GPU);
        return;
    }
    let mut command = with(place, it());
    command.arg(OF_A_GPU);
    if !tally.long {
        command.arg("--include-ignored");
    }
    tally.rust_tests("tests on the GPU", command);
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
            let why = anyhow!("did not run: the cluster is not there");
            for name in ["unit tests", "integration tests", "scenarios", "demo"] {
                tally.fail(name, &why);
            }
            return;
        }
    };
    tally.rust_tests(
        "unit tests",
        with(
            &place,
            cargo(&["test", "--workspace", "--lib", "--bins", "--"]),
        ),
    );
    let compute = tally.lane("tests that compute", computing(&place));
    let mut integration = with(&place, it());
    integration.arg(side_by_side(arguments.threads / 2));
    for path in ["e2e::", "bench::", OF_A_GPU].into_iter().chain(COMPUTE) {
        integration.args(["--skip", path]);
    }
    tally.rust_tests("integration tests", integration);
    on_a_gpu(tally, &place);
    let scenarios = Scenarios::of(&place, arguments.threads);
    let longest = tally.lane("the longest scenarios", scenarios.longest);
    tally.rust_tests("the other scenarios", scenarios.others);
    tally.ended(longest);
    tally.ended(compute);
    if !place.cluster.is_ours() || arguments.keep {
        tally.check("demo", || commands::demo_on(&place.cluster.kubeconfig));
        return;
    }
    tally.check("a cluster of somebody else is used and never ended", || {
        commands::foreign(&place.cluster)
    });
    tally.check("a cluster that was killed comes up again", || {
        commands::killed(&place.cluster)
    });
    tally.check("the cluster goes down and leaves nothing", || {
        commands::down(&place.cluster)
    });
    tally.check("demo, from no cluster to none", commands::demo_alone);
}

/// Scenarios that take minutes each and mostly wait. A runner of tests goes by the alphabet, and one of these that begins
/// last runs alone while a core stands idle; so they have a process of their own beside that of the others.
const LONGEST: [&str; 6] = [
    "e2e::crash::",
    "e2e::s10_fault_points::",
    "e2e::s32_permits::",
    "e2e::s41_faults::",
    "e2e::s47_stranded::",
    "e2e::s9_",
];

/// Tests that only compute, whenever that is: others wait now and then, and these take what they leave of the processors.
const COMPUTE: [&str; 3] = ["claim_model::", "clients::agent::", "server_fuzz::"];

fn computing(place: &Place) -> Command {
    let mut compute = with(place, in_the_background(&it()));
    compute.arg("--test-threads=2").args(COMPUTE);
    compute
}

fn side_by_side(threads: u8) -> String {
    format!("--test-threads={}", threads.max(1))
}

/// The scenarios on the cluster, in two processes.
struct Scenarios {
    longest: Command,
    others: Command,
}

impl Scenarios {
    fn of(place: &Place, threads: u8) -> Self {
        let run = |threads: u8| {
            let mut command = with(place, it());
            command.arg(side_by_side(threads));
            command
        };
        let of_the_longest = threads / 3;
        let mut longest = run(of_the_longest);
        let mut others = run(threads - of_the_longest);
        others.arg("e2e::");
        for path in LONGEST {
            longest.arg(path);
            others.args(["--skip", path]);
        }
        Self { longest, others }
    }
}

/// The same command with the least priority.
fn in_the_background(command: &Command) -> Command {
    let mut least = Command::new("nice");
    least.args(["-n", "19"]).arg(command.get_program());
    least.args(command.get_args());
    if let Some(folder) = command.get_current_dir() {
        least.current_dir(folder);
    }
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => least.env(name, value),
            None => least.env_remove(name),
        };
    }
    least
}

/// The tests of `tests/it`; arguments for them may follow. They are built as the unit tests are, with the whole workspace:
/// for one package alone cargo would build what both need a second time.
pub fn it() -> Command {
    cargo(&["test", "--workspace", "--test", "it", "--"])
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
