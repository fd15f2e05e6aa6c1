//! The work of stages that lead the controller past what it only asks for: what a process reads when it begins, queues
//! that are long, registries, Kueue. A death there changes nothing, and what stands in a queue waits for no quiet time.

use serde_json::{Value, json};

use super::stage::{Act, Stage};
use crate::e2e::s5_entrypoint::image_with;
use crate::e2e::s17_closed_network::certificates;
use crate::e2e::s34_kueue::{LABEL, install_kinds, local_queue};
use crate::e2e::world::World;

/// Entries that a binding of twenty reads of a queue (`look::ENTRIES`).
const ENTRIES: usize = 100;

/// Bindings and their queues.
pub fn asks(stage: &mut Stage) {
    refers(stage);
    // It comes last of what a process asks for before its first pass is over.
    stage.until_spent(60, &["sweep/running-read"]);
    stands_in_a_long_queue(stage);
    has_a_project(stage);
    finds_its_name_taken(stage);
}

/// A binding that names its template and the server's authority in other objects, and does not say where files are.
fn refers(stage: &mut Stage) {
    let name = stage.name("refers");
    let world = &stage.world;
    world.queue(&name);
    let authority = certificates(world.dir.path(), &world.place.gateway);
    world.apply(&json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "authority"},
        "stringData": {"ca.crt": authority},
    }));
    let bundle = json!({"kind": "Secret", "name": "authority", "key": "ca.crt"});
    let map = json!({"name": "pods", "key": "pod.yaml"});
    let patch = json!({"server": {"caBundleRef": bundle}, "templateRef": map});
    let mut binding = stage.binding(&name, &patch);
    without(&mut binding["spec"]["server"], "filesUrl");
    let template = without(&mut binding["spec"], "template");
    world.apply(&json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "pods"},
        "data": {"pod.yaml": template.to_string()},
    }));
    world.apply(&binding);
}

/// Takes a field away.
fn without(object: &mut Value, field: &str) -> Value {
    let fields = object.as_object_mut().expect("an object");
    fields.remove(field).expect("it is set")
}

/// More tasks in one queue than the smaller of two bindings reads of it. Neither takes any.
fn stands_in_a_long_queue(stage: &mut Stage) {
    let queue = stage.name("long");
    let id = stage.world.queue(&queue);
    for _ in 0..=ENTRIES {
        let task = stage.world.create("stands", "", &json!({}));
        let entry = json!({"task": task, "queue": id});
        stage.world.call("tasks.enqueue", &entry);
        stage.expect(&task, "stands", "queued", 0);
    }
    for most in [20, 200] {
        let name = stage.name("reads");
        let limits = json!({"maxConcurrent": most});
        let patch = json!({"queues": [{"name": queue}], "limits": limits, "suspend": true});
        stage.set_binding(&name, &patch);
    }
    stage.until_spent(60, &["look/more-read", "look/length-read"]);
}

/// A task of a project, whose name is asked for when it is offered; from then on the task is read in each look.
fn has_a_project(stage: &mut Stage) {
    let name = stage.bind("plain", &json!({}));
    let project = stage.world.call("projects.create", &json!({"name": name}));
    let patch = json!({"project": project["id"]});
    let task = stage.run_with("has a project", Act::Ends, &name, &patch);
    stage.expect(&task, "has a project", "completed", 1);
    stage.until_spent(60, &["look/projects-read", "look/facts-read"]);
}

/// A Job of somebody else's has the name of a task's, which waits until it is gone.
fn finds_its_name_taken(stage: &mut Stage) {
    let name = stage.bind("taken", &json!({}));
    let task = stage.world.create("taken", "", &json!({}));
    let job = format!("ty-{task}-1");
    let container = json!({"name": "task", "image": "simulated:1"});
    let pod = json!({"spec": {"restartPolicy": "Never", "containers": [container]}});
    stage.world.apply(&json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": job},
        "spec": {"suspend": true, "template": pod},
    }));
    stage.world.enqueue(&task, &name);
    stage.expect(&task, "taken", "completed", 1);
    stage.until_spent(60, &["intend/job-read"]);
    let delete = ["delete", "job", &job, "--wait=false"];
    stage.world.kubectl(&delete);
}

/// Tasks whose image a registry is asked for, by the credentials that the service account names.
pub fn of_images(stage: &mut Stage) {
    let keys = json!({"auths": {"registry.example": {"username": "user", "password": "word"}}});
    stage.world.apply(&json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "pull"},
        "type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": keys.to_string()},
    }));
    stage.world.apply(&json!({
        "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "trainyard-task"},
        "automountServiceAccountToken": false, "imagePullSecrets": [{"name": "pull"}],
    }));
    is_refused(stage);
    runs_its_own_command(stage);
}

/// Tasks whose image the registry does not have, which are failed before anything is made.
fn is_refused(stage: &mut Stage) {
    let image = format!("{}/no-such-image:1", stage.world.place.registry);
    let patch = json!({"template": of_image(&image), "imageCheck": "Enforce"});
    let name = stage.bind("refused", &patch);
    for _ in 0..4 {
        let task = stage.run("refused", Act::Ends, &name);
        stage.expect(&task, "refused", "failed", 0);
    }
    stage.until_spent(60, &["refuse/task-read", "refuse/dequeued", "refuse/told"]);
}

/// A task that runs what its image runs by itself.
fn runs_its_own_command(stage: &mut Stage) {
    let image = image_with(&stage.world, &json!({"Entrypoint": ["/bin/echo"]}));
    let name = stage.name("own");
    stage.world.queue(&name);
    let queues = json!([{"name": name, "useEntrypoint": true}]);
    stage.set_binding(
        &name,
        &json!({"template": of_image(&image), "queues": queues}),
    );
    let task = stage.run("own command", Act::Ends, &name);
    stage.expect(&task, "own command", "completed", 1);
    stage.until_spent(60, &["image/command-read"]);
}

fn of_image(image: &str) -> Value {
    json!({"spec": {"containers": [{"name": "task", "image": image}]}})
}

/// A task that Kueue admits once it was asked what it waits for.
pub fn of_kueue(stage: &mut Stage) {
    install_kinds(&stage.world);
    local_queue(&stage.world, "team");
    let patch = json!({"capacity": "Kueue", "kueueQueueName": "team"});
    let name = stage.bind("kueue", &patch);
    let task = stage.run("kueue", Act::Ends, &name);
    stage.expect(&task, "kueue", "completed", 1);
    let is_handed_over = |world: &World| world.job_of(&task)["metadata"]["labels"][LABEL] == "team";
    assert!(
        stage.until(60, is_handed_over),
        "task {task} is handed over"
    );
    stage.until_spent(60, &["kueue/workloads-listed"]);
    let (job, admit) = (format!("ty-{task}-1"), json!({"spec": {"suspend": false}}));
    let admit = admit.to_string();
    let patch = ["patch", "job", &job, "--type=merge", "-p", &admit];
    stage.world.kubectl(&patch);
}
