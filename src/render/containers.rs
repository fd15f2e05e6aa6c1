//! The pod's three containers (`architecture.md` 8): `prepare` and `uplink` of our image, and the user's.
//!
//! `uplink` is the last init container: it is needed from the start fence on, and what `prepare` has to say waits in
//! the spool until then. Ours fit the "restricted" pod security profile and run as the pod's user where it has one.

use serde_json::{Map, Value, json};

use super::environment;
use super::fields::{at, items, list, text};
use super::job::Inputs;
use super::notes::Notes;
use super::volumes::Volume;
use crate::pod;

/// Numeric user of our image.
const OUR_USER: u64 = 65532;

/// The node's disk, as resources name it.
const STORAGE: &str = "ephemeral-storage";
/// What ours take of it in any pod: the programs, and a log that the server keeps up with.
const STORAGE_REQUEST: &str = "128Mi";
/// The most that ours take of it: the spool's limit, and a GiB for programs and what the kubelet keeps of their output.
const STORAGE_LIMIT: &str = "17Gi";

/// The init container that brings binary, uv and code.
pub(super) fn prepare(
    inputs: &Inputs<'_>,
    user: Option<u64>,
    volumes: &[Volume],
    proxies: &[Value],
    notes: &[String],
    storage_limited: bool,
) -> Value {
    let mut env = environment::common(inputs);
    env.extend_from_slice(proxies);
    env.extend(environment::run(inputs));
    env.push(json!({ "name": "HOME", "value": "/tmp" }));
    if !notes.is_empty() {
        env.push(environment::plain(pod::env::NOTES, &notes.join("\n")));
    }
    let mounts: Vec<&Value> = volumes
        .iter()
        .filter(|v| v.in_prepare)
        .map(|v| &v.mount)
        .collect();
    let mut container = ours(inputs, pod::PREPARE, user);
    container["env"] = json!(env);
    container["volumeMounts"] = json!(mounts);
    container["resources"] = resources("50m", ("64Mi", "1Gi"), storage_limited);
    container
}

/// The native sidecar that sends the spool; it may look into `/proc` of nobody but itself.
pub(super) fn uplink(
    inputs: &Inputs<'_>,
    user: Option<u64>,
    volumes: &[Volume],
    proxies: &[Value],
    storage_limited: bool,
) -> Value {
    let mounts: Vec<&Value> = volumes
        .iter()
        .filter(|v| v.in_uplink)
        .map(|v| &v.mount)
        .collect();
    let mut container = ours(inputs, pod::UPLINK, user);
    container["restartPolicy"] = json!("Always");
    let mut env = environment::common(inputs);
    env.extend_from_slice(proxies);
    container["env"] = json!(env);
    container["volumeMounts"] = json!(mounts);
    container["resources"] = resources("10m", ("24Mi", "96Mi"), storage_limited);
    container
}

/// The user's container: all that the template says, with our program as process 1.
pub(super) fn task(
    mut container: Map<String, Value>,
    image: &str,
    asked: &[(String, String)],
    volumes: &[Volume],
    inputs: &Inputs<'_>,
    notes: &mut Notes,
) -> Value {
    let template_env = list(&mut container, "env").clone();
    container.insert("image".into(), json!(image));
    container.insert(
        "command".into(),
        json!([format!("{}/trainyard", pod::BIN), "--in-pod", "task"]),
    );
    container.remove("args");
    container.insert(
        "env".into(),
        json!(environment::of_task(&template_env, asked, inputs, notes)),
    );
    list(&mut container, "volumeMounts").extend(
        volumes
            .iter()
            .filter(|v| v.in_task)
            .map(|v| v.mount.clone()),
    );
    container.insert(
        "terminationMessagePolicy".into(),
        json!("FallbackToLogsOnError"),
    );
    Value::Object(container)
}

/// Processor, memory (requested, at most) and disk of a container of ours.
///
/// Their disk is limited only where another container's is: the kubelet adds up the limits that there are and evicts a
/// pod whose containers and volumes together take more, the user's code and environment among them. There ours come on
/// top, so that what the template grants stays the user's.
fn resources(cpu: &str, memory: (&str, &str), storage_limited: bool) -> Value {
    let mut resources = json!({
        "requests": { "cpu": cpu, "memory": memory.0, STORAGE: STORAGE_REQUEST },
        "limits": { "memory": memory.1 },
    });
    if storage_limited {
        resources["limits"][STORAGE] = json!(STORAGE_LIMIT);
    }
    resources
}

/// Whether a container of the pod has a limit for what it takes of the node's disk.
pub(super) fn storage_is_limited(pod: &Map<String, Value>) -> bool {
    let path = ["resources", "limits", STORAGE];
    ["initContainers", "containers"]
        .iter()
        .filter_map(|field| pod.get(*field)?.as_array())
        .flatten()
        .any(|container| at(container, &path).is_some())
}

/// What both containers of our image have in common.
fn ours(inputs: &Inputs<'_>, role: &str, user: Option<u64>) -> Value {
    let settings = inputs.settings;
    let mut container = json!({
        "name": role,
        "image": settings.image,
        "args": ["--in-pod", role],
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": { "drop": ["ALL"] },
            "readOnlyRootFilesystem": true,
            "runAsNonRoot": true,
            "seccompProfile": { "type": "RuntimeDefault" },
        },
    });
    if let Some(policy) = &settings.image_pull_policy {
        container["imagePullPolicy"] = json!(policy);
    }
    if let Some(user) = user {
        container["securityContext"]["runAsUser"] = json!(user);
    }
    container
}

/// The user that ours must be told to run as: the task's, so that both can write the same files; never root. Without
/// one our image's own user is used, or what the cluster assigns.
pub(super) fn user(pod: &Map<String, Value>, container: &Value) -> Option<u64> {
    let path = ["securityContext", "runAsUser"];
    let of_task = at(container, &path).and_then(Value::as_u64);
    let of_pod = pod
        .get(path[0])
        .and_then(|security| security.get(path[1])?.as_u64());
    match (of_task, of_pod) {
        (Some(0), None) => None,
        (Some(0), Some(_)) | (None, Some(0)) => Some(OUR_USER),
        (Some(user), _) => Some(user),
        (None, _) => None,
    }
}

/// Whether the template mounts something at `path` into the task's container.
pub(super) fn mounts(container: &Value, path: &str) -> bool {
    let mounted = |mount: &Value| {
        text(mount, &["mountPath"]).is_some_and(|at| at.trim_end_matches('/') == path)
    };
    items(container, &["volumeMounts"]).iter().any(mounted)
}
