//! What a reconcile has led to: conditions, Events and metrics of it, and when to go on.

use std::time::Duration;

use kube::runtime::events::EventType;
use tokio::time::Instant;

use super::{Failure, Loop, pace};
use crate::controller::admit::Waiting;
use crate::controller::dereference::Connection;
use crate::controller::pass::Passed;
use crate::controller::resolve::Resolved;
use crate::controller::status::{Counters, Trouble, Verdicts};
use crate::controller::{cluster, finalize};
use crate::crd::{QueueBinding, RESTORE_STRANDED, condition, unsupported};
use crate::diagnose::Category;
use crate::task::TaskId;
use crate::telemetry::metrics::TaskCounts;

impl Loop {
    /// Status, Events and metrics of what happened; answers when to go on.
    pub(super) async fn conclude(
        &mut self,
        binding: &QueueBinding,
        served: Result<Passed, Failure>,
        retiring: bool,
        verdicts: &mut Verdicts,
    ) -> Duration {
        let (wait, counters) = match served {
            Ok(passed) => {
                self.backoff.reset();
                self.failing.over();
                if passed.queues_gone {
                    self.resolved.iter_mut().for_each(Resolved::doubt);
                }
                judge(&passed, verdicts);
                self.tell_of_tasks(binding, &passed.refused, &passed.rejected)
                    .await;
                if retiring && let Err(error) = self.retire(binding, passed.nothing_claimed).await {
                    return self.cluster_fault(&error);
                }
                self.measure(&passed);
                let wait = pace::after(&passed, retiring);
                (wait, Some(self.counters(passed)))
            }
            Err(failure) => {
                self.log_failure(&failure.trouble.message);
                if failure.trouble.condition == condition::CREDENTIALS_VALID {
                    self.connection.iter_mut().for_each(Connection::doubt);
                }
                verdicts.fails(failure.trouble);
                if retiring
                    && finalize::own_jobs(&self.context, binding, &self.identity).is_empty()
                    && self.context.jobs.sound()
                {
                    // Nothing of it is in the cluster; the server may be gone for good.
                    if let Err(error) = finalize::let_go(&self.api, binding).await {
                        return self.cluster_fault(&error);
                    }
                }
                (self.backoff.next(failure.retry_after), None)
            }
        };
        verdicts.throttled(self.context.throttle.is_lasting(Instant::now()));
        for (condition, value) in verdicts.values() {
            self.context
                .metrics
                .condition(&self.label(), condition, value);
        }
        let written = self
            .writer
            .write(binding, verdicts, counters.as_ref())
            .await;
        if let Err(error) = written
            && !error.is_not_found()
        {
            return self.cluster_fault(&error);
        }
        wait
    }

    /// Events of tasks that do not go where they were to go.
    async fn tell_of_tasks(
        &mut self,
        binding: &QueueBinding,
        refused: &[(TaskId, String)],
        rejected: &[(TaskId, String)],
    ) {
        for (task, message) in refused {
            let note = format!(
                "task {task} stays in its queue: the API server refuses its Job: {message}"
            );
            self.writer
                .event(binding, EventType::Warning, "JobRefused", &note)
                .await;
        }
        for (task, why) in rejected {
            let note = format!("task {task} is failed: {why}");
            self.writer
                .event(binding, EventType::Warning, "TaskRejected", &note)
                .await;
        }
    }

    /// The last steps before the binding goes, once nothing is claimed any more.
    async fn retire(
        &mut self,
        binding: &QueueBinding,
        nothing_claimed: bool,
    ) -> Result<(), cluster::Error> {
        let (Some(connection), Some(resolved)) = (&self.connection, &self.resolved) else {
            return Ok(());
        };
        let client = connection.client.clone();
        let stopped = finalize::stop_running(&self.context, &client, binding, &self.identity).await;
        if nothing_claimed
            && stopped
            && finalize::clean_up(&self.context, &client, resolved, binding, &self.identity).await?
        {
            let (worker, queues) = (&self.identity.worker, resolved.ids());
            self.reporter.unregister(&client, worker, &queues).await;
            finalize::let_go(&self.api, binding).await?;
        }
        Ok(())
    }

    fn counters(&self, passed: Passed) -> Counters {
        Counters {
            queues: passed.queues,
            last_dispatch: self.memory.last_dispatch,
        }
    }

    fn measure(&self, passed: &Passed) {
        let label = self.label();
        let mut counts = TaskCounts::default();
        for queue in &passed.queues {
            self.context.metrics.queued(
                &label,
                &queue.name,
                u64::try_from(queue.queued).unwrap_or(0),
            );
            let head = passed.heads.get(&queue.name).copied();
            self.context
                .metrics
                .head_age(&label, &queue.name, head.unwrap_or_default());
            counts.claimed += u64::try_from(queue.claimed).unwrap_or(0);
            counts.running += u64::try_from(queue.running).unwrap_or(0);
        }
        self.context.metrics.tasks(&label, counts);
        self.context.metrics.stranded(&label, passed.stranded.len());
        let reasons: Vec<(&str, u64)> = self
            .memory
            .troubles
            .count()
            .into_iter()
            .map(|(category, count)| (category.as_str(), count))
            .collect();
        let all = Category::OF_WAITING.map(Category::as_str);
        self.context.metrics.pending(&label, &reasons, &all);
    }

    /// Fields that are set and have no effect are told once for each generation.
    pub(super) async fn tell_unsupported(&mut self, binding: &QueueBinding) {
        if self.noted == binding.metadata.generation {
            return;
        }
        self.noted = binding.metadata.generation;
        for note in unsupported(&binding.spec).iter().take(10) {
            self.writer
                .event(
                    binding,
                    EventType::Warning,
                    "NotSupported",
                    &note.to_string(),
                )
                .await;
        }
    }
}

/// What a pass says of room, and of tasks in no queue.
fn judge(passed: &Passed, verdicts: &mut Verdicts) {
    match &passed.waiting {
        None => verdicts.holds(
            condition::CAPACITY_AVAILABLE,
            "Room",
            "another task would be taken",
        ),
        Some(Waiting {
            reason, message, ..
        }) => {
            verdicts.fails(Trouble::new(condition::CAPACITY_AVAILABLE, reason, message));
        }
    }
    match trouble_with_stranded(&passed.stranded) {
        None => verdicts.holds(
            condition::NOTHING_STRANDED,
            "AllAccountedFor",
            "every queued task of these queues stands in a queue",
        ),
        Some(trouble) => verdicts.fails(trouble),
    }
}

/// What is said of tasks that somebody popped and dropped.
fn trouble_with_stranded(stranded: &[TaskId]) -> Option<Trouble> {
    let first = stranded.first()?;
    let count = stranded.len();
    let message = format!(
        "{count} queued tasks stand in no queue, the first is {first}: another consumer of the queue took them and died, or its queue was cleared; enqueue them again (hint: with the annotation {RESTORE_STRANDED}=true on the binding they are put back after some minutes)"
    );
    Some(Trouble::new(
        condition::NOTHING_STRANDED,
        "Stranded",
        message,
    ))
}
