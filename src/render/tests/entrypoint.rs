//! The image's own command in place of the task's code.

use super::*;

#[test]
fn the_images_own_command_is_told_to_prepare_and_task_as_it_stands() {
    let (entrypoint, cmd) = (["/run".to_owned()], ["$(A) \"b\"".to_owned()]);
    let own = OwnCommand {
        entrypoint: &entrypoint,
        cmd: &cmd,
    };
    let rendered = world().render_own(Some(own));
    let argv = ["/run", "$$(A) \"b\""].map(str::to_owned);
    assert_eq!(rendered.argv.as_deref(), Some(argv.as_slice()));
    let task = &pod(&rendered)["containers"][0];
    for container in [init_container(&rendered, "prepare"), task] {
        // Each `$` is doubled once more, for Kubernetes.
        assert_eq!(
            variable(container, "TRAINYARD_ENTRYPOINT")["value"],
            r#"["/run","$$$$(A) \"b\""]"#
        );
    }
    assert_eq!(
        task["command"],
        json!(["/trainyard/bin/trainyard", "--in-pod", "task"])
    );
    assert!(!world().render().job.to_string().contains("ENTRYPOINT"));
}

#[test]
fn a_command_of_the_template_takes_the_place_of_the_images_own() {
    let container =
        json!({ "name": "task", "image": "a", "command": ["/other"], "args": ["$(A)"] });
    let world = world().with_template(json!({ "spec": { "containers": [container] } }));
    let rendered = world.render_own(None);
    let argv = ["/other", "$(A)"].map(str::to_owned);
    assert_eq!(rendered.argv.as_deref(), Some(argv.as_slice()));
    let task = &pod(&rendered)["containers"][0];
    assert_eq!(task["args"], Value::Null);
    assert_eq!(rendered.notes, Vec::<String>::new());
    assert_eq!(
        world.render().notes,
        ["command and args of the template's task container are replaced by the executor"]
    );
}

#[test]
fn an_own_command_that_is_not_known_is_rendered_as_one_that_is_never_run() {
    let rendered = world().render_own(None);
    assert_eq!(rendered.argv, None);
    let task = &pod(&rendered)["containers"][0];
    assert_eq!(variable(task, "TRAINYARD_ENTRYPOINT")["value"], "[]");
}

#[test]
fn a_command_that_is_run_must_be_a_list_of_texts() {
    let container = json!({ "name": "task", "image": "a", "args": ["--epochs", 3] });
    let world = world().with_template(json!({ "spec": { "containers": [container] } }));
    assert!(world.check().is_ok(), "it is not run");
    let world = world.with_spec("queues", json!([{ "name": "gpu", "useEntrypoint": true }]));
    assert_eq!(
        world.error(),
        "spec.template.spec.containers[0].args[1]: must be a text; put numbers and true or false in quotes"
    );
}
