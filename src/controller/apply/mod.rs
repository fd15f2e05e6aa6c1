//! Apply: carry out one decided step after the other on one task. Decides nothing itself.
//!
//! ```text
//! Observed ──decide──▶ Step ──calls──▶ facts brought up to date ──┐
//!     ▲                                                           │ the claim of one pass: Intend, Take, Park, Release
//!     └───────────────────────────────────────────────────────────┘
//! ```
//!
//! Every step may be carried out twice, and the process may die after each call; what follows then is written at each
//! function. Each call has to begin within the step's deadline, counted from the first read that the step rests on.
//! Every step that destroys something reads live before, and decides again if the reading differs.

mod back;
mod claim;
mod draft;
mod end;
mod last_events;
mod reading;
mod tail;
mod tell;

use jiff::Timestamp;
use tokio::time::Instant;

use super::Context;
use super::cluster;
use super::fault;
use super::observe::{Identity, Lore, Objects};
use super::resolve::Resolved;
use super::turn::{self, Returned, Turn};
use crate::api;
use crate::claim::{self as rules, Observed, Policy, Settlement, Step, ThisPass, decide};
use crate::crd::QueueBindingSpec;
use crate::pod::label;
use crate::task::{QueueId, TaskId};

use back::Requeue;
pub(super) use draft::Draft;
pub(super) use end::delete_observed;
pub(super) use last_events::Readers;
pub(super) use tell::{Lines, Told};

/// No chain is longer: intend, take, park, release, and a way back.
const LONGEST_CHAIN: usize = 8;

/// What steps of a pass are carried out with.
pub(super) struct Hands<'a> {
    pub context: &'a Context,
    pub client: &'a api::Client,
    pub identity: &'a Identity,
    pub spec: &'a QueueBindingSpec,
    pub namespace: &'a str,
    /// Name of the binding.
    pub binding: &'a str,
    pub resolved: &'a Resolved,
    pub lore: &'a Lore,
    /// Whether this look read every queue of the server.
    pub all_queues_read: bool,
    pub told: &'a Told,
    pub returned: &'a Returned,
    /// Lines for logs of tasks that are sent together at the end of the pass.
    pub lines: Lines,
    pub readers: Readers,
    /// When the first step of the pass began.
    pub begun: Instant,
}

/// One task and what is known of it in this pass.
pub(super) struct Case {
    pub task: TaskId,
    pub observed: Observed,
    pub policy: Policy,
    pub objects: Objects,
    /// The Job to create, if the task was admitted, and the turn at which it is.
    pub rendered: Option<Draft>,
    pub turn: Option<Turn>,
}

/// What became of one task in this pass.
#[derive(Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each tells one thing that happened, in any combination"
)]
pub(super) struct Report {
    /// Steps that were carried out, by name.
    pub done: Vec<&'static str>,
    /// A Job was created.
    pub created: bool,
    /// A Job was released.
    pub released: bool,
    /// A step rests on an entry's place among all queues, and this look did not read them all.
    pub wants_every_queue: bool,
    /// The cluster refuses the pod of this task, which was pulled back to this queue: its words.
    pub pod_refused: Option<(QueueId, String)>,
    /// The pending queue is gone.
    pub pending_gone: bool,
    pub fault: Option<Fault>,
}

impl Report {
    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        let Self {
            done,
            created,
            released,
            wants_every_queue,
            pod_refused,
            pending_gone,
            fault,
        } = self;
        let nothing = done.is_empty() && pod_refused.is_none() && fault.is_none();
        nothing && !(*created || *released || *wants_every_queue || *pending_gone)
    }

    /// Whether nothing was begun for want of time: the next pass has the task again.
    pub fn was_left(&self) -> bool {
        match &self.fault {
            Some(Fault::Left) => true,
            Some(Fault::Late) => self.done.is_empty(),
            _ => false,
        }
    }
}

