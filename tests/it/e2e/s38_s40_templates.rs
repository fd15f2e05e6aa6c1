//! S38: one queue's broken template concerns that queue alone. S40: what admission refuses is known before a task is
//! taken; a full quota is not the template's fault.

use std::fs;

use serde_json::json;

use super::taken::{nowhere, taken, until_taken};
use super::world::{World, wait};

#[test]
fn a_broken_template_of_one_queue_leaves_the_others_alone_and_is_mended_without_a_restart() {
    let mut world = World::new("s38");
    world.start_controller();
    for queue in ["one", "two", "three"] {
        world.queue(queue);
    }
    let tasks: Vec<String> = ["one", "two", "three"]
        .iter()
        .map(|queue| world.run(queue, "print(1)\n", queue))
        .collect();
    let before = world.task(&tasks[1])["status_changed"].clone();
    let bind = |memory: &str| {
        let patch = json!({"spec": {"containers": [{"name": "task", "resources": {"limits": {"memory": memory}}}]}});
        world.bind("gpu", &[], &json!({
            "queues": [{"name": "one"}, {"name": "two", "templatePatch": patch}, {"name": "three"}],
            "template": nowhere(&world, &json!({})),
        }));
    };
    bind("lots");
    let now = until_taken(&world, 2, 60);
    assert!(now.contains(&tasks[0]) && now.contains(&tasks[2]));
    let parts = [
        "queue \"two\"",
        "memory",
        "lots",
        "the other queues are served",
    ];
    let condition = wait("the condition tells of the one queue", 60, || {
        let condition = world.condition("gpu", "TemplateValid");
        let message = condition["message"].as_str().unwrap_or_default();
        let told = parts.iter().all(|part| message.contains(part));
        (condition["status"] == "False" && told).then_some(condition)
    });
    let message = condition["message"].as_str().unwrap();
    let of_template = |line: &&str| line.contains("condition=TemplateValid");
    let logged = || {
        let log = fs::read_to_string(world.dir.path().join("controller.log")).expect("a log");
        let lines = log.lines().filter(of_template);
        lines.map(str::to_owned).collect::<Vec<String>>()
    };
    wait("the log has the same words", 10, || {
        let lines = logged();
        let told = lines.iter().filter(|line| line.contains(message)).count();
        assert!(told < 2, "once: {lines:#?}");
        (told == 1).then_some(())
    });
    assert_eq!(world.entries("two"), [tasks[1].clone()]);
    assert_eq!(
        world.task(&tasks[1])["status_changed"],
        before,
        "not touched"
    );
    bind("64Mi");
    wait("it goes once its template is mended", 60, || {
        taken(&world).contains(&tasks[1]).then_some(())
    });
    wait("the template is valid", 30, || {
        (world.condition("gpu", "TemplateValid")["status"] == "True").then_some(())
    });
    wait("the log says that, too", 10, || {
        let lines = logged();
        let told = lines.iter().any(|line| line.contains("holds again"));
        told.then_some(())
    });
}

