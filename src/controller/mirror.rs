//! What the watches last told of Jobs and Pods, indexed by task: the cluster's half of an observation.
//!
//! ```text
//! watch ──▶ strip ──▶ rows by (namespace, task) ──▶ passes read
//! own writes ──note──▶     │ change
//!                          └──▶ wakes the binding's loop
//! ```
//!
//! Managed fields and specs are dropped before storing. Own writes are noted at once, so that a pass never misses what
//! the pass before it did while the watch lags behind.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use futures::{Stream, StreamExt, TryStreamExt};
use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::cluster::{self, Once};
use crate::pod::label;
use crate::task::TaskId;
use crate::telemetry::admin::{Health, Readiness};

/// A watch that failed twice within this time, and has said nothing since, is not believed.
const SILENCE: Duration = Duration::from_secs(40);

type Alarms = HashMap<(String, String), Arc<Notify>>;
/// (namespace, task) -> object name -> object.
type ByTask<K> = BTreeMap<(String, TaskId), BTreeMap<String, Arc<K>>>;

/// Loops to wake when something of their binding has changed, by (namespace, binding).
#[derive(Debug, Clone, Default)]
pub(super) struct Wakers {
    loops: Arc<Mutex<Alarms>>,
}

impl Wakers {
    /// The alarm of one binding's loop.
    pub fn of(&self, namespace: &str, binding: &str) -> Arc<Notify> {
        let mut loops = self.loops.lock().unwrap_or_else(PoisonError::into_inner);
        loops
            .entry((namespace.to_owned(), binding.to_owned()))
            .or_default()
            .clone()
    }

    /// Forgets a binding that is gone.
    pub fn forget(&self, namespace: &str, binding: &str) {
        let mut loops = self.loops.lock().unwrap_or_else(PoisonError::into_inner);
        loops.remove(&(namespace.to_owned(), binding.to_owned()));
    }

    fn wake(&self, namespace: &str, binding: &str) {
        let loops = self.loops.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(alarm) = loops.get(&(namespace.to_owned(), binding.to_owned())) {
            alarm.notify_one();
        }
    }
}

/// Objects of one kind that carry a task's label. Cheap to clone.
#[derive(Debug)]
pub(super) struct Mirror<K> {
    rows: Arc<RwLock<Rows<K>>>,
    wakers: Wakers,
}

impl<K> Clone for Mirror<K> {
    fn clone(&self) -> Self {
        Self {
            rows: self.rows.clone(),
            wakers: self.wakers.clone(),
        }
    }
}

#[derive(Debug)]
struct Rows<K> {
    by_task: ByTask<K>,
    /// What a relist has brought so far.
    incoming: Option<ByTask<K>>,
    synced: bool,
    failures: Failures,
}

#[derive(Debug, Default)]
struct Failures {
    in_a_row: u32,
    last: Option<Instant>,
}

/// What of an object is kept.
pub(super) trait Strip {
    fn strip(&mut self);
}

impl Strip for Job {
    /// Keeps of the spec what it says of the Job itself; the template's requests are an annotation.
    fn strip(&mut self) {
        self.metadata.managed_fields = None;
        self.spec = self.spec.take().map(|spec| JobSpec {
            suspend: spec.suspend,
            active_deadline_seconds: spec.active_deadline_seconds,
            ..JobSpec::default()
        });
    }
}

impl Strip for Pod {
    /// Keeps of the spec where the pod runs, and what a diagnosis speaks of: images and limits.
    fn strip(&mut self) {
        let named = |container: Container| Container {
            name: container.name,
            image: container.image,
            resources: container.resources,
            ..Container::default()
        };
        self.metadata.managed_fields = None;
        self.spec = self.spec.take().map(|spec| PodSpec {
            node_name: spec.node_name,
            init_containers: spec
                .init_containers
                .map(|all| all.into_iter().map(named).collect()),
            containers: spec.containers.into_iter().map(named).collect(),
            ..PodSpec::default()
        });
    }
}

