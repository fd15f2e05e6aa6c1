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

#[test]
fn golden_job_of_the_built_in_template() {
    insta::assert_yaml_snapshot!(world().render().job);
}

#[test]
fn golden_job_of_a_rich_binding() {
    let mut world = world()
        .with_template(json!({
            "metadata": { "labels": { "team": "vision" }, "annotations": { "a": "b" } },
            "spec": {
                "priorityClassName": "high",
                "fieldOfALaterVersion": { "kept": true },
                "securityContext": { "runAsUser": 1000, "runAsNonRoot": true },
                "tolerations": [{ "operator": "Exists" }],
                "volumes": [{ "name": "data", "persistentVolumeClaim": { "claimName": "data" } }],
                "initContainers": [{ "name": "fetch", "image": "fetch:1" }],
                "containers": [
                    { "name": "proxy", "image": "proxy:1", "resources": { "requests": { "cpu": "100m" } } },
                    {
                        "name": "task",
                        "image": "127.0.0.1:5000/cuda:12",
                        "env": [{ "name": "A", "value": "template" }, { "name": "B", "value": "template" }],
                        "volumeMounts": [{ "name": "data", "mountPath": "/data" }],
                        "resources": { "limits": { "nvidia.com/gpu": 1, "memory": "8Gi" } },
                    },
                ],
            },
        }))
        .with_spec("job", json!({ "activeDeadlineSeconds": 3600, "labels": { "cost": "1" }, "annotations": { "note": "kept" } }))
        .with_spec("overrides", json!({ "image": { "allow": ["127.0.0.1:5000/*"] }, "containerArguments": ["env", "shm-size"] }))
        .with_spec("environment", json!({
            "manager": "uv",
            "cache": { "hostPath": "/var/cache/trainyard" },
            "indexUrl": "http://index/simple",
            "caBundleRef": { "name": "index-ca", "key": "ca.pem" },
            "git": {
                "credentialsSecretRef": { "name": "git" },
                "knownHostsRef": { "kind": "Secret", "name": "hosts", "key": "known" },
            },
            "clearmlConfRef": { "name": "conf" },
            "setupScript": "echo $(date) $HOME",
        }))
        .with_container(json!({
            "image": "127.0.0.1:5000/own:2",
            "arguments": "-e B=task --env C=$(A) --shm-size 8g --network host",
            "setup_shell_script": "apt update",
        }));
    world.attempt = Attempt(2);
    world.returned = true;
    world.avoid_nodes = vec!["node-1".into()];
    world.settings.image_pull_policy = Some("IfNotPresent".into());
    world.settings.image_pull_secrets = vec!["registry".into()];
    world.server.ca_bundle =
        serde_json::from_value(json!({ "name": "server-ca", "key": "ca.crt" })).unwrap();
    let rendered = world.render();
    insta::assert_yaml_snapshot!(rendered.job);
    insta::assert_yaml_snapshot!("golden_job_of_a_rich_binding_notes", rendered.notes);
}

#[test]
fn equal_inputs_give_equal_jobs() {
    assert_eq!(world().render(), world().render());
}

#[test]
fn no_key_of_the_server_is_ever_a_value() {
    let rendered = world().render();
    for container in [
        init_container(&rendered, "prepare"),
        init_container(&rendered, "uplink"),
        &pod(&rendered)["containers"][0],
    ] {
        for name in ["CLEARML_API_ACCESS_KEY", "CLEARML_API_SECRET_KEY"] {
            assert_eq!(
                variable(container, name)["valueFrom"]["secretKeyRef"]["name"],
                "clearml-credentials"
            );
            assert_eq!(variable(container, name)["value"], Value::Null);
        }
    }
}

#[test]
fn git_credentials_are_seen_by_prepare_alone() {
    let world = world().with_spec(
        "environment",
        json!({ "git": { "credentialsSecretRef": { "name": "git" } } }),
    );
    let rendered = world.render();
    let mounts = |container: &Value| {
        container["volumeMounts"]
            .to_string()
            .contains("trainyard-git")
    };
    assert!(mounts(init_container(&rendered, "prepare")));
    assert!(!mounts(init_container(&rendered, "uplink")));
    assert!(!mounts(&pod(&rendered)["containers"][0]));
}