/// Why a step was not carried out to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error("the step's deadline has passed")]
    Late,
    #[error("the claim is left to the next pass")]
    Left,
    #[error(transparent)]
    Server(#[from] api::Error),
    #[error(transparent)]
    Cluster(#[from] cluster::Error),
    /// The API server refuses this Job; the task stays where it is.
    #[error("the API server refuses the Job: {0}")]
    JobRefused(String),
    #[error("release failed: {0}")]
    Release(cluster::Error),
}

/// What follows a step.
enum Next {
    /// The facts were brought up to date: decide again.
    Again,
    /// The next look tells.
    Done,
}

impl Hands<'_> {
    /// Decides and carries out, until there is nothing more to do about this task in this pass.
    pub async fn carry_out(&self, mut case: Case) -> (TaskId, Report) {
        let mut report = Report::default();
        for _ in 0..LONGEST_CHAIN {
            let step = decide(&case.observed, &case.policy, Timestamp::now());
            if self.rests_on_all_queues(&step, &case.observed) {
                report.wants_every_queue = true;
                break;
            }
            let name = name_of(&step);
            let next = self.step(&step, &mut case, &mut report).await;
            self.note(name, &step, &case, &next);
            match next {
                Ok(Next::Again) => report.done.extend(name),
                Ok(Next::Done) => {
                    report.done.extend(name);
                    break;
                }
                Err(fault) => {
                    if let Fault::JobRefused(words) = &fault {
                        self.tell_refused(words, &case).await;
                    }
                    report.fault = Some(fault);
                    break;
                }
            }
        }
        (case.task, report)
    }

    /// A place that an ordinary look has not read may be the one that counts; and that a queue is gone, so that a run
    /// ends which would go back there, is seen once more.
    fn rests_on_all_queues(&self, step: &Step, observed: &Observed) -> bool {
        if self.all_queues_read || observed.this_pass != ThisPass::Nothing {
            return false;
        }
        match step {
            Step::Park { .. }
            | Step::Release { .. }
            | Step::Requeue { .. }
            | Step::Restore { .. }
            | Step::PullBack { .. }
            | Step::GiveUp { .. }
            | Step::Dequeue => true,
            Step::Settle { how, .. } => match how {
                Settlement::AsEnded | Settlement::Failed => reading::queue_is_gone(observed),
                Settlement::Stopped | Settlement::Lost => false,
            },
            Step::Wait { .. }
            | Step::Explain(_)
            | Step::Intend { .. }
            | Step::Take { .. }
            | Step::Withdraw { .. }
            | Step::SettlePatchOnly { .. }
            | Step::TakeEntry { .. } => false,
        }
    }

    async fn step(&self, step: &Step, case: &mut Case, report: &mut Report) -> Result<Next, Fault> {
        match step {
            Step::Wait { .. } => Ok(Next::Done),
            Step::Explain(why) => self.explain(why, case).await,
            Step::Intend {
                attempt,
                returned: _,
                requeues,
                failures: _,
            } => self.intend(*attempt, *requeues, case, report).await,
            Step::Take { queue, .. } => self.take(queue, case).await,
            Step::Park { .. } => self.park(case, report).await,
            Step::Release { attempt } => self.release(*attempt, case, report).await,
            Step::Withdraw { attempt } => self.withdraw(*attempt, step, case).await,
            Step::Requeue {
                attempt,
                queue,
                pending,
                running,
                failed,
            } => {
                let how = Requeue {
                    pending: *pending,
                    running: *running,
                    failed: *failed,
                };
                self.requeue(*attempt, queue, how, case).await
            }
            Step::Restore { queue, pending } => self.restore(queue, *pending, case).await,
            Step::PullBack { attempt, queue } => {
                self.pull_back(*attempt, queue, case, report).await
            }
            Step::GiveUp {
                attempt,
                pending,
                reason,
            } => self.give_up(*attempt, *pending, *reason, case).await,
            Step::Settle { attempt, how } => self.settle(*attempt, *how, case).await,
            Step::SettlePatchOnly { attempt } => self.patch_settled(*attempt, case).await,
            Step::Dequeue => self.dequeue(step, case).await,
            Step::TakeEntry { queue } => self.take_entry(queue.as_ref(), step, case).await,
        }
    }

    /// One line for each step that changes something, and its count.
    fn note(
        &self,
        name: Option<&'static str>,
        step: &Step,
        case: &Case,
        next: &Result<Next, Fault>,
    ) {
        let Some(name) = name else { return };
        let (task, namespace, binding) = (&case.task, self.namespace, self.binding);
        let queue = self.queue_of(case);
        match next {
            Ok(_) => {
                self.context.metrics.step(name, "done");
                if is_turn(step) {
                    tracing::info!(%task, namespace, binding, queue, ?step, "step done");
                } else {
                    tracing::debug!(%task, namespace, binding, queue, ?step, "step done");
                }
            }
            Err(Fault::Late) => self.context.metrics.step(name, "late"),
            Err(Fault::Left) => self.context.metrics.step(name, "left"),
            Err(fault) => {
                self.context.metrics.step(name, "failed");
                tracing::warn!(%task, namespace, binding, queue, step = name, error = %fault, "step failed");
            }
        }
    }

    /// Name of the queue that the task's youngest Job came from, if there is a Job.
    fn queue_of(&self, case: &Case) -> String {
        let youngest = case.objects.jobs.iter().max_by_key(|job| job.created);
        let id: Option<QueueId> = youngest.and_then(|job| job.label(label::QUEUE)?.parse().ok());
        id.map_or_else(String::new, |id| self.queue_name(&id).to_owned())
    }

    /// The binding in metrics.
    fn label(&self) -> String {
        format!("{}/{}", self.namespace, self.binding)
    }

    /// Takes the entry out of the pending queue; `false`: somebody else did, and the step ends here.
    async fn take_pending(&self, case: &Case) -> Result<bool, Fault> {
        in_time(case)?;
        let taken = self
            .client
            .remove_from_queue(&self.resolved.pending, &case.task)
            .await?;
        fault::point!("step/entry-taken");
        Ok(taken)
    }

    /// Puts a queued task to the front of a queue, behind those that went back before it and were taken earlier. `false`:
    /// it is not queued any more, or the queue is gone.
    async fn put_back(&self, queue: &QueueId, reason: &str, case: &Case) -> Result<bool, Fault> {
        let mut returned = self.returned.0.lock().await;
        in_time(case)?;
        match self
            .client
            .move_queued_task(&case.task, queue, reason)
            .await
        {
            Ok(()) => {}
            // It is there already.
            Err(error) if error.is(400, 706) || error.is(400, 703) => {}
            Err(error) if error.is(400, 12) || error.is(400, 701) || error.is_unknown_task() => {
                return Ok(false);
            }
            Err(error) => return Err(error.into()),
        }
        fault::point!("back/enqueued");
        in_time(case)?;
        self.client.move_to_front(queue, &case.task).await?;
        fault::point!("back/moved-to-front");
        let Some(turn) = Turn::last(&case.objects.jobs) else {
            return Ok(true);
        };
        let returned = returned.entry(queue.clone()).or_default();
        let before = turn::before(returned, &turn, &case.task);
        if before > 0 {
            in_time(case)?;
            self.client.move_backward(queue, &case.task, before).await?;
            fault::point!("back/moved-behind");
        }
        returned.insert(turn, case.task.clone());
        Ok(true)
    }

    /// Name of a served queue, or its id.
    fn queue_name<'a>(&'a self, queue: &'a QueueId) -> &'a str {
        self.resolved
            .queue(queue)
            .map_or(queue.as_str(), |known| known.name.as_str())
    }
}

