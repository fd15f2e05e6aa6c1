//! What the nodes have free, for bindings with `capacity: FreeResources`. Watched only once one asks.
//!
//! ```text
//! watch Nodes ─▶ allocatable, labels, taints ─┐
//! watch Pods ──▶ node, requests ──────────────┼─▶ Free
//! tasks taken whose pods are not seen yet ────┘
//! ```
//!
//! Of each pod only its node and its requests are kept, of one without a node also where it may run.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Node as NodeObject, Pod};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::admit::Waiting;
use super::cluster::{self, Once};
use crate::capacity::{Free, Node, Placement};
use crate::crd::Resources;
use crate::pod::label;
use crate::render::pod_requests;
use crate::task::TaskId;

/// Pods that have ended use nothing.
const NOT_ENDED: &str = "status.phase!=Succeeded,status.phase!=Failed";
/// A pod that is not seen this long after its task was taken will not come.
const RESERVED: Duration = Duration::from_mins(1);

/// Nodes and pods of the cluster. Cheap to clone.
#[derive(Clone)]
pub(super) struct Nodes {
    kube: Client,
    stop: CancellationToken,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    watching: bool,
    nodes: Rows<Node>,
    pods: Rows<PodRow>,
    reserved: HashMap<TaskId, (Placement, Instant)>,
}

/// Objects by UID, as a watch has brought them.
struct Rows<T> {
    kept: HashMap<String, T>,
    incoming: Option<HashMap<String, T>>,
    synced: bool,
    failure: Option<String>,
}

impl<T> Default for Rows<T> {
    fn default() -> Self {
        Self {
            kept: HashMap::new(),
            incoming: None,
            synced: false,
            failure: None,
        }
    }
}

/// What is kept of a pod.
struct PodRow {
    /// The node that it is bound to, or where it may run.
    place: Result<String, Placement>,
    requests: Resources,
    task: Option<TaskId>,
}

impl Nodes {
    pub fn new(kube: Client, stop: CancellationToken) -> Self {
        Self {
            kube,
            stop,
            state: Arc::default(),
        }
    }

    /// What is free, less pods that have no node yet and tasks whose pods are not there yet; or why that is not known.
    pub fn free(
        &self,
        without_pod: impl Iterator<Item = (TaskId, Resources)>,
    ) -> Result<Free, Waiting> {
        let mut state = self.lock();
        if !state.watching {
            state.watching = true;
            self.start();
        }
        for (what, failure, synced) in [
            ("nodes", &state.nodes.failure, state.nodes.synced),
            ("pods", &state.pods.failure, state.pods.synced),
        ] {
            if let Some(failure) = failure.as_ref().filter(|_| !synced) {
                return Err(Waiting::new(
                    "RightMissing",
                    format!(
                        "capacity FreeResources needs the right to list and watch {what} of the whole cluster \
                         (chart: rbac.freeResources), nothing is taken without it: {failure}"
                    ),
                ));
            }
            if !synced {
                return Err(Waiting::new(
                    "NotListed",
                    format!(
                        "the {what} of the cluster are not listed yet (capacity FreeResources)"
                    ),
                ));
            }
        }
        let state = &mut *state;
        let mut free = Free::of(state.nodes.kept.values().cloned());
        let pods = || state.pods.kept.values();
        free.bind_all(
            pods().filter_map(|pod| Some((pod.place.as_ref().ok()?.as_str(), &pod.requests))),
        );
        for waiting in pods().filter_map(|pod| pod.place.as_ref().err()) {
            free.occupy(waiting);
        }
        let seen: std::collections::HashSet<&TaskId> =
            pods().filter_map(|pod| pod.task.as_ref()).collect();
        let now = Instant::now();
        state
            .reserved
            .retain(|task, (_, until)| now < *until && !seen.contains(task));
        for (placement, _) in state.reserved.values() {
            free.occupy(placement);
        }
        for (task, requests) in without_pod {
            if !seen.contains(&task) && !state.reserved.contains_key(&task) {
                free.occupy(&Placement::anywhere(&requests));
            }
        }
        Ok(free)
    }

