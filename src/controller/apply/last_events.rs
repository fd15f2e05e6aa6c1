//! The Events of a pod that did not start or that died, in the task's own log before the task is ended. What is told
//! while a pod waits was read some time ago, the longer the more pods wait; here they are read once more.
//!
//! ```text
//! kubelet ─┬─▶ status of the pod ──▶ give up ──▶ read Events ──▶ log ──▶ end of the task
//!          └─▶ Event, at times later ─────────────────┘ again for a moment, if the one that is to be expected is missing;
//!                                                        then the status has to do
//! ```

use std::time::Duration;

use k8s_openapi::api::core::v1::Event;
use kube::Api;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout_at};

use super::{Case, Hands};
use crate::controller::cluster::bounded;
use crate::controller::inquiry::events_about;
use crate::controller::row::{JobRow, PodRow};
use crate::controller::verdict;
use crate::diagnose::{self, warning_is_missing, warnings_in_status};
use crate::task::Attempt;

/// An end does not wait any longer for what is told before it.
const PATIENCE: Duration = Duration::from_secs(2);
/// The part of it in which Events are read; the rest is for telling them.
const READING: Duration = Duration::from_millis(1500);
/// They are read again after this long.
const AGAIN: Duration = Duration::from_millis(200);
/// So many tasks' Events are read at once: the API server looks through all of the namespace for each.
const AT_ONCE: usize = 8;

/// Places for those who read last Events.
#[derive(Debug)]
pub(in crate::controller) struct Readers(Semaphore);

impl Default for Readers {
    fn default() -> Self {
        Self(Semaphore::new(AT_ONCE))
    }
}

impl Hands<'_> {
    /// Tells the task's log what Kubernetes warns of about the attempt's pod, or about its Job where there is no pod.
    /// Nothing rests on it: without the right to list Events, or where nobody answers in time, the task is ended all
    /// the same.
    ///
    /// Whether it was tried, which takes time.
    ///
    /// Death after it: they are told twice.
    pub(super) async fn tell_last_events(&self, attempt: Attempt, case: &Case) -> bool {
        let Some(job) = Self::known_job(case, attempt) else {
            return false;
        };
        let begun = Instant::now();
        let pods = self.lore.pods_or_remains(job, &case.objects.pods);
        let pod = verdict::last_pod(&job.uid, &pods);
        // A step that came too late is begun again, and has waited.
        let waits = self.told.is_new_end(&job.uid);
        let mut events = self.last_events(job, pod, waits, begun + READING).await;
        if let Some(object) = pod.map(PodRow::object)
            && warning_is_missing(&object, &events)
        {
            // On a busy node Events come after minutes; what the status says is no less true.
            events.extend(
                warnings_in_status(&object)
                    .into_iter()
                    .map(|warning| diagnose::Event {
                        message: bounded(&warning.message),
                        ..warning
                    }),
            );
        }
        self.tell_warnings_by(begun + PATIENCE, &events, case).await;
        true
    }

    /// All Events that there are by then; who `waits` reads again while the one that is to be expected is missing.
    async fn last_events(
        &self,
        job: &JobRow,
        pod: Option<&PodRow>,
        waits: bool,
        until: Instant,
    ) -> Vec<diagnose::Event> {
        let api: Api<Event> = Api::namespaced(self.context.kube.clone(), self.namespace);
        let about = pod.map_or(&job.uid, |pod| &pod.uid);
        let mut events = Vec::new();
        loop {
            let read = async {
                let _place = self.readers.0.acquire().await;
                events_about(&api, about).await
            };
            let again = match timeout_at(until, read).await {
                Ok(Ok(found)) => {
                    events = found;
                    waits && pod.is_some_and(|pod| warning_is_missing(&pod.object(), &events))
                }
                Ok(Err(error)) => {
                    tracing::debug!(job = %job.name, %error, "last events were not read");
                    !error.is_verdict() && !error.is_not_found()
                }
                Err(_) => {
                    tracing::debug!(job = %job.name, "last events were not read in time");
                    false
                }
            };
            if !again || Instant::now() + AGAIN >= until {
                return events;
            }
            sleep(AGAIN).await;
        }
    }
}
