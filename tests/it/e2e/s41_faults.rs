//! S41, what the cluster does: one row for each way in which a pod can fail; the task on the server says which it was.
//!
//! S7 (memory), S15 (what does not start) and parts of S9 (what is taken away) are rows of it. All rows run at once,
//! each on a binding and queue of its own.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::cgroup::kill_whole_container;
use super::world::{World, merge, wait};

/// How one way to fail is brought about, and what the task has to say then.
struct Row {
    /// Name of binding and queue; also of the row.
    name: &'static str,
    /// Merged into the pod spec of the template.
    pod: Value,
    /// Merged into the container of the task.
    container: Value,
    /// Merged into the spec of the binding.
    spec: Value,
    source: &'static str,
    /// What is done to the running pod.
    act: Option<fn(&World, &str)>,
    /// What the task's status reason has to be, or to hold.
    reason: &'static str,
    /// What its status message has to hold: the sentence, and after the `|` the remedy.
    words: &'static [&'static str],
    /// What its log has to hold.
    evidence: &'static [&'static str],
}

const SLEEPS: &str = "import time\nprint('begun', flush=True)\ntime.sleep(600)\n";

/// A row in which everything is as usual.
fn row(name: &'static str) -> Row {
    Row {
        name,
        pod: json!({}),
        container: json!({}),
        spec: json!({}),
        source: SLEEPS,
        act: None,
        reason: "",
        words: &[],
        evidence: &[],
    }
}

/// Ends that the script or its pod comes to by itself.
fn own_ends() -> Vec<Row> {
    vec![
        Row {
            source: "raise SystemExit(3)\n",
            reason: "exit code 3",
            words: &["exit code 3"],
            ..row("exit-code")
        },
        Row {
            source: "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n",
            reason: "SIGSEGV",
            words: &["SIGSEGV"],
            ..row("signal")
        },
        Row {
            container: json!({"resources": {"limits": {"memory": "256Mi"}}}),
            source: "print('begins', flush=True)\nkept = []\nwhile True:\n    kept.append(bytearray(16 << 20))\n",
            reason: "SIGKILL",
            words: &["out of memory", "256 MiB"],
            evidence: &["begins"],
            ..row("memory")
        },
        Row {
            container: json!({"resources": {"limits": {"memory": "256Mi"}}}),
            source: "import subprocess, sys\n\
                child = subprocess.run([sys.executable, '-c', 'kept = []\\nwhile True: kept.append(bytearray(16 << 20))'])\n\
                print('child ended with', child.returncode, flush=True)\nsys.exit(5)\n",
            words: &["after a child ran out of memory", "256 MiB"],
            ..row("memory-of-a-child")
        },
        Row {
            spec: json!({"job": {"activeDeadlineSeconds": 8}}),
            reason: "trainyard: deadline",
            words: &["longer than its limit of 8 s", "job.activeDeadlineSeconds"],
            ..row("deadline")
        },
    ]
}

