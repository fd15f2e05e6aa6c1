//! A second control plane beside the cluster: an etcd, an API server and a controller-manager of its own, without nodes.
//! Its pods stand on a node that is an object alone and are played by the test (`played`). All of it ends with the value.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::world::{Place, Proc, wait};
use crate::git::servers::free_port;

pub struct ControlPlane {
    pub kubeconfig: String,
    dir: TempDir,
    /// In the order in which they end.
    _programs: [Proc; 3],
}

/// The node of its pods.
pub const NODE: &str = "second-node";

impl ControlPlane {
    pub fn start(place: &Place) -> Self {
        let dir = tempfile::tempdir().expect("temp folder");
        // Certificates of the cluster that runs: they are valid for this machine's loopback address too.
        let pki = Path::new(&place.kubeconfig)
            .parent()
            .expect("the kubeconfig lies in the cluster's folder")
            .join("pki");
        let [client, peer, api, manager] = std::array::from_fn(|_| free_port("127.0.0.1"));
        let start = |name: &str, arguments: &[String]| {
            let log = dir.path().join(format!("{name}.log"));
            Proc::start(Command::new(place.bin.join(name)).args(arguments), &log)
        };
        let etcd = start(
            "etcd",
            &[
                format!("--data-dir={}", dir.path().join("etcd").display()),
                "--unsafe-no-fsync".into(),
                "--log-level=warn".into(),
                format!("--listen-client-urls=http://127.0.0.1:{client}"),
                format!("--advertise-client-urls=http://127.0.0.1:{client}"),
                format!("--listen-peer-urls=http://127.0.0.1:{peer}"),
                format!("--initial-advertise-peer-urls=http://127.0.0.1:{peer}"),
                format!("--initial-cluster=default=http://127.0.0.1:{peer}"),
            ],
        );
        let file = |name: &str| pki.join(name).display().to_string();
        let server = start(
            "kube-apiserver",
            &[
                format!("--etcd-servers=http://127.0.0.1:{client}"),
                "--bind-address=127.0.0.1".into(),
                // Not loopback: the API server refuses to tell others that address.
                format!("--advertise-address={}", place.gateway),
                format!("--secure-port={api}"),
                "--service-cluster-ip-range=10.98.0.0/16".into(),
                format!("--client-ca-file={}", file("ca.crt")),
                format!("--tls-cert-file={}", file("apiserver.crt")),
                format!("--tls-private-key-file={}", file("apiserver.key")),
                "--service-account-issuer=https://kubernetes.default.svc".into(),
                format!("--service-account-key-file={}", file("sa.pub")),
                format!("--service-account-signing-key-file={}", file("sa.key")),
                "--authorization-mode=RBAC".into(),
            ],
        );
        let kubeconfig = dir.path().join("kubeconfig");
        fs::write(&kubeconfig, own_kubeconfig(&pki, api)).expect("kubeconfig is written");
        let kubectl = place.bin.join("kubectl");
        until_ready(&kubectl, &kubeconfig);
        let manager = start(
            "kube-controller-manager",
            &[
                format!("--kubeconfig={}", kubeconfig.display()),
                format!("--service-account-private-key-file={}", file("sa.key")),
                format!("--root-ca-file={}", file("ca.crt")),
                "--leader-elect=false".into(),
                "--bind-address=127.0.0.1".into(),
                format!("--secure-port={manager}"),
                format!("--cert-dir={}", dir.path().display()),
                "--controllers=job-controller,namespace-controller,garbage-collector-controller,ttl-after-finished-controller,serviceaccount-controller".into(),
                "--kube-api-qps=1000".into(),
                "--kube-api-burst=2000".into(),
            ],
        );
        Self {
            kubeconfig: kubeconfig.display().to_string(),
            dir,
            _programs: [manager, server, etcd],
        }
    }

    /// For the spec of a binding: its pods stand on the node that is none.
    pub fn binding_patch() -> Value {
        json!({"template": {"spec": {
            "nodeName": NODE,
            "containers": [{"name": "task", "image": "simulated:1"}],
        }}})
    }

    /// What its programs said last, for a failing test.
    pub fn tell(&self) {
        for name in ["etcd", "kube-apiserver", "kube-controller-manager"] {
            let path = self.dir.path().join(format!("{name}.log"));
            let log = fs::read_to_string(path).unwrap_or_default();
            let last: Vec<&str> = log.lines().rev().take(10).collect();
            eprintln!("{name}: {last:#?}");
        }
    }
}

/// The administrator of both clusters is the same.
fn own_kubeconfig(pki: &Path, port: u16) -> String {
    let file = |name: &str| pki.join(name).display().to_string();
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "second",
        "clusters": [{"name": "second", "cluster": {
            "server": format!("https://127.0.0.1:{port}"), "certificate-authority": file("ca.crt")}}],
        "users": [{"name": "admin", "user": {
            "client-certificate": file("admin.crt"), "client-key": file("admin.key")}}],
        "contexts": [{"name": "second", "context": {"cluster": "second", "user": "admin"}}],
    })
    .to_string()
}

fn until_ready(kubectl: &PathBuf, kubeconfig: &Path) {
    wait("the second API server is ready", 90, || {
        let output = Command::new(kubectl)
            .args(["get", "--raw", "/readyz", "--kubeconfig"])
            .arg(kubeconfig)
            .output()
            .expect("kubectl runs");
        (output.stdout == b"ok").then_some(())
    });
}
