//! S59: two namespaces, two servers, three bindings. Each uses the keys of its own namespace, and a dead server is the
//! trouble of its own bindings alone. (What one binding's `overrides` refuse and another's allow: `s14_overrides`.)

use serde_json::{Value, json};

use super::played::{Part, Player};
use super::s1_first_task::install_rights;
use super::second::ControlPlane;
use super::taken::taken;
use super::world::{World, wait};

fn condition(world: &World, binding: &str, kind: &str, status: &str) -> Option<()> {
    (world.condition(binding, kind)["status"] == status).then_some(())
}

/// The Secret that the pod of this task takes its keys from.
fn secret_of(world: &World, task: &str) -> Value {
    let job = world.job_of(task);
    let variables = job["spec"]["template"]["spec"]["containers"][0]["env"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    variables
        .iter()
        .find(|variable| variable["name"] == "CLEARML_API_SECRET_KEY")
        .map_or(Value::Null, |variable| {
            variable["valueFrom"]["secretKeyRef"]["name"].clone()
        })
}

#[test]
fn s59_each_tenant_has_its_own_keys_and_a_dead_server_is_the_trouble_of_its_bindings_alone() {
    let mut one = World::new("s59one");
    let mut two = World::new("s59two");
    one.start_controller();
    two.start_controller();
    one.queue("near");
    two.queue("far");
    two.queue("home");
    one.apply(&json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys-of-two"},
        "stringData": {"access_key": two.key, "secret_key": two.secret},
    }));
    let server_of_two = json!({"server": {
        "apiUrl": two.url, "webUrl": two.url, "filesUrl": format!("{}/files", two.url),
        "credentialsSecretRef": {"name": "keys-of-two"},
    }});
    one.bind("near", &["near"], &json!({}));
    one.bind("far", &["far"], &server_of_two);
    two.bind("home", &["home"], &json!({}));
    // This Secret is in the other namespace, which is no business of this one.
    two.bind("thief", &["home"], &server_of_two);

    let near = one.run("near", "print('near')\n", "near");
    let far = two.run("far", "print('far')\n", "far");
    let home = two.run("home", "print('home')\n", "home");
    for (world, task) in [(&one, &near), (&two, &far), (&two, &home)] {
        assert_eq!(world.until_ended(task, 120)["status"], "completed");
    }
    assert_eq!(secret_of(&one, &near), "clearml-credentials");
    assert_eq!(secret_of(&one, &far), "keys-of-two");
    assert_eq!(secret_of(&two, &home), "clearml-credentials");
    wait("the Secret of another namespace is not there", 60, || {
        condition(&two, "thief", "CredentialsValid", "False")
    });
    let told = two.condition("thief", "CredentialsValid")["message"].to_string();
    assert!(
        told.contains("keys-of-two") && told.contains(&two.namespace),
        "{told}"
    );

    two.kill_server();
    for (world, binding) in [(&one, "far"), (&two, "home")] {
        wait("its server is away", 60, || {
            condition(world, binding, "ServerReachable", "False")
        });
    }
    let after = one.run("after", "print('still here')\n", "near");
    assert_eq!(one.until_ended(&after, 90)["status"], "completed");
    assert_eq!(one.condition("near", "Ready")["status"], "True");
    two.start_server();
    for (world, binding) in [(&one, "far"), (&two, "home")] {
        wait("its server is back", 90, || {
            condition(world, binding, "ServerReachable", "True")
        });
    }
    let again = two.run("again", "print('far again')\n", "far");
    assert_eq!(two.until_ended(&again, 90)["status"], "completed");
}

/// On a control plane of its own: a controller that looks into all namespaces would serve those of other scenarios too.
#[test]
fn s59_one_controller_for_a_whole_cluster_serves_each_tenant_with_the_keys_of_its_namespace() {
    let first = World::new("s59red");
    let mut other = World::new("s59blue");
    let second = ControlPlane::start(&first.place);
    let tenant = |world: &World, name: &str| {
        let namespace = format!("{}-{name}", world.namespace);
        world.neighbour(&namespace, &second.kubeconfig)
    };
    let mut system = tenant(&first, "system");
    let (red, blue) = (tenant(&first, "red"), tenant(&other, "blue"));
    // The rights that the chart gives, and no other.
    install_rights(&system, &json!({"rbac": {"scope": "cluster"}}));
    let account = format!("--as=system:serviceaccount:{}:trainyard", system.namespace);
    let may = |verb: &str, what: &str| {
        let question = ["auth", "can-i", verb, what, "-A", &account];
        system.try_kubectl(&question).is_ok()
    };
    wait("the rights are given", 30, || {
        may("create", "jobs.batch").then_some(())
    });
    assert!(!may("list", "secrets"));
    let limited = system.kubeconfig_of("trainyard");
    for (name, value) in [
        ("KUBECONFIG", limited.as_str()),
        ("TRAINYARD_SCOPE", "cluster"),
    ] {
        let variable = (name.to_owned(), value.to_owned());
        system.environment.push(variable);
    }
    system.start_controller();

    let patch = ControlPlane::binding_patch();
    let mut players = Vec::new();
    for tenant in [&red, &blue] {
        tenant.queue("gpu");
        tenant.bind("gpu", &["gpu"], &patch);
        let player = Player::start(tenant, &second.kubeconfig, |_, _| Part::Completes(300));
        players.push(player);
    }
    let tasks = [&red, &blue].map(|tenant| {
        tenant.until_ready("gpu");
        tenant.run("own", "print('never')\n", "gpu")
    });
    for (tenant, task) in [&red, &blue].into_iter().zip(&tasks) {
        assert_eq!(tenant.until_ended(task, 120)["status"], "completed");
        assert_eq!(taken(tenant), [task.clone()].into(), "its own task alone");
    }
    assert!(system.jobs().is_empty());

    // The keys of another tenant are no business of this one.
    red.apply(&json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys-of-red"},
        "stringData": {"access_key": red.key, "secret_key": red.secret},
    }));
    let theirs =
        json!({"server": {"apiUrl": red.url, "credentialsSecretRef": {"name": "keys-of-red"}}});
    blue.bind("thief", &["gpu"], &theirs);
    wait("the Secret of another namespace is not there", 60, || {
        let condition = blue.condition("thief", "CredentialsValid");
        (condition["reason"] == "SecretMissing").then_some(())
    });

    other.kill_server();
    wait("the server of one tenant is away", 60, || {
        condition(&blue, "gpu", "ServerReachable", "False")
    });
    let after = red.run("after", "print('never')\n", "gpu");
    assert_eq!(red.until_ended(&after, 120)["status"], "completed");
    assert_eq!(red.condition("gpu", "Ready")["status"], "True");
    other.start_server();
    wait("it is back", 90, || {
        condition(&blue, "gpu", "ServerReachable", "True")
    });
    let again = blue.run("again", "print('never')\n", "gpu");
    assert_eq!(blue.until_ended(&again, 120)["status"], "completed");
    let runs: usize = players.iter().map(|player| player.runs().len()).sum();
    assert_eq!(runs, 4, "each ran once");
}
