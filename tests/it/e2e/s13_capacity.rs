//! S13: limits per user and project, and tasks that are taken only where a node has the room.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::doors::Doors;
use super::s9_interruptions::own_resource;
use super::taken::{asking, nowhere, taken, until_taken};
use super::world::{PATIENCE, World, wait};
use crate::exec::proxy::{Fate, Proxy};
use crate::times;

/// Between two looks of a controller that has nothing to do.
const POLL: Duration = Duration::from_secs(1);

/// What a controller asked of the server: action and body of each request.
#[derive(Clone, Default)]
pub(super) struct Asked(Arc<Mutex<Vec<(String, String)>>>);

impl Asked {
    /// Stands before the server and notes what passes.
    pub(super) fn proxy(&self, world: &World) -> Proxy {
        let all = Arc::clone(&self.0);
        Proxy::reading(&world.url, move |action, body| {
            let body = String::from_utf8_lossy(body).into_owned();
            let mut all = all.lock().expect("asked lock");
            all.push((action.to_owned(), body));
            Fate::Pass
        })
    }

    /// Whether a request gave the task a status message that begins so.
    pub(super) fn told(&self, task: &str, words: &str) -> bool {
        let all = self.0.lock().expect("asked lock");
        all.iter().any(|(_, body)| {
            let body: Value = serde_json::from_str(body).unwrap_or_default();
            let message = body["status_message"].as_str().unwrap_or_default();
            body["task"] == task && message.starts_with(words)
        })
    }

    /// How often it has looked into the queues.
    fn looks(&self) -> usize {
        let all = self.0.lock().expect("asked lock");
        let look = |(action, _): &&(String, String)| action == "queues.get_all";
        all.iter().filter(look).count()
    }

    /// Requests that name the task and do more than read.
    fn writes(&self, task: &str) -> Vec<String> {
        let all = self.0.lock().expect("asked lock");
        let is_write = |action: &str| !action.starts_with("get_");
        all.iter()
            .filter(|(action, body)| {
                let name = action.rsplit('.').next().unwrap_or_default();
                is_write(name) && body.contains(task)
            })
            .map(|(action, _)| action.clone())
            .collect()
    }
}

#[test]
fn a_project_at_its_limit_holds_up_nobody_else_and_what_waits_is_untouched() {
    let mut world = World::new("s13project");
    world.start_controller();
    world.queue("gpu");
    let project = |name: &str| {
        world.call("projects.create", &json!({"name": name, "description": ""}))["id"].clone()
    };
    let (busy, idle) = (project("busy"), project("idle"));
    let of = |project: &Value, name: &str| {
        let task = world.create(name, "print(1)\n", &json!({"project": project}));
        world.enqueue(&task, "gpu");
        task
    };
    let busy_tasks: Vec<String> = (0..4).map(|i| of(&busy, &format!("busy {i}"))).collect();
    let idle_task = of(&idle, "idle");
    let before: Vec<Value> = busy_tasks
        .iter()
        .map(|task| world.task(task)["status_changed"].clone())
        .collect();
    let asked = Asked::default();
    let proxy = asked.proxy(&world);
    world.bind("gpu", &["gpu"], &json!({
        "limits": {"maxConcurrent": 10, "perProject": {"maxConcurrent": 2}, "perUser": {"maxConcurrent": 3}},
        "template": nowhere(&world, &json!({})), "server": {"apiUrl": proxy.url},
    }));
    let now = until_taken(&world, 3, 60);
    assert!(
        now.contains(&idle_task),
        "the other project's task has passed by"
    );
    assert_eq!(
        world.entries("gpu"),
        busy_tasks[2..],
        "the rest stands in its order"
    );
    for (task, changed) in busy_tasks.iter().zip(&before).skip(2) {
        assert_eq!(world.task(task)["status_changed"], *changed, "untouched");
    }
    for task in &busy_tasks[2..] {
        assert_eq!(asked.writes(task), [""; 0], "for a task that waits");
    }
    // A third of the same user goes once there is room in the project, and not beyond the user's limit.
    world.call("tasks.stop", &json!({"task": busy_tasks[0]}));
    let free = wait("the room is free", 60, || {
        let is_gone = world.job_of(&busy_tasks[0]).is_null();
        is_gone.then(Instant::now)
    });
    wait("the next of the project is taken", 60, || {
        taken(&world).contains(&busy_tasks[2]).then_some(())
    });
    let took = free.elapsed();
    times::told(
        "S13",
        "free room is used",
        took.as_secs_f64(),
        POLL.as_secs_f64(),
    );
    // Five times, because machines are shared; the Job's end has to reach the controller first.
    assert!(took < POLL * 5, "{took:?}");
    assert!(!asked.writes(&busy_tasks[2]).is_empty(), "writes are seen");
    let more = of(&idle, "one too many for the user");
    let before = asked.looks();
    wait("the controller has looked at it", 60, || {
        (asked.looks() > before + 2).then_some(())
    });
    wait("the limit is told", 60, || {
        (world.condition("gpu", "CapacityAvailable")["reason"] == "LimitReached").then_some(())
    });
    assert!(!taken(&world).contains(&more));
    for task in [&busy_tasks[3], &more] {
        assert_eq!(asked.writes(task), [""; 0], "for a task that waits");
    }
}

