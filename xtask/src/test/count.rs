//! What `cargo test` tells, read while it runs.

use std::collections::{HashMap, VecDeque};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::times::Times;

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
    pub times: Times,
}

/// Runs `cargo test`, shows its output, and gives what passed, what failed with its words, what was left out, and the
/// times that tests told. What tests printed that passed is shown only if `shows_all`.
pub fn count(command: &mut Command, shows_all: bool) -> Result<Count> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .context("could not start cargo")?;
    let stdout = child.stdout.take().context("cargo has no output")?;
    let mut reader = Reader::default();
    for line in BufReader::new(stdout).lines() {
        let line = line.context("cargo's output cannot be read")?;
        if reader.hear(&line) || shows_all {
            println!("   {line}");
        }
    }
    let status = child.wait()?;
    if !status.success() && reader.told.failed.is_empty() {
        bail!(
            "cargo failed ({status}){}",
            if reader.closed {
                ""
            } else {
                " before any test ran"
            }
        );
    }
    Ok(reader.end())
}

/// Reads the lines of test programs that run with `--show-output`.
#[derive(Default)]
struct Reader {
    told: Count,
    words: Words,
    /// Whether this is what tests printed that passed: it stands between the results and what failed tests printed.
    of_passed: bool,
    /// Whether a program came to its end.
    closed: bool,
}

impl Reader {
    /// Takes in a line; whether it is anything but what tests printed that passed.
    fn hear(&mut self, line: &str) -> bool {
        self.words.hear(line);
        self.told.times.hear(line);
        let ends = line.starts_with("test result:");
        if line == "successes:" {
            self.of_passed = true;
        } else if ends || line == "failures:" {
            self.of_passed = false;
        }
        if self.of_passed {
            return false;
        }
        self.closed |= ends;
        if let Some(rest) = line.strip_prefix("test ") {
            match rest.rsplit_once(" ... ") {
                Some((_, "ok")) => self.told.passed += 1,
                Some((name, "FAILED")) => self.told.failed.push(name.to_owned().into()),
                Some((name, why)) if why.starts_with("ignored") => {
                    self.told.ignored.push(name.to_owned());
                }
                _ => {}
            }
        }
        true
    }

    fn end(mut self) -> Count {
        for failed in &mut self.told.failed {
            failed.words = self.words.of(&failed.name);
        }
        self.told
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: &str = "
running 3 tests
test e2e::passes ... ok
test e2e::fails ... FAILED
test e2e::long ... ignored, long form: hours

successes:

---- e2e::passes stdout ----
time | S6 | a pod is gone | 1.00 | 3
test of another program ... ok


successes:
    e2e::passes

failures:

---- e2e::fails stdout ----
time | S6 | a pod is gone | 5.00 | 3
why it failed


failures:
    e2e::fails

test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.10s
";

    #[test]
    fn what_a_passing_test_printed_is_read_for_its_times_and_not_shown() {
        let mut reader = Reader::default();
        let shown: Vec<&str> = RUN.lines().filter(|line| reader.hear(line)).collect();
        assert!(reader.closed);
        let told = reader.end();
        let shown = shown.join("\n");
        for (words, is_shown) in [
            ("test e2e::passes ... ok", true),
            ("another program", false),
            ("a pod is gone | 1.00", false),
            ("successes:", false),
            ("a pod is gone | 5.00", true),
            ("why it failed", true),
            ("test result: FAILED", true),
        ] {
            assert_eq!(shown.contains(words), is_shown, "{words:?} in {shown}");
        }
        assert_eq!(told.passed, 1);
        assert_eq!(told.ignored, ["e2e::long"]);
        let [failed] = told.failed.as_slice() else {
            panic!("one test failed, not {}", told.failed.len());
        };
        assert_eq!(failed.name, "e2e::fails");
        assert_eq!(
            failed.words.last().map(String::as_str),
            Some("why it failed")
        );
        let table = told.times.table();
        let row = "| S6: a pod is gone | 3.00 s | 1.00 – 5.00 | 2 | ≤ 3 s | yes |";
        assert!(table.contains(row), "{table}");
    }
}
