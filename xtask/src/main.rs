//! Developer commands of trainyard; not shipped.
//!
//! ```text
//! cargo xtask cluster up|down|status   a real Kubernetes on this machine, or the one of --kubeconfig
//! cargo xtask image                    the project's image, built and pushed to the cluster's registry
//! cargo xtask demo                     from nothing to a finished experiment
//! cargo xtask test                     everything that is checked
//! cargo xtask bench                    figures for docs/benchmarks.md
//! cargo xtask index serve              the Python package index that pods install from
//! ```
//!
//! One file per noun. Programs do the work (go, containerd, buildah, pip); this crate knows their order,
//! their settings and how to end what it started.

mod bench;
mod clearml;
mod cluster;
mod demo;
mod dirs;
mod http;
mod image;
mod index;
mod process;
mod sh;
mod test;
mod tools;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "Developer commands of trainyard"
)]
struct Arguments {
    #[command(subcommand)]
    noun: Noun,
}

#[derive(Subcommand)]
enum Noun {
    /// The Kubernetes cluster of demo and tests
    Cluster(cluster::Arguments),
    /// Build the image and push it to the cluster's registry; prints its reference
    Image(image::Arguments),
    /// From nothing to a finished experiment on a real Kubernetes
    Demo(demo::Arguments),
    /// Everything that is checked
    Test(test::Arguments),
    /// Measure on the real cluster and write docs/benchmarks.md
    Bench(bench::Arguments),
    /// The Python package index for pods
    Index(index::Arguments),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().noun {
        Noun::Cluster(arguments) => cluster::main(&arguments),
        Noun::Image(arguments) => image::main(&arguments),
        Noun::Demo(arguments) => demo::main(&arguments),
        Noun::Test(arguments) => return test::main(&arguments),
        Noun::Bench(arguments) => bench::main(&arguments),
        Noun::Index(arguments) => index::main(arguments),
    };
    exit(result.map(|()| ExitCode::SUCCESS))
}

fn exit(result: anyhow::Result<ExitCode>) -> ExitCode {
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
