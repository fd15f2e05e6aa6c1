//! What an end, or the trouble of a pod, is called: `docs/failures.md`.

/// What is the matter. The words are values of a metric's label, so their number is bounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Category {
    Completed,
    /// The user's code ended with an exit code.
    ExitCode,
    /// The user's process was ended by a signal.
    Signal,
    OutOfMemory,
    /// The pod took more of the node's disk than it may.
    StorageLimit,
    /// The user's process failed while the GPU itself had a fault.
    GpuFault,
    /// Code or environment could not be prepared.
    NotPrepared,
    /// The user stopped it.
    Aborted,
    Deadline,
    LostRace,
    /// The task was reset or taken over while it ran.
    TakenOver,
    /// The executor failed.
    Executor,
    /// All of the container was killed, by nobody that Kubernetes knows of.
    Killed,
    /// The container could not be started.
    NotStarted,
    Evicted,
    Preempted,
    NodeLost,
    NodeShutdown,
    NodeRefused,
    PodDeleted,
    ImageMissing,
    ImageAccess,
    ImageRateLimit,
    ImagePlatform,
    ImageName,
    ImagePull,
    Configuration,
    Volume,
    Unschedulable,
    Quota,
    Policy,
    Unknown,
}

impl Category {
    /// All of them.
    pub const ALL: [Self; 32] = [
        Self::Completed,
        Self::ExitCode,
        Self::Signal,
        Self::OutOfMemory,
        Self::StorageLimit,
        Self::GpuFault,
        Self::NotPrepared,
        Self::Aborted,
        Self::Deadline,
        Self::LostRace,
        Self::TakenOver,
        Self::Executor,
        Self::Killed,
        Self::NotStarted,
        Self::Evicted,
        Self::Preempted,
        Self::NodeLost,
        Self::NodeShutdown,
        Self::NodeRefused,
        Self::PodDeleted,
        Self::ImageMissing,
        Self::ImageAccess,
        Self::ImageRateLimit,
        Self::ImagePlatform,
        Self::ImageName,
        Self::ImagePull,
        Self::Configuration,
        Self::Volume,
        Self::Unschedulable,
        Self::Quota,
        Self::Policy,
        Self::Unknown,
    ];

    /// What a pod that does not start may wait for.
    pub const OF_WAITING: [Self; 12] = [
        Self::ImageMissing,
        Self::ImageAccess,
        Self::ImageRateLimit,
        Self::ImagePlatform,
        Self::ImageName,
        Self::ImagePull,
        Self::Configuration,
        Self::NotStarted,
        Self::Volume,
        Self::Unschedulable,
        Self::Quota,
        Self::Policy,
    ];

    /// What takes pods away from under their tasks, all those of a node at once.
    pub const INTERRUPTING: [Self; 5] = [
        Self::Evicted,
        Self::Preempted,
        Self::NodeLost,
        Self::NodeShutdown,
        Self::PodDeleted,
    ];

    /// The status reason of a task that ended so.
    pub fn reason(self) -> String {
        format!("trainyard: {}", self.as_str())
    }

    /// The word for logs, metrics and status reasons.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::ExitCode => "exit-code",
            Self::Signal => "signal",
            Self::OutOfMemory => "out-of-memory",
            Self::StorageLimit => "storage-limit",
            Self::GpuFault => "gpu-fault",
            Self::NotPrepared => "not-prepared",
            Self::Aborted => "aborted",
            Self::Deadline => "deadline",
            Self::LostRace => "lost-race",
            Self::TakenOver => "taken-over",
            Self::Executor => "executor",
            Self::Killed => "killed",
            Self::NotStarted => "not-started",
            Self::Evicted => "evicted",
            Self::Preempted => "preempted",
            Self::NodeLost => "node-lost",
            Self::NodeShutdown => "node-shutdown",
            Self::NodeRefused => "node-refused",
            Self::PodDeleted => "pod-deleted",
            Self::ImageMissing => "image-missing",
            Self::ImageAccess => "image-access",
            Self::ImageRateLimit => "image-rate-limit",
            Self::ImagePlatform => "image-platform",
            Self::ImageName => "image-name",
            Self::ImagePull => "image-pull",
            Self::Configuration => "configuration",
            Self::Volume => "volume",
            Self::Unschedulable => "unschedulable",
            Self::Quota => "quota",
            Self::Policy => "policy",
            Self::Unknown => "unknown",
        }
    }
}
