//! A real Kubernetes on this machine: one node with containerd, kubelet, scheduler, DNS, an image registry and a
//! package index; or, with KUBECONFIG set or `--kubeconfig` given, the cluster that it names.
//!
//! ```text
//!                 ┌───────────── this machine, 10.89.0.1 on bridge trainyard0 ─────────────┐
//!  pods ──bridge──┤ API server 16443 · kubelet 16250 · DNS 53 · package index 16580 · yours │
//!                 ├───────────── 127.0.0.1 ─────────────────────────────────────────────────┤
//!                 │ etcd · controller-manager · scheduler · kube-proxy · registry 16500     │
//!                 └─────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! `up` = check the machine → build programs → sweep what a crash left → start, in parallel where order does not
//! matter → wait until a pod could run. `down` = the sweep alone.

mod control_plane;
pub mod crash;
mod daemon;
mod external;
mod images;
pub mod layout;
pub mod leftovers;
mod network;
mod node;
mod oci;
pub mod packages;
mod pki;
mod programs;
mod registry;
mod status;
mod sweep;

use std::ffi::OsString;
use std::fs;
use std::net::{IpAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use clap::Subcommand;

pub use self::daemon::Daemon;
use self::images::Image;
use self::layout::{GPUS, NODE, State};
pub use self::packages::{
    install_for_page, install_for_programs, install_for_tests, install_missing,
};
use crate::{demo, index, sh};

/// `cargo xtask cluster`
#[derive(clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    which: Which,
}

/// Which cluster is worked on.
#[derive(clap::Args)]
pub struct Which {
    /// Use the cluster of this kubeconfig, with the registry of TRAINYARD_REGISTRY, instead of a local one
    #[arg(long, env = "KUBECONFIG", global = true, value_name = "FILE")]
    kubeconfig: Option<OsString>,
}

impl Which {
    /// The kubeconfig that was typed or set, unless it is that of the local cluster or empty.
    pub fn foreign(&self) -> Result<Option<PathBuf>> {
        let own = State::new()?.kubeconfig();
        let given = self.kubeconfig.clone().map(PathBuf::from);
        Ok(given.filter(|path| !path.as_os_str().is_empty() && *path != own))
    }
}

#[derive(Subcommand, Clone, Copy)]
enum Verb {
    /// Start the cluster, or say that it runs
    Up,
    /// End the cluster and take away all that it left on the machine
    Down,
    /// One line for each component
    Status,
}

pub fn main(arguments: &Arguments) -> Result<()> {
    match (arguments.verb, arguments.which.foreign()?) {
        (Verb::Up, kubeconfig) => {
            let cluster = up(kubeconfig.as_deref())?;
            println!("export KUBECONFIG={}", cluster.kubeconfig.display());
            println!("export PATH={}:$PATH", cluster.bin.display());
            Ok(())
        }
        (Verb::Status, Some(path)) => external::connect(&path).map(|cluster| {
            println!(
                "cluster of {}: answers; this machine is {} to it",
                path.display(),
                cluster.gateway
            );
        }),
        (Verb::Down, Some(path)) => {
            println!(
                "cluster of {}: not ours, nothing to take down",
                path.display()
            );
            Ok(())
        }
        (Verb::Status, None) => {
            let state = State::new()?;
            if status::print(&state, &running_programs(&state)) {
                Ok(())
            } else {
                bail!("the cluster is not up; start it with: cargo xtask cluster up")
            }
        }
        (Verb::Down, None) => down(),
    }
}

/// The image of tasks in tests, and the base of the project's own.
#[derive(Clone, Debug)]
pub struct BaseImage {
    /// `127.0.0.1:PORT/python:1`
    pub reference: String,
    /// Changes with what is in it.
    pub content: String,
}

/// The Debian image with Python, git, ssh and certificates that every local cluster has.
pub fn python_image() -> Result<BaseImage> {
    let image = images::all()?
        .into_iter()
        .find(|image| image.name() == "python");
    let image = image.context("the local cluster has no Python image")?;
    Ok(BaseImage {
        reference: image.reference(),
        content: image.content(),
    })
}

/// Brings an image from the local cluster's registry onto its node, ahead of the first pod.
pub fn pull(reference: &str) -> Result<()> {
    images::pull(&State::new()?, reference)
}

/// Brings images of tasks into the registry of a foreign cluster: the one of this name, or all. Where the user has named
/// an image for tasks none is needed.
pub fn publish(cluster: &Cluster, name: Option<&str>) -> Result<()> {
    if cluster.is_ours || external::task_image().is_some() {
        return Ok(());
    }
    let mut images = images::all()?;
    images.retain(|image| name.is_none_or(|name| image.name() == name));
    images::ensure(&images)?;
    images::publish(&images, &cluster.registry)
}