/// Pods that do not start.
fn does_not_start() -> Vec<Row> {
    let soon = json!({"lifecycle": {"pendingTimeout": "25s", "onPendingTimeout": "Fail"}});
    vec![
        Row {
            container: json!({"image": "REGISTRY/no-such-image:1"}),
            reason: "trainyard: image-missing",
            words: &["no-such-image:1", "check the image's name and tag"],
            evidence: &["Kubernetes: Failed"],
            ..row("image-missing")
        },
        Row {
            container: json!({"image": "127.0.0.1:1/nobody:1"}),
            spec: soon.clone(),
            reason: "trainyard: image-pull",
            words: &["pendingTimeout", "does not reach the registry"],
            ..row("image-pull")
        },
        Row {
            container: json!({"image": "No/Such:Name:1"}),
            reason: "trainyard: image-name",
            words: &["is no image name", "correct the name"],
            ..row("image-name")
        },
        Row {
            container: json!({"env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "no-such-secret", "key": "x"}}}]}),
            reason: "trainyard: configuration",
            words: &["no-such-secret", "make the Secret"],
            ..row("configuration")
        },
        Row {
            pod: json!({"volumes": [{"name": "data", "configMap": {"name": "no-such-map"}}]}),
            container: json!({"volumeMounts": [{"name": "data", "mountPath": "/data"}]}),
            spec: soon.clone(),
            reason: "trainyard: volume",
            words: &["no-such-map", "make the object"],
            evidence: &["Kubernetes: FailedMount"],
            ..row("volume")
        },
        Row {
            container: json!({"resources": {"limits": {"example.com/unicorn": 1}}}),
            spec: soon.clone(),
            reason: "trainyard: unschedulable",
            words: &["example.com/unicorn", "add nodes"],
            ..row("unschedulable")
        },
        Row {
            pod: json!({"nodeSelector": {"example.com/nowhere": "true"}}),
            spec: soon.clone(),
            reason: "trainyard: unschedulable",
            words: &["node selector"],
            ..row("unschedulable-by-selector")
        },
        Row {
            pod: json!({"initContainers": [{"name": "mine", "command": ["python3", "-c", "raise SystemExit(9)"]}]}),
            reason: "trainyard: not-prepared",
            words: &["init container \"mine\" failed with exit code 9"],
            ..row("init-container")
        },
    ]
}

/// Pods that are taken away from their task.
fn taken_away() -> Vec<Row> {
    let fail = json!({"lifecycle": {"onInterruption": "Fail"}});
    vec![
        Row {
            spec: fail.clone(),
            act: Some(|world, task| {
                let pod = name_of_pod(world, task);
                world.kubectl(&["delete", "pod", &pod, "--wait=false"]);
            }),
            reason: "trainyard: pod-deleted",
            words: &["was deleted"],
            ..row("pod-deleted")
        },
        Row {
            spec: fail.clone(),
            act: Some(evict),
            reason: "trainyard: evicted",
            words: &["evicted"],
            evidence: &["DisruptionTarget: EvictionByEvictionAPI"],
            ..row("evicted")
        },
        Row {
            spec: json!({"lifecycle": {"onInterruption": "Stop"}}),
            act: Some(evict),
            reason: "trainyard: evicted",
            words: &["evicted"],
            ..row("evicted-and-stopped")
        },
        Row {
            spec: fail,
            pod: json!({"volumes": [{"name": "small", "emptyDir": {"sizeLimit": "1Mi"}}]}),
            container: json!({"volumeMounts": [{"name": "small", "mountPath": "/small"}]}),
            source: "import time\nprint('begun', flush=True)\nopen('/small/x', 'wb').write(bytes(8 << 20))\ntime.sleep(600)\n",
            reason: "trainyard: evicted",
            words: &["ran out of a resource"],
            evidence: &["begun"],
            ..row("evicted-for-disk")
        },
        Row {
            act: Some(|world, task| kill_whole_container(&world.running_pod(task), "task")),
            reason: "trainyard: killed",
            words: &["SIGKILL"],
            evidence: &["begun", "exit code 137"],
            ..row("killed")
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
    let pod = name_of_pod(world, task);
    world.post(
        &format!("/api/v1/namespaces/{}/pods/{pod}/eviction", world.namespace),
        &json!({
            "apiVersion": "policy/v1", "kind": "Eviction",
            "metadata": {"name": pod, "namespace": world.namespace},
        }),
    );
}

fn bind(world: &World, row: &Row) {
    let mut container = json!({"name": "task", "image": world.place.task_image});
    merge(&mut container, &row.container);
    if let Some(image) = container["image"].as_str() {
        container["image"] = json!(image.replace("REGISTRY", &world.place.registry));
    }
    let mut pod = json!({"containers": [container]});
    merge(&mut pod, &row.pod);
    if let Some(own) = pod["initContainers"].as_array_mut() {
        for container in own {
            container["image"] = json!(world.place.task_image);
        }
    }
    let mut spec = json!({"template": {"spec": pod}});
    merge(&mut spec, &row.spec);
    world.queue(row.name);
    world.bind(row.name, &[row.name], &spec);
}

#[test]
fn s41_each_way_to_fail_is_told_in_the_task() {
    let mut world = World::new("s41");
    world.start_controller();
    let mut open: Vec<(Row, String, bool)> = Vec::new();
    for row in [own_ends(), does_not_start(), taken_away()].concat_rows() {
        bind(&world, &row);
        let task = world.run(row.name, row.source, row.name);
        open.push((row, task, false));
    }
    let begun = Instant::now();
    let mut faults = Vec::new();
    while !open.is_empty() && begun.elapsed() < Duration::from_secs(420) {
        let mut left = Vec::new();
        for (row, task, acted) in open {
            let document = world.task(&task);
            let status = document["status"].as_str().unwrap_or_default();
            let reason = document["status_reason"].as_str().unwrap_or_default();
            if ["failed", "stopped", "completed"].contains(&status) {
                faults.extend(judge(&world, &row, &task, &document));
                println!("{:>26}: {status:9} {reason}", row.name);
                // What was given back would only go round again.
                world.kubectl(&["delete", "queuebinding", row.name, "--wait=false"]);
                continue;
            }
            let runs = status == "in_progress"
                && row.act.is_some()
                && world.log(&task).iter().any(|line| line == "begun");
            let mut acted = acted;
            if let Some(act) = row.act.filter(|_| runs && !acted) {
                act(&world, &task);
                acted = true;
            }
            left.push((row, task, acted));
        }
        open = left;
        std::thread::sleep(Duration::from_millis(500));
    }
    for (row, task, _) in &open {
        world.tell(task);
        faults.push(format!("{}: has not ended", row.name));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// What the task does not say of its row.
fn judge(world: &World, row: &Row, task: &str, document: &Value) -> Vec<String> {
    let (reason, message) = (
        document["status_reason"].as_str().unwrap_or_default(),
        document["status_message"].as_str().unwrap_or_default(),
    );
    let mut faults = Vec::new();
    if !reason.contains(row.reason) {
        faults.push(format!(
            "{}: reason {reason:?} is not {:?}; {message}",
            row.name, row.reason
        ));
    }
    for words in row.words {
        if !message.contains(words) {
            faults.push(format!("{}: {words:?} is missing in {message:?}", row.name));
        }
    }
    let wanted = if row.name == "evicted-and-stopped" {
        "stopped"
    } else {
        "failed"
    };
    if document["status"] != wanted {
        faults.push(format!(
            "{}: status {} is not {wanted:?}",
            row.name, document["status"]
        ));
    }
    let deadline = Instant::now() + Duration::from_secs(10);
    for words in row.evidence {
        loop {
            let log = world.log(task).join("\n");
            if log.contains(words) {
                break;
            }
            if Instant::now() > deadline {
                faults.push(format!(
                    "{}: {words:?} is missing in the log {log}",
                    row.name
                ));
                break;
            }
            std::thread::sleep(Duration::from_millis(300));
        }
    }
    faults
}

/// Several parts of the table as one.
trait ConcatRows {
    fn concat_rows(self) -> Vec<Row>;
}

impl<const N: usize> ConcatRows for [Vec<Row>; N] {
    fn concat_rows(self) -> Vec<Row> {
        self.into_iter().flatten().collect()
    }
}

#[test]
fn s15_a_pod_that_waits_says_why_within_seconds_and_frees_its_place() {
    let mut world = World::new("s15");
    world.start_controller();
    let wanted = [
        (
            "bad-image",
            json!({"image": "REGISTRY/no-such-image:1"}),
            "no-such-image",
        ),
        (
            "unicorn",
            json!({"resources": {"limits": {"example.com/unicorn": 1}}}),
            "example.com/unicorn",
        ),
        (
            "bad-secret",
            json!({"env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "no-such-secret", "key": "x"}}}]}),
            "no-such-secret",
        ),
    ];
    let mut tasks = Vec::new();
    for (name, container, words) in wanted {
        let row = Row {
            container,
            spec: json!({"lifecycle": {"pendingTimeout": "30s", "onPendingTimeout": "Requeue"}, "limits": {"maxConcurrent": 1}}),
            ..row(name)
        };
        bind(&world, &row);
        tasks.push((world.run(name, "print('never')\n", name), words, name));
    }
    for (task, words, name) in &tasks {
        let at = wait("the Job is released", 60, || {
            let job = world.job_of(task);
            job["status"]["startTime"].as_str()?;
            Some(Instant::now())
        });
        wait(&format!("{name} says why it waits"), 25, || {
            let document = world.task(task);
            let message = document["status_message"].as_str().unwrap_or_default();
            (document["status"] == "queued" && message.contains(words)).then_some(())
        });
        println!(
            "{name}: told {:.1} s after it was seen released",
            at.elapsed().as_secs_f64()
        );
        wait(
            &format!("the log of {name} has Kubernetes' words"),
            30,
            || {
                let log = world.log(task).join("\n");
                log.contains("Kubernetes: ").then_some(())
            },
        );
    }
    // Where there is no room it goes back to its queue when patience is over, and others may go.
    let (unicorn, ..) = &tasks[1];
    wait("the one without room is given back", 90, || {
        let reason = world.task(unicorn)["status_reason"].to_string();
        reason.contains("trainyard: restored").then_some(())
    });
}