#[test]
fn parts_of_gpus_are_counted_by_name_as_asked_for_by_each_task() {
    let mut world = World::new("s23slices");
    world.start_controller();
    world.queue("gpu");
    let slice = "nvidia.com/mig-1g.10gb";
    let sizes = ["2", "1", "1", "2"];
    let tasks: Vec<String> = sizes
        .iter()
        .map(|size| {
            let name = format!("resources/{slice}");
            let task = world.create("slice", "print(1)\n", &asking(&[(&name, size)]));
            world.enqueue(&task, "gpu");
            task
        })
        .collect();
    world.bind(
        "gpu",
        &["gpu"],
        &json!({
            "limits": {"maxConcurrent": 10, "resources": {slice: 4}},
            "overrides": {"resources": {"max": {slice: 4}}},
            "template": nowhere(&world, &json!({"limits": {slice: 1}})),
        }),
    );
    let now = until_taken(&world, 3, 60);
    assert!(
        !now.contains(&tasks[3]),
        "four slices are used by three tasks"
    );
    let job = world.job_of(&tasks[0]);
    assert_eq!(
        job["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"][slice],
        "2"
    );
    let told = "nvidia.com/mig-1g.10gb: 2 asked for, 4 of 4 in use";
    wait(told, 60, || {
        let condition = world.condition("gpu", "CapacityAvailable");
        let message = condition["message"].as_str().unwrap_or_default();
        message.contains(told).then_some(())
    });
}

#[test]
fn with_free_resources_only_what_a_node_has_room_for_is_taken() {
    let mut world = World::new("s13free");
    world.start_controller();
    world.queue("gpu");
    // Other scenarios take the node's GPUs between a look and a pod: these are nobody else's.
    let gpu = own_resource(&world, 4);
    let template = json!({"spec": {"containers": [{"name": "task", "image": world.place.task_image,
        "resources": {"limits": {&gpu: "2"}}}]}});
    let doors = Doors::start(&world);
    let source = world.counter.python("ran") + &doors.python("seen");
    let tasks: Vec<String> = (0..5)
        .map(|i| world.run(&format!("gpu {i}"), &source, "gpu"))
        .collect();
    let never = world.create(
        "never",
        "print(1)\n",
        &asking(&[("nodeSelector/zone", "nowhere")]),
    );
    world.bind(
        "gpu",
        &["gpu"],
        &json!({
            "capacity": "FreeResources", "limits": {"maxConcurrent": 10}, "template": template,
            "overrides": {"nodeSelector": ["zone"]},
        }),
    );
    let deadline = Instant::now() + Duration::from_secs(240) * PATIENCE;
    let mut most = 0;
    while tasks.iter().any(|task| world.status(task) != "completed") {
        // A Job is over a little later than its pod, which gives its GPUs back.
        let pods = world.get(&["pods"])["items"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let is_over = |pod: &Value| {
            let phase = pod["status"]["phase"].as_str().unwrap_or_default();
            phase == "Succeeded" || phase == "Failed"
        };
        let live: Vec<Value> = pods.into_iter().filter(|pod| !is_over(pod)).collect();
        most = most.max(live.len());
        assert!(
            live.len() <= 2,
            "4 GPUs are there for two tasks of 2: {}",
            live.len()
        );
        // They stay until two were seen side by side.
        if most == 2 {
            doors.open("seen");
        }
        assert!(Instant::now() < deadline, "not all completed");
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(most, 2, "the free GPUs are used");
    let unschedulable = world.kubectl(&[
        "get",
        "events",
        "--field-selector",
        "reason=FailedScheduling",
    ]);
    assert!(
        !unschedulable.contains(&format!("Insufficient {gpu}")),
        "{unschedulable}"
    );
    // No node matches: it stays where it is, and the binding says why.
    world.enqueue(&never, "gpu");
    wait("it is told why it waits", 60, || {
        let condition = world.condition("gpu", "CapacityAvailable");
        let message = condition["message"].as_str().unwrap_or_default();
        (condition["reason"] == "NoRoom" && message.contains("node selector")).then_some(())
    });
    assert_eq!(world.status(&never), "queued");
    assert_eq!(world.entries("gpu"), [never]);
}

#[test]
fn a_missing_right_is_named_and_nothing_is_taken_without_it() {
    let mut world = World::new("s13right");
    let name = |kind: &str, api: &str| json!({"apiVersion": api, "kind": kind, "metadata": {"name": "limited"}});
    world.apply(&name("ServiceAccount", "v1"));
    let mut role = name("Role", "rbac.authorization.k8s.io/v1");
    role["rules"] = json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]);
    world.apply(&role);
    let mut bound = name("RoleBinding", "rbac.authorization.k8s.io/v1");
    bound["roleRef"] =
        json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "limited"});
    bound["subjects"] =
        json!([{"kind": "ServiceAccount", "name": "limited", "namespace": world.namespace}]);
    world.apply(&bound);
    let limited = world.kubeconfig_of("limited");
    let all = std::mem::replace(&mut world.place.kubeconfig, limited);
    world.start_controller();
    world.place.kubeconfig = all;
    world.queue("gpu");
    let task = world.run("waits", "print(1)\n", "gpu");
    world.bind(
        "gpu",
        &["gpu"],
        &json!({"capacity": "FreeResources", "template": nowhere(&world, &json!({}))}),
    );
    wait("the missing right is told", 60, || {
        let condition = world.condition("gpu", "CapacityAvailable");
        let message = condition["message"].as_str().unwrap_or_default();
        (condition["reason"] == "RightMissing" && message.contains("list and watch")).then_some(())
    });
    assert_eq!(
        (taken(&world).len(), world.status(&task)),
        (0, "queued".to_owned())
    );
}
