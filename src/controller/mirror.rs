//! What the watches last told of Jobs and Pods, indexed by task: the cluster's half of an observation.
//!
//! ```text
//! watch ──▶ rows by (namespace, task) ──▶ passes read
//! own writes ──note──▶   │ change
//!                        └──▶ wakes the binding's loop
//! ```
//!
//! Own writes are noted at once, so that a pass never misses what the pass before it did while the watch lags behind.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use futures::{Stream, StreamExt};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Resource, ResourceExt as _};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::cluster::{self, Once};
use super::row::Row;
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
/// namespace -> task -> rows, of which a task has one or two.
type ByTask<R> = HashMap<String, BTreeMap<TaskId, Vec<Arc<R>>>>;

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

    /// What all of them see has changed.
    fn wake_all(&self) {
        let loops = self.loops.lock().unwrap_or_else(PoisonError::into_inner);
        for alarm in loops.values() {
            alarm.notify_one();
        }
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
pub(super) struct Mirror<R> {
    rows: Arc<RwLock<Rows<R>>>,
    wakers: Wakers,
}

impl<R> Clone for Mirror<R> {
    fn clone(&self) -> Self {
        Self {
            rows: self.rows.clone(),
            wakers: self.wakers.clone(),
        }
    }
}

#[derive(Debug)]
struct Rows<R> {
    by_task: ByTask<R>,
    /// What a relist has brought so far.
    incoming: Option<ByTask<R>>,
    synced: bool,
    failures: Failures,
    /// Last states of deleted objects by (namespace, binding), until they are asked for.
    gone: HashMap<(String, String), Vec<Arc<R>>>,
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
    fn add(&mut self, uid: &str, now: Instant) {
        while let Some((_, uid)) = self
            .order
            .pop_front_if(|(at, _)| now.duration_since(*at) > BURIED)
        {
            self.uids.remove(&uid);
        }
        if !uid.is_empty() && self.uids.insert(uid.to_owned()) {
            self.order.push_back((now, uid.to_owned()));
        }
    }

    fn holds(&self, uid: &str) -> bool {
        self.uids.contains(uid)
    }
}

#[derive(Debug, Default)]
struct Failures {
    in_a_row: u32,
    last: Option<Instant>,
}

impl<R: Row> Mirror<R> {
    pub fn new(wakers: Wakers) -> Self {
        let rows = Rows {
            by_task: HashMap::new(),
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
    pub fn in_namespace(&self, namespace: &str) -> Vec<(TaskId, Arc<R>)> {
        let rows = self.rows.read().unwrap_or_else(PoisonError::into_inner);
        let of_namespace = rows.by_task.get(namespace).into_iter().flatten();
        of_namespace
            .flat_map(|(task, rows)| rows.iter().map(|row| (task.clone(), row.clone())))
            .collect()
    }

    /// The last states of a binding's objects that were deleted since this was asked for.
    pub fn take_gone(&self, namespace: &str, binding: &str) -> Vec<Arc<R>> {
        let mut rows = self.rows.write().unwrap_or_else(PoisonError::into_inner);
        rows.gone
            .remove(&(namespace.to_owned(), binding.to_owned()))
            .unwrap_or_default()
    }

    /// Notes an object that the API server has just answered to a write of ours, unless the watch has told of its end
    /// meanwhile.
    pub fn note(&self, object: R::Object) {
        let Some(keys) = Keys::of(&object) else {
            return;
        };
        let row = R::of(object);
        let mut rows = self.rows.write().unwrap_or_else(PoisonError::into_inner);
        if !rows.buried.holds(&row.head().uid) {
            rows.apply(keys, row);
        }
    }

    /// Keeps the rows in step with the cluster until `shutdown`.
    pub async fn run(
        self,
        api: Api<R::Object>,
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
            .take_until(shutdown.cancelled_owned());
        self.follow(events, part, &readiness).await;
    }

    async fn follow(
        &self,
        events: impl Stream<Item = Result<Event<R::Object>, watcher::Error>>,
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
    fn take(&self, event: Event<R::Object>) -> bool {
        let (mut wake, mut listed) = (None, false);
        let complete = {
            let mut rows = self.rows.write().unwrap_or_else(PoisonError::into_inner);
            rows.failures = Failures::default();
            match event {
                Event::Apply(object) => {
                    if let Some(keys) = Keys::of(&object) {
                        wake = rows.apply(keys, R::of(object));
                    }
                }
                Event::Delete(object) => {
                    if let Some(keys) = Keys::of(&object) {
                        wake = Some(rows.delete(&keys, R::of(object)));
                    }
                }
                Event::Init => rows.incoming = Some(HashMap::new()),
                Event::InitApply(object) => {
                    if let (Some(keys), Some(incoming)) =
                        (Keys::of(&object), rows.incoming.as_mut())
                    {
                        let of_namespace = incoming.entry(keys.namespace).or_default();
                        put(of_namespace.entry(keys.task).or_default(), R::of(object));
                    }
                }
                Event::InitDone => {
                    rows.take_over();
                    rows.synced = true;
                    listed = true;
                }
            }
            rows.synced
        };
        if listed {
            self.wakers.wake_all();
        } else if let Some((namespace, binding)) = wake {
            self.wakers.wake(&namespace, &binding);
        }
        complete
    }
}

impl<R: Row> Rows<R> {
    /// Stores the object unless a newer version of it is known; answers whose it is.
    fn apply(&mut self, keys: Keys, row: R) -> Option<(String, String)> {
        let owner = keys.owner();
        let of_namespace = self.by_task.entry(keys.namespace).or_default();
        let of_task = of_namespace.entry(keys.task).or_default();
        let head = row.head();
        let is_older = of_task.iter().any(|known| {
            let known = known.head();
            known.name == head.name && known.uid == head.uid && known.version() > head.version()
        });
        if is_older {
            return None;
        }
        put(of_task, row);
        Some(owner)
    }

    /// Takes over what a relist has brought; what it did not bring is gone.
    fn take_over(&mut self) {
        let Some(incoming) = self.incoming.take() else {
            return;
        };
        let now = Instant::now();
        let before = std::mem::replace(&mut self.by_task, incoming);
        let before = before.into_iter().flat_map(|(namespace, tasks)| {
            tasks
                .into_iter()
                .map(move |(task, rows)| (namespace.clone(), task, rows))
        });
        for (namespace, task, rows) in before {
            let left = self
                .by_task
                .get(&namespace)
                .and_then(|tasks| tasks.get(&task));
            for row in rows {
                let head = row.head();
                let stays = left
                    .into_iter()
                    .flatten()
                    .any(|known| known.head().name == head.name && known.head().uid == head.uid);
                // A Job that was made since the list began is not in it either: its own event follows.
                if !stays && head.is_deleting() {
                    self.buried.add(&head.uid, now);
                }
            }
        }
    }

    /// Answers whose it was.
    fn delete(&mut self, keys: &Keys, row: R) -> (String, String) {
        let owner = keys.owner();
        self.buried.add(&row.head().uid, Instant::now());
        if let Some(of_namespace) = self.by_task.get_mut(&keys.namespace)
            && let Some(of_task) = of_namespace.get_mut(&keys.task)
        {
            let head = row.head();
            of_task.retain(|known| known.head().name != head.name || known.head().uid != head.uid);
            if of_task.is_empty() {
                of_namespace.remove(&keys.task);
            }
        }
        let gone = self.gone.entry(owner.clone()).or_default();
        if gone.len() < MOST_GONE {
            gone.push(Arc::new(row));
        }
        owner
    }
}

/// Puts the row in the place of one of its name, or beside the others.
fn put<R: Row>(of_task: &mut Vec<Arc<R>>, row: R) {
    let row = Arc::new(row);
    let known = of_task
        .iter_mut()
        .find(|known| known.head().name == row.head().name);
    if let Some(known) = known {
        *known = row;
    } else {
        of_task.reserve_exact(1);
        of_task.push(row);
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

/// Where an object belongs.
struct Keys {
    namespace: String,
    task: TaskId,
    binding: String,
}

impl Keys {
    /// `None` for what is not ours to look at.
    fn of(object: &impl Resource<DynamicType = ()>) -> Option<Self> {
        let labels = object.labels();
        Some(Self {
            namespace: object.namespace()?,
            task: labels.get(label::TASK)?.parse().ok()?,
            binding: labels.get(label::BINDING).cloned().unwrap_or_default(),
        })
    }

    /// (namespace, binding)
    fn owner(&self) -> (String, String) {
        (self.namespace.clone(), self.binding.clone())
    }
}

#[cfg(test)]
mod tests;
