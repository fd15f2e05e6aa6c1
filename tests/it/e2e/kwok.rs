//! Simulated nodes beside the real one: pods on them are Running at once and run nothing. They go with their value.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use super::world::{Proc, World, wait};

/// Label and taint of our simulated nodes.
const NODE: &str = "trainyard.test/simulated";

/// The programs that play kubelets, and their nodes.
pub struct Kwok {
    /// By the name of the kubelet that each plays.
    programs: Vec<(String, Proc)>,
    name: String,
    nodes: Vec<String>,
    kubectl: std::path::PathBuf,
    kubeconfig: String,
}

impl Kwok {
    /// So many nodes, Ready.
    pub fn start(world: &World, count: usize) -> Self {
        Self::of(world, &vec![world.namespace.clone(); count])
    }

    /// The same with a program for each node, so that one kubelet can stop alone.
    pub fn apart(world: &World, count: usize) -> Self {
        let kubelets: Vec<String> = (0..count).map(|i| node_name(world, i)).collect();
        Self::of(world, &kubelets)
    }

    /// A node for each of these; neighbours of one name share a program.
    fn of(world: &World, kubelets: &[String]) -> Self {
        // Nodes are the whole cluster's: each scenario has its own.
        let name = world.namespace.clone();
        let stages = world.dir.path().join("stages.yaml");
        fs::write(&stages, stages_yaml()).expect("stages are written");
        let play = |kubelet: &String| {
            let mut command = Command::new(world.place.bin.join("kwok"));
            command
                .args(["-v", "WARN", "--kubeconfig", &world.place.kubeconfig])
                .arg("--config")
                .arg(&stages)
                .args([
                    "--manage-all-nodes=false",
                    &format!("--manage-nodes-with-annotation-selector={NODE}={kubelet}"),
                    "--node-lease-duration-seconds=40",
                ])
                // Its own settings, not the machine's.
                .env("HOME", world.dir.path());
            let proc = Proc::start(&mut command, &world.dir.path().join("kwok.log"));
            (kubelet.clone(), proc)
        };
        let mut different = kubelets.to_vec();
        different.dedup();
        let programs = different.iter().map(play).collect();
        let nodes: Vec<String> = (0..kubelets.len()).map(|i| node_name(world, i)).collect();
        let objects: Vec<Value> = nodes
            .iter()
            .zip(kubelets)
            .map(|(node, kubelet)| node_object(node, &name, kubelet))
            .collect();
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        world.apply(&list);
        let kwok = Self {
            programs,
            nodes,
            kubectl: world.place.bin.join("kubectl"),
            kubeconfig: world.place.kubeconfig.clone(),
            name,
        };
        wait("simulated nodes are Ready", 120, || {
            let nodes = world.get(&["nodes", "-l", &format!("{NODE}={}", kwok.name)]);
            let ready = nodes["items"].as_array()?.iter().filter(|node| {
                let conditions = node["status"]["conditions"].as_array();
                conditions.is_some_and(|all| {
                    all.iter()
                        .any(|known| known["type"] == "Ready" && known["status"] == "True")
                })
            });
            (ready.count() == kubelets.len()).then_some(())
        });
        kwok
    }

    pub fn nodes(&self) -> &[String] {
        &self.nodes
    }

    /// Ends the kubelet of a node that has one of its own: nobody speaks for the node any more, nor ends its pods.
    pub fn stop(&mut self, node: &str) {
        self.programs.retain(|(kubelet, _)| kubelet != node);
    }

    /// For the spec of a binding: its pods run on these nodes.
    pub fn binding_patch(&self) -> Value {
        json!({
            "limits": {"maxConcurrent": 20000},
            "template": {"spec": {
                "nodeSelector": {NODE: self.name},
                "tolerations": [{"key": NODE, "operator": "Exists"}],
                "containers": [{"name": "task", "image": "simulated:1"}],
            }},
        })
    }
}

impl Drop for Kwok {
    fn drop(&mut self) {
        for nodes in self.nodes.chunks(200) {
            let _ = Command::new(&self.kubectl)
                .env("KUBECONFIG", &self.kubeconfig)
                .args(["delete", "node", "--ignore-not-found", "--wait=false"])
                .args(nodes)
                .output();
        }
    }
}

fn node_name(world: &World, number: usize) -> String {
    format!("{}-{number}", world.namespace)
}

fn node_object(node: &str, name: &str, kubelet: &str) -> Value {
    let room = json!({"cpu": "1000", "memory": "4Ti", "pods": "2000", "nvidia.com/gpu": "1000", "ephemeral-storage": "4Ti"});
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {
            "name": node,
            "annotations": {NODE: kubelet, "node.alpha.kubernetes.io/ttl": "0"},
            "labels": {NODE: name, "type": "kwok", "kubernetes.io/hostname": node},
        },
        "spec": {"taints": [{"key": NODE, "value": name, "effect": "NoSchedule"}]},
        "status": {"allocatable": room, "capacity": room},
    })
}

