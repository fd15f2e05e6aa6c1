//! Inquiry: the Events of Jobs and pods that do not start. They alone tell why the cluster refuses a pod (quota,
//! policy), or what its node is busy with.
//!
//! The API server looks through all Events of the namespace for each answer, which is slow just when much is started at
//! once. So no pass waits for one: they are read beside it, few at a time, and the next pass takes the answers in.

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
/// It is asked about again after this long at first, then less and less often, up to [`SELDOM`].
const SOON: Duration = Duration::from_secs(3);
const SELDOM: Duration = Duration::from_secs(60);
/// Jobs asked about in one round, how many at once, and Events read of each.
const MOST: usize = 16;
const HANDS: usize = 2;
const EVENTS: u32 = 50;
/// After a round that took so long the API server is left alone for this many times as long.
const SHARE: u32 = 4;
/// No pass that needs them waits for them any longer.
const PATIENCE: Duration = Duration::from_secs(2);

/// What was read about each Job, by its UID.
type Answers = Vec<(String, Result<Vec<diagnose::Event>, cluster::Error>)>;

/// When the Events of a Job are read next, and the wait after that, by the Job's UID.
#[derive(Debug, Default)]
pub(super) struct Inquiry {
    next: HashMap<String, (Instant, Duration)>,
    /// The round that is under way, with the time that it took.
    round: JoinSet<(Answers, Duration)>,
    /// The next one begins no earlier.
    rested: Option<Instant>,
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
        self.next.retain(|uid, _| uids.contains(uid.as_str()));
        self.take_in(lore);
        let now = Instant::now();
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
        let mut due: Vec<(Instant, String, String)> = waiting
            .iter()
            .filter(|(job, _)| has_waited(job, seconds))
            .filter_map(|(job, pod)| {
                let uid = job.uid.to_string();
                let about = pod.as_ref().map_or(&job.uid, |pod| &pod.uid).to_string();
                let at = self.next.get(&uid).map_or(now, |(at, _)| *at);
                (at <= now).then_some((at, uid, about))
            })
            .collect();
        due.sort();
        due.truncate(MOST);
        for (_, uid, _) in &due {
            let (_, wait) = self.next.get(uid).copied().unwrap_or((now, SOON));
            let after = (now + wait, (wait * 2).min(SELDOM));
            self.next.insert(uid.clone(), after);
        }
        due.into_iter()
            .map(|(_, uid, about)| (uid, about))
            .collect()
    }

    /// Begins a round beside the pass.
    fn begin(&mut self, asker: &Asker<'_>, due: Vec<(String, String)>) {
        let api: Api<Event> = Api::namespaced(asker.context.kube.clone(), asker.namespace);
        let alarm = asker.alarm.clone();
        self.round.spawn(async move {
            let begun = Instant::now();
            let answers = futures::stream::iter(due)
                .map(|(uid, about)| {
                    let api = &api;
                    async move {
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
        self.rested = Some(Instant::now() + took * SHARE);
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
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_is_asked_about_later_and_never_later_than_half_a_minute() {
        assert_eq!([0, 1, 49].map(wait_of), [2; 3]);
        assert_eq!([50, 500, 10_000].map(wait_of), [3, 12, 30]);
    }
}
