//! Explain: why a task waits, runs or failed, in one sentence and then step by step. Reads, and changes nothing.
//!
//! ```text
//! task on the server ─▶ its queue ─▶ a binding that serves it ─▶ one pass with tied hands ─▶ phase, step, pod ─▶ the answer
//! ```

mod files;

use jiff::Timestamp;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use serde::Serialize;

use super::binding::Loop;
use super::cluster::{self, call};
use super::foresee::{self, Foreseen, Foresight};
use super::observe::Lore;
use super::shadow::phase_word;
use super::{Error, Stage, scoped, verdict};
use crate::claim::{Admission, Entry, Phase, Step, TaskFact, UserQueue, Why};
use crate::config::Settings;
use crate::crd::{QueueBinding, condition};
use crate::task::{Status, TaskId};

pub use files::explain_offline;

/// Why no explanation can be given.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error(transparent)]
    Start(#[from] Error),
    #[error("could not list bindings: {0}")]
    List(String),
    #[error("{0}")]
    Other(String),
}

/// What is known of a task, the answer first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    pub task: String,
    /// One sentence.
    pub answer: String,
    /// The binding that has to do with it.
    pub binding: Option<String>,
    /// What it means, in the words of `docs/claim.md`.
    pub phase: Option<String>,
    /// What follows.
    pub step: Option<String>,
    /// How that was found out, in order.
    pub facts: Vec<Fact>,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fact {
    pub about: &'static str,
    pub found: String,
}

impl std::fmt::Display for Explanation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}", self.answer)?;
        writeln!(f)?;
        let rows = [
            ("task", Some(&self.task)),
            ("binding", self.binding.as_ref()),
            ("phase", self.phase.as_ref()),
            ("next step", self.step.as_ref()),
        ];
        for (about, found) in rows {
            if let Some(found) = found {
                writeln!(f, "  {about:<12} {found}")?;
            }
        }
        for Fact { about, found } in &self.facts {
            writeln!(f, "  {about:<12} {found}")?;
        }
        Ok(())
    }
}

/// Explains one task; `binding` narrows the search to the one of this name.
pub async fn explain(
    settings: Settings,
    task: &TaskId,
    binding: Option<&str>,
) -> Result<Explanation, AskError> {
    let stage = Stage::new(settings).await?;
    let explanation = explain_on(&stage, task, binding).await;
    stage.end().await;
    explanation
}

async fn explain_on(
    stage: &Stage,
    task: &TaskId,
    only: Option<&str>,
) -> Result<Explanation, AskError> {
    let api: Api<QueueBinding> = scoped(&stage.context.kube, stage.namespace.as_deref());
    let mut bindings = call(api.list(&ListParams::default()))
        .await
        .map_err(|error| AskError::List(error.to_string()))?
        .items;
    bindings.retain(|binding| only.is_none_or(|name| binding.name_any() == name));
    if bindings.is_empty() {
        return Err(AskError::Other(match only {
            Some(name) => format!("there is no binding {name:?} here (hint: --namespace, --scope cluster)"),
            None => "there is no binding here, so no queue is served (hint: --namespace, --scope cluster)".into(),
        }));
    }
    if !foresee::until_sound(&stage.context).await {
        return Err(AskError::Other(
            "Jobs and pods could not be listed (hint: you need the rights to list and watch them)"
                .into(),
        ));
    }
    let mut best: Option<(u8, Explanation)> = None;
    let mut troubles = Vec::new();
    for binding in &bindings {
        let mut serve = Loop::new(stage.context.clone(), binding);
        match serve.foresee(binding, Some(task)).await {
            Ok(foresight) => {
                let lore = &serve.memory.lore;
                if let Some((rank, found)) = of_binding(binding, &foresight, task, lore)
                    && best.as_ref().is_none_or(|(known, _)| rank > *known)
                {
                    best = Some((rank, found));
                }
            }
            Err(trouble) => troubles.push(format!(
                "binding {} cannot serve: {}",
                binding.name_any(),
                trouble.message
            )),
        }
    }
    match best {
        Some((_, mut found)) => {
            found.facts.extend(troubles.into_iter().map(|found| Fact {
                about: "trouble",
                found,
            }));
            Ok(found)
        }
        None if troubles.is_empty() => Err(AskError::Other(format!(
            "no server of these bindings knows task {task}"
        ))),
        None => Err(AskError::Other(troubles.join("; "))),
    }
}

