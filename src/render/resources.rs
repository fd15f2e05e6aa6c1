//! What a pod requests of its node, as the scheduler sums it up.
//!
//! Source: Kubernetes, "Resource sharing within containers": the larger of what all containers and sidecars need
//! together and what any init container needs with the sidecars started before it; plus the overhead; what the pod
//! says for itself as a whole goes first.

use serde_json::Value;

use super::fields::{at, items, text};
use crate::crd::{Quantity, Resources};

/// How the names begin under which claims of devices are counted: `resourceclaims/<name of the claim or its template>`.
pub const CLAIMS: &str = "resourceclaims/";

/// The effective requests of a pod with this `spec`; an amount that cannot be read counts as none.
pub fn pod_requests(spec: &Value) -> Resources {
    let mut sidecars = Resources::default();
    let mut peak = Resources::default();
    for container in items(spec, &["initContainers"]) {
        let own = requests(container);
        let mut with_sidecars = sidecars.clone();
        with_sidecars.add(&own);
        peak.raise_to(&with_sidecars);
        if text(container, &["restartPolicy"]) == Some("Always") {
            sidecars.add(&own);
        }
    }
    let mut running = sidecars;
    for container in items(spec, &["containers"]) {
        running.add(&requests(container));
    }
    running.raise_to(&peak);
    for (name, amount) in requests(spec).iter() {
        running.set(name, amount);
    }
    running.add(&amounts(at(spec, &["overhead"])));
    for claim in items(spec, &["resourceClaims"]) {
        let name = ["resourceClaimTemplateName", "resourceClaimName"]
            .iter()
            .find_map(|field| text(claim, &[*field]));
        let one = name.map(|name| (format!("{CLAIMS}{name}"), Quantity::whole(1)));
        running.add(&Resources::from_iter(one));
    }
    running
}

/// Requests of one container (or of the pod as a whole); a limit without a request is also the request.
fn requests(owner: &Value) -> Resources {
    let mut requests = amounts(at(owner, &["resources", "limits"]));
    for (name, amount) in amounts(at(owner, &["resources", "requests"])).iter() {
        requests.set(name, amount);
    }
    requests
}

fn amounts(map: Option<&Value>) -> Resources {
    let fields = map.and_then(Value::as_object).into_iter().flatten();
    fields
        .filter_map(|(name, value)| Some((name.clone(), quantity(value)?)))
        .collect()
}

fn quantity(value: &Value) -> Option<Quantity> {
    match value {
        Value::String(text) => text.parse().ok(),
        Value::Number(number) => number.to_string().parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn requested(spec: &Value) -> String {
        pod_requests(spec).to_annotation()
    }

    fn with_cpu(cpu: &str) -> Value {
        json!({ "resources": { "requests": { "cpu": cpu } } })
    }

    fn sidecar_with_cpu(cpu: &str) -> Value {
        json!({ "restartPolicy": "Always", "resources": { "requests": { "cpu": cpu } } })
    }

    #[test]
    fn containers_are_added_up() {
        assert_eq!(
            requested(&json!({ "containers": [with_cpu("1"), with_cpu("500m")] })),
            "cpu=1500m"
        );
    }

    #[test]
    fn init_containers_run_one_after_another() {
        let spec = json!({ "initContainers": [with_cpu("2"), with_cpu("3")], "containers": [with_cpu("1")] });
        assert_eq!(requested(&spec), "cpu=3");
    }

    #[test]
    fn a_sidecar_counts_beside_containers_and_later_init_containers() {
        let spec = json!({
            "initContainers": [with_cpu("5"), sidecar_with_cpu("1"), with_cpu("4500m")],
            "containers": [with_cpu("1")],
        });
        assert_eq!(requested(&spec), "cpu=5500m");
        let spec =
            json!({ "initContainers": [sidecar_with_cpu("1")], "containers": [with_cpu("1")] });
        assert_eq!(requested(&spec), "cpu=2");
    }

    #[test]
    fn a_limit_without_a_request_is_the_request() {
        let container = json!({ "resources": {
            "limits": { "nvidia.com/gpu": 2, "memory": "8Gi" }, "requests": { "memory": "4Gi" },
        } });
        assert_eq!(
            requested(&json!({ "containers": [container] })),
            "memory=4Gi,nvidia.com/gpu=2"
        );
    }

    #[test]
    fn claims_of_devices_are_counted_by_name() {
        let spec = json!({
            "containers": [with_cpu("1")],
            "resourceClaims": [
                { "name": "a", "resourceClaimTemplateName": "one-gpu" },
                { "name": "b", "resourceClaimTemplateName": "one-gpu" },
                { "name": "c", "resourceClaimName": "shared" },
            ],
        });
        assert_eq!(
            requested(&spec),
            "cpu=1,resourceclaims/one-gpu=2,resourceclaims/shared=1"
        );
    }

    #[test]
    fn what_the_pod_says_for_itself_goes_first_and_the_overhead_is_added() {
        let spec = json!({
            "containers": [with_cpu("1")],
            "resources": { "requests": { "cpu": "3" } },
            "overhead": { "cpu": "250m" },
        });
        assert_eq!(requested(&spec), "cpu=3250m");
    }
}
