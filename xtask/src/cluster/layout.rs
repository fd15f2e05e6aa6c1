//! Addresses, ports and files of the local cluster: the one place where they are chosen.
//!
//! One address, that of the bridge, serves the API server, the kubelet, DNS, the package index and whatever on
//! this machine pods must reach. All ports lie below the range from which the kernel takes outgoing ones.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::{dirs, sh};

/// The bridge between pods and this machine.
pub const BRIDGE: &str = "trainyard0";
/// This machine as pods see it.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 89, 0, 1);
/// The addresses of pods.
pub const POD_NET: &str = "10.89.0.0/16";
/// The addresses of Services.
pub const SERVICE_NET: &str = "10.97.0.0/16";
/// The first of them, `kubernetes.default`, which in-cluster clients check in the certificate.
pub const SERVICE_FIRST: &str = "10.97.0.1";
/// The one node.
pub const NODE: &str = "trainyard-node";
/// GPUs that the node pretends to have.
pub const GPUS: u32 = 4;
/// The CNI network, the nftables table and the cgroup are all called so.
pub const OURS: &str = "trainyard";

pub const API_PORT: u16 = 16443;
pub const ETCD_PORT: u16 = 16379;
pub const ETCD_PEER_PORT: u16 = 16380;
pub const CONTROLLER_MANAGER_PORT: u16 = 16257;
pub const SCHEDULER_PORT: u16 = 16259;
pub const KUBELET_PORT: u16 = 16250;
pub const KUBELET_HEALTH_PORT: u16 = 16248;
pub const PROXY_HEALTH_PORT: u16 = 16256;
pub const PROXY_METRICS_PORT: u16 = 16249;
pub const DNS_PORT: u16 = 53;
pub const DNS_HEALTH_PORT: u16 = 16253;
pub const REGISTRY_PORT: u16 = 16500;
pub const INDEX_PORT: u16 = 16580;

/// An address on the loopback interface.
pub fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// An address that pods reach.
pub fn gateway(port: u16) -> SocketAddr {
    (GATEWAY, port).into()
}

/// Every address that a component listens on.
pub fn listened() -> Vec<SocketAddr> {
    let at_home = [
        ETCD_PORT,
        ETCD_PEER_PORT,
        CONTROLLER_MANAGER_PORT,
        SCHEDULER_PORT,
        KUBELET_HEALTH_PORT,
        PROXY_HEALTH_PORT,
        PROXY_METRICS_PORT,
        DNS_HEALTH_PORT,
        REGISTRY_PORT,
    ];
    let for_pods = [API_PORT, KUBELET_PORT, DNS_PORT, INDEX_PORT];
    at_home
        .map(local)
        .into_iter()
        .chain(for_pods.map(gateway))
        .collect()
}

/// `127.0.0.1:PORT`, the registry as containerd, kubelet and buildah name it (loopback needs no TLS).
pub fn registry() -> String {
    local(REGISTRY_PORT).to_string()
}

/// The package index as pods name it.
pub fn index_url() -> String {
    format!("http://{}/simple/", gateway(INDEX_PORT))
}

/// The state folder of the cluster.
#[derive(Clone)]
pub struct State(PathBuf);

impl State {
    pub fn new() -> Result<Self> {
        Ok(Self(dirs::state()?.join("cluster")))
    }

    pub fn root(&self) -> &Path {
        &self.0
    }

    pub fn path(&self, below: &str) -> PathBuf {
        self.0.join(below)
    }

    /// A path as text, for settings.
    pub fn text(&self, below: &str) -> String {
        self.path(below).display().to_string()
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.path("kubeconfig")
    }

    pub fn containerd_socket(&self) -> PathBuf {
        self.path("containerd/c.sock")
    }

    /// How registries are reached but for our own, a folder each; containerd looks there at every pull.
    pub fn registry_hosts(&self) -> PathBuf {
        self.path("containerd/hosts")
    }

    /// Lets one `up` or `down` work at a time; released when the value is dropped.
    pub fn lock(&self) -> Result<File> {
        sh::make_dir(&self.0)?;
        let path = self.path("lock");
        let file =
            File::create(&path).with_context(|| format!("could not open {}", path.display()))?;
        if file.try_lock().is_err() {
            eprintln!("cluster: waiting for another `cargo xtask cluster` to end");
            file.lock()
                .with_context(|| format!("could not lock {}", path.display()))?;
        }
        Ok(file)
    }
}