impl<K> Mirror<K>
where
    K: Resource<DynamicType = ()>
        + Strip
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + Sync
        + 'static,
{
    pub fn new(wakers: Wakers) -> Self {
        let rows = Rows {
            by_task: BTreeMap::new(),
            incoming: None,
            synced: false,
            failures: Failures::default(),
        };
        Self {
            rows: Arc::new(RwLock::new(rows)),
            wakers,
        }
    }

    /// Whether the rows can be believed: listed once, and the watch is not known to be broken.
    pub fn sound(&self) -> bool {
        let rows = self.rows.read().unwrap_or_else(PoisonError::into_inner);
        rows.synced && !rows.failures.broken(Instant::now())
    }

    /// All objects of a namespace that carry the label of a task, with that task.
    pub fn in_namespace(&self, namespace: &str) -> Vec<(TaskId, Arc<K>)> {
        let rows = self.rows.read().unwrap_or_else(PoisonError::into_inner);
        let Ok(lowest) = "0".repeat(32).parse::<TaskId>() else {
            return Vec::new();
        };
        rows.by_task
            .range((namespace.to_owned(), lowest)..)
            .take_while(|((ns, _), _)| ns == namespace)
            .flat_map(|((_, task), objects)| {
                objects
                    .values()
                    .map(|object| (task.clone(), object.clone()))
            })
            .collect()
    }

    /// Notes an object that the API server has just answered to a write of ours.
    pub fn note(&self, mut object: K) {
        object.strip();
        let mut rows = self.rows.write().unwrap_or_else(PoisonError::into_inner);
        rows.apply(object);
    }

    /// Keeps the rows in step with the cluster until `shutdown`.
    pub async fn run(
        self,
        api: Api<K>,
        config: watcher::Config,
        part: &'static str,
        readiness: Readiness,
        shutdown: CancellationToken,
    ) {
        readiness.set(part, Health::Waiting("not listed yet".into()));
        let events = watch(api, config.page_size(100))
            .default_backoff()
            .map_ok(|event| event.modify(Strip::strip))
            .take_until(shutdown.cancelled_owned());
        self.follow(events, part, &readiness).await;
    }

    async fn follow(
        &self,
        events: impl Stream<Item = Result<Event<K>, watcher::Error>>,
        part: &'static str,
        readiness: &Readiness,
    ) {
        let mut events = std::pin::pin!(events);
        let mut failing = Once::default();
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    failing.over();
                    if self.take(event) {
                        readiness.set(part, Health::Ready);
                    }
                }
                Err(error) => {
                    let error = cluster::watch_failure(&error);
                    if failing.is_new(&error) {
                        tracing::warn!(watch = part, error, "watch failed, trying again");
                    }
                    let mut rows = self.rows.write().unwrap_or_else(PoisonError::into_inner);
                    rows.failures.add(Instant::now());
                    if !rows.synced {
                        readiness.set(part, Health::Waiting(error));
                    }
                }
            }
        }
    }

    /// Takes one event in; answers whether the list is complete.
    fn take(&self, event: Event<K>) -> bool {
        let mut wake = Vec::new();
        let complete = {
            let mut rows = self.rows.write().unwrap_or_else(PoisonError::into_inner);
            rows.failures = Failures::default();
            match event {
                Event::Apply(object) => wake.extend(rows.apply(object)),
                Event::Delete(object) => wake.extend(rows.delete(&object)),
                Event::Init => rows.incoming = Some(BTreeMap::new()),
                Event::InitApply(object) => {
                    wake.extend(owner(&object));
                    if let (Some((key, _)), Some(incoming)) =
                        (keys(&object), rows.incoming.as_mut())
                    {
                        incoming
                            .entry(key)
                            .or_default()
                            .insert(object.name_any(), Arc::new(object));
                    }
                }
                Event::InitDone => {
                    if let Some(incoming) = rows.incoming.take() {
                        rows.by_task = incoming;
                    }
                    rows.synced = true;
                }
            }
            rows.synced
        };
        for (namespace, binding) in wake {
            self.wakers.wake(&namespace, &binding);
        }
        complete
    }
}

impl<K: Resource<DynamicType = ()>> Rows<K> {
    /// Stores the object unless a newer version of it is known; answers whose it is.
    fn apply(&mut self, object: K) -> Option<(String, String)> {
        let ((namespace, task), binding) = keys(&object)?;
        let owner = (namespace.clone(), binding);
        let objects = self.by_task.entry((namespace, task)).or_default();
        let name = object.name_any();
        if let Some(known) = objects.get(&name)
            && known.meta().uid == object.meta().uid
            && version(known.as_ref()) > version(&object)
        {
            return None;
        }
        objects.insert(name, Arc::new(object));
        Some(owner)
    }

    fn delete(&mut self, object: &K) -> Option<(String, String)> {
        let (key, binding) = keys(object)?;
        let owner = (key.0.clone(), binding);
        let objects = self.by_task.get_mut(&key)?;
        let name = object.name_any();
        if objects
            .get(&name)
            .is_some_and(|known| known.meta().uid == object.meta().uid)
        {
            objects.remove(&name);
        }
        if objects.is_empty() {
            self.by_task.remove(&key);
        }
        Some(owner)
    }
}

impl Failures {
    fn add(&mut self, now: Instant) {
        self.in_a_row += 1;
        self.last = Some(now);
    }

