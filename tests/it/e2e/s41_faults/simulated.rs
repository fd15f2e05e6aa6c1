//! Rows on simulated nodes. The test does what the pod's first process does at the server; then Kubernetes' own
//! controllers take the pod away, or the test leaves the status that the kubelet of a real node would leave.

use serde_json::{Value, json};
use trainyard::diagnose::Category;
use trainyard::pod::{Termination, VERSION, exit};

use super::{Act, Row, row};
use crate::e2e::kwok::{NODE, pass_fence};
use crate::e2e::world::World;

/// Simulated nodes: one is tainted by its row, one is deleted, and the first is for all others.
pub(super) const NODES: usize = 3;
const IMAGE: &str = "simulated:1";

/// Passes the fence in place of the task's pod, if that runs.
pub(super) fn start(world: &World, task: &str) {
    let pod = world.pod_of(task);
    if pod["status"]["phase"] == "Running" {
        pass_fence(world, &pod, task);
    }
}

/// Writes what the kubelet says of the pod last.
pub(super) fn leave(world: &World, pod: &Value, status: &Value) {
    let name = pod["metadata"]["name"]
        .as_str()
        .expect("the pod has a name");
    let patch = json!({"status": status}).to_string();
    world.kubectl(&["patch", "pod", name, "--subresource=status", "-p", &patch]);
}

/// A row whose pod is on this node, and whose task fails by what happens to it.
fn on(node: usize, name: &'static str, category: Category, act: Act) -> Row {
    Row {
        pod: json!({
            "nodeSelector": {"kubernetes.io/hostname": format!("WORLD-{node}")},
            "tolerations": [{"key": NODE, "operator": "Exists"}],
        }),
        container: json!({"image": IMAGE}),
        spec: json!({"lifecycle": {"onInterruption": "Fail"}}),
        act,
        ..row(name, category)
    }
}

/// Pods that Kubernetes' controllers take away.
pub(super) fn taken_away() -> Vec<Row> {
    let taint = Act::Simulated(|world, pod| {
        let taint = "trainyard.test/broken=yes:NoExecute";
        world.kubectl(&["taint", "node", node_of(pod), taint]);
    });
    let delete = Act::Simulated(|world, pod| {
        world.kubectl(&["delete", "node", node_of(pod)]);
    });
    vec![
        Row {
            words: &["a node that is tainted or unreachable"],
            evidence: &["DisruptionTarget: DeletionByTaintManager"],
            ..on(1, "node-lost-by-taint", Category::NodeLost, taint)
        },
        Row {
            words: &["the pod's node is gone"],
            evidence: &["DisruptionTarget: DeletionByPodGC"],
            ..on(2, "node-lost-for-good", Category::NodeLost, delete)
        },
        Row {
            container: json!({"image": IMAGE, "resources": {"requests": {"cpu": "600"}}}),
            words: &["preempted by one of higher priority"],
            evidence: &["DisruptionTarget: PreemptionByScheduler"],
            ..on(
                0,
                "preempted",
                Category::Preempted,
                Act::Simulated(crowd_out),
            )
        },
    ]
}

/// A pod of higher priority for which the node has room only once the other is gone.
fn crowd_out(world: &World, pod: &Value) {
    world.apply(&json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "urgent"},
        "spec": {
            "nodeSelector": {"kubernetes.io/hostname": node_of(pod)},
            "tolerations": [{"key": NODE, "operator": "Exists"}],
            "priorityClassName": "system-cluster-critical", "restartPolicy": "Never",
            "containers": [{"name": "urgent", "image": IMAGE, "resources": {"requests": {"cpu": "600"}}}],
        },
    }));
}

fn node_of(pod: &Value) -> &str {
    pod["spec"]["nodeName"]
        .as_str()
        .expect("the pod has a node")
}