/// A cluster that answers, and how to reach what belongs to it.
#[derive(Clone, Debug)]
pub struct Cluster {
    pub kubeconfig: PathBuf,
    /// This machine as pods reach it.
    pub gateway: IpAddr,
    /// The registry as nodes and buildah name it, such as `127.0.0.1:16500`; empty when a foreign cluster has none.
    pub registry: String,
    /// A folder in which the node reads, at each pull, how further registries are reached; empty for a foreign cluster.
    pub registry_hosts: PathBuf,
    /// An image with Python for tasks.
    pub task_image: String,
    /// The Python package index as pods name it; empty when a foreign cluster has none.
    pub index_url: String,
    /// The folder of kubectl and helm.
    pub bin: PathBuf,
    is_ours: bool,
}

impl Cluster {
    /// Whether `up` started it here, so that `down` ends it.
    pub fn is_ours(&self) -> bool {
        self.is_ours
    }
}

/// Whether there is nothing to start: the local cluster runs and is well, or another one is to be used.
pub fn is_up(kubeconfig: Option<&Path>) -> bool {
    if kubeconfig.is_some() {
        return true;
    }
    State::new().is_ok_and(|state| {
        let programs = running_programs(&state);
        programs.is_dir() && status::is_healthy(&state, &programs)
    })
}

/// The cluster of `kubeconfig`, or else the local one: when this returns it can run pods.
pub fn up(kubeconfig: Option<&Path>) -> Result<Cluster> {
    if let Some(kubeconfig) = kubeconfig {
        let cluster = external::connect(kubeconfig)?;
        eprintln!("cluster: using that of {}", kubeconfig.display());
        return Ok(cluster);
    }
    packages::require_root("the local cluster")?;
    packages::check()?;
    let state = State::new()?;
    let _lock = state.lock()?;
    let programs = programs::ensure()?;
    let stamp = stamp(&programs);
    let is_current = fs::read_to_string(state.path("stamp")).is_ok_and(|text| text == stamp);
    let images = images::all()?;
    images::ensure(&images)?;
    if is_current && status::is_healthy(&state, &programs) {
        // It may have been started before one of them was added.
        images::push(&state, &images)?;
        eprintln!("cluster: is up");
        return Ok(local(&state, programs));
    }
    let wheels = index::ensure_wheels()?;
    let begin = Instant::now();
    sweep::sweep(&state)?;
    if let Err(error) = start(&state, &programs, &images, &wheels) {
        // What did start is left for `status` and the logs; the next `up` or `down` sweeps it.
        return Err(error.context("cluster"));
    }
    sh::write(state.path("stamp"), stamp)?;
    eprintln!(
        "cluster: up in {:.1} s, {GPUS} GPUs, registry {}, package index {}",
        begin.elapsed().as_secs_f64(),
        layout::registry(),
        layout::index_url()
    );
    Ok(local(&state, programs))
}

/// Ends the local cluster and takes away what it left, and what a demo with `--keep` has left beside it.
pub fn down() -> Result<()> {
    demo::end_kept()?;
    let state = State::new()?;
    if !state.root().exists() {
        eprintln!("cluster: there is none");
        return Ok(());
    }
    packages::require_root("taking the local cluster down")?;
    let _lock = state.lock()?;
    let begin = Instant::now();
    sweep::sweep(&state)?;
    eprintln!("cluster: down in {:.1} s", begin.elapsed().as_secs_f64());
    Ok(())
}

fn local(state: &State, programs: PathBuf) -> Cluster {
    Cluster {
        kubeconfig: state.kubeconfig(),
        gateway: layout::GATEWAY.into(),
        registry: layout::registry(),
        registry_hosts: state.registry_hosts(),
        task_image: format!("{}/python:1", layout::registry()),
        index_url: layout::index_url(),
        bin: programs,
        is_ours: true,
    }
}

/// Which programs, started by which version of this code: another one replaces the cluster.
fn stamp(programs: &Path) -> String {
    const SOURCES: [&str; 5] = [
        include_str!("control_plane.rs"),
        include_str!("layout.rs"),
        include_str!("network.rs"),
        include_str!("node.rs"),
        include_str!("registry.rs"),
    ];
    format!("{}\n{}\n", programs.display(), sh::short_hash(SOURCES))
}