#[test]
fn a_task_sees_its_own_part_of_a_shared_cache_and_prepare_the_repositories() {
    let mount = |container: &Value, name: &str| -> Vec<(String, String)> {
        let mounts = container["volumeMounts"].as_array().unwrap();
        let of_volume = mounts.iter().filter(|mount| mount["name"] == name);
        of_volume
            .map(|mount| {
                let text = |key: &str| mount[key].as_str().unwrap_or_default().to_owned();
                (text("mountPath"), text("subPath"))
            })
            .collect()
    };
    let of = |cache: Value| {
        let rendered = world()
            .with_spec("environment", json!({ "cache": cache }))
            .render();
        let volumes = pod(&rendered)["volumes"].as_array().unwrap();
        let count = volumes
            .iter()
            .filter(|volume| volume["name"] == "trainyard-cache")
            .count();
        assert_eq!(count, 1, "one volume, however many parts");
        let prepare = mount(init_container(&rendered, "prepare"), "trainyard-cache");
        let task = mount(&pod(&rendered)["containers"][0], "trainyard-cache");
        (prepare, task)
    };
    let pair = |path: &str, sub: &str| vec![(path.to_owned(), sub.to_owned())];
    let shared = (
        pair("/trainyard-git/cache", "repositories"),
        pair("/trainyard/cache", "environments"),
    );
    assert_eq!(of(json!({ "hostPath": "/var/cache/trainyard" })), shared);
    assert_eq!(of(json!({ "claimName": "cache" })), shared);
    // A cache that ends with the pod is nobody else's, and no repository is worth keeping in it.
    let own = (Vec::new(), pair("/trainyard/cache", ""));
    assert_eq!(of(json!({})), own);
}

#[test]
fn the_templates_ways_out_are_those_of_all_three() {
    let template = json!({ "spec": { "containers": [{ "name": "task", "image": "python:3", "env": [
        { "name": "https_proxy", "value": "http://proxy:3128" },
        { "name": "NO_PROXY", "value": "server" },
        { "name": "OTHER", "value": "1" },
    ] }] } });
    let rendered = world().with_template(template).render();
    for name in ["prepare", "uplink"] {
        let container = init_container(&rendered, name);
        assert_eq!(
            variable(container, "https_proxy")["value"],
            "http://proxy:3128"
        );
        assert_eq!(variable(container, "NO_PROXY")["value"], "server");
        assert!(!container["env"].to_string().contains("OTHER"));
    }
}

#[test]
fn the_proxy_on_the_way_to_the_server_is_told_to_all_three_and_is_no_other_way_out() {
    let ways = |rendered: &Rendered| {
        let task = &pod(rendered)["containers"][0];
        [
            init_container(rendered, "prepare"),
            init_container(rendered, "uplink"),
            task,
        ]
        .map(|container| {
            let variables = container["env"].as_array().unwrap();
            let of_proxies = variables.iter().filter(|variable| {
                let name = variable["name"].as_str().unwrap();
                name.to_ascii_uppercase().ends_with("_PROXY")
            });
            of_proxies.cloned().collect::<Vec<Value>>()
        })
    };
    let mut world = world();
    assert!(ways(&world.render()).iter().all(Vec::is_empty));
    world.server.proxy = Some("http://proxy:3128".into());
    let way = json!({ "name": "TRAINYARD_SERVER_PROXY", "value": "http://proxy:3128" });
    for found in ways(&world.render()) {
        assert_eq!(found, std::slice::from_ref(&way));
    }
}

#[test]
fn the_only_container_keeps_its_name() {
    let world = world()
        .with_template(json!({ "spec": { "containers": [{ "name": "main", "image": "a" }] } }));
    let rendered = world.render();
    assert_eq!(pod(&rendered)["containers"][0]["name"], "main");
    let annotations = &rendered.job["spec"]["template"]["metadata"]["annotations"];
    assert_eq!(
        annotations["kubectl.kubernetes.io/default-container"],
        "main"
    );
}

