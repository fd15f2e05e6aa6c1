//! Is there room for one more task: the limits of a binding against what its observed Jobs use, and the free
//! resources of the nodes. Pure.
//!
//! ```text
//! spec.limits ──────▶ Limits ─┐
//! own Jobs ─────────▶ InUse ──┼─▶ admit: yes, or Wait with the reason
//! nodes and pods ───▶ Free ───┘
//! ```
//!
//! What is in use is summed up anew from the Jobs at every look, never counted up and down, so nothing can drift.

mod nodes;

use std::collections::BTreeMap;
use std::fmt;

use crate::crd::{self, Amount, BadQuantity, LimitsSpec, Quantity, Resources};

pub use nodes::{Free, Node, Placement, Unplaced};

/// The limits of a binding, read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    whole: Bound,
    per_user: Option<Bound>,
    per_project: Option<Bound>,
}

/// A bound on number and resources of tasks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Bound {
    max_concurrent: Option<usize>,
    resources: Resources,
}

impl Limits {
    /// Reads the limits of a binding. The schema lets only readable amounts through.
    pub fn of(spec: &LimitsSpec) -> Result<Self, UnreadableLimit> {
        let group = |limits: &Option<crd::Limits>, path: &'static str| {
            let bound =
                |limits: &crd::Limits| Bound::of(limits.max_concurrent, &limits.resources, path);
            limits.as_ref().map(bound).transpose()
        };
        Ok(Self {
            whole: Bound::of(spec.max_concurrent, &spec.resources, Scope::Binding.path())?,
            per_user: group(&spec.per_user, Scope::User.path())?,
            per_project: group(&spec.per_project, Scope::Project.path())?,
        })
    }
}

impl Bound {
    fn of(
        max_concurrent: Option<i32>,
        amounts: &BTreeMap<String, Amount>,
        path: &'static str,
    ) -> Result<Self, UnreadableLimit> {
        let mut resources = Resources::default();
        for (name, amount) in amounts {
            let amount: Quantity = amount.0.parse().map_err(|source| UnreadableLimit {
                path,
                name: name.clone(),
                source,
            })?;
            resources.set(name, amount);
        }
        // A negative limit cannot pass the schema; if one did, it would mean none at all.
        let max_concurrent = max_concurrent.map(|most| usize::try_from(most).unwrap_or(0));
        Ok(Self {
            max_concurrent,
            resources,
        })
    }

    fn admit(&self, scope: Scope, used: &Used, need: &Resources) -> Result<(), Wait> {
        for (name, limit) in self.resources.iter() {
            let asked = need.get(name);
            if asked > limit {
                return Err(Wait::NeverFits {
                    scope,
                    name: name.to_owned(),
                    limit,
                    asked,
                });
            }
        }
        if let Some(limit) = self.max_concurrent.filter(|limit| used.tasks >= *limit) {
            return Err(Wait::Concurrent { scope, limit });
        }
        for (name, limit) in self.resources.iter() {
            let (asked, in_use) = (need.get(name), used.resources.get(name));
            // A task that asks for none of it is not held up by a limit that was lowered under what runs.
            if !asked.is_zero() && in_use.plus(asked) > limit {
                return Err(Wait::Resource {
                    scope,
                    name: name.to_owned(),
                    limit,
                    in_use,
                    asked,
                });
            }
        }
        Ok(())
    }
}

/// An amount in the limits that is no quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}.resources.{name}: {source}")]
pub struct UnreadableLimit {
    path: &'static str,
    name: String,
    source: BadQuantity,
}

/// What one task asks for, and whose it is.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Ask {
    /// What its pod requests of a node.
    pub need: Resources,
    /// Ids as label values; empty if not known.
    pub user: String,
    pub project: String,
    /// Where its pod may run; with `capacity: FreeResources` only.
    pub placement: Option<Placement>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Used {
    tasks: usize,
    resources: Resources,
}

impl Used {
    fn add(&mut self, need: &Resources) {
        self.tasks += 1;
        self.resources.add(need);
    }
}

/// What the tasks of a binding use that are claimed or running.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InUse {
    whole: Used,
    users: BTreeMap<String, Used>,
    projects: BTreeMap<String, Used>,
}

impl InUse {
    /// Counts one more task.
    pub fn add(&mut self, ask: &Ask) {
        self.whole.add(&ask.need);
        self.users
            .entry(ask.user.clone())
            .or_default()
            .add(&ask.need);
        self.projects
            .entry(ask.project.clone())
            .or_default()
            .add(&ask.need);
    }

    /// How many tasks there are.
    pub fn tasks(&self) -> usize {
        self.whole.tasks
    }
}

/// Whose limit it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    Binding,
    User,
    Project,
}

impl Scope {
    fn path(self) -> &'static str {
        match self {
            Self::Binding => "limits",
            Self::User => "limits.perUser",
            Self::Project => "limits.perProject",
        }
    }

    /// Behind "running tasks" and the like.
    fn whose(self) -> &'static str {
        match self {
            Self::Binding => "",
            Self::User => " of its user",
            Self::Project => " of its project",
        }
    }
}

