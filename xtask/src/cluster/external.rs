//! A cluster that somebody else runs: it is used as it is, never changed by `up` and `down`.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, ToSocketAddrs, UdpSocket};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::Cluster;
use crate::{dirs, sh};

/// Names an image with Python that the cluster can pull, so that no image of tasks is made here and pushed.
pub const TASK_IMAGE: &str = "TRAINYARD_TASK_IMAGE";

/// Programs of this machine that work on the cluster, and where it is told how to install them.
const PROGRAMS: [(&str, &str); 2] = [
    ("kubectl", "https://kubernetes.io/docs/tasks/tools/"),
    ("helm", "https://helm.sh/docs/intro/install/"),
];

/// The value of [`TASK_IMAGE`].
pub fn task_image() -> Option<String> {
    std::env::var(TASK_IMAGE)
        .ok()
        .filter(|image| !image.is_empty())
}

/// Checks that the cluster answers.
pub fn connect(kubeconfig: &Path) -> Result<Cluster> {
    // kubectl takes a file that is not there for no settings at all; a list of files is left to it.
    let is_list = kubeconfig.to_string_lossy().contains(':');
    if !is_list && !kubeconfig.is_file() {
        bail!(
            "the kubeconfig {} is not there: correct KUBECONFIG or --kubeconfig, or unset it for a local cluster",
            kubeconfig.display()
        );
    }
    // Tests run in another folder.
    let kubeconfig = &if is_list {
        kubeconfig.to_owned()
    } else {
        std::path::absolute(kubeconfig)?
    };
    let bin = programs()?;
    let mut command = sh::command("kubectl");
    command
        .env("KUBECONFIG", kubeconfig)
        .arg("--request-timeout=10s");
    let what = || format!("the cluster of {} does not answer", kubeconfig.display());
    sh::run(command.args(["get", "--raw", "/readyz"])).with_context(what)?;
    let server = sh::output(sh::command("kubectl").env("KUBECONFIG", kubeconfig).args([
        "config",
        "view",
        "--minify",
        "--output",
        "jsonpath={.clusters[0].cluster.server}",
    ]))?;
    let registry = std::env::var("TRAINYARD_REGISTRY").unwrap_or_default();
    Ok(Cluster {
        kubeconfig: kubeconfig.to_owned(),
        gateway: address_towards(&server),
        task_image: task_image().unwrap_or_else(|| format!("{registry}/python:1")),
        registry,
        registry_hosts: PathBuf::new(),
        index_url: std::env::var("TRAINYARD_INDEX_URL").unwrap_or_default(),
        bin,
        is_ours: false,
    })
}

/// One folder with all of [`PROGRAMS`], wherever this machine has them.
fn programs() -> Result<PathBuf> {
    let folder = dirs::state()?.join("foreign");
    sh::make_dir(&folder)?;
    let mut missing = Vec::new();
    for (name, page) in PROGRAMS {
        let Some(program) = sh::find(name) else {
            missing.push(format!(
                "{name} is missing on this machine; how to install it: {page}"
            ));
            continue;
        };
        let link = folder.join(name);
        if fs::read_link(&link).is_ok_and(|target| target == program) {
            continue;
        }
        sh::remove(&link)?;
        symlink(&program, &link).with_context(|| format!("could not create {}", link.display()))?;
    }
    if !missing.is_empty() {
        bail!("{}", missing.join("; "));
    }
    Ok(folder)
}

/// The address of this machine that packets to the API server leave from: the best guess at how pods reach it.
fn address_towards(server: &str) -> IpAddr {
    let host = server
        .split("://")
        .last()
        .unwrap_or_default()
        .split('/')
        .next()
        .unwrap_or_default();
    let host = if host.rsplit_once(':').is_some() {
        host.to_owned()
    } else {
        format!("{host}:443")
    };
    let towards = || {
        let target = host.to_socket_addrs().ok()?.next()?;
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
        // Connecting a datagram socket sends nothing; it only asks the kernel for the route.
        socket.connect(target).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    towards().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}