#[test]
fn a_template_without_containers_gets_the_built_in_one() {
    let world = world().with_template(json!({ "spec": { "nodeSelector": { "gpu": "a100" } } }));
    let rendered = world.render();
    assert_eq!(pod(&rendered)["containers"][0]["image"], "python:3.12");
    assert_eq!(pod(&rendered)["nodeSelector"]["gpu"], "a100");
}

#[test]
fn fields_that_are_not_known_here_are_kept() {
    let world = world().with_template(json!({ "spec": { "newField": [1, { "a": null }] } }));
    assert_eq!(pod(&world.render())["newField"], json!([1, { "a": null }]));
}

#[test]
fn labels_by_which_pods_are_found_cannot_be_taken_by_a_template() {
    let mine = ["name", "instance", "managed-by", "component"]
        .map(|name| (format!("app.kubernetes.io/{name}"), json!("mine")));
    let labels: serde_json::Map<String, Value> = mine.into_iter().collect();
    let rendered = world()
        .with_template(json!({ "metadata": { "labels": labels } }))
        .render();
    let label = |name: &str| {
        rendered.job["spec"]["template"]["metadata"]["labels"][format!("app.kubernetes.io/{name}")]
            .clone()
    };
    assert_eq!(
        (label("name"), label("instance")),
        (json!("mine"), json!("mine"))
    );
    assert_eq!(
        (label("managed-by"), label("component")),
        (json!("trainyard"), json!("task"))
    );
}

#[test]
fn a_longer_grace_of_the_template_is_kept() {
    let grace = |world: World| pod(&world.render())["terminationGracePeriodSeconds"].clone();
    assert_eq!(grace(world()), 60);
    let template = json!({ "spec": { "terminationGracePeriodSeconds": 600 } });
    assert_eq!(grace(world().with_template(template)), 600);
}

#[test]
fn the_grace_of_an_abort_is_told_to_the_executor_and_the_pod_has_more() {
    let told = |lifecycle: Value, template: Value| {
        let rendered = world()
            .with_spec("lifecycle", lifecycle)
            .with_template(template)
            .render();
        let task = &pod(&rendered)["containers"][0];
        let [in_prepare, in_task] = [init_container(&rendered, "prepare"), task]
            .map(|container| variable(container, "TRAINYARD_GRACE_SECONDS")["value"].clone());
        assert_eq!(in_prepare, in_task);
        let of_pod = pod(&rendered)["terminationGracePeriodSeconds"].clone();
        (in_task, of_pod)
    };
    let plain = || json!({});
    assert_eq!(told(plain(), plain()), (json!("30"), json!(60)));
    let asked = || json!({ "abortGracePeriod": "2m" });
    assert_eq!(told(asked(), plain()), (json!("120"), json!(150)));
    // With less than the user's process is promised the kubelet would kill it early.
    let short = json!({ "spec": { "terminationGracePeriodSeconds": 5 } });
    assert_eq!(told(asked(), short), (json!("120"), json!(150)));
    let part = json!({ "abortGracePeriod": "1500ms" });
    assert_eq!(told(part, plain()), (json!("2"), json!(32)));
}

#[test]
fn a_later_attempt_prefers_other_nodes_unless_the_binding_says_no() {
    let affinity = |lifecycle: Value, template: Value| {
        let mut world = world()
            .with_spec("lifecycle", lifecycle)
            .with_template(template);
        world.attempt = Attempt(2);
        world.avoid_nodes = vec!["node-1".into()];
        pod(&world.render())["affinity"].clone()
    };
    let plain = || json!({});
    let avoiding = json!({ "nodeAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": [{
        "weight": 100,
        "preference": { "matchFields": [{ "key": "metadata.name", "operator": "NotIn", "values": ["node-1"] }] },
    }] } });
    assert_eq!(affinity(plain(), plain()), avoiding);
    assert_eq!(
        affinity(json!({ "avoidSameNode": true }), plain()),
        avoiding
    );
    let anywhere = || json!({ "avoidSameNode": false });
    assert_eq!(affinity(anywhere(), plain()), Value::Null);
    // What the template prefers is its own matter.
    let own = json!({ "nodeAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": [{
        "weight": 1,
        "preference": { "matchExpressions": [{ "key": "fast", "operator": "Exists" }] },
    }] } });
    let template = json!({ "spec": { "affinity": own } });
    assert_eq!(affinity(anywhere(), template), own);
}

