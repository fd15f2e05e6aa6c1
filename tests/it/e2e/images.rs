//! The executor starts in images that were not made for it: one without glibc, shell or Python, one read-only and not
//! as root.

use serde_json::json;

use super::world::World;

#[test]
fn the_static_program_runs_a_task_in_an_image_without_glibc() {
    let world = World::with_binding("bare");
    let bare = format!("{}/bare:1", world.place.registry);
    world.bind(
        "gpu",
        &["gpu"],
        &json!({"environment": {"manager": "none"}, "template": {"spec": {"containers": [{"name": "task", "image": bare}]}}}),
    );
    world.until_ready("gpu");
    let task = world.create(
        "shell script",
        "echo from a bare image\nls /lib64 || echo no loader\n",
        &json!({"script": {"binary": "sh", "entry_point": "job.sh"}}),
    );
    world.enqueue(&task, "gpu");
    let ended = world.until_ended(&task, 90);
    if ended["status"] != "completed" {
        world.tell(&task);
    }
    assert_eq!(ended["status"], "completed");
    let log = world.log(&task);
    assert!(
        log.iter().any(|line| line == "from a bare image"),
        "{log:#?}"
    );
    assert!(
        log.iter().any(|line| line == "no loader"),
        "the image has no glibc: {log:#?}"
    );
}

#[test]
fn no_root_and_no_writable_root_are_needed() {
    let world = World::with_binding("restricted");
    world.kubectl(&[
        "label",
        "namespace",
        &world.namespace,
        "pod-security.kubernetes.io/enforce=restricted",
    ]);
    world.bind(
        "gpu",
        &["gpu"],
        &json!({"template": {"spec": {
            "securityContext": {"runAsNonRoot": true, "runAsUser": 12345, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{"name": "task", "image": world.place.task_image, "securityContext": {
                "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}}}],
        }}}),
    );
    world.until_ready("gpu");
    let task = world.create(
        "restricted",
        "import os, six\nprint('uid', os.getuid())\nopen('here.txt', 'w').write('x')\nprint(six.__name__)\n",
        &json!({"script": {"requirements": {"pip": "six\n"}}}),
    );
    world.enqueue(&task, "gpu");
    let ended = world.until_ended(&task, 120);
    if ended["status"] != "completed" {
        world.tell(&task);
    }
    assert_eq!(ended["status"], "completed");
    let log = world.log(&task);
    assert!(log.iter().any(|line| line == "uid 12345"), "{log:#?}");
}
