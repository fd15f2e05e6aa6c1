//! Jobs whose pod the cluster refuses to make (quota, policy): the Job's own Events tell.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Event;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use tokio::time::Instant;

use super::Context;
use super::cluster::{self, call};
use super::observe::Lore;

/// How often the Events of such Jobs are read.
const PERIOD: Duration = Duration::from_secs(10);
/// A Job without a pod for this long is asked about.
const WITHOUT_POD_S: i64 = 5;
/// Jobs asked about at once.
const MOST: usize = 16;

/// When Events were read last.
#[derive(Debug, Default)]
pub(super) struct Inquiry {
    next: Option<Instant>,
}

impl Inquiry {
    /// Brings `lore.refused` up to date for `podless`: released Jobs that have no pod.
    pub async fn ask(
        &mut self,
        context: &Context,
        namespace: &str,
        podless: &[Arc<Job>],
        lore: &mut Lore,
    ) {
        let uids: Vec<String> = podless.iter().filter_map(|job| job.uid()).collect();
        lore.refused.retain(|uid, _| uids.contains(uid));
        let now = Instant::now();
        if podless.is_empty() || self.next.is_some_and(|next| now < next) {
            return;
        }
        self.next = Some(now + PERIOD);
        let old = |job: &&Arc<Job>| {
            let began = job
                .status
                .as_ref()
                .and_then(|status| status.start_time.as_ref());
            began.is_some_and(|began| {
                Timestamp::now().duration_since(began.0).as_secs() >= WITHOUT_POD_S
            })
        };
        let api: Api<Event> = Api::namespaced(context.kube.clone(), namespace);
        for job in podless.iter().filter(old).take(MOST) {
            let Some(uid) = job.uid() else { continue };
            let events = ListParams::default()
                .fields(&format!("involvedObject.uid={uid},reason=FailedCreate"))
                .limit(20);
            match call(api.list(&events)).await {
                Ok(events) => {
                    let last = events
                        .items
                        .iter()
                        .filter_map(|event| event.message.as_deref())
                        .next_back();
                    if let Some(message) = last {
                        lore.refused.insert(uid, cluster::bounded(message));
                    }
                }
                Err(error) => {
                    tracing::debug!(job = %job.name_any(), %error, "events of the Job were not read")
                }
            }
        }
    }
}
