//! Keys of environments, and the nodes that hold them.

use super::*;
use crate::pod::annotation;

fn cached(requirements: &Value) -> World {
    let mut world = world().with_spec(
        "environment",
        json!({ "cache": { "hostPath": "/var/cache/trainyard" } }),
    );
    world.task["script"] = json!({
        "binary": "python3", "repository": "https://git/train.git", "version_num": "c0ffee",
        "requirements": requirements,
    });
    world
}

fn key(world: &World) -> Option<EnvironmentKey> {
    world.with_inputs(|inputs| EnvironmentKey::of(inputs.template, inputs.spec, inputs.task))
}

fn preferred(rendered: &Rendered) -> Vec<Value> {
    let affinity = &pod(rendered)["affinity"]["nodeAffinity"];
    let terms = &affinity["preferredDuringSchedulingIgnoredDuringExecution"];
    terms.as_array().cloned().unwrap_or_default()
}

fn term(weight: u32, operator: &str, node: &str) -> Value {
    let field = json!({ "key": "metadata.name", "operator": operator, "values": [node] });
    json!({ "weight": weight, "preference": { "matchFields": [field] } })
}

#[test]
fn a_job_carries_the_key_of_its_environment_where_nodes_differ_in_what_they_hold() {
    let world = cached(&json!({ "pip": "six\n" }));
    let key = key(&world).unwrap().to_string();
    let rendered = world.render();
    assert_eq!(
        rendered.job["metadata"]["annotations"][annotation::ENVIRONMENT],
        key
    );
    let (alike, exact) = EnvironmentKey::parts(&key).unwrap();
    assert_eq!((alike.len(), exact.len()), (10, 10));
    for cache in [
        json!({}),
        json!({ "claimName": "cache" }),
        json!({ "ahead": 2 }),
    ] {
        let environment = json!({ "cache": cache });
        let other = cached(&json!({})).with_spec("environment", environment);
        assert!(!key_is_there(&other.render()), "{cache}");
    }
    let ahead = json!({ "cache": { "claimName": "cache", "ahead": 1 } });
    let other = cached(&json!({})).with_spec("environment", ahead);
    assert!(key_is_there(&other.render()));
    assert!(
        !key_is_there(&world.render_own(None)),
        "the image's own command runs with none"
    );
}

fn key_is_there(rendered: &Rendered) -> bool {
    rendered.job["metadata"]["annotations"][annotation::ENVIRONMENT].is_string()
}

#[test]
fn tasks_that_list_the_same_are_alike_whatever_version_they_run() {
    let one = cached(&json!({ "pip": "six\n" }));
    let mut other = cached(&json!({ "pip": "six\n" }));
    other.task["script"]["version_num"] = json!("decaf");
    let (one, other) = (key(&one).unwrap(), key(&other).unwrap());
    assert_eq!(one.alike, other.alike);
    assert_ne!(
        one.exact, other.exact,
        "a lock of the repository may differ"
    );
    // What was installed is written back, beside what was asked for.
    let again = json!({ "pip": ["six==1.17.0"], "conda": "", "org_pip": "six\n" });
    assert_eq!(key(&cached(&again)).unwrap().alike, one.alike);
    assert_ne!(
        key(&cached(&json!({ "pip": "attrs\n" }))).unwrap().alike,
        one.alike
    );
}

#[test]
fn without_a_list_the_commit_decides_and_the_image_always_does() {
    let one = cached(&json!({ "pip": " " }));
    let mut other = cached(&json!({}));
    assert_eq!(key(&one).unwrap().alike, key(&other).unwrap().alike);
    other.task["script"]["version_num"] = json!("decaf");
    assert_ne!(key(&one).unwrap().alike, key(&other).unwrap().alike);
    let image = json!({ "spec": { "containers": [{ "name": "task", "image": "other:1" }] } });
    let elsewhere = cached(&json!({})).with_template(image);
    assert_ne!(key(&one).unwrap().alike, key(&elsewhere).unwrap().alike);
}

#[test]
fn nodes_that_hold_the_environment_are_preferred_beside_what_the_template_prefers() {
    let own = json!({ "weight": 1, "preference": { "matchExpressions": [] } });
    let template = json!({ "spec": { "affinity": { "nodeAffinity": {
        "preferredDuringSchedulingIgnoredDuringExecution": [own],
    } } } });
    let mut world = cached(&json!({})).with_template(template);
    assert_eq!(preferred(&world.render()), std::slice::from_ref(&own));
    world.holding_nodes = vec!["node-1".into(), "node-2".into()];
    assert_eq!(
        preferred(&world.render()),
        [own, term(50, "In", "node-1"), term(50, "In", "node-2")]
    );
    let rendered = world.render();
    let affinity = &pod(&rendered)["affinity"]["nodeAffinity"];
    assert_eq!(
        affinity["requiredDuringSchedulingIgnoredDuringExecution"],
        Value::Null
    );
}

#[test]
fn a_node_of_an_earlier_attempt_is_avoided_even_if_it_holds_the_environment() {
    let mut world = cached(&json!({}));
    world.avoid_nodes = vec!["node-1".into()];
    world.holding_nodes = vec!["node-1".into(), "node-2".into()];
    assert_eq!(
        preferred(&world.render()),
        [term(100, "NotIn", "node-1"), term(50, "In", "node-2")]
    );
    world.spec["lifecycle"] = json!({ "avoidSameNode": false });
    assert_eq!(
        preferred(&world.render()),
        [term(50, "In", "node-1"), term(50, "In", "node-2")]
    );
}

/// Of nodes that were tried none is worth more than another, however many there are.
#[test]
fn nodes_of_earlier_attempts_are_avoided_together() {
    let mut world = world();
    world.avoid_nodes = vec!["node-1".into(), "node-2".into()];
    let fields = ["node-1", "node-2"]
        .map(|node| json!({ "key": "metadata.name", "operator": "NotIn", "values": [node] }));
    assert_eq!(
        preferred(&world.render()),
        [json!({ "weight": 100, "preference": { "matchFields": fields } })]
    );
}

#[test]
fn no_more_nodes_are_named_than_a_scheduler_can_take() {
    let mut world = cached(&json!({}));
    world.holding_nodes = (0..50).map(|number| format!("node-{number}")).collect();
    assert_eq!(preferred(&world.render()).len(), 8);
}