    /// One failure may be an idle connection that was cut; after two the rows may be old.
    fn broken(&self, now: Instant) -> bool {
        self.in_a_row >= 2
            && self
                .last
                .is_some_and(|last| now.duration_since(last) < SILENCE)
    }
}

/// (namespace, task) and binding of an object; `None` for what is not ours to look at.
fn keys<K: Resource<DynamicType = ()>>(object: &K) -> Option<((String, TaskId), String)> {
    let labels = object.labels();
    let task = labels.get(label::TASK)?.parse().ok()?;
    let binding = labels.get(label::BINDING).cloned().unwrap_or_default();
    Some(((object.namespace()?, task), binding))
}

fn owner<K: Resource<DynamicType = ()>>(object: &K) -> Option<(String, String)> {
    let ((namespace, _), binding) = keys(object)?;
    Some((namespace, binding))
}

/// Versions of one object can be compared as numbers; where one cannot be read, the later message wins.
fn version<K: Resource>(object: &K) -> u64 {
    object
        .meta()
        .resource_version
        .as_ref()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn job(task: &str, name: &str, resource_version: u32) -> Job {
        serde_json::from_value(json!({
            "metadata": {
                "name": name, "namespace": "ns", "uid": name, "resourceVersion": resource_version.to_string(),
                "labels": {"trainyard.dev/task": task, "trainyard.dev/binding": "gpu"},
            },
            "spec": {"suspend": true, "template": {"spec": {"containers": [{"name": "task"}]}}},
        }))
        .unwrap()
    }

    const TASK: &str = "0123456789abcdef0123456789abcdef";

    fn mirror() -> Mirror<Job> {
        Mirror::new(Wakers::default())
    }

    #[test]
    fn nothing_is_believed_before_the_first_list_is_complete() {
        let mirror = mirror();
        assert!(!mirror.sound());
        mirror.take(Event::Init);
        mirror.take(Event::InitApply(job(TASK, "a", 1)));
        assert!(!mirror.sound() && mirror.in_namespace("ns").is_empty());
        mirror.take(Event::InitDone);
        assert!(mirror.sound());
        assert_eq!(mirror.in_namespace("ns").len(), 1);
        assert!(mirror.in_namespace("n").is_empty() && mirror.in_namespace("nsx").is_empty());
    }

    #[test]
    fn an_own_write_is_not_undone_by_an_older_message() {
        let mirror = mirror();
        mirror.note(job(TASK, "a", 5));
        mirror.take(Event::Apply(job(TASK, "a", 4)));
        assert_eq!(
            mirror.in_namespace("ns")[0].1.resource_version().unwrap(),
            "5"
        );
        mirror.take(Event::Apply(job(TASK, "a", 6)));
        assert_eq!(
            mirror.in_namespace("ns")[0].1.resource_version().unwrap(),
            "6"
        );
    }

    #[test]
    fn specs_are_not_kept() {
        let mirror = mirror();
        mirror.note(job(TASK, "a", 5));
        let kept = mirror.in_namespace("ns")[0].1.clone();
        let spec = kept.spec.as_ref().unwrap();
        assert_eq!(spec.suspend, Some(true));
        assert!(spec.template.spec.is_none());
    }

    #[test]
    fn a_relist_drops_what_is_gone() {
        let mirror = mirror();
        mirror.note(job(TASK, "a", 5));
        for event in [Event::Init, Event::InitDone] {
            mirror.take(event);
        }
        assert!(mirror.in_namespace("ns").is_empty());
    }

    #[test]
    fn a_deleted_object_of_an_earlier_life_does_not_remove_its_successor() {
        let mirror = mirror();
        let mut successor = job(TASK, "a", 9);
        successor.metadata.uid = Some("b".into());
        mirror.note(successor);
        mirror.take(Event::Delete(job(TASK, "a", 8)));
        assert_eq!(mirror.in_namespace("ns").len(), 1);
    }

    #[test]
    fn a_change_wakes_the_bindings_loop_alone() {
        let wakers = Wakers::default();
        let (mine, other) = (wakers.of("ns", "gpu"), wakers.of("ns", "cpu"));
        Mirror::new(wakers).take(Event::Apply(job(TASK, "a", 1)));
        let woken = |alarm: &Notify| futures::FutureExt::now_or_never(alarm.notified()).is_some();
        assert!(woken(&mine) && !woken(&other));
    }

    #[test]
    fn two_failures_in_a_row_make_the_rows_doubtful_for_a_while() {
        let mut failures = Failures::default();
        let now = Instant::now();
        failures.add(now);
        assert!(!failures.broken(now));
        failures.add(now);
        assert!(failures.broken(now));
        assert!(!failures.broken(now + SILENCE));
    }
}
