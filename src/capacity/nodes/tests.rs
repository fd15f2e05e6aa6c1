use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn node(name: &str, labels: &Value, taints: &Value, allocatable: &Value) -> Node {
    let object = json!({
        "metadata": { "name": name, "labels": labels },
        "spec": { "taints": taints },
        "status": { "allocatable": allocatable },
    });
    Node::of(&serde_json::from_value(object).unwrap())
}

fn plain(name: &str, gpus: u32) -> Node {
    node(
        name,
        &json!({}),
        &json!([]),
        &json!({ "cpu": "8", "nvidia.com/gpu": gpus.to_string(), "pods": "110" }),
    )
}

fn gpus(count: u32, spec: Value) -> Placement {
    let mut spec = spec;
    spec["containers"] = json!([{ "resources": { "limits": { "nvidia.com/gpu": count } } }]);
    Placement::of(&spec)
}

fn free(nodes: &[Node]) -> Free {
    Free::of(nodes.iter().cloned())
}

#[test]
fn room_is_looked_for_node_by_node_not_in_the_sum() {
    let mut free = free(&[plain("a", 4), plain("b", 4)]);
    free.bind(
        "a",
        &Resources::from_annotation("nvidia.com/gpu=2").unwrap(),
    );
    assert_eq!(free.fits(&gpus(4, json!({}))), Ok(()));
    assert!(free.occupy(&gpus(4, json!({}))));
    let why = free.fits(&gpus(3, json!({}))).unwrap_err();
    assert_eq!(
        why.to_string(),
        "waiting for room on a node: 2 of 2 have not enough nvidia.com/gpu (capacity FreeResources)"
    );
    assert_eq!(free.fits(&gpus(2, json!({}))), Ok(()));
}

#[test]
fn selectors_affinity_and_taints_keep_a_pod_off() {
    let gpu = node(
        "g",
        &json!({ "pool": "gpu", "size": "8" }),
        &json!([{ "key": "dedicated", "value": "ml", "effect": "NoSchedule" }]),
        &json!({ "cpu": "8", "nvidia.com/gpu": "4", "pods": "10" }),
    );
    let free = free(&[gpu, plain("p", 0)]);
    let tolerating = |rest: Value| {
        let mut spec = rest;
        spec["tolerations"] = json!([{ "key": "dedicated", "operator": "Exists" }]);
        gpus(1, spec)
    };
    let why = free.fits(&gpus(1, json!({}))).unwrap_err();
    assert_eq!(
        why.to_string(),
        "waiting for room on a node: 1 of 2 have not enough nvidia.com/gpu, 1 of 2 have the taint dedicated (capacity FreeResources)"
    );
    assert_eq!(
        free.fits(&tolerating(json!({ "nodeSelector": { "pool": "gpu" } }))),
        Ok(())
    );
    assert!(
        free.fits(&tolerating(json!({ "nodeSelector": { "pool": "cpu" } })))
            .is_err()
    );
    let required = |terms: Value| {
        json!({ "affinity": { "nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": terms } } } })
    };
    let term = |key: &str, operator: &str, values: Value| {
        json!([{ "matchExpressions": [
        { "key": key, "operator": operator, "values": values } ] }])
    };
    for (terms, fits) in [
        (term("pool", "In", json!(["gpu", "other"])), true),
        (term("pool", "NotIn", json!(["gpu"])), false),
        (term("missing", "NotIn", json!(["x"])), true),
        (term("pool", "Exists", json!(null)), true),
        (term("pool", "DoesNotExist", json!(null)), false),
        (term("size", "Gt", json!(["7"])), true),
        (term("size", "Lt", json!(["8"])), false),
        (term("size", "Around", json!(["8"])), false),
        (json!([{}]), false),
        (
            json!([{}, { "matchFields": [{ "key": "metadata.name", "operator": "In", "values": ["g"] }] }]),
            true,
        ),
    ] {
        assert_eq!(
            free.fits(&tolerating(required(terms.clone()))).is_ok(),
            fits,
            "{terms}"
        );
    }
}

#[test]
fn a_cordoned_node_takes_nothing_new() {
    let object = json!({ "metadata": { "name": "a" }, "spec": { "unschedulable": true },
        "status": { "allocatable": { "cpu": "8", "pods": "10" } } });
    let free = free(&[Node::of(&serde_json::from_value(object).unwrap())]);
    assert!(free.fits(&Placement::of(&json!({}))).is_err());
}

#[test]
fn the_number_of_pods_of_a_node_is_a_limit_too() {
    let mut free = free(&[node(
        "a",
        &json!({}),
        &json!([]),
        &json!({ "cpu": "8", "pods": "2" }),
    )]);
    free.bind("a", &Resources::default());
    assert!(free.occupy(&Placement::of(&json!({}))));
    assert!(
        free.fits(&Placement::of(&json!({})))
            .unwrap_err()
            .to_string()
            .contains("not enough pods")
    );
}

#[test]
fn without_nodes_that_is_said() {
    assert!(
        free(&[])
            .fits(&Placement::default())
            .unwrap_err()
            .to_string()
            .contains("the cluster has none")
    );
}

proptest! {
    #[test]
    fn what_is_occupied_never_exceeds_a_node(
        nodes in proptest::collection::vec(0_u32..9, 1..5), pods in proptest::collection::vec(1_u32..5, 0..30),
    ) {
        let mut free = free(&nodes.iter().enumerate().map(|(i, n)| plain(&i.to_string(), *n)).collect::<Vec<_>>());
        let mut placed = 0;
        for pod in pods {
            let pod_placement = gpus(pod, json!({}));
            let fits = free.fits(&pod_placement).is_ok();
            prop_assert_eq!(fits, free.occupy(&pod_placement));
            placed += if fits { pod } else { 0 };
        }
        prop_assert!(placed <= nodes.iter().sum());
        for (_, left) in &free.nodes {
            prop_assert!(left.get("nvidia.com/gpu") >= Quantity::default());
        }
    }
}
