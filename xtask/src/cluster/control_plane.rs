//! etcd, API server, controller-manager, scheduler: throw-away state, real admission, certificates everywhere.

use std::path::Path;

use anyhow::Result;

use super::daemon::Daemon;
use super::layout::{
    API_PORT, CONTROLLER_MANAGER_PORT, ETCD_PEER_PORT, ETCD_PORT, GATEWAY, SCHEDULER_PORT,
    SERVICE_NET, State, local,
};
use crate::sh;

pub fn start_etcd(state: &State, programs: &Path) -> Result<Daemon> {
    let data = state.path("etcd");
    sh::make_dir(&data)?;
    let (clients, peers) = (
        format!("http://{}", local(ETCD_PORT)),
        format!("http://{}", local(ETCD_PEER_PORT)),
    );
    start(
        state,
        programs,
        "etcd",
        &[
            format!("--data-dir={}", data.display()),
            // The data does not outlive the cluster, so nothing is lost with the machine.
            "--unsafe-no-fsync".into(),
            "--log-level=warn".into(),
            format!("--listen-client-urls={clients}"),
            format!("--advertise-client-urls={clients}"),
            format!("--listen-peer-urls={peers}"),
            format!("--initial-advertise-peer-urls={peers}"),
            format!("--initial-cluster=default={peers}"),
        ],
    )
}

pub fn start_api_server(state: &State, programs: &Path) -> Result<Daemon> {
    let pki = |file: &str| state.path("pki").join(file).display().to_string();
    start(
        state,
        programs,
        "kube-apiserver",
        &[
            format!("--etcd-servers=http://{}", local(ETCD_PORT)),
            format!("--bind-address={GATEWAY}"),
            format!("--advertise-address={GATEWAY}"),
            format!("--secure-port={API_PORT}"),
            format!("--service-cluster-ip-range={SERVICE_NET}"),
            format!("--client-ca-file={}", pki("ca.crt")),
            format!("--tls-cert-file={}", pki("apiserver.crt")),
            format!("--tls-private-key-file={}", pki("apiserver.key")),
            "--service-account-issuer=https://kubernetes.default.svc".into(),
            format!("--service-account-key-file={}", pki("sa.pub")),
            format!("--service-account-signing-key-file={}", pki("sa.key")),
            "--authorization-mode=Node,RBAC".into(),
            "--enable-admission-plugins=NodeRestriction".into(),
            format!("--kubelet-client-certificate={}", pki("admin.crt")),
            format!("--kubelet-client-key={}", pki("admin.key")),
            format!("--kubelet-certificate-authority={}", pki("ca.crt")),
            // Otherwise this machine must resolve the node's name for logs and exec.
            "--kubelet-preferred-address-types=InternalIP".into(),
            // Scenarios have mutating policies, which this version serves only when told to.
            "--feature-gates=MutatingAdmissionPolicy=true".into(),
            "--runtime-config=admissionregistration.k8s.io/v1beta1=true".into(),
        ],
    )
}

/// With the default of 20 requests a second, Jobs are slow and the default service account is late.
const FAST: [&str; 2] = ["--kube-api-qps=1000", "--kube-api-burst=2000"];

pub fn start_controller_manager(state: &State, programs: &Path) -> Result<Daemon> {
    let mut arguments = vec![
        format!("--kubeconfig={}", state.kubeconfig().display()),
        format!(
            "--service-account-private-key-file={}",
            state.text("pki/sa.key")
        ),
        format!("--root-ca-file={}", state.text("pki/ca.crt")),
        "--use-service-account-credentials=true".into(),
        "--leader-elect=false".into(),
        "--bind-address=127.0.0.1".into(),
        format!("--secure-port={CONTROLLER_MANAGER_PORT}"),
        format!("--tls-cert-file={}", state.text("pki/apiserver.crt")),
        format!("--tls-private-key-file={}", state.text("pki/apiserver.key")),
    ];
    arguments.extend(FAST.map(ToOwned::to_owned));
    start(state, programs, "kube-controller-manager", &arguments)
}

pub fn start_scheduler(state: &State, programs: &Path) -> Result<Daemon> {
    let mut arguments = vec![
        format!("--kubeconfig={}", state.kubeconfig().display()),
        "--leader-elect=false".into(),
        "--bind-address=127.0.0.1".into(),
        format!("--secure-port={SCHEDULER_PORT}"),
        format!("--tls-cert-file={}", state.text("pki/apiserver.crt")),
        format!("--tls-private-key-file={}", state.text("pki/apiserver.key")),
    ];
    arguments.extend(FAST.map(ToOwned::to_owned));
    start(state, programs, "kube-scheduler", &arguments)
}

fn start(
    state: &State,
    programs: &Path,
    name: &'static str,
    arguments: &[String],
) -> Result<Daemon> {
    Daemon::start(state, name, programs.join(name), sh::arguments(arguments))
}
