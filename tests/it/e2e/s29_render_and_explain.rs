//! S29: `render` prints the Job that is then created, `explain` says why a task waits, and neither changes anything; a
//! shadow takes nothing and foresees what the controller does.

use std::process::Command;

use serde_json::{Value, json};

use super::doors::Doors;
use super::world::{Proc, World, wait};

fn output(world: &World, args: &[&str]) -> String {
    let output = world.command(args).output().expect("the command runs");
    assert!(
        output.status.success(),
        "{args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Whether everything of `wanted` is in `found` as it is; the API server adds defaults and its own fields.
fn differences(path: &str, wanted: &Value, found: &Value, all: &mut Vec<String>) {
    match (wanted, found) {
        (Value::Object(wanted), Value::Object(found)) => {
            for (key, value) in wanted {
                let path = format!("{path}.{key}");
                match found.get(key) {
                    Some(found) => differences(&path, value, found, all),
                    // The API server drops what is empty.
                    None if value.is_null() || *value == json!({}) || *value == json!([]) => {}
                    None => all.push(format!("{path} is missing")),
                }
            }
        }
        (Value::Array(wanted), Value::Array(found)) if wanted.len() == found.len() => {
            for (index, (wanted, found)) in wanted.iter().zip(found).enumerate() {
                differences(&format!("{path}[{index}]"), wanted, found, all);
            }
        }
        (wanted, found) if wanted == found => {}
        (wanted, found) => all.push(format!("{path}: {wanted} is not {found}")),
    }
}

/// Each who has a say in the Job has set a field of the task's container.
fn assert_origins(told: &str) {
    let container = "spec.template.spec.containers[task]";
    for line in [
        "env[TEAM].value = \"vision\"  # template",
        "resources.limits.memory = \"250Mi\"  # queue's templatePatch",
        "env[SEED].value = \"7\"  # task",
        "command[1] = \"--in-pod\"  # trainyard",
    ] {
        let line = format!("{container}.{line}");
        assert!(told.lines().any(|known| known == line), "{line}:\n{told}");
    }
}

#[test]
fn s29_render_is_the_job_that_is_created_and_explain_changes_nothing() {
    let mut world = World::new("s29");
    world.queue("gpu");
    let container = json!({"name": "task", "image": world.place.task_image,
        "env": [{"name": "TEAM", "value": "vision"}], "resources": {"limits": {"cpu": "500m", "memory": "200Mi"}}});
    let template =
        json!({"metadata": {"labels": {"team": "vision"}}, "spec": {"containers": [container]}});
    let patch = json!({"spec": {"containers": [{"name": "task", "resources": {"limits": {"memory": "250Mi"}}}]}});
    world.bind(
        "gpu",
        &[],
        &json!({
            "suspend": true, "template": template, "limits": {"maxConcurrent": 1},
            "queues": [{"name": "gpu", "templatePatch": patch}], "overrides": {"containerArguments": ["env"]},
        }),
    );
    let asks = json!({"container": {"arguments": "-e SEED=7"}});
    // It keeps the one slot until the other one's waiting was explained.
    let doors = Doors::start(&world);
    let first = world.create("first", &doors.python("explained"), &asks);
    world.enqueue(&first, "gpu");
    let second = world.run("second", "print('second')\n", "gpu");
    let before = world.task(&first);

    // No controller has been here: nothing is made by asking.
    let told = output(&world, &["explain", "task", &first]);
    assert!(
        told.starts_with("it waits in its queue: the binding is suspended"),
        "{told}"
    );
    let rendered: Value = serde_json::from_str(&output(
        &world,
        &[
            "render",
            "--binding",
            "gpu",
            "--task",
            &first,
            "--output",
            "json",
        ],
    ))
    .expect("render prints JSON");
    let told = output(
        &world,
        &["render", "--binding", "gpu", "--task", &first, "--origin"],
    );
    assert_origins(&told);
    assert_eq!(world.task(&first), before, "the task is untouched");
    assert!(world.jobs().is_empty());
    let queues = world.call("queues.get_all", &json!({"search_hidden": true}));
    let hidden = queues["queues"].to_string().contains("trainyard:");
    assert!(!hidden, "no pending queue was made: {queues}");
    let finalizers = &world.get(&["queuebinding", "gpu"])["metadata"]["finalizers"];
    assert!(finalizers.is_null(), "{finalizers}");

    // A shadow beside it tells what would be done.
    world.edit("gpu", &json!({"suspend": false}));
    let log = world.dir.path().join("shadow.log");
    let shadow = Proc::start(&mut world.command(&["shadow", "--output", "json"]), &log);
    let deed = wait("the shadow foresees the first task", 30, || {
        let log = shadow.log();
        let line = log.lines().find(|line| line.contains(&first))?;
        serde_json::from_str::<Value>(line).ok()
    });
    assert_eq!(deed["step"], "intend");
    assert_eq!(deed["job"], rendered["metadata"]["name"]);
    assert_eq!(deed["image"], world.place.task_image.as_str());
    assert_eq!(world.task(&first), before, "the shadow takes nothing");
    assert!(world.jobs().is_empty());
    drop(shadow);

    // Now the real one.
    world.start_controller();
    let job = wait("the Job is there", 60, || {
        let job = world.job_of(&first);
        (!job.is_null()).then_some(job)
    });
    let mut all = Vec::new();
    let mut wanted = rendered.clone();
    // Released meanwhile; the pending queue has got its id.
    wanted["spec"]["suspend"] = job["spec"]["suspend"].clone();
    wanted["metadata"]["labels"]["trainyard.dev/state"] =
        job["metadata"]["labels"]["trainyard.dev/state"].clone();
    let pending = world.pending_queue("gpu");
    let pending = wanted.to_string().replace(
        &"0".repeat(32),
        &pending.expect("the pending queue is there"),
    );
    let wanted: Value = serde_json::from_str(&pending).expect("still JSON");
    differences("job", &wanted, &job, &mut all);
    assert!(all.is_empty(), "{}", all.join("\n"));

    // Its neighbour waits for room.
    let told: Value = serde_json::from_str(&output(
        &world,
        &["explain", "task", &second, "--output", "json"],
    ))
    .expect("explain prints JSON");
    let answer = told["answer"].as_str().unwrap_or_default();
    assert!(
        answer.contains("maxConcurrent") || answer.contains("1 task"),
        "{told:#}"
    );
    assert_eq!(told["phase"], "Offered");
    doors.open("explained");
    for task in [&first, &second] {
        assert_eq!(world.until_ended(task, 120)["status"], "completed");
    }
    wait("the pod is gone and the end is told", 120, || {
        let told = output(&world, &["explain", "task", &second]);
        told.starts_with("it is completed").then_some(())
    });

    // From files alone.
    let (binding, task) = (
        world.dir.path().join("binding.json"),
        world.dir.path().join("task.json"),
    );
    std::fs::write(&binding, world.get(&["queuebinding", "gpu"]).to_string()).expect("written");
    std::fs::write(&task, json!({"task": world.task(&second)}).to_string()).expect("written");
    let offline = Command::new(env!("CARGO_BIN_EXE_trainyard"))
        .args(["render", "--image", &world.place.image, "--binding"])
        .arg(&binding)
        .arg("--task")
        .arg(&task)
        .env_remove("KUBECONFIG")
        .output()
        .expect("render runs");
    let text = String::from_utf8_lossy(&offline.stdout);
    assert!(
        offline.status.success(),
        "{}",
        String::from_utf8_lossy(&offline.stderr)
    );
    assert!(text.contains(&format!("ty-{second}-1")), "{text}");
    assert!(!text.contains(&world.secret), "no secret is printed");
    explains_from_files(&world, &second);
}

/// What `explain` says of a task without a server and a cluster: of one that has ended, and of the same if it waited.
fn explains_from_files(world: &World, task: &str) {
    let write = |name: &str, content: &Value| {
        let file = world.dir.path().join(name);
        std::fs::write(&file, content.to_string()).expect("written");
        file
    };
    let mut document = world.task(task);
    let mut binding = world.get(&["queuebinding", "gpu"]);
    let objects = write("objects.json", &world.get(&["jobs,pods,events"]));
    let explain = |document: &Value, binding: &Value| {
        let told = Command::new(env!("CARGO_BIN_EXE_trainyard"))
            .args(["explain", "task"])
            .arg(write("task.json", &json!({"task": document})))
            .arg("--binding")
            .arg(write("binding.json", binding))
            .env_remove("KUBECONFIG")
            .args(["--objects"])
            .arg(&objects)
            .output()
            .expect("explain runs");
        let error = String::from_utf8_lossy(&told.stderr);
        assert!(told.status.success(), "{error}");
        String::from_utf8_lossy(&told.stdout).into_owned()
    };
    let told = explain(&document, &binding);
    assert!(told.starts_with("it is completed"), "{told}");
    assert!(told.contains(&format!("ty-{task}-1: ended")), "{told}");
    // The same before anything was made of it.
    document["status"] = json!("queued");
    document["id"] = json!("0123456789abcdef0123456789abcdef");
    binding["spec"]["suspend"] = json!(true);
    let told = explain(&document, &binding);
    assert!(
        told.starts_with("it waits in its queue: the binding is suspended"),
        "{told}"
    );
}
