//! Who takes part in an exploration, in which variant; and what a transition is.

use super::world::{S, State};

/// What a user may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Abort,
    Reset,
    ResetAndEnqueue,
    Enqueue,
    Dequeue,
    Delete,
    DeleteJob,
    ClearPending,
    DeleteQueue,
}

/// All of them.
pub const ALL: &[Action] = &[
    Action::Abort,
    Action::Reset,
    Action::ResetAndEnqueue,
    Action::Enqueue,
    Action::Dequeue,
    Action::Delete,
    Action::DeleteJob,
    Action::ClearPending,
    Action::DeleteQueue,
];

/// A Job deleted by hand while its task is between look and park leaves an orphan.
pub const BUT_DELETE_JOB: &[Action] = &[
    Action::Abort,
    Action::Reset,
    Action::ResetAndEnqueue,
    Action::Enqueue,
    Action::Dequeue,
    Action::Delete,
    Action::ClearPending,
    Action::DeleteQueue,
];

/// A way in which the rules could have been written, and must not be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    AsWritten,
    NoIntent,
    PlainPark,
    NoReadInFence,
    MarkAlone,
    NoStatusReport,
    ReleaseAfterEnd,
    LostOnlyWithoutJobs,
    StartingNoWayOut,
    NoGiveUp,
    WithdrawTakesQueued,
    NoQuietTime,
    /// An ended run is settled or requeued at once.
    EndAtOnce,
    /// The same as soon as its task has stood for G, whatever its pod has sent last.
    EndBeforeLateCalls,
    /// The same as soon as all that its pod has sent has arrived, however young the task's facts are.
    EndOfYoungTask,
}

/// Who takes part.
#[derive(Debug, Clone)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each switches one thing on that may happen"
)]
pub struct Setup {
    pub name: &'static str,
    pub clusters: usize,
    pub controllers: usize,
    /// Room for attempts in each cluster, 2 at most: a task that waits for a further one is at an end.
    pub attempts: usize,
    pub agent: bool,
    /// The plain agent may die between its pop and its start.
    pub agent_dies: bool,
    /// The server may die between the two halves of an enqueue: the entry is added, those elsewhere stay.
    pub server_dies: bool,
    pub actions: &'static [Action],
    pub budget: u8,
    /// Kubernetes starts two pods for one Job.
    pub two_pods: bool,
    /// Controllers drop a step after any call.
    pub crashes: bool,
    /// Pods die at any moment.
    pub deaths: bool,
    /// A dying pod's last call of the fence may arrive after its death.
    pub late: bool,
    /// The report of a run's end may arrive after its pod's death.
    pub late_ends: bool,
    /// Pods do nothing while a controller looks or acts, and only die once their Job is being deleted.
    pub pods_wait: bool,
    /// A pod may never start.
    pub stuck: bool,
    /// An offered task may not be admitted (any longer).
    pub not_admitted: bool,
    /// Patience with a waiting pod may run out.
    pub patience: bool,
    /// The binding asks for failed tasks to be tried again.
    pub retries: bool,
    /// The binding asks for orphans to be restored.
    pub orphans: bool,
    /// A look may not see yet that a pod has started.
    pub unseen_start: bool,
    /// How runs end by themselves.
    pub ends: &'static [S],
    pub variant: Variant,
}

impl Setup {
    /// One controller alone, everything that can happen to it switched on, no user.
    pub const ONE: Setup = Setup {
        name: "one controller alone",
        clusters: 1,
        controllers: 1,
        attempts: 2,
        agent: false,
        agent_dies: false,
        server_dies: false,
        actions: ALL,
        budget: 1,
        two_pods: false,
        crashes: true,
        deaths: true,
        late: false,
        late_ends: false,
        pods_wait: false,
        stuck: true,
        not_admitted: true,
        patience: true,
        retries: false,
        orphans: true,
        unseen_start: true,
        ends: &[S::Failed, S::Completed],
        variant: Variant::AsWritten,
    };
}

/// What must never happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Two runs at once, neither taken back by the user.
    DoubleRun,
    /// A run began after the user took the task back.
    RanTakenBack,
    /// A write of ours ended a run that is somebody else's.
    EndedForeignRun,
    /// From here no end can be reached.
    Stands,
}

/// A state that can follow.
pub struct Next {
    pub state: State,
    pub label: &'static str,
    /// Whether it counts as a way to an end: no crash, death or user is needed for it.
    pub progress: bool,
    pub fault: Option<Fault>,
}

impl Next {
    /// An ordinary transition: one that counts as progress.
    pub fn on(state: State, label: &'static str) -> Self {
        Self {
            state,
            label,
            progress: true,
            fault: None,
        }
    }

    /// One that somebody's bad luck or wish makes: no end may need it.
    pub fn by_chance(state: State, label: &'static str) -> Self {
        Self {
            progress: false,
            ..Self::on(state, label)
        }
    }
}
