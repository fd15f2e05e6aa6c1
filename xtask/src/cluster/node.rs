//! The node: containerd, kubelet, kube-proxy, and DNS as a program of this machine.
//!
//! Everything that these programs write by default below /var, /run and /opt is sent into the state folder, so
//! that the sweep finds it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::daemon::Daemon;
use super::layout::{
    BRIDGE, DNS_HEALTH_PORT, GATEWAY, KUBELET_HEALTH_PORT, KUBELET_PORT, NODE, OURS, POD_NET,
    PROXY_HEALTH_PORT, PROXY_METRICS_PORT, State, local, registry,
};
use super::status;
use crate::sh;

/// The cgroup of all pods, in every hierarchy (cgroup v1) or in the one (v2).
pub fn cgroups() -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    if root.join("cgroup.controllers").exists() {
        return vec![root.join(OURS)];
    }
    let hierarchies = fs::read_dir(root)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    hierarchies
        .filter(|path| path.is_dir() && !path.is_symlink())
        .map(|path| path.join(OURS))
        .collect()
}

/// Makes the cgroup that the kubelet is told to use: it must exist before.
pub fn create_cgroups() -> Result<()> {
    for group in cgroups() {
        sh::make_dir(&group)?;
        for parent in group.ancestors().skip(1).take(1).chain([group.as_path()]) {
            // cgroup v2 hands controllers down only on request; one that the kernel lacks is not missed.
            let Ok(available) = fs::read_to_string(parent.join("cgroup.controllers")) else {
                continue;
            };
            for controller in available.split_whitespace() {
                let _ = fs::write(
                    parent.join("cgroup.subtree_control"),
                    format!("+{controller}"),
                );
            }
        }
    }
    Ok(())
}

pub fn start_containerd(state: &State) -> Result<Daemon> {
    for folder in ["containerd", "cni"] {
        sh::make_dir(state.path(folder))?;
    }
    sh::write(
        state.path("containerd/config.toml"),
        containerd_config(state),
    )?;
    sh::write(state.path("cni/10-bridge.conflist"), cni_config(state))?;
    let program = sh::find("containerd").unwrap_or_default();
    Daemon::start(
        state,
        "containerd",
        program,
        sh::arguments(["--config".into(), state.path("containerd/config.toml")]),
    )
}

