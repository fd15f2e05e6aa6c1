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
            let last = doc::get(task, models)
                .and_then(Value::as_array)
                .and_then(|entries| entries.last());
            if let Some(model) = last.and_then(|entry| entry.get("model")).cloned() {
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

/// `execution.docker_cmd` of an older client becomes the container; true if there was one.
pub(crate) fn take_docker_command(task: &mut Doc) -> bool {
    let command = doc::text(task, "execution.docker_cmd").to_owned();
    doc::unset(task, "execution.docker_cmd");
    if command.is_empty() {
        return false;
    }
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
    }
}
