//! Inquiry: the Events of Jobs and pods that do not start. They alone tell why the cluster refuses a pod (quota,
//! policy), or what its node is busy with.
//!
//! The API server looks through all Events of the namespace for each answer, which is slow just when much is started at
//! once. So no pass waits for one: they are read beside it, few at a time, and the next pass takes the answers in. They
//! are read soon after the pod has changed, since what the node fails at then is told by an Event alone for 10 s and more.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use kube::Api;
use kube::api::ListParams;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Context;
use super::cluster::{self, call};
use super::fault;
use super::observe::Lore;
use super::row::{JobRow, PodRow};
use crate::diagnose;

/// A Job that has not started for this long is asked about; where many wait, a second later for each so many of them, up
/// to the longest: a cluster that has much to start needs no reason, and each question takes it longer.
const WAITED_S: i64 = 2;
const CROWD: usize = 50;
const LONGEST_S: i64 = 30;
/// It is asked about again so soon after its pod has changed: an Event of the same moment may come a little later.
const AFTER: Duration = Duration::from_millis(500);
/// And again after this part of the time since then, from [`SOON`] to [`SELDOM`]: what an image that is pulled for a
/// minute ends with is read late by a quarter of a minute at most.
const PART: u32 = 4;
const SOON: Duration = Duration::from_secs(1);
const SELDOM: Duration = Duration::from_secs(60);
/// Jobs asked about in one round, how many at once, and Events read of each.
const MOST: usize = 16;
const HANDS: usize = 2;
const EVENTS: u32 = 50;
/// After a round that took so long the API server is left alone for this many times as long, but no longer than a Job has
/// to have waited: that a machine is busy is no reason to find out late what is wrong.
const SHARE: u32 = 4;
/// Questions that all bindings together ask at once.
pub(super) const ASKERS: usize = 8;
/// No pass that needs them waits for them any longer.
const PATIENCE: Duration = Duration::from_secs(2);

/// What was read about each Job, by its UID.
type Answers = Vec<(String, Result<Vec<diagnose::Event>, cluster::Error>)>;

/// The questions about Jobs.
#[derive(Debug, Default)]
pub(super) struct Inquiry {
    /// By the Job's UID.
    plans: HashMap<String, Plan>,
    /// The round that is under way, with the time that it took.
    round: JoinSet<(Answers, Duration)>,
    /// The next one begins no earlier.
    rested: Option<Instant>,
    /// How long it is rested after a round at most.
    longest_rest: Duration,
}

/// When the Events of a Job are read next.
#[derive(Debug, Clone, Copy)]
struct Plan {
    stage: Option<u64>,
    /// Since when it has been at this stage.
    since: Instant,
    at: Instant,
}

impl Plan {
    fn new(stage: Option<u64>, now: Instant) -> Self {
        Self {
            stage,
            since: now,
            at: now,
        }
    }

    /// Takes in how far the pod is. That is never a reason to ask later: what changes all the time would never be asked.
    fn look(&mut self, stage: Option<u64>, now: Instant) {
        if self.stage != stage {
            *self = Self {
                stage,
                since: now,
                at: self.at.min(now + AFTER),
            };
        }
    }

    /// It is asked now.
    fn ask(&mut self, now: Instant) {
        let stood = now.duration_since(self.since);
        self.at = now + (stood / PART).clamp(SOON, SELDOM);
    }
}

/// How far a pod is: none yet, without a node, or on one, where each change of it may be followed by an Event. What the
/// scheduler says is in the pod itself.
fn stage(pod: Option<&PodRow>) -> Option<u64> {
    pod.map(|pod| pod.node().map_or(0, |_| pod.version()))
}

/// Whom an inquiry is for.
pub(super) struct Asker<'a> {
    pub context: &'a Context,
    pub namespace: &'a str,
    /// The binding's loop, woken when answers are there.
    pub alarm: Arc<Notify>,
    /// There is no next pass: wait for the answers.
    pub at_once: bool,
}

