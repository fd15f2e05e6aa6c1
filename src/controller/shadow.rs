//! Shadow: watches the queues of every binding beside whoever serves them, takes nothing, and tells what it would have
//! done: once for each task and step.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use kube::api::ListParams;
use kube::{Api, ResourceExt};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::binding::Loop;
use super::cluster::call;
use super::foresee::{self, Foreseen};
use super::{Error, Stage, cluster, scoped};
use crate::claim::{Phase, Step};
use crate::config::Settings;
use crate::crd::QueueBinding;

/// Between two looks.
const PERIOD: Duration = Duration::from_secs(1);
/// How often bindings are listed.
const LIST: Duration = Duration::from_secs(10);

/// One thing that would have been done.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Deed {
    pub binding: String,
    pub task: String,
    /// `intend`, `settle`, ...
    pub step: &'static str,
    pub phase: String,
    /// Name of the Job that would have been made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
}

/// Tells deeds until `shutdown`.
pub async fn shadow(
    settings: Settings,
    shutdown: CancellationToken,
    mut tell: impl FnMut(&Deed),
) -> Result<(), Error> {
    let stage = Stage::new(settings).await?;
    let bindings: Api<QueueBinding> = scoped(&stage.context.kube, stage.namespace.as_deref());
    let mut loops: HashMap<String, (QueueBinding, Loop)> = HashMap::new();
    let mut told: HashSet<(String, String, String)> = HashSet::new();
    let mut failing: HashMap<String, cluster::Once> = HashMap::new();
    let mut listed: Option<Instant> = None;
    foresee::until_sound(&stage.context).await;
    while !shutdown.is_cancelled() {
        if listed.is_none_or(|at| at.elapsed() >= LIST) {
            listed = Some(Instant::now());
            match call(bindings.list(&ListParams::default())).await {
                Ok(list) => follow(&stage, &mut loops, list.items),
                Err(error) => tracing::warn!(%error, "bindings were not listed"),
            }
        }
        for (name, (binding, serve)) in &mut loops {
            let once = failing.entry(name.clone()).or_default();
            match serve.foresee(binding, None).await {
                Ok(foresight) => {
                    once.over();
                    for deed in foresight
                        .foreseen
                        .iter()
                        .filter_map(|seen| deed(name, seen))
                    {
                        let key = (
                            deed.task.clone(),
                            deed.step.to_owned(),
                            deed.job.clone().unwrap_or_default(),
                        );
                        if told.insert(key) {
                            tell(&deed);
                        }
                    }
                }
                Err(trouble) => {
                    if once.is_new(&trouble.message) {
                        tracing::warn!(
                            binding = name,
                            error = trouble.message,
                            "nothing can be foreseen"
                        );
                    }
                }
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = tokio::time::sleep(PERIOD) => {}
        }
    }
    stage.end().await;
    Ok(())
}

/// Brings the loops in step with the bindings that there are.
fn follow(
    stage: &Stage,
    loops: &mut HashMap<String, (QueueBinding, Loop)>,
    now: Vec<QueueBinding>,
) {
    let name = |binding: &QueueBinding| {
        format!(
            "{}/{}",
            binding.namespace().unwrap_or_default(),
            binding.name_any()
        )
    };
    let names: HashSet<String> = now.iter().map(name).collect();
    loops.retain(|known, (binding, _)| {
        names.contains(known) && now.iter().any(|current| current.uid() == binding.uid())
    });
    for binding in now {
        let name = name(&binding);
        if let Some((known, _)) = loops.get_mut(&name) {
            *known = binding;
        } else {
            let serve = Loop::new(stage.context.clone(), &binding);
            loops.insert(name, (binding, serve));
        }
    }
}

/// What would have been done about a task; nothing if that changes nothing.
fn deed(binding: &str, seen: &Foreseen) -> Option<Deed> {
    let step = super::apply::name_of(&seen.step)?;
    let rendered = seen
        .case
        .rendered
        .as_ref()
        .filter(|_| matches!(seen.step, Step::Intend { .. }));
    Some(Deed {
        binding: binding.to_owned(),
        task: seen.case.task.to_string(),
        step,
        phase: phase_word(&Phase::of(&seen.case.observed.facts)),
        job: rendered.map(|draft| draft.name().as_str().to_owned()),
        image: rendered.map(|draft| draft.image().to_owned()),
    })
}

/// The phase's name.
pub(super) fn phase_word(phase: &Phase<'_>) -> String {
    let text = format!("{phase:?}");
    text.split(['(', ' ']).next().unwrap_or_default().to_owned()
}
