//! Inputs of a Job that are right in every part, for tests of one idea each.

mod ahead;
mod cache;
mod containers;
mod entrypoint;
mod errors;
mod job;
mod origin;
mod template;
mod wishes;

use serde_json::{Value, json};

use super::*;
use crate::crd::QueueBindingSpec;
use crate::task::{Attempt, QueueId, Task, TaskId, WorkerId};

const TASK: &str = "0123456789abcdef0123456789abcdef";
const QUEUE: &str = "11111111111111111111111111111111";
const PENDING: &str = "22222222222222222222222222222222";

/// All that a Job is rendered from, right in every part; a test spoils one.
struct World {
    spec: Value,
    task: Value,
    attempt: Attempt,
    settings: Settings,
    server: Server,
    returned: bool,
    failures: u32,
    avoid_nodes: Vec<String>,
    holding_nodes: Vec<String>,
}

fn world() -> World {
    World {
        spec: json!({ "queues": [{ "name": "gpu" }] }),
        task: json!({
            "id": TASK,
            "name": "train a small net",
            "project": "33333333333333333333333333333333",
            "user": "44444444444444444444444444444444",
        }),
        attempt: Attempt::FIRST,
        settings: Settings {
            image: "127.0.0.1:5000/trainyard:1".into(),
            image_pull_policy: None,
            image_pull_secrets: Vec::new(),
        },
        server: Server {
            api_url: "http://server:8008".into(),
            web_url: Some("http://server:8080".into()),
            files_url: Some("http://server:8081".into()),
            credentials_secret: "clearml-credentials".into(),
            ca_bundle: None,
            proxy: None,
        },
        returned: false,
        failures: 0,
        avoid_nodes: Vec::new(),
        holding_nodes: Vec::new(),
    }
}

impl World {
    fn with_template(mut self, template: Value) -> Self {
        self.spec["template"] = template;
        self
    }

    fn with_spec(mut self, field: &str, value: Value) -> Self {
        self.spec[field] = value;
        self
    }

    fn with_container(mut self, container: Value) -> Self {
        self.task["container"] = container;
        self
    }

    fn spec(&self) -> QueueBindingSpec {
        serde_json::from_value(self.spec.clone()).unwrap()
    }

    fn check(&self) -> Result<Template, Vec<TemplateError>> {
        let spec = self.spec();
        let source = spec
            .template
            .as_ref()
            .map_or(Source::BuiltIn, Source::Inline);
        let value = spec.queues[0].template_patch.as_ref();
        let patch = value.map(|value| Patch { queue: 0, value });
        Template::check(source, patch, &spec, Some("python:3.12"))
    }

    fn render(&self) -> Rendered {
        self.with_inputs(render)
    }

    fn with_inputs<R>(&self, then: impl FnOnce(&Inputs<'_>) -> R) -> R {
        let (spec, template) = (self.spec(), self.check().unwrap());
        let task: Task = serde_json::from_value(self.task.clone()).unwrap();
        let id: TaskId = TASK.parse().unwrap();
        let pending: QueueId = PENDING.parse().unwrap();
        then(&Inputs {
            binding: &Binding {
                name: "gpu".into(),
                namespace: "ml".into(),
                uid: "uid-1".into(),
            },
            spec: &spec,
            template: &template,
            task: &task,
            attempt: self.attempt,
            queue: &Queue {
                id: QUEUE.parse().unwrap(),
                name: "gpu".into(),
            },
            pending_queue: &pending,
            project_name: "examples",
            worker: &WorkerId::of_attempt(&WorkerId("cluster:ml/gpu".into()), &id, self.attempt),
            server: &self.server,
            settings: &self.settings,
            returned: self.returned,
            failures: self.failures,
            avoid_nodes: &self.avoid_nodes,
            holding_nodes: &self.holding_nodes,
            remark: None,
            runs: Runs::Code,
        })
    }

    /// The same for a queue that runs the image's own command.
    fn render_own(&self, own: Option<OwnCommand<'_>>) -> Rendered {
        self.with_inputs(|inputs| {
            render(&Inputs {
                runs: Runs::Image(own),
                ..*inputs
            })
        })
    }

    /// The one error of a template, as people read it.
    fn error(&self) -> String {
        let errors = self.check().unwrap_err();
        assert_eq!(errors.len(), 1, "{errors:?}");
        errors[0].to_string()
    }
}

fn pod(rendered: &Rendered) -> &Value {
    &rendered.job["spec"]["template"]["spec"]
}

fn init_container<'r>(rendered: &'r Rendered, name: &str) -> &'r Value {
    let containers = pod(rendered)["initContainers"].as_array().unwrap();
    containers
        .iter()
        .find(|container| container["name"] == name)
        .unwrap()
}

fn variable<'c>(container: &'c Value, name: &str) -> &'c Value {
    let variables = container["env"].as_array().unwrap();
    let found: Vec<&Value> = variables
        .iter()
        .filter(|variable| variable["name"] == name)
        .collect();
    assert_eq!(found.len(), 1, "{name}: {found:?}");
    found[0]
}
