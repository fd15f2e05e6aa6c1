//! Rows on the real node.

use std::sync::LazyLock;

use serde_json::{Value, json};
use trainyard::diagnose::Category;

use super::{Act, Row, memory, row};
use crate::e2e::cgroup::kill_whole_container;
use crate::e2e::kwok::NODE;
use crate::e2e::s34_kueue::hold_back;
use crate::e2e::world::{World, wait};
use crate::exec::s2_gpus::UNTIL_FAULT;

/// The patience with what does not start, and what it is made once the task says why.
pub(super) const LATER: &str = "20m";
pub(super) const SOON: &str = "20s";

/// The LocalQueue of Kueue that the namespace has.
pub(super) const KUEUE: &str = "team";

/// Fails what does not start, once the node has had its time to say why.
fn soon() -> Value {
    json!({"lifecycle": {"pendingTimeout": LATER, "onPendingTimeout": "Fail"}})
}

/// Fails as programs do whose GPU is lost, once the executor has been told of it.
static FAULT: LazyLock<String> =
    LazyLock::new(|| format!("{UNTIL_FAULT}raise RuntimeError('CUDA error: unknown error')\n"));

/// Ends that the script or its pod comes to by itself.
pub(super) fn own_ends() -> Vec<Row> {
    vec![
        Row {
            source: "raise SystemExit(3)\n",
            reason: "exit code 3",
            words: &["exit code 3"],
            ..row("exit-code", Category::ExitCode)
        },
        Row {
            source: "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n",
            reason: "SIGSEGV",
            words: &["SIGSEGV"],
            ..row("signal", Category::Signal)
        },
        Row {
            source: "import os, signal\nprint('begins', flush=True)\nos.kill(os.getpid(), signal.SIGKILL)\n",
            reason: "SIGKILL",
            // And not a word of memory.
            words: &["ended by signal SIGKILL; last lines:"],
            written: Some("begins\n"),
            ..row("signal-kill", Category::Signal)
        },
        Row {
            container: memory::limit(),
            spec: memory::spec(),
            source: memory::ALONE,
            reason: "SIGKILL",
            words: &["out of memory", "256 MiB"],
            evidence: &["memory: holds 0 MiB"],
            more: Some(memory::judge),
            written: None,
            ..row("memory", Category::OutOfMemory)
        },
        Row {
            container: memory::limit(),
            spec: memory::spec(),
            source: memory::OF_A_CHILD,
            reason: "exit code 5",
            words: &["after a child ran out of memory", "256 MiB"],
            evidence: &["the child ended with -9"],
            more: Some(memory::judge),
            written: None,
            ..row("memory-of-a-child", Category::OutOfMemory)
        },
        // The driver's double reports what a GPU reports that is lost.
        Row {
            pod: json!({"volumes": [{"name": "driver", "hostPath": {"path": "DRIVER"}}]}),
            container: json!({
                "volumeMounts": [{"name": "driver", "mountPath": "/opt/driver", "readOnly": true}],
                "env": [{"name": "LD_LIBRARY_PATH", "value": "/opt/driver"}, {"name": "NVML_DOUBLE_XID", "value": "79"}],
            }),
            source: FAULT.as_str(),
            reason: "exit code 1",
            words: &[
                "GPU 0 reported XID 79 (the GPU has fallen off the bus)",
                "the GPU itself is at fault",
                "CUDA error: unknown error",
            ],
            evidence: &["trainyard: GPU 0 reported XID 79"],
            more: Some(is_settled_as_a_fault_of_the_gpu),
            written: None,
            ..row("gpu-fault", Category::GpuFault)
        },
        // A disk of its own, so that nobody else's is full.
        Row {
            pod: json!({"volumes": [{"name": "small", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}]}),
            container: json!({"volumeMounts": [{"name": "small", "mountPath": "/small"}]}),
            source: "open('/small/x', 'wb', buffering=0).write(bytes(1 << 20))\n\
                open('/small/y', 'wb', buffering=0).write(b'more')\n",
            reason: "exit code 1",
            words: &["exit code 1", "No space left on device"],
            written: None,
            more: Some(is_sent_as_printed),
            ..row("disk-full", Category::ExitCode)
        },
        Row {
            // It counts from the Job's start: the pod has to have begun by then.
            spec: json!({"job": {"activeDeadlineSeconds": 60}}),
            words: &["longer than its limit of 60 s", "job.activeDeadlineSeconds"],
            written: Some("begun\n"),
            ..row("deadline", Category::Deadline)
        },
        Row {
            task: json!({"script": {
                "repository": "REPOSITORY", "version_num": "COMMIT", "branch": "main", "entry_point": "train.py",
            }}),
            source: "diff --git a/train.py b/train.py\n--- a/train.py\n+++ b/train.py\n\
                @@ -1 +1 @@\n-print('another')\n+print('changed')\n",
            reason: "preparation failed",
            words: &["uncommitted changes do not apply: train.py differs"],
            ..row("changes", Category::NotPrepared)
        },
        Row {
            task: json!({"script": {"requirements": {"pip": "numpy==99.99.99\n"}}}),
            reason: "preparation failed",
            words: &["numpy==99.99.99"],
            ..row("requirement", Category::NotPrepared)
        },
        Row {
            spec: json!({"environment": {"setupScript": "echo no such mirror >&2; exit 7"}}),
            reason: "preparation failed",
            words: &["the setup script of the binding", "exit code 7"],
            evidence: &["no such mirror"],
            written: Some("no such mirror\n"),
            ..row("setup-script", Category::NotPrepared)
        },
        // uv waits half a minute, and tries again three times, where nothing else is set.
        Row {
            container: json!({"env": [
                {"name": "UV_HTTP_TIMEOUT", "value": "3"}, {"name": "UV_HTTP_RETRIES", "value": "1"},
            ]}),
            spec: json!({"environment": {"indexUrl": "http://SILENT/simple/"}}),
            task: json!({"script": {"requirements": {"pip": "stalled\n"}}}),
            reason: "preparation failed",
            words: &["/simple/stalled/ cannot be fetched", "environment.indexUrl"],
            ..row("install-stalled", Category::NotPrepared)
        },
    ]
}

