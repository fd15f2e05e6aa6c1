//! Is there room for one more task: the limits of a binding against what its observed Jobs use. Pure.
//!
//! What is in use is summed up anew from the Jobs at every look, never counted up and down, so nothing can drift.

use std::fmt;

use crate::crd::{BadQuantity, LimitsSpec, Quantity, Resources};

/// The limits of a binding, read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    max_concurrent: Option<usize>,
    resources: Resources,
}

impl Limits {
    /// Reads the limits of a binding. The schema lets only readable amounts through.
    pub fn of(spec: &LimitsSpec) -> Result<Self, UnreadableLimit> {
        let mut resources = Resources::default();
        for (name, amount) in &spec.resources {
            let amount: Quantity = amount.0.parse().map_err(|source| UnreadableLimit {
                name: name.clone(),
                source,
            })?;
            resources.set(name, amount);
        }
        // A negative limit cannot pass the schema; if one did, it would mean none at all.
        let max_concurrent = spec
            .max_concurrent
            .map(|most| usize::try_from(most).unwrap_or(0));
        Ok(Self {
            max_concurrent,
            resources,
        })
    }
}

/// An amount in `spec.limits.resources` that is no quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("spec.limits.resources.{name}: {source}")]
pub struct UnreadableLimit {
    name: String,
    source: BadQuantity,
}

/// What the tasks of a binding use that are claimed or running.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InUse {
    pub tasks: usize,
    pub resources: Resources,
}

impl InUse {
    /// Counts one more task, with the requests of its pod.
    pub fn add(&mut self, requests: &Resources) {
        self.tasks += 1;
        self.resources.add(requests);
    }
}

/// Why a task has to wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wait {
    /// As many tasks as may run at the same time do.
    Concurrent { limit: usize },
    /// Of this resource too little is left of the limit.
    Resource {
        name: String,
        limit: Quantity,
        in_use: Quantity,
        asked: Quantity,
    },
    /// One task asks for more of it than the limit: it never fits.
    NeverFits {
        name: String,
        limit: Quantity,
        asked: Quantity,
    },
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Concurrent { limit } => {
                write!(
                    f,
                    "waiting for one of {limit} running tasks to end (limits.maxConcurrent)"
                )
            }
            Self::Resource {
                name,
                limit,
                in_use,
                asked,
            } => write!(
                f,
                "waiting for {name}: {asked} asked for, {in_use} of {limit} in use (limits.resources)"
            ),
            Self::NeverFits { name, limit, asked } => write!(
                f,
                "cannot run here: {asked} of {name} asked for, and all tasks together may have {limit} (limits.resources)"
            ),
        }
    }
}

/// Whether a task that requests `asked` may be taken beside what is `in_use`; else why it has to wait.
pub fn admit(limits: &Limits, in_use: &InUse, asked: &Resources) -> Result<(), Wait> {
    for (name, limit) in limits.resources.iter() {
        let asked = asked.get(name);
        if asked > limit {
            return Err(Wait::NeverFits {
                name: name.to_owned(),
                limit,
                asked,
            });
        }
    }
    if let Some(limit) = limits.max_concurrent.filter(|limit| in_use.tasks >= *limit) {
        return Err(Wait::Concurrent { limit });
    }
    for (name, limit) in limits.resources.iter() {
        let (asked, in_use) = (asked.get(name), in_use.resources.get(name));
        // A task that asks for none of it is not held up by a limit that was lowered under what runs.
        if !asked.is_zero() && in_use.plus(asked) > limit {
            return Err(Wait::Resource {
                name: name.to_owned(),
                limit,
                in_use,
                asked,
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn limits(value: serde_json::Value) -> Limits {
        Limits::of(&serde_json::from_value(value).unwrap()).unwrap()
    }

    fn requests(text: &str) -> Resources {
        Resources::from_annotation(text).unwrap()
    }

    fn running(tasks: &[&str]) -> InUse {
        let mut in_use = InUse::default();
        for task in tasks {
            in_use.add(&requests(task));
        }
        in_use
    }

    #[test]
    fn without_limits_everything_is_admitted() {
        assert_eq!(
            admit(
                &limits(json!({})),
                &running(&["cpu=1000"; 50]),
                &requests("cpu=1000")
            ),
            Ok(())
        );
    }

    #[test]
    fn the_number_of_tasks_is_bounded() {
        let limits = limits(json!({ "maxConcurrent": 2 }));
        assert_eq!(admit(&limits, &running(&["cpu=1"]), &requests("")), Ok(()));
        let wait = admit(&limits, &running(&["cpu=1", "cpu=1"]), &requests("")).unwrap_err();
        assert_eq!(
            wait.to_string(),
            "waiting for one of 2 running tasks to end (limits.maxConcurrent)"
        );
    }

    #[test]
    fn none_at_all_is_a_limit_too() {
        assert!(
            admit(
                &limits(json!({ "maxConcurrent": 0 })),
                &running(&[]),
                &requests("")
            )
            .is_err()
        );
    }

    #[test]
    fn the_sum_of_a_resource_is_bounded() {
        let limits = limits(json!({ "resources": { "nvidia.com/gpu": 8, "memory": "64Gi" } }));
        let running = running(&["nvidia.com/gpu=4,memory=16Gi", "nvidia.com/gpu=2"]);
        assert_eq!(
            admit(&limits, &running, &requests("nvidia.com/gpu=2,memory=48Gi")),
            Ok(())
        );
        let wait = admit(&limits, &running, &requests("nvidia.com/gpu=3")).unwrap_err();
        assert_eq!(
            wait.to_string(),
            "waiting for nvidia.com/gpu: 3 asked for, 6 of 8 in use (limits.resources)"
        );
        assert_eq!(admit(&limits, &running, &requests("cpu=64")), Ok(()));
    }

    #[test]
    fn what_can_never_fit_is_told_even_when_nothing_runs() {
        let limits = limits(json!({ "maxConcurrent": 1, "resources": { "nvidia.com/gpu": 8 } }));
        let wait = admit(&limits, &running(&[""]), &requests("nvidia.com/gpu=9")).unwrap_err();
        assert!(matches!(wait, Wait::NeverFits { .. }), "{wait}");
    }

    #[test]
    fn a_limit_lowered_under_what_runs_holds_up_only_who_asks_for_it() {
        let limits = limits(json!({ "resources": { "nvidia.com/gpu": 1 } }));
        let running = running(&["nvidia.com/gpu=4"]);
        assert!(admit(&limits, &running, &requests("nvidia.com/gpu=1")).is_err());
        assert_eq!(admit(&limits, &running, &requests("cpu=1")), Ok(()));
    }

    proptest! {
        #[test]
        fn what_is_admitted_never_exceeds_the_limits(
            asked in proptest::collection::vec(0_u32..6, 0..20), most in 0_i32..6, gpus in 0_u32..12,
        ) {
            let limits = limits(json!({ "maxConcurrent": most, "resources": { "gpu": gpus } }));
            let mut in_use = InUse::default();
            for gpus in asked {
                let asked = requests(&format!("gpu={gpus}"));
                if admit(&limits, &in_use, &asked).is_ok() {
                    in_use.add(&asked);
                }
            }
            prop_assert!(in_use.tasks <= usize::try_from(most).unwrap());
            prop_assert!(in_use.resources.get("gpu") <= Quantity::whole(i64::from(gpus)));
        }
    }
}