/// The programs that the cluster was started with, or none.
fn running_programs(state: &State) -> PathBuf {
    let stamp = fs::read_to_string(state.path("stamp")).unwrap_or_default();
    stamp.lines().next().map(PathBuf::from).unwrap_or_default()
}

fn start(state: &State, programs: &Path, images: &[Image], wheels: &Path) -> Result<()> {
    network::check_free()?;
    for folder in ["run", "logs"] {
        sh::make_dir(state.path(folder))?;
    }
    network::create(state)?;
    check_ports()?;
    node::create_cgroups()?;
    pki::create(state)?;
    let mut etcd = control_plane::start_etcd(state, programs)?;
    let mut api_server = control_plane::start_api_server(state, programs)?;
    let mut containerd = node::start_containerd(state)?;
    let mut registry = registry::start(state)?;
    let mut index = index::start(state, wheels)?;

    std::thread::scope(|scope| {
        let node = scope.spawn(|| -> Result<Daemon> {
            node::wait_for_containerd(state, &mut containerd)?;
            // After a crash; the kubelet has not seen them yet, and containerd must forget them too.
            if node::remove_containers(state)? {
                if let Some(identity) = daemon::identity(state, "containerd") {
                    identity.end(Duration::from_secs(5));
                }
                containerd = node::start_containerd(state)?;
                node::wait_for_containerd(state, &mut containerd)?;
            }
            node::start_kubelet(state, programs)
        });
        let stored = scope.spawn(|| -> Result<()> {
            wait(state, programs, "registry", &mut registry)?;
            images::push(state, images)?;
            wait(state, programs, "index", &mut index)
        });
        sh::wait_for("kube-apiserver", Duration::from_mins(1), || {
            etcd.check()?;
            api_server.check()?;
            Ok(status::answers(state, programs, "kube-apiserver"))
        })?;
        let mut later = [
            (
                "kube-controller-manager",
                control_plane::start_controller_manager(state, programs)?,
            ),
            (
                "kube-scheduler",
                control_plane::start_scheduler(state, programs)?,
            ),
            ("kube-proxy", node::start_proxy(state, programs)?),
            ("coredns", node::start_dns(state, programs)?),
        ];
        let joined = |result: std::thread::Result<Result<()>>| {
            result.unwrap_or_else(|_| Err(anyhow!("a thread of the start ended in a panic")))
        };
        let mut kubelet = node
            .join()
            .unwrap_or_else(|_| Err(anyhow!("a thread of the start ended in a panic")))?;
        joined(stored.join())?;
        for image in images {
            images::pull(state, &image.reference())?;
        }
        wait_for_node(state, programs, &mut kubelet)?;
        for (name, daemon) in &mut later {
            wait(state, programs, name, daemon)?;
        }
        wait_for_default_account(state, programs)
    })
}

/// A port that is taken would otherwise show up as a component that ends for a reason deep in its log.
fn check_ports() -> Result<()> {
    for address in layout::listened() {
        TcpListener::bind(address).with_context(|| {
            format!(
                "{address} is taken by another program; see who with: ss -ltnp 'sport = :{}'",
                address.port()
            )
        })?;
    }
    Ok(())
}

fn wait(state: &State, programs: &Path, name: &str, daemon: &mut Daemon) -> Result<()> {
    sh::wait_for(name, Duration::from_mins(1), || {
        daemon.check()?;
        Ok(status::answers(state, programs, name))
    })
}

/// The kubelet sets the node's own resources; the GPUs, which no device plugin brings, are written beside them.
fn wait_for_node(state: &State, programs: &Path, kubelet: &mut Daemon) -> Result<()> {
    let patch = format!(
        r#"{{"status":{{"capacity":{{"nvidia.com/gpu":"{GPUS}"}},"allocatable":{{"nvidia.com/gpu":"{GPUS}"}}}}}}"#
    );
    sh::wait_for("the node", Duration::from_mins(1), || {
        kubelet.check()?;
        let mut command = status::kubectl(state, programs);
        Ok(sh::succeeds(command.args([
            "patch",
            "node",
            NODE,
            "--subresource=status",
            "--type=merge",
            "--patch",
            &patch,
        ])))
    })?;
    sh::wait_for("the node", Duration::from_mins(1), || {
        kubelet.check()?;
        Ok(status::node_is_ready(state, programs))
    })
}

/// Pods that are made before it exists are refused.
fn wait_for_default_account(state: &State, programs: &Path) -> Result<()> {
    sh::wait_for(
        "the default service account",
        Duration::from_mins(1),
        || {
            Ok(sh::succeeds(status::kubectl(state, programs).args([
                "get",
                "serviceaccount",
                "default",
            ])))
        },
    )
}