/// Images that the node does not get.
pub(super) fn bad_images() -> Vec<Row> {
    vec![
        Row {
            container: json!({"image": "REGISTRY/no-such-image:1"}),
            words: &["no-such-image:1", "check the image's name and tag"],
            evidence: &["Kubernetes: ", "no-such-image:1"],
            ..row("image-missing", Category::ImageMissing)
        },
        Row {
            container: json!({"image": "REGISTRY/not-brought:1", "imagePullPolicy": "Never"}),
            words: &["is not on the node", "set imagePullPolicy"],
            ..row("image-never-pulled", Category::ImageMissing)
        },
        Row {
            container: json!({"image": "REFUSING/private:1"}),
            spec: soon(),
            words: &["private:1", "give the template an imagePullSecret"],
            ..row("image-access", Category::ImageAccess)
        },
        Row {
            container: json!({"image": "REFUSING/counted:1"}),
            spec: soon(),
            words: &["429 Too Many Requests", "use credentials or a mirror"],
            ..row("image-rate-limit", Category::ImageRateLimit)
        },
        Row {
            container: json!({"image": "REFUSING/foreign:1"}),
            words: &["foreign:1", "is not made for the node's processor"],
            ..row("image-platform", Category::ImagePlatform)
        },
        Row {
            container: json!({"image": "127.0.0.1:1/nobody:1"}),
            spec: soon(),
            words: &["pendingTimeout", "does not reach the registry"],
            ..row("image-pull", Category::ImagePull)
        },
        Row {
            container: json!({"image": "No/Such:Name:1"}),
            words: &["is no image name", "correct the name"],
            ..row("image-name", Category::ImageName)
        },
    ]
}