/// What happens to nodes and pods: nodes become Ready and stay so, pods are Running at once, deleted ones go.
fn stages_yaml() -> String {
    let stages = [
        json!({
            "apiVersion": "kwok.x-k8s.io/v1alpha1", "kind": "Stage", "metadata": {"name": "node-initialize"},
            "spec": {
                "resourceRef": {"apiGroup": "v1", "kind": "Node"},
                "selector": {"matchExpressions": [
                    {"key": ".status.conditions.[] | select( .type == \"Ready\" ) | .status", "operator": "NotIn", "values": ["True"]},
                ]},
                "next": {"statusTemplate": "{{ $now := Now }}\nconditions:\n- {type: Ready, status: \"True\", reason: KubeletReady, message: simulated, lastHeartbeatTime: {{ $now | Quote }}, lastTransitionTime: {{ $now | Quote }}}\nphase: Running\n"},
            },
        }),
        json!({
            "apiVersion": "kwok.x-k8s.io/v1alpha1", "kind": "Stage", "metadata": {"name": "node-heartbeat-with-lease"},
            "spec": {
                "resourceRef": {"apiGroup": "v1", "kind": "Node"},
                "selector": {"matchExpressions": [
                    {"key": ".status.phase", "operator": "In", "values": ["Running"]},
                    {"key": ".status.conditions.[] | select( .type == \"Ready\" ) | .status", "operator": "In", "values": ["True"]},
                ]},
                "delay": {"durationMilliseconds": 600_000},
                "next": {"statusTemplate": "{{ $now := Now }}\nconditions:\n- {type: Ready, status: \"True\", reason: KubeletReady, message: simulated, lastHeartbeatTime: {{ $now | Quote }}, lastTransitionTime: {{ $now | Quote }}}\n"},
                "immediateNextStage": true,
            },
        }),
        json!({
            "apiVersion": "kwok.x-k8s.io/v1alpha1", "kind": "Stage", "metadata": {"name": "pod-ready"},
            "spec": {
                "resourceRef": {"apiGroup": "v1", "kind": "Pod"},
                "selector": {"matchExpressions": [
                    {"key": ".metadata.deletionTimestamp", "operator": "DoesNotExist"},
                    {"key": ".status.podIP", "operator": "DoesNotExist"},
                ]},
                "next": {"statusTemplate": concat!(
                    "{{ $now := Now }}\n",
                    "conditions:\n",
                    "{{ range .status.conditions }}{{ if eq .type \"PodScheduled\" }}- {type: PodScheduled, status: \"True\", lastTransitionTime: {{ .lastTransitionTime | Quote }}}\n{{ end }}{{ end }}",
                    "- {type: Initialized, status: \"True\", lastTransitionTime: {{ $now | Quote }}}\n",
                    "- {type: Ready, status: \"True\", lastTransitionTime: {{ $now | Quote }}}\n",
                    "- {type: ContainersReady, status: \"True\", lastTransitionTime: {{ $now | Quote }}}\n",
                    "containerStatuses:\n",
                    "{{ range .spec.containers }}- {name: {{ .name | Quote }}, image: {{ .image | Quote }}, imageID: \"\", ready: true, started: true, restartCount: 0, state: {running: {startedAt: {{ $now | Quote }}}}}\n{{ end }}",
                    "phase: Running\npodIP: 10.255.0.1\nstartTime: {{ $now | Quote }}\n",
                )},
            },
        }),
        // As a kubelet does it: what is deleted ends first, and goes once the Job's controller has counted it.
        json!({
            "apiVersion": "kwok.x-k8s.io/v1alpha1", "kind": "Stage", "metadata": {"name": "pod-terminate"},
            "spec": {
                "resourceRef": {"apiGroup": "v1", "kind": "Pod"},
                "selector": {"matchExpressions": [
                    {"key": ".metadata.deletionTimestamp", "operator": "Exists"},
                    {"key": ".status.phase", "operator": "NotIn", "values": ["Succeeded", "Failed"]},
                ]},
                "next": {"statusTemplate": concat!(
                    "{{ $now := Now }}\n",
                    "{{ if .status.podIP }}containerStatuses:\n",
                    "{{ range .spec.containers }}- {name: {{ .name | Quote }}, image: {{ .image | Quote }}, imageID: \"\", ready: false, started: false, restartCount: 0, state: {running: null, terminated: {exitCode: 137, reason: Error, startedAt: {{ $now | Quote }}, finishedAt: {{ $now | Quote }}}}}\n{{ end }}{{ end }}",
                    "phase: Failed\n",
                )},
            },
        }),
        json!({
            "apiVersion": "kwok.x-k8s.io/v1alpha1", "kind": "Stage", "metadata": {"name": "pod-delete"},
            "spec": {
                "resourceRef": {"apiGroup": "v1", "kind": "Pod"},
                "selector": {"matchExpressions": [
                    {"key": ".metadata.deletionTimestamp", "operator": "Exists"},
                    {"key": ".status.phase", "operator": "In", "values": ["Succeeded", "Failed"]},
                ]},
                "next": {"delete": true},
            },
        }),
    ];
    stages
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("\n---\n")
}

/// Does what the pod's first process does at the server: takes the entry, leaves its mark, starts the task.
pub fn pass_fence(world: &World, pod: &Value, task: &str) {
    let variable = |name: &str| {
        pod["spec"]["containers"][0]["env"]
            .as_array()
            .and_then(|all| all.iter().find(|known| known["name"] == name))
            .and_then(|known| known["value"].as_str())
            .unwrap_or_else(|| panic!("{name} is set on the task's container"))
            .to_owned()
    };
    let (pending, worker) = (
        variable("TRAINYARD_PENDING_QUEUE"),
        variable("TRAINYARD_WORKER"),
    );
    world.call(
        "queues.remove_task",
        &json!({"queue": pending, "task": task}),
    );
    world.call(
        "tasks.edit_runtime",
        &json!({"task": task, "add_or_update": {"_trainyard_attempt": worker}}),
    );
    world.call("tasks.started", &json!({"task": task}));
}
