//! S12: several queues with templates of their own, each strategy, and queues that come, go and change their names.

use serde_json::{Value, json};

use super::limits::task_of;
use super::taken::{by_turn, in_order, nowhere, taken, until_taken};
use super::world::{World, wait};

/// Tasks in queues, by the queue's name.
fn fill(world: &World, queues: &[(&str, usize)]) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for (queue, count) in queues {
        for number in 0..*count {
            let task = world.run(&format!("{queue} {number}"), "print(1)\n", queue);
            all.push((task, (*queue).to_owned()));
        }
    }
    all
}

fn queues_in_order(world: &World, tasks: &[(String, String)]) -> Vec<String> {
    let name = |id: &String| {
        tasks
            .iter()
            .find(|(task, _)| task == id)
            .map(|(_, queue)| queue.clone())
    };
    in_order(world, tasks.len())
        .iter()
        .filter_map(name)
        .collect()
}

#[test]
fn each_strategy_is_followed_exactly() {
    let mut world = World::new("s12order");
    world.start_controller();
    for queue in ["aaa", "bbb", "empty"] {
        world.queue(queue);
    }
    let spec = |strategy: &str| {
        json!({
            "strategy": strategy, "limits": {"maxConcurrent": 1}, "template": nowhere(&world, &json!({})),
            "queues": [{"name": "aaa", "weight": 3}, {"name": "bbb", "weight": 1}, {"name": "empty", "weight": 9}],
        })
    };
    for (strategy, lengths, expected) in [
        ("Priority", [("aaa", 3), ("bbb", 2)], "aaa aaa aaa bbb bbb"),
        (
            "RoundRobin",
            [("aaa", 3), ("bbb", 2)],
            "aaa bbb aaa bbb aaa",
        ),
        (
            "Weighted",
            [("aaa", 6), ("bbb", 2)],
            "aaa aaa bbb aaa aaa aaa bbb aaa",
        ),
    ] {
        let tasks = fill(&world, &lengths);
        world.bind("gpu", &[], &spec(strategy));
        assert_eq!(
            queues_in_order(&world, &tasks).join(" "),
            expected,
            "{strategy}"
        );
        wait("all Jobs are gone", 60, || {
            taken(&world).is_empty().then_some(())
        });
        world.edit("gpu", &json!({"suspend": true}));
        world.kubectl(&["delete", "queuebinding", "gpu", "--timeout=180s"]);
    }
}

#[test]
fn an_edit_of_the_strategy_acts_on_the_next_launch() {
    let mut world = World::new("s12edit");
    world.start_controller();
    // One queue by its name, the other by its id.
    let (a, b) = (world.queue("aaa"), world.queue("bbb"));
    // Forty stand there at once.
    let tasks = fill(&world, &[("aaa", 26), ("bbb", 14)]);
    let bind = |strategy: &str, most: u32| {
        world.bind(
            "gpu",
            &[],
            &json!({
                "strategy": strategy, "limits": {"maxConcurrent": most}, "template": nowhere(&world, &json!({})),
                "queues": [{"name": "aaa", "weight": 3}, {"name": b, "weight": 1}],
            }),
        );
        world.until_observed("gpu");
    };
    let mut order: Vec<String> = Vec::new();
    for (strategy, count) in [("Priority", 3), ("RoundRobin", 4), ("Weighted", 4)] {
        bind(strategy, 1);
        for _ in 0..count {
            if let Some(last) = order.last() {
                world.call("tasks.stop", &json!({"task": last}));
            }
            let next = wait("the next task is taken", 60, || {
                let next = taken(&world)
                    .into_iter()
                    .find(|task| !order.contains(task))?;
                let is_released = !world.job_of(&next)["spec"]["suspend"].as_bool()?;
                is_released.then_some(next)
            });
            order.push(next);
        }
    }
    // All others in one go: their Jobs say in which order.
    bind("Weighted", 40);
    let rest = wait("all of the forty are taken", 60, || {
        let mut rest: Vec<String> = by_turn(&world).iter().filter_map(task_of).collect();
        rest.retain(|task| !order.contains(task));
        (rest.len() == tasks.len() - order.len()).then_some(rest)
    });
    let queue = |id: &String| {
        let known = tasks.iter().find(|(task, _)| task == id);
        known.expect("a task of ours").1.as_str()
    };
    let rest: Vec<&str> = rest.iter().map(queue).collect();
    let rounds = [["aaa", "aaa", "bbb", "aaa"]; 6].concat();
    assert_eq!(rest, [rounds, vec!["bbb"; 5]].concat(), "Weighted 3:1");
    let order: Vec<&str> = order.iter().map(queue).collect();
    assert_eq!(order[..3], ["aaa"; 3], "Priority: {order:?}");
    assert!(
        order[3..7].windows(2).all(|two| two[0] != two[1]),
        "RoundRobin: {order:?}"
    );
    let light = order[7..].iter().filter(|queue| **queue == "bbb").count();
    assert_eq!(light, 1, "Weighted 3:1: {order:?}");
    assert_ne!(a, b);
}

