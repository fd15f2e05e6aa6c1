//! A cluster that somebody else runs: it is used as it is, never changed by `up` and `down`.

use std::net::{IpAddr, Ipv4Addr, ToSocketAddrs, UdpSocket};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::Cluster;
use crate::sh;

/// Checks that the cluster answers.
pub fn connect(kubeconfig: &Path) -> Result<Cluster> {
    // kubectl takes a file that is not there for no settings at all; a list of files is left to it.
    if !kubeconfig.to_string_lossy().contains(':') && !kubeconfig.is_file() {
        bail!(
            "the kubeconfig {} is not there: correct KUBECONFIG, or unset it for a local cluster",
            kubeconfig.display()
        );
    }
    let kubectl = sh::find("kubectl").context(
        "kubectl is missing on this machine; with KUBECONFIG set the one in PATH is used",
    )?;
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
    Ok(Cluster {
        kubeconfig: kubeconfig.to_owned(),
        gateway: address_towards(&server),
        registry: std::env::var("TRAINYARD_REGISTRY").unwrap_or_default(),
        index_url: std::env::var("TRAINYARD_INDEX_URL").unwrap_or_default(),
        bin: kubectl.parent().map(PathBuf::from).unwrap_or_default(),
        is_ours: false,
    })
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
