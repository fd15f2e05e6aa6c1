//! Ending a cluster, whole or in pieces: after it, nothing that `up` made is left on the machine.
//!
//! What is ours is known by the records of `up` (number and start time), by an argument that names the state
//! folder, and, once this state folder has noted that it owns the network, by cgroup, bridge and tables; never by
//! a program's name alone. Every step
//! takes "not there" for done, so a sweep can follow a crash, a half-made `up` or another sweep.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::layout::{OURS, State};
use super::{daemon, network, node};
use crate::{process, sh};

/// Programs that work for a cluster and name its state folder in their arguments.
const PROGRAMS: &[&str] = &[
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
    "kubelet",
    "coredns",
    "containerd",
    "containerd-shim-runc-v2",
    "containerd-shim",
    "runc",
    "docker-registry",
    "package-index",
];

/// What a run of the cluster writes; registry, containerd's images and build storage are kept for the next one.
const THROWN_AWAY: &[&str] = &[
    "run",
    "etcd",
    "pki",
    "certificates",
    "kubeconfig",
    "kubelet.kubeconfig",
    "kube-proxy.kubeconfig",
    "kubelet",
    "kubelet.yaml",
    "resolv.conf",
    "podlogs",
    "volume-plugins",
    "ipam",
    "cni",
    "Corefile",
    "registry.yaml",
    "helm",
    "stamp",
    "containerd/config.toml",
    "containerd/hosts",
    "containerd/c.sock",
    "containerd/c.sock.ttrpc",
    "containerd/state",
    "containerd/runc",
    "containerd/opt",
];

/// Ends everything and takes everything away.
pub fn sweep(state: &State) -> Result<()> {
    end_components(state);
    end_strays(state);
    // Bridge, tables and cgroup are one for the machine: those of another state folder's cluster are left alone.
    let is_ours = network::is_ours(state);
    if is_ours {
        end_pods();
    }
    remove_shim_sockets(state);
    unmount(state.root());
    if is_ours {
        network::remove()?;
        remove_cgroups();
        network::restore_settings(state)?;
    }
    remove_files(state)
}

/// Whoever would start pods again goes first; containerd goes after its containers; etcd goes last.
fn end_components(state: &State) {
    let end = |name: &str, grace: u64| {
        if let Some(identity) = daemon::identity(state, name) {
            identity.end(Duration::from_secs(grace));
        }
    };
    for name in [
        "kube-controller-manager",
        "kube-scheduler",
        "kubelet",
        "kube-proxy",
        "coredns",
        "index",
    ] {
        end(name, 0);
    }
    if daemon::identity(state, "containerd").is_some_and(|identity| identity.is_alive()) {
        // A containerd that does not answer is killed below with all its shims.
        let _ = node::remove_containers(state);
        end("containerd", 3);
    }
    end("registry", 2);
    end("kube-apiserver", 0);
    end("etcd", 0);
}

/// Processes of pods that outlived containerd: all in our cgroup.
fn end_pods() {
    let start = Instant::now();
    loop {
        let mut left = 0;
        for group in node::cgroups().iter().flat_map(|root| tree(root)) {
            for pid in fs::read_to_string(group.join("cgroup.procs"))
                .unwrap_or_default()
                .lines()
            {
                left += 1;
                if let Ok(pid) = pid.parse() {
                    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
                }
            }
        }
        if left == 0 || start.elapsed() > Duration::from_secs(5) {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn end_strays(state: &State) {
    let me = std::process::id().cast_signed();
    let strays = process::of_folder(PROGRAMS, state.root());
    for stray in strays.into_iter().filter(|stray| stray.pid != me) {
        stray.end(Duration::ZERO);
    }
}

/// Shims put their sockets into /run/containerd whatever they are told; each says in its folder where.
fn remove_shim_sockets(state: &State) {
    let folder = state.path("containerd/state/io.containerd.runtime.v2.task/k8s.io");
    for shim in fs::read_dir(folder).into_iter().flatten().flatten() {
        let address = fs::read_to_string(shim.path().join("address")).unwrap_or_default();
        if let Some(socket) = address.strip_prefix("unix://") {
            let _ = fs::remove_file(socket);
        }
    }
    // Removed only when empty: another containerd may live beside ours.
    for folder in [
        "/run/containerd/s",
        "/run/containerd/fifo",
        "/run/containerd",
    ] {
        let _ = fs::remove_dir(folder);
    }
}

/// Everything mounted below `folder`, the last one first.
fn unmount(folder: &Path) {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points: Vec<PathBuf> = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|point| PathBuf::from(point.replace("\\040", " ")))
        .filter(|point| point.starts_with(folder))
        .collect();
    for point in points.iter().rev() {
        let _ = umount2(point, MntFlags::MNT_DETACH);
    }
}

fn remove_cgroups() {
    let start = Instant::now();
    for root in node::cgroups() {
        // The deepest first: a cgroup with children cannot be removed, nor can one whose processes are still ending.
        loop {
            for group in tree(&root).iter().rev() {
                let _ = fs::remove_dir(group);
            }
            if !root.exists() || start.elapsed() > Duration::from_secs(5) {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A folder and all folders below it, parents first.
fn tree(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(folder) = waiting.pop() {
        let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
        waiting.extend(
            entries
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                .map(|entry| entry.path()),
        );
        if folder.is_dir() {
            found.push(folder);
        }
    }
    found
}

fn remove_files(state: &State) -> Result<()> {
    for name in THROWN_AWAY {
        sh::remove(state.path(name))?;
    }
    remove_cni_results();
    // The kubelet links logs by container.
    let is_ours =
        |entry: &Path| fs::read_link(entry).is_ok_and(|target| target.starts_with(state.root()));
    remove_entries("/var/log/containers", is_ours);
    // A socket that nobody listens on any more; the kubelet has no option for its place.
    let plugins = Path::new("/var/lib/kubelet/device-plugins/kubelet.sock");
    if plugins.exists() && UnixStream::connect(plugins).is_err() {
        sh::remove(plugins)?;
    }
    // Each only if it is empty now.
    for folder in [
        "/var/lib/cni/results",
        "/var/lib/cni",
        "/var/log/containers",
        "/var/lib/kubelet/device-plugins",
        "/var/lib/kubelet",
    ] {
        let _ = fs::remove_dir(folder);
    }
    Ok(())
}

/// Results of CNI calls are kept by network and container: those of our network name our containers, whose
/// loopback results carry a name that every containerd uses.
fn remove_cni_results() {
    let folder = "/var/lib/cni/results";
    let mut containers = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let container = name
            .strip_prefix(&format!("{OURS}-"))
            .and_then(|rest| rest.strip_suffix("-eth0"));
        containers.extend(container.map(ToOwned::to_owned));
    }
    for container in containers {
        for name in [
            format!("{OURS}-{container}-eth0"),
            format!("cni-loopback-{container}-lo"),
        ] {
            let _ = fs::remove_file(Path::new(folder).join(name));
        }
    }
}

fn remove_entries(folder: &str, is_ours: impl Fn(&Path) -> bool) {
    let entries = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    for entry in entries.filter(|entry| is_ours(entry)) {
        let _ = fs::remove_file(entry);
    }
}
