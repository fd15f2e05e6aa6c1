//! S39: tasks that use Secrets of all kinds, well and badly; then the values are looked for in all that cluster, server
//! and machine show. One more value is planted in each kind of place: that it is found there checks the scan.

mod places;
mod private;
mod scan;

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::doors::Doors;
use super::s41_faults::registry;
use super::world::{World, merge, wait};
use places::Processes;
use private::Private;
use scan::{Canary, Leak, scan};

/// Opens the repository.
const TOKEN: &str = "canary-git-b1f7c04e9a";
/// Opens the package index.
const PASSWORD: &str = "canary-index-60d8a3f25e";
/// Of the image registry.
const PULL: &str = "canary-pull-9e2b5c7d14";
/// The task's own.
const OWN: &str = "canary-own-3a6f81d0c7";
/// No secret: it stands in every kind of place.
const PLANTED: &str = "planted-canary-5d20ce8b";
/// What the scan calls it.
const PLANT: &str = "the planted one";

/// Uses what it was given, and says nothing of it.
const TRAIN: &str = "\
import base64, os, subprocess, sys
import alpha
print('alpha', alpha.V, 'and a key of', len(os.environ['OWN_KEY']))
print(base64.b64encode(b'planted: PLANTED').decode(), flush=True)
subprocess.run([sys.executable, '-c', DOOR, 'PLANTED'], check=True)
";
/// Dies with the key at hand.
const CRASH: &str = "\
import os
key = os.environ['OWN_KEY']
raise ValueError(f'no good key, it has {len(key)} characters')
";

/// The Secrets beside that of the server.
fn secrets(world: &World, index: &str, refusing: &str) {
    let secret = |name: &str, kind: &str, data: Value| {
        world.apply(&json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": kind, "stringData": data,
        }));
    };
    secret("git", "Opaque", json!({"token": TOKEN}));
    let url = format!("http://user:{PASSWORD}@{index}/simple/");
    secret("index", "Opaque", json!({"url": url}));
    secret("own", "Opaque", json!({"key": OWN}));
    let login = json!({"username": "user", "password": PULL});
    let mut config = json!({"auths": {}});
    for registry in [world.place.registry.as_str(), refusing] {
        config["auths"][registry] = login.clone();
    }
    secret(
        "pull",
        "kubernetes.io/dockerconfigjson",
        json!({".dockerconfigjson": config.to_string()}),
    );
}

/// Two bindings that give their tasks all of them: one whose pods run, and one whose image is refused.
fn bind(world: &World, refusing: &str) {
    let of = |name: &str, key: &str| json!({"secretKeyRef": {"name": name, "key": key}});
    let patch = |image: &str| {
        json!({
            "imageCheck": "Warn",
            "environment": {"git": {"credentialsSecretRef": {"name": "git"}}},
            "lifecycle": {"pendingTimeout": "5m", "onPendingTimeout": "Fail"},
            "template": {
                "metadata": {"annotations": {"example.com/note": PLANTED}},
                "spec": {
                    "imagePullSecrets": [{"name": "pull"}],
                    "containers": [{"name": "task", "image": image, "env": [
                        {"name": "OWN_KEY", "valueFrom": of("own", "key")},
                        {"name": "UV_EXTRA_INDEX_URL", "valueFrom": of("index", "url")},
                    ]}],
                },
            },
        })
    };
    world.queue("gpu");
    world.bind("gpu", &["gpu"], &patch(&world.place.task_image));
    // The name of a queue stands in the controller's log.
    world.queue(PLANTED);
    let mut refused = patch(&format!("{refusing}/private:1"));
    merge(
        &mut refused,
        &json!({"lifecycle": {"pendingTimeout": "30s"}}),
    );
    world.bind("refused", &[PLANTED], &refused);
}

/// Enqueues a task of the private repository.
fn run(world: &World, private: &Private, entry: &str, packages: &str, queue: &str) -> String {
    let task = world.create(
        entry,
        "",
        &json!({
            "script": {
                "repository": private.repository, "version_num": private.commit, "branch": "main",
                "entry_point": entry, "diff": "", "requirements": {"pip": packages},
            },
            "hyperparams": {"General": {
                "note": {"section": "General", "name": "note", "value": PLANTED, "type": "str"},
            }},
        }),
    );
    world.enqueue(&task, queue);
    task
}