    /// Keeps the room for a task that is being taken until its pod is seen.
    pub fn reserve(&self, task: &TaskId, placement: Placement) {
        let until = Instant::now() + RESERVED;
        self.lock()
            .reserved
            .insert(task.clone(), (placement, until));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(&self) {
        tracing::info!(
            "nodes and pods of the cluster are watched: a binding asks for free resources"
        );
        let nodes = self.clone();
        tokio::spawn(async move {
            let api: Api<NodeObject> = Api::all(nodes.kube.clone());
            let row = |node: NodeObject| Node::of(&node);
            nodes
                .follow(api, watcher::Config::default(), row, |state| {
                    &mut state.nodes
                })
                .await;
        });
        let pods = self.clone();
        tokio::spawn(async move {
            let api: Api<Pod> = Api::all(pods.kube.clone());
            let config = watcher::Config::default().fields(NOT_ENDED);
            pods.follow(api, config, PodRow::of, |state| &mut state.pods)
                .await;
        });
    }

    /// Keeps rows in step with the cluster until the controller ends.
    async fn follow<K, T>(
        &self,
        api: Api<K>,
        config: watcher::Config,
        row: impl Fn(K) -> T,
        rows: impl Fn(&mut State) -> &mut Rows<T>,
    ) where
        K: kube::Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
    {
        let mut events = watcher(api, config).default_backoff().boxed();
        let mut failing = Once::default();
        loop {
            let event = tokio::select! {
                () = self.stop.cancelled() => return,
                event = events.next() => event,
            };
            let mut state = self.lock();
            let rows = rows(&mut state);
            match event {
                None => return,
                Some(Ok(event)) => {
                    rows.failure = None;
                    rows.take(event, &row);
                }
                Some(Err(error)) => {
                    let error = cluster::watch_failure(&error);
                    if failing.is_new(&error) {
                        tracing::warn!(error, "watch for free resources failed, trying again");
                    }
                    rows.failure = Some(error);
                }
            }
        }
    }
}

impl<T> Rows<T> {
    fn take<K: ResourceExt>(&mut self, event: Event<K>, row: impl Fn(K) -> T) {
        match event {
            Event::Apply(object) => {
                self.kept
                    .insert(object.uid().unwrap_or_default(), row(object));
            }
            Event::Delete(object) => {
                self.kept.remove(&object.uid().unwrap_or_default());
            }
            Event::Init => self.incoming = Some(HashMap::new()),
            Event::InitApply(object) => {
                let incoming = self.incoming.get_or_insert_default();
                incoming.insert(object.uid().unwrap_or_default(), row(object));
            }
            Event::InitDone => {
                self.kept = self.incoming.take().unwrap_or_default();
                self.synced = true;
            }
        }
    }
}

impl PodRow {
    fn of(pod: Pod) -> Self {
        let task = pod
            .labels()
            .get(label::TASK)
            .and_then(|task| task.parse().ok());
        let spec = serde_json::to_value(&pod.spec).unwrap_or(Value::Null);
        let node = pod.spec.and_then(|spec| spec.node_name);
        Self {
            requests: pod_requests(&spec),
            place: match node.filter(|node| !node.is_empty()) {
                Some(node) => Ok(node),
                None => Err(Placement::of(&spec)),
            },
            task,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, node: Option<&str>, gpus: u32) -> Pod {
        serde_json::from_value(json!({
            "metadata": { "name": name, "uid": name },
            "spec": { "nodeName": node, "containers": [
                { "name": "a", "resources": { "limits": { "nvidia.com/gpu": gpus.to_string() } } } ] },
        }))
        .unwrap()
    }

    #[test]
    fn a_relist_replaces_what_was_known_only_when_it_is_complete() {
        let mut rows: Rows<PodRow> = Rows::default();
        rows.take(Event::Apply(pod("old", Some("n"), 1)), PodRow::of);
        rows.take(Event::Init, PodRow::of);
        rows.take(Event::InitApply(pod("new", None, 2)), PodRow::of);
        assert!(rows.kept.contains_key("old") && !rows.synced);
        rows.take(Event::InitDone, PodRow::of);
        assert!(rows.synced && rows.kept.len() == 1 && rows.kept["new"].place.is_err());
        rows.take(Event::Delete(pod("new", None, 2)), PodRow::of);
        assert!(rows.kept.is_empty());
    }

    #[test]
    fn of_a_pod_its_node_and_its_requests_are_kept() {
        let row = PodRow::of(pod("a", Some("node-1"), 2));
        assert_eq!(row.place.as_deref().ok(), Some("node-1"));
        assert_eq!(row.requests.to_annotation(), "nvidia.com/gpu=2");
    }
}