#[test]
fn what_admission_refuses_is_known_before_a_task_is_taken_and_a_full_quota_only_waits() {
    let mut world = World::new("s40");
    world.kubectl(&[
        "label",
        "namespace",
        &world.namespace.clone(),
        "pod-security.kubernetes.io/enforce=baseline",
    ]);
    world.start_controller();
    world.queue("gpu");
    let task = world.run("refused", "print(1)\n", "gpu");
    let behind = world.run("behind", "print(1)\n", "gpu");
    let mut template = nowhere(
        &world,
        &json!({"limits": {"cpu": "100m", "memory": "64Mi"}}),
    );
    template["spec"]["hostNetwork"] = json!(true);
    world.bind("gpu", &["gpu"], &json!({"template": template}));
    wait("the policy is told before anything is taken", 60, || {
        let condition = world.condition("gpu", "TemplateValid");
        let told = condition["message"]
            .as_str()
            .unwrap_or_default()
            .contains("PodSecurity");
        (condition["status"] == "False" && told).then_some(())
    });
    assert_eq!(
        (taken(&world).len(), world.status(&task)),
        (0, "queued".to_owned())
    );

    // A quota without room: the template is fine, the task is taken and comes back to its place with the reason.
    world.apply(
        &json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "full"},
        "spec": {"hard": {"pods": "0"}}}),
    );
    template["spec"]["hostNetwork"] = json!(false);
    world.bind("gpu", &["gpu"], &json!({"template": template}));
    wait("the full quota is a condition", 120, || {
        let condition = world.condition("gpu", "CapacityAvailable");
        (condition["status"] == "False"
            && condition["message"]
                .as_str()
                .unwrap_or_default()
                .contains("exceeded quota"))
        .then_some(())
    });
    assert_eq!(world.condition("gpu", "TemplateValid")["status"], "True");
    wait(
        "both stand in their queue again, in their order",
        60,
        || (world.entries("gpu") == [task.clone(), behind.clone()]).then_some(()),
    );
    assert_eq!(world.status(&task), "queued");
    let log = world.log(&task).join("\n");
    assert!(log.contains("exceeded quota"), "{log}");
    world.kubectl(&["delete", "resourcequota", "full"]);
    // The cluster is asked every 5 s; before a task that went back runs again, two quiet times pass.
    wait("it resumes", 300, || {
        (!world.pod_of(&task)["metadata"]["name"].is_null()).then_some(())
    });
}

#[test]
fn s40_a_policy_that_only_refuses_pods_of_jobs_gives_the_task_back_with_its_words() {
    let mut world = World::new("s40policy");
    let name = world.namespace.clone();
    world.start_controller();
    world.queue("gpu");
    let task = world.run("refused", "print(1)\n", "gpu");
    // What the dry run of a bare pod cannot see.
    world.apply(&json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": name},
        "spec": {
            "matchConstraints": {"resourceRules": [
                {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]},
            ]},
            "validations": [{
                "expression": "!has(object.metadata.ownerReferences)", "message": "no pods of Jobs on this cluster",
            }],
        },
    }));
    world.apply(&json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": name},
        "spec": {
            "policyName": name, "validationActions": ["Deny"],
            "matchResources": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}},
        },
    }));
    // It holds once the API server has compiled it.
    let owned = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "probe", "ownerReferences": [
            {"apiVersion": "v1", "kind": "ConfigMap", "name": "nobody", "uid": "0"},
        ]},
        "spec": {"containers": [{"name": "probe", "image": world.place.task_image}]},
    });
    wait("the policy holds", 60, || {
        let refused = world.try_apply(&owned).err()?;
        if refused.contains("no pods of Jobs") {
            return Some(());
        }
        None
    });
    world.bind(
        "gpu",
        &["gpu"],
        &json!({"template": nowhere(&world, &json!({}))}),
    );
    wait("the policy's words are a condition", 120, || {
        let condition = world.condition("gpu", "CapacityAvailable");
        let message = condition["message"].as_str().unwrap_or_default();
        (condition["status"] == "False" && message.contains("no pods of Jobs")).then_some(())
    });
    assert_eq!(world.condition("gpu", "TemplateValid")["status"], "True");
    wait("the task stands in its queue again", 60, || {
        (world.entries("gpu") == [task.clone()]).then_some(())
    });
    assert_eq!(world.status(&task), "queued");
    let log = world.log(&task).join("\n");
    assert!(log.contains("no pods of Jobs"), "{log}");
    for kind in [
        "validatingadmissionpolicybinding",
        "validatingadmissionpolicy",
    ] {
        world.kubectl(&["delete", kind, &name]);
    }
    wait("it resumes", 300, || {
        (!world.pod_of(&task)["metadata"]["name"].is_null()).then_some(())
    });
}
