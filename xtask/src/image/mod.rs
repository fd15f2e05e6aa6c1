//! The project's image, built by its own Dockerfile with the programs of `dist/`, in the cluster's registry.
//!
//! The tag is a hash of everything that goes in: the same content has the same reference, is built once, and a
//! node never runs an old image under a new content's name.

mod kept;
pub mod programs;
mod symbols;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

pub use self::programs::Programs;
use crate::cluster::{self, Cluster};
use crate::{dirs, sh};

/// `cargo xtask image`
#[derive(clap::Args)]
pub struct Arguments {
    /// Build the programs into dist/ and no image
    #[arg(long)]
    programs: bool,
    #[command(flatten)]
    which: cluster::Which,
}

pub fn main(arguments: &Arguments) -> Result<()> {
    if arguments.programs {
        cluster::install_for_programs()?;
        for program in programs()?.all() {
            println!("{}", program.display());
        }
        return Ok(());
    }
    let cluster = cluster::up(arguments.which.foreign()?.as_deref())?;
    println!("{}", build(&cluster)?);
    Ok(())
}

/// The programs of `dist/`, built when they are not up to date.
pub fn programs() -> Result<Programs> {
    programs::ensure()
}

/// The image's reference, such as `127.0.0.1:16500/trainyard:0123456789abcdef`; builds and pushes what is missing.
pub fn build(cluster: &Cluster) -> Result<String> {
    if cluster.registry.is_empty() {
        bail!(
            "this cluster has no known registry: set TRAINYARD_REGISTRY to one that this machine can push to"
        );
    }
    let programs = programs()?;
    let base = if cluster.is_ours() {
        Some(cluster::python_image()?)
    } else {
        None
    };
    let reference = format!(
        "{}/trainyard:{}",
        cluster.registry,
        tag(&programs, base.as_ref())?
    );
    if is_pushed(cluster, &reference) {
        return Ok(reference);
    }
    sh::timed(&format!("image: {reference}"), || {
        build_image(
            base.as_ref().map(|base| base.reference.as_str()),
            &reference,
        )?;
        push(cluster, &reference)
    })?;
    if cluster.is_ours() {
        cluster::pull(&reference)?;
    }
    Ok(reference)
}

fn tag(programs: &Programs, base: Option<&cluster::BaseImage>) -> Result<String> {
    let dockerfile = dirs::repository().join("Dockerfile");
    let mut parts = vec![
        fs::read_to_string(&dockerfile)
            .with_context(|| format!("could not read {}", dockerfile.display()))?,
        base.map(|base| base.content.clone()).unwrap_or_default(),
    ];
    for program in programs.all() {
        parts.push(sh::file_hash(program)?);
    }
    Ok(sh::short_hash(parts))
}

fn is_pushed(cluster: &Cluster, reference: &str) -> bool {
    let mut inspect = sh::command("skopeo");
    inspect.args(["inspect", "--raw", verify_tls(cluster)]);
    sh::succeeds(inspect.arg(format!("docker://{reference}")))
}

fn build_image(base: Option<&str>, reference: &str) -> Result<()> {
    let mut build = buildah()?;
    build.args([
        "bud",
        "--quiet",
        "--isolation",
        "chroot",
        "--layers=false",
        "--tag",
        reference,
    ]);
    if let Some(base) = base {
        // Asked anew each time: the tag of the base stays when its content changes.
        build.args([
            "--pull-always",
            "--tls-verify=false",
            "--build-arg",
            &format!("BASE={base}"),
        ]);
    }
    sh::run(build.arg(dirs::repository()))
}

fn push(cluster: &Cluster, reference: &str) -> Result<()> {
    let mut push = buildah()?;
    push.args(["push", "--quiet", verify_tls(cluster)]);
    if cluster.is_ours() {
        // Packing costs more than it saves on one machine.
        push.arg("--disable-compression");
    }
    sh::run(push.arg(reference))?;
    // It lives in the registry now; here it would only add up.
    sh::succeeds(buildah()?.args(["rmi", "--force", reference]));
    Ok(())
}

fn verify_tls(cluster: &Cluster) -> &'static str {
    if cluster.is_ours() {
        "--tls-verify=false"
    } else {
        "--tls-verify=true"
    }
}

/// Where buildah keeps what it works with: a place of its own, so that it neither sees nor touches images of this
/// machine's user.
pub fn storage() -> Result<PathBuf> {
    Ok(dirs::state()?.join("buildah"))
}

fn buildah() -> Result<Command> {
    let storage = storage()?;
    let mut command = sh::command("buildah");
    command
        .arg("--root")
        .arg(storage.join("root"))
        .arg("--runroot")
        .arg(storage.join("run"));
    command.args(["--storage-driver", "overlay"]);
    Ok(command)
}
