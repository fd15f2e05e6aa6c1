//! What `cargo test` tells, read while it runs.

use std::collections::{HashMap, VecDeque};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// A check or test that did not pass, and the end of what it said.
pub struct Failed {
    pub name: String,
    pub words: Vec<String>,
}

impl From<String> for Failed {
    fn from(name: String) -> Self {
        let words = Vec::new();
        Self { name, words }
    }
}

/// What `cargo test` told.
#[derive(Default)]
pub struct Count {
    pub passed: usize,
    pub failed: Vec<Failed>,
    pub ignored: Vec<String>,
}

/// Runs `cargo test`, shows its output, and gives what passed, what failed with its words, and what was left out.
pub fn count(command: &mut Command) -> Result<Count> {
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