/// Why a task has to wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wait {
    /// As many tasks as may run at the same time do.
    Concurrent { scope: Scope, limit: usize },
    /// Of this resource too little is left of the limit.
    Resource {
        scope: Scope,
        name: String,
        limit: Quantity,
        in_use: Quantity,
        asked: Quantity,
    },
    /// One task asks for more of it than the limit: it never fits.
    NeverFits {
        scope: Scope,
        name: String,
        limit: Quantity,
        asked: Quantity,
    },
    /// No node has the room.
    NoNode(Unplaced),
}

impl Wait {
    /// Whether it is a limit of the task's own user or project: others behind it need not wait for that.
    pub fn is_own(&self) -> bool {
        match self {
            Self::Concurrent { scope, .. }
            | Self::Resource { scope, .. }
            | Self::NeverFits { scope, .. } => *scope != Scope::Binding,
            Self::NoNode(_) => false,
        }
    }
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Concurrent { scope, limit } => {
                write!(
                    f,
                    "waiting for one of {limit} running tasks{} to end ({}.maxConcurrent)",
                    scope.whose(),
                    scope.path()
                )
            }
            Self::Resource {
                scope,
                name,
                limit,
                in_use,
                asked,
            } => write!(
                f,
                "waiting for {name}: {asked} asked for, {in_use} of {limit} in use{} ({}.resources)",
                match scope {
                    Scope::Binding => "",
                    Scope::User => " by its user",
                    Scope::Project => " by its project",
                },
                scope.path()
            ),
            Self::NeverFits {
                scope,
                name,
                limit,
                asked,
            } => write!(
                f,
                "cannot run here: {asked} of {name} asked for, and all tasks{} together may have {limit} ({}.resources)",
                scope.whose(),
                scope.path()
            ),
            Self::NoNode(unplaced) => unplaced.fmt(f),
        }
    }
}

/// Whether a task may be taken beside what is `in_use`; else why it has to wait. The limits of its user and project go
/// first: they hold up this task alone.
pub fn admit(limits: &Limits, in_use: &InUse, ask: &Ask) -> Result<(), Wait> {
    let nothing = Used::default();
    for (bound, used, scope) in [
        (&limits.per_user, in_use.users.get(&ask.user), Scope::User),
        (
            &limits.per_project,
            in_use.projects.get(&ask.project),
            Scope::Project,
        ),
    ] {
        if let Some(bound) = bound {
            bound.admit(scope, used.unwrap_or(&nothing), &ask.need)?;
        }
    }
    limits.whole.admit(Scope::Binding, &in_use.whole, &ask.need)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn limits(value: serde_json::Value) -> Limits {
        Limits::of(&serde_json::from_value(value).unwrap()).unwrap()
    }

    fn requests(text: &str) -> Ask {
        Ask {
            need: Resources::from_annotation(text).unwrap(),
            ..Ask::default()
        }
    }

    fn of(user: &str, project: &str, text: &str) -> Ask {
        Ask {
            user: user.into(),
            project: project.into(),
            ..requests(text)
        }
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

    #[test]
    fn a_user_and_a_project_have_limits_of_their_own() {
        let limits = limits(json!({
            "perUser": { "maxConcurrent": 1 }, "perProject": { "resources": { "gpu": 2 } },
        }));
        let mut in_use = InUse::default();
        in_use.add(&of("ann", "vision", "gpu=2"));
        let wait = admit(&limits, &in_use, &of("ann", "speech", "gpu=1")).unwrap_err();
        assert_eq!(
            wait.to_string(),
            "waiting for one of 1 running tasks of its user to end (limits.perUser.maxConcurrent)"
        );
        assert!(wait.is_own());
        let wait = admit(&limits, &in_use, &of("bob", "vision", "gpu=1")).unwrap_err();
        assert_eq!(
            wait.to_string(),
            "waiting for gpu: 1 asked for, 2 of 2 in use by its project (limits.perProject.resources)"
        );
        assert_eq!(
            admit(&limits, &in_use, &of("bob", "speech", "gpu=2")),
            Ok(())
        );
    }

    #[test]
    fn parts_of_shared_gpus_are_counted_by_their_names() {
        let limits = limits(json!({ "resources": {
            "nvidia.com/mig-1g.10gb": 2, "nvidia.com/gpu.shared": 4,
        } }));
        let running = running(&[
            "nvidia.com/mig-1g.10gb=1",
            "nvidia.com/mig-1g.10gb=1,nvidia.com/gpu.shared=2",
        ]);
        assert!(admit(&limits, &running, &requests("nvidia.com/mig-1g.10gb=1")).is_err());
        assert_eq!(
            admit(&limits, &running, &requests("nvidia.com/gpu.shared=2")),
            Ok(())
        );
        assert_eq!(
            admit(&limits, &running, &requests("nvidia.com/gpu=8")),
            Ok(())
        );
    }

    #[test]
    fn an_unreadable_limit_is_told_with_its_path() {
        let spec = serde_json::from_value(json!({ "perUser": { "resources": { "cpu": "many" } } }))
            .unwrap();
        let error = Limits::of(&spec).unwrap_err().to_string();
        assert!(
            error.starts_with("limits.perUser.resources.cpu: \"many\""),
            "{error}"
        );
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
            prop_assert!(in_use.tasks() <= usize::try_from(most).unwrap());
            prop_assert!(in_use.whole.resources.get("gpu") <= Quantity::whole(i64::from(gpus)));
        }
    }
}