#[test]
fn an_image_that_is_not_allowed_is_refused_and_told() {
    let rendered = world()
        .with_container(json!({ "image": "evil:1" }))
        .render();
    assert_eq!(rendered.image, "python:3.12");
    assert!(
        rendered.notes[0].starts_with("image \"evil:1\" is not allowed here"),
        "{:?}",
        rendered.notes
    );
    let told = variable(init_container(&rendered, "prepare"), "TRAINYARD_NOTES")["value"]
        .as_str()
        .unwrap();
    assert_eq!(told, rendered.notes.join("\n"));
}

#[test]
fn ours_never_run_as_root_and_share_the_user_of_the_task() {
    let user = |template: Value| {
        let rendered = world().with_template(template).render();
        init_container(&rendered, "uplink")["securityContext"]["runAsUser"].clone()
    };
    let task = |user: u64| json!([{ "name": "task", "securityContext": { "runAsUser": user } }]);
    assert_eq!(user(json!({})), Value::Null);
    assert_eq!(
        user(json!({ "spec": { "securityContext": { "runAsUser": 0 } } })),
        65532
    );
    assert_eq!(user(json!({ "spec": { "containers": task(1000) } })), 1000);
    assert_eq!(
        user(json!({ "spec": { "containers": task(0) } })),
        Value::Null
    );
}

#[test]
fn requests_are_those_of_the_whole_pod_and_stay_on_the_job() {
    let template = json!({ "spec": { "containers": [
        { "name": "task", "resources": { "limits": { "nvidia.com/gpu": 2, "cpu": "1" } } },
    ] } });
    let rendered = world().with_template(template).render();
    assert_eq!(
        rendered.requests.to_annotation(),
        "cpu=1010m,ephemeral-storage=64Mi,memory=64Mi,nvidia.com/gpu=2"
    );
    assert_eq!(requests_of(&rendered.job), Some(rendered.requests));
}

#[test]
fn the_template_hash_follows_what_is_written() {
    let hash = |template| {
        world()
            .with_template(template)
            .check()
            .unwrap()
            .hash()
            .to_owned()
    };
    assert_eq!(hash(json!({ "spec": {} })), hash(json!({ "spec": {} })));
    assert_ne!(
        hash(json!({ "spec": {} })),
        hash(json!({ "spec": { "hostNetwork": true } }))
    );
}

#[test]
fn the_pod_for_the_dry_run_is_that_of_the_job() {
    let rendered = world().render();
    let dry = dry_run_pod(&rendered);
    assert_eq!(dry["kind"], "Pod");
    assert_eq!(&dry["spec"], pod(&rendered));
    assert_eq!(dry["metadata"]["namespace"], "ml");
    assert_eq!(dry["metadata"]["labels"]["trainyard.dev/task"], TASK);
}

