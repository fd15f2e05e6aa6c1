//! What each of the three containers gets, and what is kept from it.

use super::*;

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
fn the_spool_is_a_volume_with_a_limit_that_all_three_share() {
    let rendered = world().render();
    let volumes = pod(&rendered)["volumes"].as_array().unwrap();
    let limited: Vec<&Value> = volumes
        .iter()
        .filter(|volume| volume["emptyDir"]["sizeLimit"].is_string())
        .collect();
    assert_eq!(
        limited,
        [&json!({ "name": "trainyard-spool", "emptyDir": { "sizeLimit": "16Gi" } })],
        "code and environment are the user's"
    );
    for container in [
        init_container(&rendered, "prepare"),
        init_container(&rendered, "uplink"),
        &pod(&rendered)["containers"][0],
    ] {
        let mounts = container["volumeMounts"].as_array().unwrap();
        let mount = json!({ "name": "trainyard-spool", "mountPath": "/trainyard/spool" });
        assert!(mounts.contains(&mount), "{}", container["name"]);
    }
}

#[test]
fn the_disk_of_ours_is_limited_on_top_of_others_and_never_alone() {
    let storage = |template: Value| {
        let rendered = world().with_template(template).render();
        ["prepare", "uplink"].map(|name| {
            let resources = &init_container(&rendered, name)["resources"];
            assert_eq!(resources["requests"]["ephemeral-storage"], "128Mi");
            resources["limits"]["ephemeral-storage"].clone()
        })
    };
    let limited = |name: &str| json!({ "name": name, "image": "i:1", "resources": { "limits": { "ephemeral-storage": "5Gi" } } });
    let none = [Value::Null, Value::Null];
    let both = [json!("17Gi"), json!("17Gi")];
    assert_eq!(storage(json!({})), none);
    let of_task = json!({ "spec": { "containers": [limited("task")] } });
    assert_eq!(storage(of_task), both);
    let task = json!({ "name": "task" });
    let of_another = json!({ "spec": { "containers": [task, limited("proxy")] } });
    assert_eq!(storage(of_another), both);
    let of_init = json!({ "spec": { "initContainers": [limited("fetch")], "containers": [task] } });
    assert_eq!(storage(of_init), both);
    // What a task asks for counts like what the template has.
    let mut world = world().with_spec(
        "overrides",
        json!({ "resources": { "max": { "ephemeral-storage": "100Gi" } } }),
    );
    let name = "resources/ephemeral-storage";
    world.task["hyperparams"] = json!({ "Kubernetes": { name: {
        "section": "Kubernetes", "name": name, "value": "50Gi",
    } } });
    let rendered = world.render();
    assert_eq!(
        pod(&rendered)["containers"][0]["resources"]["limits"]["ephemeral-storage"],
        "50Gi"
    );
    assert_eq!(
        init_container(&rendered, "uplink")["resources"]["limits"]["ephemeral-storage"],
        "17Gi"
    );
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
fn scripts_of_the_binding_reach_the_executor_as_they_are_written() {
    let scripts = json!({ "setupScript": "echo $(date)", "postScript": "echo $HOME" });
    let rendered = world().with_spec("environment", scripts).render();
    let task = &pod(&rendered)["containers"][0];
    // Kubernetes makes one sign of two.
    for (name, value) in [
        ("TRAINYARD_SETUP_SCRIPT", "echo $$(date)"),
        ("TRAINYARD_POST_SCRIPT", "echo $$HOME"),
    ] {
        assert_eq!(variable(task, name)["value"], value);
    }
    assert!(
        !world()
            .render()
            .job
            .to_string()
            .contains("TRAINYARD_POST_SCRIPT")
    );
}
