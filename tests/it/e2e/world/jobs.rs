//! Jobs and pods of tasks.

use serde_json::{Value, json};

use super::{World, wait};

impl World {
    /// Evicts a pod by the API server, as draining a node does.
    pub fn evict(&self, pod: &str) {
        self.post(
            &format!("/api/v1/namespaces/{}/pods/{pod}/eviction", self.namespace),
            &json!({
                "apiVersion": "policy/v1", "kind": "Eviction",
                "metadata": {"name": pod, "namespace": self.namespace},
            }),
        );
    }

    pub fn jobs(&self) -> Vec<Value> {
        self.get(&["jobs"])["items"]
            .as_array()
            .cloned()
            .unwrap_or_default()
    }

    pub fn job_of(&self, task: &str) -> Value {
        self.get(&["jobs", "-l", &format!("trainyard.dev/task={task}")])["items"][0].clone()
    }

    pub fn job_of_attempt(&self, task: &str, attempt: u32) -> Value {
        let label = format!("trainyard.dev/task={task},trainyard.dev/attempt={attempt}");
        self.get(&["jobs", "-l", &label])["items"][0].clone()
    }

    pub fn pod_of(&self, task: &str) -> Value {
        self.get(&["pods", "-l", &format!("trainyard.dev/task={task}")])["items"][0].clone()
    }

    /// The task's pod once the kubelet has told that its container runs, which may be later than the task itself.
    pub fn running_pod(&self, task: &str) -> Value {
        wait("the kubelet tells of the container", 30, || {
            let pod = self.pod_of(task);
            let all = pod["status"]["containerStatuses"].as_array()?.clone();
            let started =
                |status: &Value| status["name"] == "task" && !status["state"]["running"].is_null();
            all.iter().any(started).then_some(pod)
        })
    }
}
