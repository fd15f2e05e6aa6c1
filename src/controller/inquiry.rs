//! Inquiry: the Events of Jobs and pods that do not start. They alone tell why the cluster refuses a pod (quota,
//! policy), or what its node is busy with.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use tokio::time::Instant;

use super::Context;
use super::cluster::{self, call};
use super::observe::Lore;
use crate::diagnose;

/// How often Events are read.
const PERIOD: Duration = Duration::from_secs(10);
/// A Job that has not started for this long is asked about.
const WAITED_S: i64 = 5;
/// Jobs asked about at once, and Events read of each.
const MOST: usize = 16;
const EVENTS: u32 = 50;

/// When Events were read last.
#[derive(Debug, Default)]
pub(super) struct Inquiry {
    next: Option<Instant>,
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
        lore.events.retain(|uid, _| {
            waiting
                .iter()
                .any(|(job, _)| job.metadata.uid.as_ref() == Some(uid))
        });
        let now = Instant::now();
        let old: Vec<_> = waiting
            .iter()
            .filter(|(job, _)| has_waited(job))
            .take(MOST)
            .cloned()
            .collect();
        if old.is_empty() || self.next.is_some_and(|next| now < next) {
            return;
        }
        self.next = Some(now + PERIOD);
        let api: Api<Event> = Api::namespaced(context.kube.clone(), namespace);
        for (job, pod) in &old {
            let (Some(uid), about) = (
                job.uid(),
                pod.as_ref().map_or_else(|| job.uid(), |pod| pod.uid()),
            ) else {
                continue;
            };
            let params = ListParams::default()
                .fields(&format!("involvedObject.uid={}", about.unwrap_or_default()))
                .limit(EVENTS);
            match call(api.list(&params)).await {
                Ok(events) => {
                    lore.events.insert(uid, oldest_first(events.items));
                }
                Err(error) => {
                    tracing::debug!(job = %job.name_any(), %error, "events of the Job were not read");
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
        })
        .collect()
}
