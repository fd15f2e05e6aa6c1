//! S54: the context that `trainyard build` writes becomes an image by Debian's buildah. A task runs in it by the image's
//! own command; and a pod of it runs without anything of ours: no executor, no server, no name that is resolved.

use std::path::Path;

use serde_json::json;

use super::images;
use super::world::{World, wait};
use crate::git::fixture::Origin;

/// Where an image keeps its environment, and what the task prints in it.
const ENVIRONMENT: &str = "/opt/trainyard/python/";
const PRINTED: &str = "built with a package of its own: True --lr 0.1";

/// A task with a repository of this machine, an uncommitted change and a package of the cluster's index.
fn task(world: &World, origin: &Origin) -> String {
    let commit = origin.commit("sub/train.py", "print('old')\n");
    let code = format!(
        "import six, sys\nown = six.__file__.startswith('{ENVIRONMENT}')\n\
         print('built with a package of its own:', own, *sys.argv[1:])\n"
    );
    origin.write("sub/train.py", code);
    let script = json!({
        "entry_point": "train.py --lr 0.1", "working_dir": "sub",
        "repository": origin.url(), "version_num": commit, "diff": origin.git(&["diff"]) + "\n",
        "requirements": {"pip": "six\n"},
    });
    world.create("to be built", "", &json!({"script": script}))
}

/// The context of its image, as a user of the server asks for it.
fn context(world: &World, task: &str, target: &Path) {
    let conf = world.dir.path().join("clearml.conf");
    let mut build = world.command(&["build", "--id", task]);
    build
        .args(["--docker", &world.place.task_image])
        .args(["--index-url", &world.place.index_url])
        .arg("--config-file")
        .arg(&conf)
        .arg("--target")
        .arg(target);
    let output = build.output().expect("trainyard build runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

#[test]
fn s54_an_image_of_a_build_context_runs_the_task_with_and_without_us() {
    let mut world = World::new("s54");
    let origin = Origin::new();
    let task = task(&world, &origin);
    let target = world.dir.path().join("context");
    context(&world, &task, &target);
    // What the image needs of the repository is in the context.
    drop(origin);
    let image = images::make(&world, "built", &target, &[]);

    world.start_controller();
    world.queue("own");
    let container = json!({"name": "task", "image": image});
    world.bind(
        "own",
        &[],
        &json!({
            "template": {"spec": {"containers": [container]}},
            "queues": [{"name": "own", "useEntrypoint": true}],
        }),
    );
    world.until_ready("own");
    world.enqueue(&task, "own");
    let ended = world.until_ended(&task, 120);
    if ended["status"] != "completed" {
        world.tell(&task);
    }
    assert_eq!(ended["status"], "completed");
    assert_eq!(world.output(&task), format!("{PRINTED}\n"));

    world.kill_controller();
    world.kill_server();
    world.apply(&json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "built"},
        "spec": {
            "serviceAccountName": "trainyard-task", "restartPolicy": "Never",
            "dnsPolicy": "None", "dnsConfig": {"nameservers": ["127.0.0.1"]},
            "containers": [{"name": "task", "image": image, "args": ["--more"]}],
        },
    }));
    let phase = wait("the pod ends", 60, || {
        let pod = world.get(&["pod", "built"]);
        let phase = pod["status"]["phase"].as_str()?.to_owned();
        ["Succeeded", "Failed"]
            .contains(&phase.as_str())
            .then_some(phase)
    });
    let printed = world.kubectl(&["logs", "built"]);
    assert_eq!(printed, format!("{PRINTED} --more\n"));
    assert_eq!(phase, "Succeeded");
}
