//! What scenarios need, and how a test is told where it is.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::cluster::{self, Cluster};
use crate::{dirs, image, tools};

/// What scenarios need: the cluster, the images, the SDK.
pub struct Place {
    pub cluster: Cluster,
    image: String,
    sdk_python: PathBuf,
    agent_python: PathBuf,
    rattler_python: PathBuf,
    bindings_python: PathBuf,
    trains_python: PathBuf,
    uv: PathBuf,
    program: PathBuf,
    buildah: PathBuf,
}

/// Brings up the cluster, or takes that of `kubeconfig`, and builds what scenarios run.
pub fn prepare(kubeconfig: Option<&Path>) -> Result<Place> {
    let cluster = cluster::up(kubeconfig)?;
    let image = image::build(&cluster)?;
    cluster::publish(&cluster, None)?;
    let sdk_python = tools::sdk_python()?;
    let agent_python = tools::agent_python()?;
    let bindings_python = tools::bindings_python()?;
    let trains_python = tools::trains_python()?;
    let rattler_python = tools::rattler_python()?;
    let dist = dirs::repository().join("dist");
    Ok(Place {
        cluster,
        image,
        sdk_python,
        agent_python,
        bindings_python,
        trains_python,
        rattler_python,
        uv: dist.join("uv"),
        program: dist.join("trainyard"),
        buildah: image::storage()?,
    })
}

/// Finds the value of a variable.
type Value = fn(&Place) -> OsString;

/// The variables that tell a test where things are.
pub const TOLD: [(&str, Value); 18] = [
    ("TRAINYARD_E2E_KUBECONFIG", |place| {
        place.cluster.kubeconfig.clone().into()
    }),
    ("TRAINYARD_E2E_GATEWAY", |place| {
        place.cluster.gateway.to_string().into()
    }),
    ("TRAINYARD_E2E_IMAGE", |place| place.image.clone().into()),
    ("TRAINYARD_E2E_TASK_IMAGE", |place| {
        place.cluster.task_image.clone().into()
    }),
    ("TRAINYARD_E2E_REGISTRY", |place| {
        place.cluster.registry.clone().into()
    }),
    ("TRAINYARD_E2E_REGISTRY_HOSTS", |place| {
        place.cluster.registry_hosts.clone().into()
    }),
    ("TRAINYARD_E2E_INDEX_URL", |place| {
        place.cluster.index_url.clone().into()
    }),
    ("TRAINYARD_E2E_BIN", |place| {
        place.cluster.bin.clone().into()
    }),
    ("TRAINYARD_E2E_SDK_PYTHON", |place| {
        place.sdk_python.clone().into()
    }),
    ("TRAINYARD_E2E_AGENT_PYTHON", |place| {
        place.agent_python.clone().into()
    }),
    ("TRAINYARD_E2E_BINDINGS_PYTHON", |place| {
        place.bindings_python.clone().into()
    }),
    ("TRAINYARD_E2E_TRAINS_PYTHON", |place| {
        place.trains_python.clone().into()
    }),
    ("TRAINYARD_RATTLER_PYTHON", |place| {
        place.rattler_python.clone().into()
    }),
    ("TRAINYARD_E2E_PROGRAM", |place| {
        place.program.clone().into()
    }),
    ("TRAINYARD_E2E_BUILDAH", |place| {
        place.buildah.clone().into()
    }),
    ("TRAINYARD_HELM", |place| {
        place.cluster.bin.join("helm").into()
    }),
    ("TRAINYARD_KUBECTL", |place| {
        place.cluster.bin.join("kubectl").into()
    }),
    ("TRAINYARD_UV", |place| place.uv.clone().into()),
];

/// Tells a test where things are.
pub fn with(place: &Place, mut command: Command) -> Command {
    command.envs(TOLD.map(|(name, value)| (name, value(place))));
    command
}