impl Inquiry {
    /// Brings `lore.events` up to date for Jobs that were released and have not started, with their pod if there is one.
    pub async fn ask(
        &mut self,
        asker: &Asker<'_>,
        waiting: &[(Arc<JobRow>, Option<Arc<PodRow>>)],
        lore: &mut Lore,
    ) {
        let uids: HashSet<&str> = waiting.iter().map(|(job, _)| &*job.uid).collect();
        self.plans.retain(|uid, _| uids.contains(uid.as_str()));
        self.take_in(lore);
        let now = Instant::now();
        self.longest_rest = rest(waiting.len());
        if self.round.is_empty() && self.rested.is_none_or(|at| at <= now) {
            let due = self.due(waiting, now);
            if !due.is_empty() {
                self.begin(asker, due);
            }
        }
        if asker.at_once && !self.round.is_empty() {
            let answers = tokio::time::timeout(PATIENCE, self.round.join_next()).await;
            if let Ok(Some(Ok((answers, took)))) = answers {
                self.note(lore, answers, took);
            }
        }
        lore.events.retain(|uid, _| uids.contains(uid.as_str()));
    }

    /// UIDs of the Jobs that are asked about now, and of the objects that their Events speak of.
    fn due(
        &mut self,
        waiting: &[(Arc<JobRow>, Option<Arc<PodRow>>)],
        now: Instant,
    ) -> Vec<(String, String)> {
        let seconds = wait_of(waiting.len());
        let mut due: Vec<(Instant, String, String)> = Vec::new();
        for (job, pod) in waiting.iter().filter(|(job, _)| has_waited(job, seconds)) {
            let (uid, stage) = (job.uid.to_string(), stage(pod.as_deref()));
            let new = Plan::new(stage, now);
            let plan = self.plans.entry(uid.clone()).or_insert(new);
            plan.look(stage, now);
            if plan.at <= now {
                let about = pod.as_ref().map_or(&job.uid, |pod| &pod.uid).to_string();
                due.push((plan.at, uid, about));
            }
        }
        due.sort();
        due.truncate(MOST);
        for (_, uid, _) in &due {
            if let Some(plan) = self.plans.get_mut(uid) {
                plan.ask(now);
            }
        }
        due.into_iter()
            .map(|(_, uid, about)| (uid, about))
            .collect()
    }

    /// Begins a round beside the pass.
    fn begin(&mut self, asker: &Asker<'_>, due: Vec<(String, String)>) {
        let api: Api<Event> = Api::namespaced(asker.context.kube.clone(), asker.namespace);
        let alarm = asker.alarm.clone();
        let askers = asker.context.askers.clone();
        self.round.spawn(async move {
            let begun = Instant::now();
            let answers = futures::stream::iter(due)
                .map(|(uid, about)| {
                    let (api, askers) = (&api, &askers);
                    async move {
                        let _place = askers.acquire().await;
                        let read = events_about(api, &about).await;
                        (uid, read)
                    }
                })
                .buffer_unordered(HANDS)
                .collect()
                .await;
            alarm.notify_one();
            (answers, begun.elapsed())
        });
    }

    /// Takes in what a round has brought, if it is over.
    fn take_in(&mut self, lore: &mut Lore) {
        while let Some(ended) = self.round.try_join_next() {
            // One that panicked has brought nothing; its Jobs are asked about again at their time.
            if let Ok((answers, took)) = ended {
                self.note(lore, answers, took);
            }
        }
    }

    fn note(&mut self, lore: &mut Lore, answers: Answers, took: Duration) {
        self.rested = Some(Instant::now() + (took * SHARE).min(self.longest_rest));
        for (uid, read) in answers {
            match read {
                Ok(events) => {
                    lore.events.insert(uid, events);
                }
                Err(error) => {
                    tracing::debug!(job_uid = uid, %error, "events of the Job were not read");
                }
            }
        }
    }
}

/// The Events that speak of the object of this UID, oldest first.
pub(super) async fn events_about(
    api: &Api<Event>,
    uid: &str,
) -> Result<Vec<diagnose::Event>, cluster::Error> {
    let params = ListParams::default()
        .fields(&format!("involvedObject.uid={uid}"))
        .limit(EVENTS);
    let events = call(api.list(&params)).await?;
    fault::point!("inquiry/events-read");
    Ok(oldest_first(events.items))
}

/// How long a Job has to have waited, in seconds, where so many wait.
fn wait_of(waiting: usize) -> i64 {
    let longer = i64::try_from(waiting / CROWD).unwrap_or(LONGEST_S);
    (WAITED_S + longer).min(LONGEST_S)
}

/// The longest rest after a round where so many wait.
fn rest(waiting: usize) -> Duration {
    Duration::from_secs(wait_of(waiting).unsigned_abs())
}

fn has_waited(job: &JobRow, seconds: i64) -> bool {
    job.started()
        .is_some_and(|began| Timestamp::now().duration_since(began).as_secs() >= seconds)
}