/// Pods whose kubelet has the last word.
pub(super) fn left_behind() -> Vec<Row> {
    let left = |name, category, status| on(0, name, category, Act::Leaves(status));
    let unreported = "the process ended with exit code 4";
    vec![
        Row {
            container: json!({"image": IMAGE, "resources": {"limits": {"memory": "2Gi"}}}),
            words: &[
                "used more than its limit of 2Gi on node",
                "raise resources.limits.memory",
            ],
            evidence: &["container task: OOMKilled, exit code 137"],
            ..left(
                "memory-of-the-container",
                Category::OutOfMemory,
                ended(137, "OOMKilled", ""),
            )
        },
        Row {
            words: &["used more than the node's memory"],
            evidence: &["container task: OOMKilled, exit code 137"],
            ..left(
                "memory-of-the-node",
                Category::OutOfMemory,
                ended(137, "OOMKilled", ""),
            )
        },
        Row {
            words: &["the process ended with exit code 4"],
            evidence: &["container task: Error, exit code 4"],
            ..left(
                "exit-code-unreported",
                Category::ExitCode,
                ended(4, "Error", &said("failed", unreported, Some(4))),
            )
        },
        Row {
            words: &["first process was ended by signal 11"],
            ..left(
                "signal-unreported",
                Category::Signal,
                ended(139, "Error", "Segmentation fault"),
            )
        },
        Row {
            words: &["there is no repository"],
            ..left(
                "not-prepared-unreported",
                Category::NotPrepared,
                ended(
                    exit::PREPARE_FAILED,
                    "Error",
                    &said("failed", "there is no repository", None),
                ),
            )
        },
        Row {
            words: &["could not read the token"],
            ..left(
                "executor",
                Category::Executor,
                ended(
                    exit::INTERNAL,
                    "Error",
                    &said("internal", "could not read the token", None),
                ),
            )
        },
        Row {
            words: &["the container was lost on node"],
            ..left(
                "container-lost",
                Category::NodeLost,
                ended(
                    137,
                    "ContainerStatusUnknown",
                    "The container could not be located when the pod was terminated",
                ),
            )
        },
        Row {
            words: &["ran out of a resource", "low on resource: memory"],
            evidence: &["pod reason: Evicted"],
            ..left(
                "evicted-for-memory",
                Category::Evicted,
                by_kubelet("Evicted", "The node was low on resource: memory."),
            )
        },
        Row {
            words: &[
                "more output of the task waits for the server than its pod may keep",
                "exceeds the limit \"16Gi\"",
                "see why the server takes no log lines",
            ],
            evidence: &["pod reason: Evicted"],
            ..left(
                "storage-limit-of-the-log",
                Category::StorageLimit,
                json!({
                    "phase": "Failed", "reason": "Evicted",
                    "message": "Usage of EmptyDir volume \"trainyard-spool\" exceeds the limit \"16Gi\". ",
                }),
            )
        },
        Row {
            words: &[
                "took more of the node's disk",
                "raise resources.limits.ephemeral-storage",
            ],
            evidence: &["pod reason: Evicted"],
            ..left(
                "storage-limit-of-the-pod",
                Category::StorageLimit,
                json!({
                    "phase": "Failed", "reason": "Evicted",
                    "message": "Pod ephemeral local storage usage exceeds the total limit of containers 22Gi. ",
                }),
            )
        },
        Row {
            words: &["preempted by one that the node needs more"],
            evidence: &["pod reason: Preempting"],
            ..left(
                "preempted-by-the-node",
                Category::Preempted,
                by_kubelet("Preempting", "Preempted in order to admit critical pod"),
            )
        },
        Row {
            words: &["as when it shuts down", "imminent node shutdown"],
            evidence: &["pod reason: Terminated"],
            ..left(
                "node-shutdown",
                Category::NodeShutdown,
                by_kubelet(
                    "Terminated",
                    "Pod was terminated in response to imminent node shutdown.",
                ),
            )
        },
        Row {
            words: &["the pod ended without saying how"],
            ..left(
                "unknown",
                Category::Unknown,
                json!({"phase": "Failed", "containerStatuses": []}),
            )
        },
    ]
}

/// The task's container has ended so.
fn ended(code: i32, reason: &str, message: &str) -> Value {
    json!({"phase": "Failed", "containerStatuses": [{
        "name": "task", "image": IMAGE, "imageID": "", "ready": false, "restartCount": 0,
        "state": {"terminated": {"exitCode": code, "reason": reason, "message": message}},
    }]})
}

/// What the executor leaves where it could not tell the server.
fn said(outcome: &str, message: &str, exit_code: Option<i32>) -> String {
    let said = Termination {
        version: VERSION,
        outcome: outcome.to_owned(),
        message: message.to_owned(),
        exit_code,
        signal: None,
        reported: false,
        last_lines: Vec::new(),
        first_line: None,
        xid: None,
        signalled: false,
        out_of_memory: false,
    };
    serde_json::to_string(&said).expect("it is JSON")
}

/// The kubelet itself has ended the pod.
fn by_kubelet(reason: &str, message: &str) -> Value {
    json!({"phase": "Failed", "reason": reason, "message": message, "conditions": [
        {"type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet", "message": message},
    ]})
}