#[test]
fn each_queue_has_its_template_and_missing_renamed_and_new_queues_concern_themselves_alone() {
    let mut world = World::new("s12names");
    world.start_controller();
    for queue in ["plain", "patched"] {
        world.queue(queue);
    }
    let patch = json!({
        "metadata": {"labels": {"tier": "patched"}},
        "spec": {"containers": [{"name": "task", "env": [{"name": "TIER", "value": "patched"}]}]},
    });
    world.bind(
        "gpu",
        &[],
        &json!({
            "template": nowhere(&world, &json!({})),
            "queues": [
                {"name": "plain"}, {"name": "patched", "templatePatch": patch}, {"name": "absent"},
                {"name": "made", "createIfMissing": true},
            ],
            "limits": {"maxConcurrent": 10},
        }),
    );
    let plain = world.run("plain", "print(1)\n", "plain");
    let patched = world.run("patched", "print(1)\n", "patched");
    until_taken(&world, 2, 60);
    let of = |task: &str| world.job_of(task)["spec"]["template"].clone();
    assert_eq!(of(&plain)["metadata"]["labels"]["tier"], Value::Null);
    assert_eq!(of(&patched)["metadata"]["labels"]["tier"], "patched");
    assert_eq!(
        of(&patched)["spec"]["containers"][0]["image"],
        world.place.task_image
    );
    assert!(
        of(&patched)["spec"]["containers"][0]["env"]
            .to_string()
            .contains("TIER")
    );

    let condition = || world.condition("gpu", "QueuesResolved");
    wait("the missing queue is told", 60, || {
        let condition = condition();
        let message = condition["message"].as_str().unwrap_or_default();
        let told = message.contains("queue \"absent\"");
        (condition["reason"] == "QueueMissing" && told).then_some(())
    });
    assert_eq!(
        world.entries("made"),
        Vec::<String>::new(),
        "the queue was made"
    );

    // It appears: it is served without anything else being done.
    world.queue("absent");
    let late = world.run("late", "print(1)\n", "absent");
    wait("the new queue is served", 60, || {
        taken(&world).contains(&late).then_some(())
    });
    wait("nothing is missing any more", 60, || {
        (condition()["status"] == "True").then_some(())
    });

    // Renamed: still served, and said.
    let id = world.queue_id("plain");
    world.call(
        "queues.update",
        &json!({"queue": id, "name": "plain-renamed"}),
    );
    let after = world.run("after the rename", "print(1)\n", "plain-renamed");
    wait("the renamed queue is served", 60, || {
        taken(&world).contains(&after).then_some(())
    });

    // Deleted and made again: a condition of that queue alone, then served again.
    let id = world.queue_id("patched");
    world.call("queues.delete", &json!({"queue": id, "force": true}));
    wait("the deleted queue is told", 60, || {
        condition()["message"]
            .as_str()
            .unwrap_or_default()
            .contains("queue \"patched\"")
            .then_some(())
    });
    let other = world.run("other queues go on", "print(1)\n", "absent");
    wait("another queue goes on", 60, || {
        taken(&world).contains(&other).then_some(())
    });
    world.queue("patched");
    let again = world.run("again", "print(1)\n", "patched");
    wait("the queue that was made again is served", 60, || {
        taken(&world).contains(&again).then_some(())
    });
}

/// What `kubectl` makes of a patch is what a queue's patch does.
#[test]
fn a_patch_of_a_queue_is_merged_as_kubectl_does() {
    let world = World::new("s12merge");
    let template = json!({"metadata": {"labels": {"a": "1"}}, "spec": {
        "nodeSelector": {"x": "1", "y": "2"}, "tolerations": [{"key": "a", "operator": "Exists"}],
        "imagePullSecrets": [{"name": "one"}],
        "volumes": [{"name": "data", "emptyDir": {"sizeLimit": "1Gi"}}, {"name": "other", "emptyDir": {}}],
        "containers": [
            {"name": "proxy", "image": "proxy:1"},
            {"name": "task", "image": "a", "args": ["x"], "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
             "volumeMounts": [{"name": "data", "mountPath": "/data"}], "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}},
        ],
    }});
    let patch = json!({"metadata": {"labels": {"b": "2"}}, "spec": {
        "priorityClassName": "high", "nodeSelector": {"x": null, "z": "3"},
        "tolerations": [{"key": "b", "operator": "Exists"}], "imagePullSecrets": [{"name": "two"}],
        "volumes": [{"name": "data", "hostPath": {"path": "/data"}}, {"name": "new", "emptyDir": {}}],
        "containers": [
            {"name": "task", "args": ["y", "z"], "env": [{"name": "C", "value": "3"}, {"name": "B", "value": "4"}],
             "volumeMounts": [{"name": "new", "mountPath": "/new"}], "resources": {"limits": {"memory": null, "nvidia.com/gpu": "2"}}},
            {"name": "proxy", "$patch": "delete"},
        ],
    }});
    let job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x"}, "spec": {"template": template}});
    let path = world.dir.path().join("job.json");
    std::fs::write(&path, job.to_string()).unwrap();
    let patched = world.kubectl(&[
        "patch",
        "--local",
        "-f",
        &path.display().to_string(),
        "--type=strategic",
        "-o",
        "json",
        "-p",
        &json!({"spec": {"template": patch}}).to_string(),
    ]);
    let theirs: Value = serde_json::from_str(&patched).unwrap();
    let ours = trainyard::render::merge_templates(&template, &patch).unwrap();
    let bare = |value: &Value| {
        let mut value = value.clone();
        prune(&mut value);
        value
    };
    assert_eq!(bare(&ours), bare(&theirs["spec"]["template"]), "ours first");
}

/// Drops what kubectl writes of its own: nulls and empty objects where nothing was said.
fn prune(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, inner| {
                prune(inner);
                !inner.is_null()
            });
            let sorted: std::collections::BTreeMap<String, Value> =
                std::mem::take(fields).into_iter().collect();
            fields.extend(sorted);
        }
        Value::Array(items) => items.iter_mut().for_each(prune),
        _ => {}
    }
}
