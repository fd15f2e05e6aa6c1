//! Whatever a client sends, to whatever endpoint: no panic, no internal error, no memory without bound.
//!
//! ```text
//! vocabulary ──▶ requests     random bodies to every endpoint
//! multipart  ──▶ uploads      random files, whole and cut off
//! ```

mod multipart;
mod requests;
mod uploads;
mod vocabulary;

use proptest::test_runner::{Config, TestRunner};

/// The most that the server may occupy at any moment of a run, in MiB: what the benches hold it to. It takes a third of
/// that, nearly all of it for the program itself, which no optimisation has made small.
const MEMORY: f64 = 150.0;

fn runner(cases: u32) -> TestRunner {
    TestRunner::new(Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: 200,
        ..Config::default()
    })
}
