//! A policy of somebody's own that changes what is created in a scenario's namespace.

use serde_json::json;

use super::world::World;

/// The local cluster serves it because its API server is told to; not every other one does.
const API: &str = "admissionregistration.k8s.io/v1beta1";
const KINDS: [&str; 2] = ["MutatingAdmissionPolicyBinding", "MutatingAdmissionPolicy"];

/// What is created of this resource (its group and its plural) is changed by these JSON patches, a list in CEL. The
/// policy holds once the API server has compiled it.
pub fn install(world: &World, (group, resource): (&str, &str), patches: &str) {
    let name = &world.namespace;
    let [binding, policy] = KINDS;
    world.apply(&json!({
        "apiVersion": API, "kind": policy, "metadata": {"name": name},
        "spec": {
            "matchConstraints": {"resourceRules": [
                {"apiGroups": [group], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": [resource]},
            ]},
            "failurePolicy": "Fail", "reinvocationPolicy": "Never",
            "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": patches}}],
        },
    }));
    world.apply(&json!({
        "apiVersion": API, "kind": binding, "metadata": {"name": name},
        "spec": {
            "policyName": name,
            "matchResources": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}},
        },
    }));
}

/// It belongs to the whole cluster, so it does not go with the namespace.
pub fn remove(world: &World) {
    for kind in KINDS {
        world.kubectl(&["delete", kind, &world.namespace]);
    }
}
