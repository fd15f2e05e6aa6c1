//! Whether a pod goes the way that nearly all go, so that nobody has anything to do about it.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use super::PodRow;
use crate::diagnose;

impl PodRow {
    /// Whether it waits for its turn or simply runs: nothing stands in its way, nothing of it has failed, and nobody has
    /// asked for its end.
    pub(super) fn is_on_its_way(&self) -> bool {
        self.whole.as_deref().is_none_or(waits_for_its_turn)
    }
}

fn waits_for_its_turn(pod: &Pod) -> bool {
    if pod.metadata.deletion_timestamp.is_some() {
        return false;
    }
    let Some(status) = &pod.status else {
        return true;
    };
    let conditions = status.conditions.as_deref().unwrap_or_default();
    let inits = status.init_container_statuses.iter().flatten();
    let mut containers = inits.chain(status.container_statuses.iter().flatten());
    matches!(status.phase.as_deref(), None | Some("Pending"))
        && !conditions
            .iter()
            .any(|known| known.type_ == "DisruptionTarget")
        && !containers.any(has_failed)
        && diagnose::waiting(Some(pod), &[]).is_none()
}

fn has_failed(container: &ContainerStatus) -> bool {
    let state = container.state.as_ref();
    let end = state.and_then(|state| state.terminated.as_ref());
    container.restart_count != 0 || end.is_some_and(|end| end.exit_code != 0)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::controller::row::Row as _;

    fn row(deleted: bool, status: &Value) -> PodRow {
        let pod = json!({
            "metadata": {"deletionTimestamp": deleted.then_some("2026-01-01T00:00:00Z")},
            "spec": {"containers": [{"name": "task", "image": "i"}]},
            "status": status,
        });
        PodRow::of(serde_json::from_value(pod).unwrap())
    }

    fn container(name: &str, state: &Value) -> Value {
        json!([{"name": name, "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state}])
    }

    fn pending(what: &str, value: Value) -> Value {
        let mut status = json!({"phase": "Pending"});
        status[what] = value;
        status
    }

    fn task(phase: &str, state: &Value) -> Value {
        json!({"phase": phase, "containerStatuses": container("task", state)})
    }

    fn scheduled(status: &str) -> Value {
        pending(
            "conditions",
            json!([{"type": "PodScheduled", "status": status, "reason": "Unschedulable"}]),
        )
    }

    fn prepared(exit_code: i32) -> Value {
        let state = json!({"terminated": {"exitCode": exit_code}});
        pending("initContainerStatuses", container("prepare", &state))
    }

    #[test]
    fn a_pod_is_on_its_way_until_something_of_it_fails_or_ends() {
        let waits = |reason: &str| task("Pending", &json!({"waiting": {"reason": reason}}));
        let runs = task("Running", &json!({"running": {}}));
        let ended = json!({"terminated": {"exitCode": 0}});
        for (deleted, status, expected) in [
            (false, Value::Null, true),
            (false, json!({"phase": "Pending"}), true),
            (true, json!({"phase": "Pending"}), false),
            (false, scheduled("True"), true),
            (false, scheduled("False"), false),
            (false, prepared(0), true),
            (false, prepared(1), false),
            (false, waits("ContainerCreating"), true),
            (false, waits("ErrImagePull"), false),
            (false, runs.clone(), true),
            (true, runs, false),
            (false, task("Running", &ended), false),
            (false, task("Succeeded", &ended), false),
            (false, json!({"phase": "Failed"}), false),
        ] {
            let row = row(deleted, &status);
            assert_eq!(row.is_on_its_way(), expected, "{deleted} {status}");
        }
    }

    #[test]
    fn what_was_in_its_way_and_is_over_is_a_change_to_look_at() {
        let (stuck, goes) = (
            row(false, &scheduled("False")),
            row(false, &scheduled("True")),
        );
        assert!(goes.goes_its_way(None) && goes.goes_its_way(Some(&goes)));
        assert!(!goes.goes_its_way(Some(&stuck)) && !stuck.goes_its_way(Some(&goes)));
    }
}