/// Pods that have their node and do not start there.
pub(super) fn does_not_start() -> Vec<Row> {
    vec![
        Row {
            container: json!({"env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "no-such-secret", "key": "x"}}}]}),
            words: &["no-such-secret", "make the Secret"],
            ..row("configuration", Category::Configuration)
        },
        Row {
            container: json!({"env": [{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "no-such-map", "key": "x"}}}]}),
            spec: soon(),
            words: &["no-such-map", "make the ConfigMap"],
            ..row("configuration-map", Category::Configuration)
        },
        Row {
            container: json!({"securityContext": {"runAsNonRoot": true}}),
            spec: soon(),
            words: &["the image runs as root and the template forbids it"],
            ..row("configuration-root", Category::Configuration)
        },
        Row {
            pod: json!({"volumes": [{"name": "data", "configMap": {"name": "no-such-map"}}]}),
            container: json!({"volumeMounts": [{"name": "data", "mountPath": "/data"}]}),
            spec: soon(),
            words: &["no-such-map", "make the object"],
            evidence: &["Kubernetes: FailedMount"],
            ..row("volume", Category::Volume)
        },
        Row {
            pod: json!({"volumes": [{"name": "data", "hostPath": {"path": "/no/such/folder", "type": "Directory"}}]}),
            container: json!({"volumeMounts": [{"name": "data", "mountPath": "/data"}]}),
            spec: soon(),
            words: &["/no/such/folder", "check the template's volumes"],
            evidence: &["Kubernetes: FailedMount"],
            ..row("volume-of-the-node", Category::Volume)
        },
        Row {
            container: json!({"securityContext": {"seccompProfile": {"type": "Localhost", "localhostProfile": "nothing.json"}}}),
            spec: soon(),
            words: &["\"task\" cannot be started (CreateContainerError)"],
            ..row("not-started", Category::NotStarted)
        },
        Row {
            pod: json!({"runtimeClassName": "WORLD"}),
            spec: soon(),
            words: &["cannot make the pod's sandbox", "no runtime for"],
            evidence: &["Kubernetes: FailedCreatePodSandBox"],
            ..row("not-started-sandbox", Category::NotStarted)
        },
        // No folder can lie below a file.
        Row {
            pod: json!({"volumes": [{"name": "odd", "emptyDir": {}}]}),
            container: json!({"volumeMounts": [{"name": "odd", "mountPath": "/etc/passwd/odd"}]}),
            words: &["\"task\" could not be started", "/etc/passwd/odd"],
            evidence: &["container task: StartError"],
            ..row("not-started-mount", Category::NotStarted)
        },
        Row {
            pod: json!({"initContainers": [{"name": "mine", "command": ["python3", "-c", "raise SystemExit(9)"]}]}),
            words: &["init container \"mine\" failed with exit code 9"],
            ..row("init-container", Category::NotPrepared)
        },
    ]
}