#[test]
fn s39_no_secret_shows_anywhere_and_one_that_is_planted_is_found() {
    let mut world = World::new("s39");
    let doors = Doors::start(&world);
    // A text of Rust's is one of Python's.
    let door = format!("{:?}", doors.python("seen"));
    let planted = |code: &str| code.replace("PLANTED", PLANTED).replace("DOOR", &door);
    let files = [("train.py", planted(TRAIN)), ("crash.py", planted(CRASH))];
    let private = Private::start(&world, &files, TOKEN, PASSWORD);
    let refusing = registry::start();
    secrets(&world, &private.index, &refusing);
    let talks = (
        "TRAINYARD_LOG".to_owned(),
        "info,trainyard=debug".to_owned(),
    );
    world.environment.push(talks);
    world.start_controller();
    let processes = Processes::watch();
    bind(&world, &refusing);
    let good = run(&world, &private, "train.py", "alpha==1.0\n", "gpu");
    let crashed = run(&world, &private, "crash.py", "alpha==1.0\n", "gpu");
    let unsatisfied = run(&world, &private, "train.py", "alpha==9\n", "gpu");
    let refused = run(&world, &private, "train.py", "alpha==1.0\n", PLANTED);
    let tasks = [&good, &crashed, &unsatisfied, &refused].map(String::as_str);
    // What is planted there stays until it was seen.
    wait("a process has what is planted as its argument", 120, || {
        processes.have_shown(PLANTED).then_some(())
    });
    doors.open("seen");
    for (task, status, words) in [
        (&good, "completed", ""),
        (&crashed, "failed", "no good key, it has 21 characters"),
        (&unsatisfied, "failed", "requirement alpha==9"),
        (&refused, "failed", "private:1"),
    ] {
        let ended = world.until_ended(task, 120);
        let message = ended["status_message"].as_str().unwrap_or_default();
        let is_right = ended["status"] == status && message.contains(words);
        assert!(is_right, "{ended:#}\n{:#?}", world.log(task));
    }
    let used = format!("alpha 1.0 and a key of {}", OWN.len());
    let log = world.log(&good);
    assert!(log.contains(&used), "{log:#?}");

    let mut texts = places::all(&world, &tasks);
    texts.push(processes.end());
    let canaries = [
        Canary::new("the server's key", &world.secret),
        Canary::new("the git token", TOKEN),
        Canary::new("the index's password", PASSWORD),
        Canary::new("the registry's password", PULL),
        Canary::new("the task's own key", OWN),
        Canary::new(PLANT, PLANTED),
    ];
    let leaks = scan(&texts, &canaries);
    println!("{} texts, {} times planted", texts.len(), leaks.len());
    only_what_was_planted(&leaks, &good);

    // A real one, where nobody should have put it.
    let pod = world.pod_of(&good)["metadata"]["name"].clone();
    let pod = pod.as_str().expect("the pod is kept");
    let note = format!("example.com/leak={TOKEN}");
    world.kubectl(&["annotate", "pod", pod, &note]);
    let leaks = scan(&places::objects(&world), &canaries);
    let real: BTreeSet<String> = leaks
        .iter()
        .filter(|leak| leak.canary != PLANT)
        .map(|leak| format!("{} in {}", leak.canary, leak.place))
        .collect();
    assert_eq!(
        real,
        BTreeSet::from([format!("the git token in object Pod/{pod}")])
    );
}

/// No secret was found, and what was planted in each kind of place.
fn only_what_was_planted(leaks: &[Leak], task: &str) {
    let (planted, real): (Vec<&Leak>, Vec<&Leak>) =
        leaks.iter().partition(|leak| leak.canary == PLANT);
    assert!(real.is_empty(), "{real:#?}");
    for place in [
        "object QueueBinding/gpu",
        &format!("object Job/ty-{task}-1"),
        &format!("object Pod/ty-{task}-1"),
        &format!("log of pod ty-{task}-1"),
        &format!("task {task}"),
        &format!("log of task {task}"),
        "log of the controller",
        "arguments of processes",
    ] {
        assert!(
            planted.iter().any(|leak| leak.place.starts_with(place)),
            "what was planted is not found in {place}: {planted:#?}"
        );
    }
}