fn containerd_config(state: &State) -> String {
    let below = |name: &str| state.text(&format!("containerd/{name}"));
    let cri = "plugins.\"io.containerd.grpc.v1.cri\"";
    format!(
        r#"version = 2
root = "{root}"
state = "{run}"
[grpc]
address = "{socket}"
[{cri}]
sandbox_image = "{registry}/pause:1"
# Hosts without CAP_SYS_RESOURCE refuse lower values, and runc dies of it without a word about why.
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
[{cri}.registry]
config_path = "{hosts}"
[{cri}.cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{cni}"
[{cri}.containerd]
default_runtime_name = "runc"
[{cri}.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[{cri}.containerd.runtimes.runc.options]
Root = "{runc}"
SystemdCgroup = false
[plugins."io.containerd.internal.v1.opt"]
path = "{opt}"
"#,
        root = below("root"),
        run = below("state"),
        socket = state.containerd_socket().display(),
        registry = registry(),
        hosts = state.registry_hosts().display(),
        cni = state.text("cni"),
        runc = below("runc"),
        opt = below("opt"),
    )
}

fn cni_config(state: &State) -> String {
    serde_json::json!({
        "cniVersion": "1.0.0",
        "name": OURS,
        "plugins": [{
            "type": "bridge",
            "bridge": BRIDGE,
            "isGateway": true,
            "hairpinMode": true,
            "ipam": {
                "type": "host-local",
                "dataDir": state.path("ipam"),
                "ranges": [[{"subnet": POD_NET, "gateway": GATEWAY.to_string()}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }],
    })
    .to_string()
}

/// Waits until containerd answers.
pub fn wait_for_containerd(state: &State, daemon: &mut Daemon) -> Result<()> {
    sh::wait_for("containerd", Duration::from_secs(30), || {
        daemon.check()?;
        Ok(state.containerd_socket().exists() && containerd_answers(state))
    })
}

pub fn containerd_answers(state: &State) -> bool {
    sh::succeeds(ctr(state).args(["--connect-timeout", "1s", "version"]))
}

/// `ctr` in the namespace of Kubernetes.
pub fn ctr(state: &State) -> std::process::Command {
    let mut command = sh::command("ctr");
    command
        .arg("--address")
        .arg(state.containerd_socket())
        .args(["--namespace", "k8s.io"]);
    command
}

/// Removes all containers behind the kubelet's back, and says whether there were any. Images stay.
pub fn remove_containers(state: &State) -> Result<bool> {
    let tasks = sh::output(ctr(state).args(["tasks", "list", "--quiet"]))?;
    for task in tasks.lines() {
        sh::succeeds(ctr(state).args(["tasks", "delete", "--force", task]));
    }
    let containers = sh::output(ctr(state).args(["containers", "list", "--quiet"]))?;
    if !containers.is_empty() {
        sh::succeeds(
            ctr(state)
                .args(["containers", "delete"])
                .args(containers.lines()),
        );
    }
    Ok(!containers.is_empty())
}

pub fn start_kubelet(state: &State, programs: &Path) -> Result<Daemon> {
    // Pods ask our DNS first; this file is for what runs with the node's.
    fs::copy("/etc/resolv.conf", state.path("resolv.conf"))
        .map(drop)
        .or_else(|_| sh::write(state.path("resolv.conf"), ""))?;
    sh::write(state.path("kubelet.yaml"), kubelet_config(state))?;
    let arguments = [
        format!("--kubeconfig={}", state.text("kubelet.kubeconfig")),
        format!("--config={}", state.text("kubelet.yaml")),
        format!("--root-dir={}", state.text("kubelet")),
        format!("--cert-dir={}", state.text("certificates/kubelet")),
        format!("--hostname-override={NODE}"),
        format!("--node-ip={GATEWAY}"),
    ];
    // containerd answers a moment before its part for the kubelet does, longer on a busy machine; a kubelet that asks
    // in between ends at once.
    let begin = Instant::now();
    loop {
        let mut kubelet = Daemon::start(
            state,
            "kubelet",
            programs.join("kubelet"),
            sh::arguments(&arguments),
        )?;
        let mut early = Ok(());
        for _ in 0..20 {
            early = kubelet.check();
            if early.is_err() || status::answers(state, programs, "kubelet") {
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        match early {
            Err(error)
                if error.to_string().contains("not initialized yet")
                    && begin.elapsed() < Duration::from_secs(30) => {}
            Err(error) => return Err(error),
            Ok(()) => return Ok(kubelet),
        }
    }
}

fn kubelet_config(state: &State) -> String {
    format!(
        "\
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: {GATEWAY}
port: {KUBELET_PORT}
healthzBindAddress: 127.0.0.1
healthzPort: {KUBELET_HEALTH_PORT}
containerRuntimeEndpoint: unix://{socket}
cgroupDriver: cgroupfs
cgroupRoot: /{OURS}
cgroupsPerQOS: true
enforceNodeAllocatable: [pods]
localStorageCapacityIsolation: true
podLogsDir: {logs}
volumePluginDir: {volumes}
failSwapOn: false
authentication: {{anonymous: {{enabled: false}}, webhook: {{enabled: true}}, x509: {{clientCAFile: {pki}/ca.crt}}}}
authorization: {{mode: Webhook}}
tlsCertFile: {pki}/kubelet.crt
tlsPrivateKeyFile: {pki}/kubelet.key
clusterDomain: cluster.local
clusterDNS: [{GATEWAY}]
resolvConf: {resolv}
evictionHard: {{memory.available: 100Mi}}
imageGCHighThresholdPercent: 100 # the images are pulled ahead of the pods and must stay
makeIPTablesUtilChains: false    # leaves no chain of iptables behind
kubeAPIQPS: 500
kubeAPIBurst: 1000
",
        socket = state.containerd_socket().display(),
        logs = state.text("podlogs"),
        volumes = state.text("volume-plugins"),
        pki = state.text("pki"),
        resolv = state.text("resolv.conf"),
    )
}

pub fn start_proxy(state: &State, programs: &Path) -> Result<Daemon> {
    let arguments = [
        format!("--kubeconfig={}", state.text("kube-proxy.kubeconfig")),
        "--proxy-mode=nftables".into(),
        format!("--cluster-cidr={POD_NET}"),
        format!("--hostname-override={NODE}"),
        format!("--healthz-bind-address={}", local(PROXY_HEALTH_PORT)),
        format!("--metrics-bind-address={}", local(PROXY_METRICS_PORT)),
        format!("--nodeport-addresses={POD_NET}"),
        // Zero: leave the host's connection tracking as it is.
        "--conntrack-max-per-core=0".into(),
        "--conntrack-tcp-timeout-established=0s".into(),
        "--conntrack-tcp-timeout-close-wait=0s".into(),
    ];
    Daemon::start(
        state,
        "kube-proxy",
        programs.join("kube-proxy"),
        sh::arguments(arguments),
    )
}

pub fn start_dns(state: &State, programs: &Path) -> Result<Daemon> {
    let corefile = state.path("Corefile");
    let resolver = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    // CoreDNS does not start when told to forward to nobody.
    let forward = if resolver.lines().any(|line| line.starts_with("nameserver")) {
        "forward . /etc/resolv.conf"
    } else {
        ""
    };
    sh::write(
        &corefile,
        format!(
            ".:53 {{\n  bind {GATEWAY}\n  health {health}\n  errors\n  \
             kubernetes cluster.local in-addr.arpa {{\n    kubeconfig {kubeconfig}\n  }}\n  {forward}\n}}\n",
            health = local(DNS_HEALTH_PORT),
            kubeconfig = state.kubeconfig().display(),
        ),
    )?;
    Daemon::start(
        state,
        "coredns",
        programs.join("coredns"),
        sh::arguments(["-conf".into(), corefile]),
    )
}