#[test]
fn each_error_of_a_template_names_its_field() {
    let spec = |spec: Value| json!({ "spec": spec });
    let task = |fields: Value| {
        let mut container = fields;
        container["name"] = json!("task");
        json!({ "spec": { "containers": [container] } })
    };
    let cases = [
        (json!([]), "spec.template: must be an object, not a list"),
        (
            json!({ "specs": {} }),
            "spec.template.specs: is not part of a pod template, which has metadata and spec",
        ),
        (
            spec(json!("x")),
            "spec.template.spec: must be an object, not a text",
        ),
        (
            spec(json!({ "containers": [] })),
            "spec.template.spec.containers: at least one container must be given, or none of this field",
        ),
        (
            spec(json!({ "containers": [{ "name": "a" }, { "name": "b" }] })),
            "spec.template.spec.containers: no container is named \"task\", and there are 2; \
             name the one that runs the experiment \"task\"",
        ),
        (
            spec(json!({ "containers": [{ "image": "a" }] })),
            "spec.template.spec.containers[0].name: must be given",
        ),
        (
            spec(json!({ "containers": [{ "name": "task" }, { "name": "uplink" }] })),
            "spec.template.spec.containers[1].name: \"uplink\" is the name of a container of the executor; choose another",
        ),
        (
            spec(json!({ "volumes": [{ "name": "trainyard" }] })),
            "spec.template.spec.volumes[0].name: \"trainyard\" is the name of a volume of the executor; choose another",
        ),
        (
            spec(json!({ "restartPolicy": "Always" })),
            "spec.template.spec.restartPolicy: must be Never or absent, not \"Always\": each attempt is a Job of its own",
        ),
        (
            spec(json!({ "terminationGracePeriodSeconds": "30s" })),
            "spec.template.spec.terminationGracePeriodSeconds: must be a whole number, 0 or more",
        ),
        (
            json!({ "metadata": { "labels": { "trainyard.dev/task": "x" } } }),
            "spec.template.metadata.labels.trainyard.dev/task: keys that begin with trainyard.dev/ are the controller's own",
        ),
        (
            json!({ "metadata": { "annotations": { "a": 1 } } }),
            "spec.template.metadata.annotations.a: must be a text; put numbers and true or false in quotes",
        ),
        (
            task(json!({ "env": [{ "name": "TRAINYARD_X", "value": "" }] })),
            "spec.template.spec.containers[0].env[0].name: \"TRAINYARD_X\" begins with TRAINYARD_, \
             as the executor's own variables do; choose another",
        ),
        (
            task(json!({ "env": { "A": "b" } })),
            "spec.template.spec.containers[0].env: must be a list, not an object",
        ),
        (
            task(json!({ "volumeMounts": [{ "name": "d", "mountPath": "/trainyard/code" }] })),
            "spec.template.spec.containers[0].volumeMounts[0].mountPath: \"/trainyard/code\" is in /trainyard, \
             which is the executor's own; choose another",
        ),
        (
            task(json!({ "image": 3 })),
            "spec.template.spec.containers[0].image: must be a text",
        ),
        (
            spec(json!({ "affinity": { "nodeAffinity": [] } })),
            "spec.template.spec.affinity.nodeAffinity: must be an object, not a list",
        ),
    ];
    for (template, expected) in cases {
        assert_eq!(world().with_template(template).error(), expected);
    }
}

#[test]
fn without_any_image_the_template_is_refused() {
    let spec = world().spec();
    let errors = Template::check(Source::BuiltIn, None, &spec, None).unwrap_err();
    let text = errors[0].to_string();
    assert!(
        text.starts_with("spec.template.spec.containers[0].image: no image is given"),
        "{text}"
    );
}

#[test]
fn two_service_accounts_contradict_each_other() {
    let world = world()
        .with_template(json!({ "spec": { "serviceAccountName": "a" } }))
        .with_spec("identity", json!({ "serviceAccountName": "b" }));
    assert_eq!(
        world.error(),
        "spec.identity.serviceAccountName: \"b\" contradicts \"a\" in spec.template.spec.serviceAccountName; give one of them"
    );
}

#[test]
fn a_template_of_a_config_map_is_named_by_it() {
    let value = parse_yaml("apiVersion: v1\nkind: Pod\nspec: {restartPolicy: Always}\n").unwrap();
    let source = Source::ConfigMap {
        name: "templates",
        key: "gpu.yaml",
        value: &value,
    };
    let errors = Template::check(source, None, &world().spec(), Some("python:3.12")).unwrap_err();
    let text = errors[0].to_string();
    let expected = "spec.templateRef (ConfigMap \"templates\", key \"gpu.yaml\"): template.spec.restartPolicy: must be";
    assert!(text.starts_with(expected), "{text}");
}

#[test]
fn yaml_of_a_template_agrees_with_kubectl() {
    let value = parse_yaml("spec: {mode: 0755, on: yes, name: 'no'}").unwrap();
    assert_eq!(
        value,
        json!({ "spec": { "mode": 493, "on": true, "name": "no" } })
    );
}

