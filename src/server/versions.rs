//! What older clients know by other names (`protocol.md` §1.7). Pure.

use serde_json::{Value, json};

use super::doc;
use super::wire::{Doc, Version};

/// Shapes a task for a client's version.
pub(crate) fn task_for(version: Version, task: &mut Doc) {
    if version < Version(2, 13) {
        let container = |key| doc::text(task, key).to_owned();
        let (image, arguments) = (
            container("container.image"),
            container("container.arguments"),
        );
        if !image.is_empty() {
            doc::set(
                task,
                "execution.docker_cmd",
                format!("{image} {arguments}").trim_end().into(),
            );
        }
        for (models, path) in [
            ("models.input", "execution.model"),
            ("models.output", "output.model"),
        ] {
            // The first of those that go in, the last of those that come out.
            let entries = doc::get(task, models).and_then(Value::as_array);
            let one = entries.and_then(|entries| match models {
                "models.input" => entries.first(),
                _ => entries.last(),
            });
            if let Some(model) = one.and_then(|entry| entry.get("model")).cloned() {
                doc::set(task, path, model);
            }
        }
    }
    if version < Version(2, 9) {
        let sections = task.get("hyperparams").and_then(Value::as_object);
        let legacy: Vec<(String, Value)> = sections
            .into_iter()
            .flat_map(Doc::values)
            .filter_map(Value::as_object)
            .flat_map(Doc::values)
            .filter(|item| item["type"] == "legacy")
            .map(|item| {
                (
                    item["name"].as_str().unwrap_or_default().to_owned(),
                    item["value"].clone(),
                )
            })
            .collect();
        if !legacy.is_empty() {
            doc::object_at(doc::object_at(task, "execution"), "parameters").extend(legacy);
        }
    }
    if version < Version(2, 3) {
        let mut tags = doc::strings(task, "tags");
        tags.extend(doc::strings(task, "system_tags"));
        let tags = json!(tags);
        task.insert("tags".into(), tags);
    }
}

/// Metadata is known to clients since 2.17 alone; older ones see none.
pub(crate) fn metadata_for(version: Version, document: &mut Doc) {
    if version <= Version(2, 16) && document.contains_key("metadata") {
        document.insert("metadata".into(), json!([]));
    }
}

/// `execution.model` and `output.model` of an older client become the task's models; true if there was one.
pub(crate) fn take_models(task: &mut Doc, now: &str) -> bool {
    let mut taken = false;
    for (path, models, name) in [
        ("execution.model", "models.input", "Input Model"),
        ("output.model", "models.output", "Output Model"),
    ] {
        let Some(Value::String(model)) = doc::get(task, path).cloned() else {
            continue;
        };
        let entries = if model.is_empty() {
            json!([])
        } else {
            json!([{"name": name, "model": model, "updated": now}])
        };
        doc::set(task, models, entries);
        doc::unset(task, path);
        taken = true;
    }
    taken
}

/// `execution.docker_cmd` of an older client becomes the container, an empty one takes its image away; true if the
/// container is another one now.
pub(crate) fn take_docker_command(task: &mut Doc) -> bool {
    let command = match doc::get(task, "execution.docker_cmd") {
        Some(Value::String(command)) => Some(command.clone()),
        _ => None,
    };
    doc::unset(task, "execution.docker_cmd");
    let had_image = !doc::text(task, "container.image").is_empty();
    let Some(command) = command.filter(|command| had_image || !command.is_empty()) else {
        return false;
    };
    let (image, arguments) = command.split_once(' ').unwrap_or((&command, ""));
    doc::set(task, "container.image", image.into());
    doc::set(task, "container.arguments", arguments.into());
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_clients_see_and_write_the_container_as_one_command() {
        let mut task = Doc::new();
        doc::set(&mut task, "execution.docker_cmd", "image:1 -e A=b".into());
        assert!(take_docker_command(&mut task));
        assert_eq!(
            Value::Object(task.clone())["container"],
            json!({"image": "image:1", "arguments": "-e A=b"})
        );
        task_for(Version(2, 5), &mut task);
        assert_eq!(doc::text(&task, "execution.docker_cmd"), "image:1 -e A=b");
        assert!(!take_docker_command(&mut Doc::new()));

        doc::set(&mut task, "execution.docker_cmd", "".into());
        assert!(take_docker_command(&mut task));
        assert_eq!(
            Value::Object(task.clone())["container"],
            json!({"image": "", "arguments": ""})
        );
        doc::set(&mut task, "execution.docker_cmd", "".into());
        assert!(!take_docker_command(&mut task));
    }

    #[test]
    fn old_clients_see_and_write_one_model_each_way() {
        let mut task = Doc::new();
        doc::set(&mut task, "execution.model", "in".into());
        doc::set(&mut task, "output.model", "out".into());
        assert!(take_models(&mut task, "now"));
        assert_eq!(
            Value::Object(task.clone()),
            json!({
                "execution": {}, "output": {},
                "models": {
                    "input": [{"name": "Input Model", "model": "in", "updated": "now"}],
                    "output": [{"name": "Output Model", "model": "out", "updated": "now"}],
                },
            })
        );
        doc::set(
            &mut task,
            "models.input",
            json!([{"model": "first"}, {"model": "last"}]),
        );
        task_for(Version(2, 5), &mut task);
        assert_eq!(doc::text(&task, "execution.model"), "first");
        assert_eq!(doc::text(&task, "output.model"), "out");
        assert!(!take_models(&mut Doc::new(), "now"));
    }

    #[test]
    fn metadata_is_a_list_for_those_who_do_not_know_it() {
        let with = |version| {
            let mut queue = Doc::new();
            queue.insert("metadata".into(), json!({"k": {}}));
            metadata_for(version, &mut queue);
            queue["metadata"].clone()
        };
        assert_eq!(with(Version(2, 16)), json!([]));
        assert_eq!(with(Version(2, 17)), json!({"k": {}}));
    }
}