/// What this binding has to say about the task, and how much it has to do with it: 3 with a Job, 2 its queue is served.
fn of_binding(
    binding: &QueueBinding,
    foresight: &Foresight,
    task: &TaskId,
    lore: &Lore,
) -> Option<(u8, Explanation)> {
    let seen = foresight
        .foreseen
        .iter()
        .find(|seen| seen.case.task == *task)?;
    let TaskFact::Found(state) = &seen.case.observed.facts.task else {
        return None;
    };
    let name = format!(
        "{}/{}",
        binding.namespace().unwrap_or_default(),
        binding.name_any()
    );
    let serves = match (&seen.case.observed.facts.entry, &state.user_queue) {
        (Entry::Served { .. } | Entry::Pending, _) => true,
        (_, UserQueue::Known(queue)) => foresight.served.iter().any(|known| known.id == *queue),
        _ => false,
    };
    let has_job = !seen.case.objects.jobs.is_empty();
    let rank = match (has_job, serves) {
        (true, _) => 3,
        (false, true) => 2,
        (false, false) => 1,
    };
    let phase = Phase::of(&seen.case.observed.facts);
    let answer = if rank == 1 && state.status == Status::Queued {
        "the task is queued, and no binding here serves its queue".to_owned()
    } else {
        answer(binding, foresight, seen, &phase, lore)
    };
    Some((
        rank,
        Explanation {
            task: task.to_string(),
            answer,
            binding: (rank > 1).then_some(name),
            phase: (rank > 1).then(|| phase_word(&phase)),
            step: (rank > 1).then(|| step_words(&seen.step)),
            facts: facts(binding, foresight, seen, lore),
        },
    ))
}

/// The one sentence.
fn answer(
    binding: &QueueBinding,
    foresight: &Foresight,
    seen: &Foreseen,
    phase: &Phase<'_>,
    lore: &Lore,
) -> String {
    let waits = || {
        let job = seen.case.objects.jobs.iter().find(|job| !job.has_ended())?;
        Some(verdict::waiting(job, &seen.case.objects.pods, lore)?.message())
    };
    let ended = || {
        let job = seen
            .case
            .objects
            .jobs
            .iter()
            .filter(|job| job.has_ended())
            .max_by_key(|job| job.created)?;
        let pods = lore.pods_or_remains(job, &seen.case.objects.pods);
        Some(verdict::diagnosis(job, &pods).message())
    };
    match phase {
        Phase::Offered(..) => match (not_ready(binding), &seen.case.policy.admission) {
            (Some(why), _) => {
                format!("it waits in its queue because the binding is not ready: {why}")
            }
            (None, Admission::Yes) => "it is next: the controller takes it in its next pass".into(),
            (None, Admission::No(reason)) => {
                let why = foresight
                    .waiting
                    .as_ref()
                    .map_or(reason, |waiting| &waiting.message);
                format!("it waits in its queue: {why}")
            }
        },
        Phase::Intended(..) | Phase::Taken(_) | Phase::Parked(_) => {
            "it is being taken: its Job is written and not released yet".into()
        }
        Phase::Waiting(..) => waits().map_or_else(
            || "it is taken, and its pod is on its way".into(),
            |why| format!("it is taken, and its pod does not start: {why}"),
        ),
        Phase::Starting(..) => "its pod has started and is about to run it".into(),
        Phase::Running(_) => "it runs".into(),
        Phase::Stopping(_) => "it was asked to stop; its pod is ended with grace".into(),
        Phase::Closing(_) => "it has ended; its pod is still there".into(),
        Phase::EndedQueued(..) | Phase::EndedRunning(..) => format!(
            "its pod has ended, and what follows is decided after the quiet time: {}",
            ended().unwrap_or_else(|| "nothing is known of the end".into())
        ),
        Phase::Deleting => "its Job is being deleted".into(),
        Phase::Occupied => "a Job of another binding has it".into(),
        Phase::Stranded(_) => "it stands in the pending queue without a Job and is put back".into(),
        Phase::Orphan(_) => {
            "it is queued and stands in no queue: somebody took it and dropped it; enqueue it again"
                .into()
        }
        Phase::Lost(_) => "it says that it runs, and its Job is gone".into(),
        Phase::TakenOut => "its user took it out of the queue".into(),
        Phase::Unclear => "not all of it could be read; ask again".into(),
        Phase::Withdrawn(_)
        | Phase::Rival(_)
        | Phase::Superseded(_)
        | Phase::Leftover(_)
        | Phase::Reported(_)
        | Phase::Closed => closed(seen, ended),
    }
}