#[test]
fn bad_yaml_is_one_sentence_with_the_line() {
    for yaml in ["a: 1\nb: [", "a: 1\na: 2\n", "- a\nb: c"] {
        let error = parse_yaml(yaml).unwrap_err();
        assert!(error.contains("line"), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn what_a_task_asks_for_is_in_its_pod_and_what_is_refused_is_told() {
    let section = |items: &[(&str, &str)]| {
        let items: serde_json::Map<String, Value> = items
            .iter()
            .map(|(name, value)| ((*name).to_owned(), json!({ "name": name, "value": value })))
            .collect();
        Value::Object(items)
    };
    let mut world = world()
        .with_template(json!({ "spec": { "containers": [
            { "name": "task", "resources": { "limits": { "nvidia.com/gpu": 1 } } },
        ] } }))
        .with_spec(
            "overrides",
            json!({
                "containerArguments": ["shm-size", "ipc", "user", "env"],
                "resources": { "max": { "nvidia.com/gpu": 4, "memory": "64Gi" } },
                "tolerations": ["dedicated"], "priorityClass": ["high"], "nodeSelector": ["pool"],
            }),
        )
        .with_container(
            json!({ "arguments": "--ipc=host --shm-size 8g -u 1000 --privileged -v /:/host" }),
        );
    world.task["hyperparams"] = json!({ "Kubernetes": section(&[
        ("resources/nvidia.com/gpu", "2"), ("resources/memory", "32Gi"), ("tolerations/dedicated", ""),
        ("priorityClass", "high"), ("nodeSelector/pool", "a100"),
    ]) });
    let rendered = world.render();
    let spec = pod(&rendered);
    assert_eq!(spec["hostIPC"], true);
    assert_eq!(spec["priorityClassName"], "high");
    assert_eq!(spec["nodeSelector"], json!({ "pool": "a100" }));
    assert_eq!(
        spec["tolerations"],
        json!([{ "key": "dedicated", "operator": "Exists" }])
    );
    let task = &spec["containers"][0];
    assert_eq!(
        task["resources"],
        json!({ "limits": { "nvidia.com/gpu": "2", "memory": "32Gi" }, "requests": { "memory": "32Gi" } })
    );
    assert_eq!(task["securityContext"], json!({ "runAsUser": 1000 }));
    // Ours share the user's number, and what is asked for counts against the limits.
    assert_eq!(
        init_container(&rendered, "uplink")["securityContext"]["runAsUser"],
        1000
    );
    assert_eq!(
        rendered.requests.to_annotation(),
        "cpu=50m,ephemeral-storage=64Mi,memory=32792Mi,nvidia.com/gpu=2"
    );
    let flags: Vec<&str> = rendered
        .notes
        .iter()
        .map(|note| note.split(' ').nth(2).unwrap())
        .collect();
    assert_eq!(flags, ["--privileged", "--volume"]);
}

#[test]
fn a_setup_script_of_a_task_is_the_executors_to_run_and_never_in_the_job() {
    let asking = || world().with_container(json!({ "setup_shell_script": "echo canary" }));
    let allowed = asking()
        .with_spec("overrides", json!({ "setupScript": true }))
        .render();
    assert_eq!(allowed.notes, Vec::<String>::new());
    let task = &pod(&allowed)["containers"][0];
    assert_eq!(
        variable(task, "TRAINYARD_TASK_SETUP_SCRIPT")["value"],
        "allow"
    );
    assert!(!allowed.job.to_string().contains("canary"));
    let refused = asking().render();
    assert!(
        refused.notes[0].contains("overrides.setupScript"),
        "{:?}",
        refused.notes
    );
    assert!(
        !refused
            .job
            .to_string()
            .contains("TRAINYARD_TASK_SETUP_SCRIPT")
    );
}

#[test]
fn a_patch_of_a_queue_is_merged_and_changes_the_hash() {
    let plain = world()
        .with_template(json!({ "spec": { "containers": [{ "name": "task", "image": "a" }] } }));
    let hash = plain.check().unwrap().hash().to_owned();
    let patched = plain.with_spec("queues", json!([{ "name": "gpu", "templatePatch": {
        "metadata": { "labels": { "tier": "high" } },
        "spec": { "containers": [{ "name": "task", "resources": { "limits": { "nvidia.com/gpu": 4 } } }] },
    } }]));
    assert_ne!(patched.check().unwrap().hash(), hash);
    let rendered = patched.render();
    assert_eq!(pod(&rendered)["containers"][0]["image"], "a");
    assert_eq!(
        pod(&rendered)["containers"][0]["resources"]["limits"]["nvidia.com/gpu"],
        4
    );
    assert_eq!(
        rendered.job["spec"]["template"]["metadata"]["labels"]["tier"],
        "high"
    );
}

#[test]
fn an_error_of_a_patch_names_it() {
    let world = world().with_spec(
        "queues",
        json!([{ "name": "gpu", "templatePatch": {
        "spec": { "restartPolicy": "Always" },
    } }]),
    );
    assert_eq!(
        world.error(),
        "spec.queues[0].templatePatch over spec.template.spec.restartPolicy: must be Never or absent, not \"Always\": \
         each attempt is a Job of its own"
    );
}

#[test]
fn s29_each_field_has_its_origin() {
    let container = json!({
        "name": "task", "image": "python:3.12", "env": [{ "name": "TEAM", "value": "vision" }],
        "resources": { "limits": { "cpu": "1", "memory": "1Gi" } },
    });
    let patch = json!({ "spec": {
        "nodeSelector": { "pool": "a" },
        "containers": [{ "name": "task", "resources": { "limits": { "memory": "2Gi" } } }],
    } });
    let world = world()
        .with_template(json!({
            "metadata": { "labels": { "team": "vision" } },
            "spec": { "containers": [container], "imagePullSecrets": [{ "name": "pull" }], "tolerations": [{ "key": "gpu" }] },
        }))
        .with_spec("queues", json!([{ "name": "gpu", "templatePatch": patch }]))
        .with_spec("job", json!({ "labels": { "cost": "a" }, "activeDeadlineSeconds": 60 }))
        .with_spec("overrides", json!({ "containerArguments": ["env"] }))
        .with_container(json!({ "arguments": "-e SEED=7 --privileged" }));
    let fields = world.with_inputs(|inputs| {
        let patch = inputs.spec.queues[0].template_patch.as_ref();
        let rendered = render(inputs).with_requeues(1);
        origins(&rendered.job, inputs, patch)
    });
    let pod = "spec.template.spec";
    for (path, value, origin) in [
        (
            "metadata.name",
            json!(format!("ty-{TASK}-1")),
            Origin::Trainyard,
        ),
        ("metadata.labels.cost", json!("a"), Origin::BindingJob),
        (
            "metadata.labels[\"trainyard.dev/task\"]",
            json!(TASK),
            Origin::Trainyard,
        ),
        (
            "metadata.annotations[\"trainyard.dev/requeues\"]",
            json!("1"),
            Origin::Trainyard,
        ),
        ("spec.activeDeadlineSeconds", json!(60), Origin::BindingJob),
        (
            "spec.template.metadata.labels.team",
            json!("vision"),
            Origin::Template,
        ),
        ("POD.nodeSelector.pool", json!("a"), Origin::QueuePatch),
        (
            "POD.imagePullSecrets[pull].name",
            json!("pull"),
            Origin::Template,
        ),
        (
            "POD.tolerations[0]",
            json!({ "key": "gpu" }),
            Origin::Template,
        ),
        ("POD.restartPolicy", json!("Never"), Origin::Trainyard),
        (
            "POD.containers[task].image",
            json!("python:3.12"),
            Origin::Template,
        ),
        (
            "POD.containers[task].resources.limits.cpu",
            json!("1"),
            Origin::Template,
        ),
        (
            "POD.containers[task].resources.limits.memory",
            json!("2Gi"),
            Origin::QueuePatch,
        ),
        (
            "POD.containers[task].env[TEAM].value",
            json!("vision"),
            Origin::Template,
        ),
        (
            "POD.containers[task].env[SEED].value",
            json!("7"),
            Origin::Task,
        ),
    ] {
        let path = path.replace("POD", pod);
        let told: Vec<_> = fields.iter().filter(|field| field.path == path).collect();
        assert_eq!(told.len(), 1, "{path}: {told:?}");
        assert_eq!((&told[0].value, told[0].origin), (&value, origin), "{path}");
    }
    // What the task asks for and does not get is told by the pod, for the task's sake.
    let notes = fields
        .iter()
        .find(|field| field.value.to_string().contains("--privileged"));
    assert_eq!(notes.map(|field| field.origin), Some(Origin::Task));
    // The names of items stand in their paths.
    assert!(
        !fields
            .iter()
            .any(|field| field.path.ends_with("[task].name"))
    );
}

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