/// Whether a call of a step may still begin.
fn in_time(case: &Case) -> Result<(), Fault> {
    let age = Timestamp::now().duration_since(case.observed.read_at);
    if age > rules::STEP_DEADLINE {
        Err(Fault::Late)
    } else {
        Ok(())
    }
}

/// Whether a step is a turn in a task's life that its administrator looks for. That it was taken has a line of its own.
fn is_turn(step: &Step) -> bool {
    match step {
        Step::Wait { .. }
        | Step::Explain(_)
        | Step::Intend { .. }
        | Step::Take { .. }
        | Step::Park { .. }
        | Step::Release { .. }
        | Step::SettlePatchOnly { .. }
        | Step::TakeEntry { .. } => false,
        Step::Withdraw { .. }
        | Step::Requeue { .. }
        | Step::Restore { .. }
        | Step::PullBack { .. }
        | Step::GiveUp { .. }
        | Step::Settle { .. }
        | Step::Dequeue => true,
    }
}

/// Word for logs and metrics; `None` for what changes nothing.
pub(super) fn name_of(step: &Step) -> Option<&'static str> {
    match step {
        Step::Wait { .. } | Step::Explain(_) => None,
        Step::Intend { .. } => Some("intend"),
        Step::Take { .. } => Some("take"),
        Step::Park { .. } => Some("park"),
        Step::Release { .. } => Some("release"),
        Step::Withdraw { .. } => Some("withdraw"),
        Step::Requeue { .. } => Some("requeue"),
        Step::Restore { .. } => Some("restore"),
        Step::PullBack { .. } => Some("pull-back"),
        Step::GiveUp { .. } => Some("give-up"),
        Step::Settle { .. } => Some("settle"),
        Step::SettlePatchOnly { .. } => Some("settle-patch"),
        Step::Dequeue => Some("dequeue"),
        Step::TakeEntry { .. } => Some("take-entry"),
    }
}

#[cfg(test)]
mod tests;