/// What there is to say of a task that nothing is to be done about.
fn closed(seen: &Foreseen, ended: impl Fn() -> Option<String>) -> String {
    let TaskFact::Found(task) = &seen.case.observed.facts.task else {
        return "the server does not know it any more".into();
    };
    match task.status {
        Status::Created => "it is not enqueued".into(),
        Status::Queued => "it stands in a queue that others serve".into(),
        Status::InProgress => "it runs elsewhere: nothing here knows its pod".into(),
        status => ended().map_or_else(
            || format!("it is {status}"),
            |how| format!("it is {status}: {how}"),
        ),
    }
}

/// Why a binding takes nothing at all.
fn not_ready(binding: &QueueBinding) -> Option<String> {
    let conditions = &binding.status.as_ref()?.conditions;
    let ready = conditions
        .iter()
        .find(|known| known.type_ == condition::READY)?;
    (ready.status == "False").then(|| ready.message.clone())
}

fn step_words(step: &Step) -> String {
    match step {
        Step::Wait { until: None } => "none".into(),
        Step::Wait { until: Some(time) } => format!("none before {time}"),
        Step::Explain(Why::NotAdmitted(_)) => "none until it is admitted".into(),
        Step::Explain(Why::PodWaits { .. }) => "none while its pod is waited for".into(),
        step => super::apply::name_of(step).unwrap_or("none").to_owned(),
    }
}

fn facts(binding: &QueueBinding, foresight: &Foresight, seen: &Foreseen, lore: &Lore) -> Vec<Fact> {
    let mut facts = Vec::new();
    let mut add = |about, found: String| facts.push(Fact { about, found });
    let observed = &seen.case.observed.facts;
    if let TaskFact::Found(task) = &observed.task {
        let stopping = if task.stopping { ", asked to stop" } else { "" };
        add("status", format!("{}{stopping}", task.status));
    }
    let queue = |id: &crate::task::QueueId| {
        foresight
            .served
            .iter()
            .find(|known| known.id == *id)
            .map_or_else(|| id.to_string(), |known| known.name.clone())
    };
    let since = observed
        .stamps
        .entry_added
        .as_deref()
        .and_then(|text| text.parse::<Timestamp>().ok())
        .map(|added| {
            let age = Timestamp::now().duration_since(added).as_secs();
            format!(", for {age} s")
        })
        .unwrap_or_default();
    add(
        "entry",
        match &observed.entry {
            Entry::Unknown => "not known".into(),
            Entry::Nowhere => "in no queue".into(),
            Entry::Served { queue: id } => format!("in queue {:?}{since}", queue(id)),
            Entry::Pending => format!("in the binding's pending queue{since}"),
            Entry::Elsewhere => "in a queue that this binding does not serve".into(),
        },
    );
    if let Some(why) = not_ready(binding) {
        add("binding", format!("is not ready: {why}"));
    }
    if let Admission::No(reason) = &seen.case.policy.admission
        && matches!(observed.entry, Entry::Served { .. })
    {
        add("admission", reason.clone());
    }
    for job in &seen.case.objects.jobs {
        let state = if job.has_ended() {
            "ended"
        } else if job.is_suspended() {
            "not released"
        } else {
            "released"
        };
        add("job", format!("{}: {state}", job.name));
        if job.has_ended() {
            let pods = lore.pods_or_remains(job, &seen.case.objects.pods);
            for line in verdict::ended(job, &pods).evidence {
                add("evidence", line);
            }
        }
        for event in lore
            .events
            .get(&*job.uid)
            .into_iter()
            .flatten()
            .rev()
            .take(5)
        {
            add("event", format!("{}: {}", event.reason, event.message));
        }
    }
    for pod in &seen.case.objects.pods {
        let phase = pod.phase().unwrap_or("unknown");
        let node = pod.node().unwrap_or("no node");
        add("pod", format!("{}: {phase}, {node}", pod.name));
    }
    for fact in &mut facts {
        fact.found = cluster::bounded(&fact.found);
    }
    facts
}
