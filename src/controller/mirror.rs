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

mod strip;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use futures::{Stream, StreamExt, TryStreamExt};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::strip::Strip;
use super::cluster::{self, Once};
use crate::pod::label;
use crate::task::TaskId;
use crate::telemetry::admin::{Health, Readiness};

/// A watch that failed twice within this time, and has said nothing since, is not believed.
const SILENCE: Duration = Duration::from_secs(40);

/// Objects of one page of a list: few requests at the start, and little that is in memory at once.
const PAGE: u32 = 250;
/// An answer that comes later than this after its object's end is none: no request may take so long.
const BURIED: Duration = Duration::from_secs(60);
/// Deleted objects that are kept for one binding until it asks.
const MOST_GONE: usize = 1000;

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
    /// Last states of deleted objects by (namespace, binding), until they are asked for.
    gone: HashMap<(String, String), Vec<Arc<K>>>,
    buried: Buried,
}

/// UIDs of objects that were deleted a moment ago. The answer to a write of ours may come after the watch has told of
/// their end: noted again they would stay for ever.
#[derive(Debug, Default)]
struct Buried {
    uids: HashSet<String>,
    order: VecDeque<(Instant, String)>,
}

impl Buried {
    fn add(&mut self, uid: Option<&String>, now: Instant) {
        while let Some((_, uid)) = self
            .order
            .pop_front_if(|(at, _)| now.duration_since(*at) > BURIED)
        {
            self.uids.remove(&uid);
        }
        if let Some(uid) = uid
            && self.uids.insert(uid.clone())
        {
            self.order.push_back((now, uid.clone()));
        }
    }

    fn holds(&self, uid: Option<&String>) -> bool {
        uid.is_some_and(|uid| self.uids.contains(uid))
    }
}

#[derive(Debug, Default)]
struct Failures {
    in_a_row: u32,
    last: Option<Instant>,
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
            gone: HashMap::new(),
            buried: Buried::default(),
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

    /// One object, as the watch or a write of ours last told of it.
    pub fn named(&self, namespace: &str, task: &TaskId, name: &str) -> Option<Arc<K>> {
        let rows = self.rows.read().unwrap_or_else(PoisonError::into_inner);
        let objects = rows.by_task.get(&(namespace.to_owned(), task.clone()))?;
        objects.get(name).cloned()
    }

    /// The last states of a binding's objects that were deleted since this was asked for.
    pub fn take_gone(&self, namespace: &str, binding: &str) -> Vec<Arc<K>> {
        let mut rows = self.rows.write().unwrap_or_else(PoisonError::into_inner);
        rows.gone
            .remove(&(namespace.to_owned(), binding.to_owned()))
            .unwrap_or_default()
    }

    /// Notes an object that the API server has just answered to a write of ours, unless the watch has told of its end
    /// meanwhile.
    pub fn note(&self, mut object: K) {
        object.strip();
        let mut rows = self.rows.write().unwrap_or_else(PoisonError::into_inner);
        if !rows.buried.holds(object.meta().uid.as_ref()) {
            rows.apply(object);
        }
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
        let _watched = Watched {
            part,
            readiness: &readiness,
            shutdown: shutdown.clone(),
        };
        let events = watch(api, config.page_size(PAGE))
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
                    rows.take_over();
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

impl<K: Resource<DynamicType = ()> + Clone> Rows<K> {
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

    /// Takes over what a relist has brought; what it did not bring is gone.
    fn take_over(&mut self) {
        let Some(incoming) = self.incoming.take() else {
            return;
        };
        let now = Instant::now();
        let before = std::mem::replace(&mut self.by_task, incoming);
        for (key, objects) in before {
            let left = self.by_task.get(&key);
            for (name, object) in objects {
                let stays = left
                    .and_then(|objects| objects.get(&name))
                    .is_some_and(|known| known.meta().uid == object.meta().uid);
                // A Job that was made since the list began is not in it either: its own event follows.
                if !stays && object.meta().deletion_timestamp.is_some() {
                    self.buried.add(object.meta().uid.as_ref(), now);
                }
            }
        }
    }

    fn delete(&mut self, object: &K) -> Option<(String, String)> {
        let (key, binding) = keys(object)?;
        self.buried.add(object.meta().uid.as_ref(), Instant::now());
        let owner = (key.0.clone(), binding);
        let gone = self.gone.entry(owner.clone()).or_default();
        if gone.len() < MOST_GONE {
            gone.push(Arc::new(object.clone()));
        }
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

/// Tells the probes when a watch ends, or panics, that nobody has asked to end: without it the process is of no use.
struct Watched<'a> {
    part: &'static str,
    readiness: &'a Readiness,
    shutdown: CancellationToken,
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        if !self.shutdown.is_cancelled() {
            let reason = "its watch has ended".to_owned();
            self.readiness.set(self.part, Health::Dead(reason));
        }
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
mod tests;
