//! Inquiry: the Events of Jobs and pods that do not start. They alone tell why the cluster refuses a pod (quota,
//! policy), or what its node is busy with.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use tokio::time::Instant;

use super::Context;
use super::cluster::{self, call};
use super::fault;
use super::observe::Lore;
use crate::diagnose;

/// A Job that has not started for this long is asked about.
const WAITED_S: i64 = 2;
/// It is asked about again after this long at first, then less and less often, up to [`SELDOM`].
const SOON: Duration = Duration::from_secs(3);
const SELDOM: Duration = Duration::from_secs(60);
/// Jobs asked about in one pass, and Events read of each.
const MOST: usize = 16;
const EVENTS: u32 = 50;
/// No pass waits for them any longer.
const PATIENCE: Duration = Duration::from_secs(2);

/// When the Events of a Job are read next, and the wait after that, by the Job's UID.
#[derive(Debug, Default)]
pub(super) struct Inquiry {
    next: HashMap<String, (Instant, Duration)>,
}

impl Inquiry {
    /// Brings `lore.events` up to date for Jobs that were released and have not started, with their pod if there is one.
    pub async fn ask(
        &mut self,
        context: &Context,
        namespace: &str,
        waiting: &[(Arc<Job>, Option<Arc<Pod>>)],
        lore: &mut Lore,
    ) {
        let uids: HashSet<&String> = waiting
            .iter()
            .filter_map(|(job, _)| job.metadata.uid.as_ref())
            .collect();
        lore.events.retain(|uid, _| uids.contains(uid));
        self.next.retain(|uid, _| uids.contains(uid));
        let now = Instant::now();
        let mut due: Vec<(Instant, String, String)> = waiting
            .iter()
            .filter(|(job, _)| has_waited(job))
            .filter_map(|(job, pod)| {
                let uid = job.uid()?;
                let about = pod.as_ref().map_or_else(|| job.uid(), |pod| pod.uid())?;
                let at = self.next.get(&uid).map_or(now, |(at, _)| *at);
                (at <= now).then_some((at, uid, about))
            })
            .collect();
        due.sort();
        due.truncate(MOST);
        let api: Api<Event> = Api::namespaced(context.kube.clone(), namespace);
        let reads = due.into_iter().map(|(_, uid, about)| {
            let (_, wait) = self.next.get(&uid).copied().unwrap_or((now, SOON));
            self.next
                .insert(uid.clone(), (now + wait, (wait * 2).min(SELDOM)));
            let api = &api;
            async move {
                let params = ListParams::default()
                    .fields(&format!("involvedObject.uid={about}"))
                    .limit(EVENTS);
                (uid, call(api.list(&params)).await)
            }
        });
        let all = tokio::time::timeout(PATIENCE, futures::future::join_all(reads)).await;
        for (uid, read) in all.into_iter().flatten() {
            match read {
                Ok(events) => {
                    fault::point!("inquiry/events-read");
                    lore.events.insert(uid, oldest_first(events.items));
                }
                Err(error) => {
                    tracing::debug!(job_uid = uid, %error, "events of the Job were not read");
                }
            }
        }
    }
}

fn has_waited(job: &Job) -> bool {
    let began = job
        .status
        .as_ref()
        .and_then(|status| status.start_time.as_ref());
    began.is_some_and(|began| Timestamp::now().duration_since(began.0).as_secs() >= WAITED_S)
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