fn oldest_first(mut events: Vec<Event>) -> Vec<diagnose::Event> {
    events.sort_by_key(|event| {
        event
            .last_timestamp
            .clone()
            .or_else(|| event.metadata.creation_timestamp.clone())
    });
    events
        .into_iter()
        .map(|event| diagnose::Event {
            reason: event.reason.unwrap_or_default(),
            message: cluster::bounded(&event.message.unwrap_or_default()),
            warning: event.type_.as_deref() == Some("Warning"),
            container: event
                .involved_object
                .field_path
                .as_deref()
                .and_then(diagnose::container_of)
                .map(str::to_owned),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::controller::row::Row;

    fn pod(version: &str, node: Option<&str>) -> PodRow {
        let pod = json!({"metadata": {"resourceVersion": version}, "spec": {"nodeName": node, "containers": []}});
        PodRow::of(serde_json::from_value(pod).unwrap())
    }

    #[test]
    fn a_change_of_a_pod_on_its_node_is_asked_about_at_once_and_one_without_a_node_is_not() {
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        let mut plan = Plan::new(stage(None), start);
        assert_eq!(plan.at, start);
        plan.ask(start);
        let mut asked_after = |pod: PodRow| {
            // It has stood still for long, and is asked about seldom.
            plan = Plan {
                at: after(100_000),
                ..plan
            };
            plan.look(stage(Some(&pod)), after(60_000));
            plan.at
        };
        assert_eq!(asked_after(pod("1", None)), after(60_500), "it is there");
        assert_eq!(asked_after(pod("2", None)), after(100_000), "it waits");
        assert_eq!(asked_after(pod("3", Some("n"))), after(60_500));
        assert_eq!(asked_after(pod("3", Some("n"))), after(100_000), "the same");
        assert_eq!(asked_after(pod("4", Some("n"))), after(60_500));
    }

    #[test]
    fn what_changes_all_the_time_is_asked_about_all_the_same() {
        let start = Instant::now();
        let mut plan = Plan::new(Some(1), start);
        plan.ask(start);
        assert_eq!(plan.at, start + SOON);
        for version in 2..20 {
            plan.look(Some(version), start + Duration::from_millis(50 * version));
        }
        assert_eq!(plan.at, start + AFTER + Duration::from_millis(100));
    }

    #[test]
    fn a_pod_that_stands_still_is_asked_about_each_second_and_then_less_and_less_often() {
        let start = Instant::now();
        let mut plan = Plan::new(Some(1), start);
        let mut waits = Vec::new();
        while plan.at < start + Duration::from_secs(600) {
            let now = plan.at;
            plan.ask(now);
            waits.push((plan.at - now).as_secs());
        }
        assert_eq!(waits[..5], [1; 5]);
        assert!(waits.is_sorted(), "{waits:?}");
        assert_eq!(waits.last(), Some(&60));
        assert!(waits.len() < 35, "{} questions", waits.len());
    }

    #[test]
    fn the_container_that_an_event_speaks_of_is_known() {
        let event = |field_path: &str| {
            let event = json!({"metadata": {}, "involvedObject": {"fieldPath": field_path}});
            let events = oldest_first(vec![serde_json::from_value(event).unwrap()]);
            events[0].container.clone()
        };
        let named = |name: &str| Some(name.to_owned());
        assert_eq!(event("spec.containers{task}"), named("task"));
        assert_eq!(event("spec.initContainers{prepare}"), named("prepare"));
        assert_eq!(event("spec"), None);
    }

    #[test]
    fn a_slow_api_server_is_asked_again_soon_where_few_jobs_wait() {
        let rest_after = |took: Duration, waiting: usize| {
            let mut inquiry = Inquiry {
                longest_rest: rest(waiting),
                ..Inquiry::default()
            };
            let begun = Instant::now();
            inquiry.note(&mut Lore::default(), Vec::new(), took);
            inquiry.rested.expect("a round is followed by a rest") - begun
        };
        let second = Duration::from_secs(1);
        assert!(rest_after(second / 10, 1) < second, "a share of its time");
        assert!(rest_after(7 * second, 1) < 3 * second, "it is busy");
        assert!(
            rest_after(7 * second, 1000) > 20 * second,
            "with these Jobs"
        );
    }

    #[test]
    fn a_crowd_is_asked_about_later_and_never_later_than_half_a_minute() {
        assert_eq!([0, 1, 49].map(wait_of), [2; 3]);
        assert_eq!([50, 500, 10_000].map(wait_of), [3, 12, 30]);
    }
}