/// Pods that no node takes, or that are not made at all.
pub(super) fn finds_no_place() -> Vec<Row> {
    vec![
        Row {
            container: json!({"resources": {"limits": {"example.com/unicorn": 1}}}),
            spec: soon(),
            words: &["example.com/unicorn", "add nodes"],
            evidence: &["Kubernetes: FailedScheduling"],
            ..row("unschedulable", Category::Unschedulable)
        },
        Row {
            container: json!({"resources": {"limits": {"nvidia.com/gpu": 64}}}),
            spec: soon(),
            words: &["no node has enough nvidia.com/gpu free"],
            ..row("unschedulable-by-gpu", Category::Unschedulable)
        },
        Row {
            pod: json!({"nodeSelector": {"example.com/nowhere": "true"}}),
            spec: soon(),
            words: &["node selector"],
            ..row("unschedulable-by-selector", Category::Unschedulable)
        },
        Row {
            pod: json!({"nodeSelector": {NODE: "WORLD"}}),
            spec: soon(),
            words: &["untolerated taint", "give the template a toleration"],
            ..row("unschedulable-by-taint", Category::Unschedulable)
        },
        Row {
            pod: json!({"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "no-such-claim"}}]}),
            spec: soon(),
            words: &["no-such-claim", "check the template's volumes"],
            ..row("unschedulable-by-claim", Category::Unschedulable)
        },
        Row {
            pod: json!({"schedulingGates": [{"name": "example.com/gate"}]}),
            spec: soon(),
            words: &["pendingTimeout", "scheduling gates are not lifted"],
            ..row("unschedulable-by-gate", Category::Unschedulable)
        },
        Row {
            container: json!({"resources": {"limits": {"example.com/dragon": 1}}}),
            status: "queued",
            reason: "trainyard: restored",
            words: &["quota has no room for the pod", "exceeded quota"],
            evidence: &["Kubernetes: FailedCreate"],
            ..row("quota", Category::Quota)
        },
        // The test says what Kueue would say of it.
        Row {
            spec: json!({
                "capacity": "Kueue", "kueueQueueName": KUEUE,
                "lifecycle": {"pendingTimeout": LATER, "onPendingTimeout": "Fail"},
            }),
            act: Act::Held(|world, job| hold_back(world, job, "insufficient quota for cpu")),
            words: &[
                "pendingTimeout",
                "waiting for quota of Kueue: insufficient quota for cpu",
            ],
            ..row("quota-of-kueue", Category::Quota)
        },
        Row {
            pod: json!({"hostname": "refused"}),
            status: "queued",
            reason: "trainyard: restored",
            words: &["the cluster refuses the pod", "no such pods here"],
            evidence: &["Kubernetes: FailedCreate"],
            ..row("policy", Category::Policy)
        },
        // Past the scheduler, so that it is the kubelet who refuses it.
        Row {
            pod: json!({"nodeName": "NODE"}),
            container: json!({"resources": {"requests": {"cpu": "500"}}}),
            spec: json!({"lifecycle": {"maxInterruptions": 0}}),
            reason: "trainyard: interrupted too often, node-refused",
            words: &["the node refused the pod (OutOfcpu)"],
            evidence: &["pod reason: OutOfcpu"],
            ..row("node-refused", Category::NodeRefused)
        },
    ]
}

/// A traceback is that of the image's Python.
fn is_sent_as_printed(world: &World, _: &str, task: &str, _: &Value) {
    world.has_sent_all(task);
}

/// The Job says so too: what dashboards count by.
fn is_settled_as_a_fault_of_the_gpu(world: &World, row: &str, task: &str, _: &Value) {
    world.has_sent_all(task);
    let job = wait(&format!("the Job of {row} is settled"), 60, || {
        let job = world.job_of(task);
        (job["metadata"]["labels"]["trainyard.dev/state"] == "settled").then_some(job)
    });
    let ended = &job["metadata"]["annotations"]["trainyard.dev/ended"];
    assert_eq!(ended, "gpu-fault", "{row}");
}

/// Pods that are taken away from their task.
pub(super) fn taken_away() -> Vec<Row> {
    let fail = json!({"lifecycle": {"onInterruption": "Fail"}});
    vec![
        Row {
            spec: fail.clone(),
            act: Act::Begun(|world, task| {
                let pod = name_of_pod(world, task);
                world.kubectl(&["delete", "pod", &pod, "--wait=false"]);
            }),
            words: &["was deleted"],
            written: Some("begun\n"),
            ..row("pod-deleted", Category::PodDeleted)
        },
        Row {
            spec: fail,
            act: Act::Begun(evict),
            words: &["evicted"],
            evidence: &["DisruptionTarget: EvictionByEvictionAPI"],
            written: Some("begun\n"),
            ..row("evicted", Category::Evicted)
        },
        Row {
            spec: json!({"lifecycle": {"onInterruption": "Stop"}}),
            act: Act::Begun(evict),
            status: "stopped",
            words: &["evicted"],
            written: Some("begun\n"),
            ..row("evicted-and-stopped", Category::Evicted)
        },
        Row {
            pod: json!({"volumes": [{"name": "small", "emptyDir": {"sizeLimit": "1Mi"}}]}),
            container: json!({"volumeMounts": [{"name": "small", "mountPath": "/small"}]}),
            source: "import time\nprint('begun', flush=True)\nopen('/small/x', 'wb').write(bytes(8 << 20))\ntime.sleep(600)\n",
            words: &[
                "a volume of the pod grew beyond its limit",
                "\"small\"",
                "raise its sizeLimit in the template",
            ],
            evidence: &["begun", "pod reason: Evicted"],
            written: Some("begun\n"),
            ..row("storage-limit-of-a-volume", Category::StorageLimit)
        },
        Row {
            act: Act::Begun(|world, task| kill_whole_container(&world.running_pod(task), "task")),
            words: &["SIGKILL"],
            evidence: &["begun", "exit code 137"],
            written: Some("begun\n"),
            ..row("killed", Category::Killed)
        },
    ]
}

fn name_of_pod(world: &World, task: &str) -> String {
    world.pod_of(task)["metadata"]["name"]
        .as_str()
        .expect("the pod has a name")
        .to_owned()
}

fn evict(world: &World, task: &str) {
    world.evict(&name_of_pod(world, task));
}
