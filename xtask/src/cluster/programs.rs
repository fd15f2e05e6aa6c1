//! The cluster's own programs, built from Go modules below `tests/cluster/` and kept outside the clone.
//!
//! The folder's name is a hash of all that decides what is built, and the folder appears by a rename when all
//! is built: one that was interrupted is never taken for a finished one, and two clones share the work.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};

use super::packages;
use crate::{dirs, sh};

const KUBERNETES: &str = "v1.34.4";

/// One Go module and the programs that come out of it.
struct Module {
    /// The folder below `tests/cluster/`.
    folder: &'static str,
    /// Go packages, each of which is a program.
    packages: &'static [&'static str],
    /// The program's name, where it is not the last part of the package.
    program: Option<&'static str>,
}

const MODULES: &[Module] = &[
    Module {
        folder: "kubernetes",
        packages: &[
            "k8s.io/kubernetes/cmd/kube-apiserver",
            "k8s.io/kubernetes/cmd/kube-controller-manager",
            "k8s.io/kubernetes/cmd/kube-scheduler",
            "k8s.io/kubernetes/cmd/kube-proxy",
            "k8s.io/kubernetes/cmd/kubelet",
            "k8s.io/kubernetes/cmd/kubectl",
        ],
        program: None,
    },
    Module {
        folder: "etcd",
        packages: &["go.etcd.io/etcd/server/v3"],
        program: Some("etcd"),
    },
    Module {
        folder: "coredns",
        packages: &["."],
        program: Some("coredns"),
    },
    Module {
        folder: "helm",
        packages: &["helm.sh/helm/v4/cmd/helm"],
        program: Some("helm"),
    },
    Module {
        folder: "kwok",
        packages: &["sigs.k8s.io/kwok/cmd/kwok"],
        program: Some("kwok"),
    },
];

/// Without the version linked in, the components misreport theirs.
fn linker_flags() -> String {
    let set = "-X k8s.io/component-base/version";
    format!("-s -w {set}.gitVersion={KUBERNETES} {set}.gitMajor=1 {set}.gitMinor=34")
}

/// The folder with all programs; builds them when they are not there (about 11 minutes on 2 cores).
pub fn ensure() -> Result<PathBuf> {
    let go = packages::go()?;
    let store = dirs::cache()?.join("cluster");
    let finished = store.join(key(&go)?);
    if finished.is_dir() {
        return Ok(finished);
    }
    let building = store.join(format!("building-{}", std::process::id()));
    sh::make_dir(&building)?;
    let start = Instant::now();
    eprintln!("cluster: building its programs, once (about 11 minutes on 2 cores)");
    for (index, module) in MODULES.iter().enumerate() {
        let what = format!(
            "cluster: {} ({} of {})",
            module.folder,
            index + 1,
            MODULES.len()
        );
        sh::timed(&what, || build(&go, module, &building))?;
    }
    eprintln!(
        "cluster: programs built in {} s: {}",
        start.elapsed().as_secs(),
        finished.display()
    );
    match fs::rename(&building, &finished) {
        // Another clone was faster.
        Err(_) if finished.is_dir() => sh::remove(&building)?,
        renamed => renamed.with_context(|| format!("could not create {}", finished.display()))?,
    }
    Ok(finished)
}

fn build(go: &Path, module: &Module, into: &Path) -> Result<()> {
    let output = if let Some(program) = module.program {
        into.join(program).into_os_string()
    } else {
        // Ending in a slash, it is the folder for several programs.
        let mut folder = into.as_os_str().to_owned();
        folder.push("/");
        folder
    };
    let mut command = go_command(go);
    command.current_dir(source(module)).args([
        "build",
        "-trimpath",
        "-buildvcs=false",
        "-ldflags",
        &linker_flags(),
        "-o",
    ]);
    sh::run(command.arg(output).args(module.packages))
}

fn go_command(go: &Path) -> Command {
    let mut command = sh::command(go);
    command
        .env("CGO_ENABLED", "0")
        .env("GOFLAGS", "-mod=readonly")
        .env("GOWORK", "off");
    command
}

fn source(module: &Module) -> PathBuf {
    dirs::repository().join("tests/cluster").join(module.folder)
}

/// Over the compiler, its flags and every file that is compiled or names what is.
fn key(go: &Path) -> Result<String> {
    let mut parts = vec![
        sh::output(go_command(go).arg("version").current_dir("/"))?,
        linker_flags(),
    ];
    for module in MODULES {
        parts.extend(module.packages.iter().map(ToString::to_string));
        let folder = source(module);
        let mut files: Vec<PathBuf> = fs::read_dir(&folder)
            .with_context(|| format!("could not read {}", folder.display()))?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<_, _>>()?;
        files.sort();
        for file in files {
            parts.push(
                fs::read_to_string(&file)
                    .with_context(|| format!("could not read {}", file.display()))?,
            );
        }
    }
    Ok(sh::short_hash(parts))
}
