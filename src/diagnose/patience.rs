//! How long a pod that does not start is waited for, by what stands in its way. `docs/failures.md` shows this table.

use std::time::Duration;

use super::Category;

/// How long this cause may last before the task is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// The binding's `pendingTimeout`, and then what `onPendingTimeout` says: room may come.
    AsBound,
    /// So long, or `pendingTimeout` if that is shorter, and then what `onPendingTimeout` says: it may be the cluster's
    /// trouble, and another time or node may do.
    Then(Duration),
    /// So long at most, and then the task fails: only its user or the template's owner can mend it.
    ThenFail(Duration),
}

/// The patience with a pod that waits for this cause.
pub fn patience(category: Category) -> Patience {
    match category {
        // A name that is none stays one.
        Category::ImageName => Patience::ThenFail(Duration::ZERO),
        // One more try of the kubelet, 10 s after the first: an image may be pushed in this moment.
        Category::ImageMissing | Category::ImagePlatform => {
            Patience::ThenFail(Duration::from_secs(30))
        }
        // A pull secret, a Secret or a ConfigMap may be made in this moment.
        Category::ImageAccess | Category::Configuration => {
            Patience::ThenFail(Duration::from_mins(1))
        }
        Category::NotStarted => Patience::ThenFail(Duration::from_mins(2)),
        Category::Volume => Patience::Then(Duration::from_mins(5)),
        // The registry may come back.
        Category::ImagePull => Patience::Then(Duration::from_mins(10)),
        Category::ImageRateLimit => Patience::Then(Duration::from_mins(30)),
        Category::Unschedulable
        | Category::Quota
        | Category::Policy
        // Not causes of waiting.
        | Category::Completed
        | Category::ExitCode
        | Category::Signal
        | Category::OutOfMemory
        | Category::StorageLimit
        | Category::GpuFault
        | Category::NotPrepared
        | Category::Aborted
        | Category::Deadline
        | Category::LostRace
        | Category::TakenOver
        | Category::Executor
        | Category::Killed
        | Category::Evicted
        | Category::Preempted
        | Category::NodeLost
        | Category::NodeShutdown
        | Category::NodeRefused
        | Category::PodDeleted
        | Category::Unknown => Patience::AsBound,
    }
}
