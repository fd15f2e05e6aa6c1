//! Which stage dies at which points. Stages that last longest come first.

use super::FAREWELLS;
use super::reads::{asks, of_images, of_kueue};
use super::stage::Plan;
use super::works::{
    aborted, astray, begins, claims, deleted, evicted, forgotten, hopeless, in_order, interrupted,
    looked_ahead, one_dies, orphaned, two_die,
};

/// What every task leads past.
pub const CLAIM: [&str; 7] = [
    "intend/created",
    "take/removed",
    "step/task-read",
    "park/parked",
    "release/released",
    "step/told",
    "step/job-settled",
];

pub const PLANS: [Plan; 17] = [
    Plan {
        name: "tails",
        points: &["tail/read", "tail/known-read", "tail/sent"],
        is_real: true,
        work: one_dies,
    },
    Plan {
        name: "ends",
        points: &["step/job-read", "settle/written"],
        is_real: false,
        work: two_die,
    },
    Plan {
        name: "interrupted",
        points: &["requeue/dequeued", "history/tasks-read"],
        is_real: false,
        work: interrupted,
    },
    Plan {
        name: "evicted",
        points: &["evicted/job-deleted"],
        is_real: false,
        work: evicted,
    },
    Plan {
        name: "astray",
        points: &[
            "look/every-queue-read",
            "step/jobs-listed",
            "back/enqueued",
            "back/moved-to-front",
            "sweep/queues-read",
            "dequeue/dequeued",
        ],
        is_real: false,
        work: astray,
    },
    Plan {
        name: "in-order",
        points: &["back/moved-behind"],
        is_real: false,
        work: in_order,
    },
    Plan {
        name: "forgotten",
        points: &["step/pods-listed"],
        is_real: false,
        work: forgotten,
    },
    Plan {
        name: "hopeless",
        points: &["inquiry/events-read", "explain/written", "give-up/dequeued"],
        is_real: false,
        work: hopeless,
    },
    Plan {
        name: "orphaned",
        points: &["adopt/task-read", "adopt/written", "adopt/marked"],
        is_real: false,
        work: orphaned,
    },
    Plan {
        name: "claims",
        points: &CLAIM,
        is_real: false,
        work: claims,
    },
    Plan {
        name: "ahead",
        points: &[
            "ahead/jobs-listed",
            "ahead/tasks-read",
            "ahead/created",
            "ahead/pods-listed",
        ],
        is_real: false,
        work: looked_ahead,
    },
    Plan {
        name: "begins",
        points: &[
            "lease/written",
            "binding/finalizers-written",
            "template/dry-run",
            "resolve/queue-created",
            "resolve/queue-found",
            "resolve/pending-created",
            "look/queues-read",
            "look/tasks-read",
            "sweep/read",
            "report/registered",
            "report/reported",
            "status/written",
            "status/event-published",
            FAREWELLS[0],
            FAREWELLS[1],
        ],
        is_real: false,
        work: begins,
    },
    Plan {
        name: "deleted",
        points: &[
            "binding/task-stopped",
            "binding/job-orphaned",
            "binding/queue-deleted",
            "report/unregistered",
        ],
        is_real: false,
        work: deleted,
    },
    Plan {
        name: "aborted",
        points: &["step/job-deleted", "step/entry-taken", "take-entry/taken"],
        is_real: false,
        work: aborted,
    },
    Plan {
        name: "asks",
        points: &[
            "lease/read",
            "connect/secret-read",
            "file/secret-read",
            "connect/files-read",
            "file/map-read",
            "connect/version-read",
            "resolve/names-read",
            "sweep/running-read",
            "look/more-read",
            "look/length-read",
            "look/projects-read",
            "look/facts-read",
            "intend/job-read",
        ],
        is_real: false,
        work: asks,
    },
    Plan {
        name: "images",
        points: &[
            "image/account-read",
            "image/secret-read",
            "image/nodes-listed",
            "image/looked",
            "image/command-read",
            "refuse/task-read",
            "refuse/dequeued",
            "refuse/told",
        ],
        is_real: false,
        work: of_images,
    },
    Plan {
        name: "kueue",
        points: &[
            "kueue/queues-listed",
            "kueue/dry-run",
            "kueue/workloads-listed",
        ],
        is_real: false,
        work: of_kueue,
    },
];
