//! Vocabulary: what the controller, the pod's three containers and the diagnosis agree on.
//!
//! A pod outlives an upgrade of the controller, so names here are only ever added; the spool, the mark and the
//! termination message carry their version.

mod category;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::category::Category;

/// Container names (`architecture.md` 8). The user's container keeps its place as the pod's main container.
pub const PREPARE: &str = "prepare";
/// The native sidecar that sends the spool.
pub const UPLINK: &str = "uplink";
/// The container that runs the experiment.
pub const TASK: &str = "task";

/// The `emptyDir` that all three containers share, and where it is mounted.
pub const VOLUME: &str = "trainyard";
pub const ROOT: &str = "/trainyard";
/// Our programs, brought by the init container: `trainyard` (static), `trainyard-glibc` (for NVML), `uv`.
pub const BIN: &str = "/trainyard/bin";
/// The checkout, or the folder of a stand-alone script.
pub const CODE: &str = "/trainyard/code";
/// Package cache and environments; a volume of its own when the binding names one (one filesystem: hard links).
pub const CACHE: &str = "/trainyard/cache";
pub const CACHE_VOLUME: &str = "trainyard-cache";
/// The part of a cache that outlives the pod which holds repositories; mounted into `prepare` alone.
pub const GIT_CACHE: &str = "/trainyard-git/cache";
/// Folders of such a cache's volume: the task's container sees its own alone.
pub const CACHE_ENVIRONMENTS: &str = "environments";
pub const CACHE_REPOSITORIES: &str = "repositories";
/// Requirements that `prepare` has brought from git, each in a folder.
pub const REQUIREMENTS: &str = "/trainyard/requirements";
/// The spool's folder: log, acknowledgements, locks. A volume of its own, so that it can have a limit of its own.
pub const SPOOL: &str = "/trainyard/spool";
pub const SPOOL_VOLUME: &str = "trainyard-spool";
/// The most that it may hold: 100,000 lines a second of 190 bytes each, for the 15 minutes that a server may be away.
pub const SPOOL_LIMIT: &str = "16Gi";
/// The user's configuration as `prepare` hands it on: without the passwords of repositories.
pub const HANDED_CONF: &str = "/trainyard/clearml.conf";
/// What `prepare` found and did, as [`Prepared`] in JSON.
pub const PREPARED: &str = "/trainyard/prepared.json";
/// The login token that `prepare` obtained, so that the fence needs no login of its own.
pub const TOKEN: &str = "/trainyard/token";
/// Written by process 1: `passed` or `lost`. The uplink sends nothing before `passed`.
pub const FENCE: &str = "/trainyard/fence";
/// A `clearml.conf` for the user's process, if the binding names a Secret with one.
pub const CLEARML_CONF: &str = "/trainyard-conf/clearml.conf";
/// Git credentials, mounted into `prepare` alone. Keys: `username`, `password` (or `token`), `ssh-privatekey`.
pub const GIT_CREDENTIALS: &str = "/trainyard-git/credentials";
/// `known_hosts` for ssh, mounted into `prepare` alone.
pub const GIT_KNOWN_HOSTS: &str = "/trainyard-git/known_hosts";
/// CA bundle of the package index.
pub const INDEX_CA: &str = "/trainyard-index/ca.crt";
/// CA bundle of the server.
pub const SERVER_CA: &str = "/trainyard-server/ca.crt";

/// Environment variables of our containers; `TASK` and friends are set on all three.
pub mod env {
    pub const TASK_ID: &str = "TRAINYARD_TASK_ID";
    pub const ATTEMPT: &str = "TRAINYARD_ATTEMPT";
    pub const PENDING_QUEUE: &str = "TRAINYARD_PENDING_QUEUE";
    /// Worker id of the attempt; also the mark.
    pub const WORKER: &str = "TRAINYARD_WORKER";
    /// Seconds between SIGTERM and SIGKILL of the user's process group.
    pub const GRACE: &str = "TRAINYARD_GRACE_SECONDS";
    /// Seconds that the pod has to end, where the template gives it more than `pod::GRACE_MARGIN` beyond that.
    pub const POD_GRACE: &str = "TRAINYARD_POD_GRACE_SECONDS";
    /// `auto`, `uv`, `pip`, `poetry`, `conda`, `none`.
    pub const MANAGER: &str = "TRAINYARD_ENVIRONMENT_MANAGER";
    /// Package index URL; absent: the image's own settings.
    pub const INDEX_URL: &str = "TRAINYARD_INDEX_URL";
    /// Largest size of the cache in bytes; set where the cache outlives the pod.
    pub const CACHE_LIMIT: &str = "TRAINYARD_CACHE_BYTES";
    /// A shell script of the binding, run before the environment is made.
    pub const SETUP_SCRIPT: &str = "TRAINYARD_SETUP_SCRIPT";
    /// A shell script of the binding, run after the task's process.
    pub const POST_SCRIPT: &str = "TRAINYARD_POST_SCRIPT";
    /// `allow`: the setup script of the task's container is run after the binding's.
    pub const TASK_SETUP_SCRIPT: &str = "TRAINYARD_TASK_SETUP_SCRIPT";
    /// Seconds between two reports of statistics.
    pub const REPORT_PERIOD: &str = "TRAINYARD_REPORT_SECONDS";
    /// `auto`, `on`, `off`: GPU statistics.
    pub const GPU: &str = "TRAINYARD_GPU";
    /// Memory limit of the task container in bytes and node name, for messages (downward API).
    pub const NODE: &str = "TRAINYARD_NODE";
    /// `controller`: a run that fails by its own fault leaves the task in progress, the controller tries it again.
    pub const ON_FAILURE: &str = "TRAINYARD_ON_FAILURE";
    /// `left-out`: the task's own pod has devices (GPUs) that this one, which comes before it, has not.
    pub const DEVICES: &str = "TRAINYARD_DEVICES";
    /// What runs instead of the task's code, as a list of texts in JSON; `$(NAME)` in them stands for a variable of the
    /// container, `$$` for one `$`.
    pub const ENTRYPOINT: &str = "TRAINYARD_ENTRYPOINT";
    /// What the task asked for and does not get, one sentence per line, for its log; on `prepare` alone.
    pub const NOTES: &str = "TRAINYARD_NOTES";
    /// Server addresses and keys, under the names that the SDK reads. Keys come from the Secret by reference.
    pub const API_HOST: &str = "CLEARML_API_HOST";
    pub const WEB_HOST: &str = "CLEARML_WEB_HOST";
    pub const FILES_HOST: &str = "CLEARML_FILES_HOST";
    /// The HTTP proxy on the way to the server; for the server alone.
    pub const SERVER_PROXY: &str = "TRAINYARD_SERVER_PROXY";
    pub const ACCESS_KEY: &str = "CLEARML_API_ACCESS_KEY";
    pub const SECRET_KEY: &str = "CLEARML_API_SECRET_KEY";
}

/// Keys of the credentials Secret (`queuebinding.yaml`).
pub const ACCESS_KEY_KEY: &str = "access_key";
pub const SECRET_KEY_KEY: &str = "secret_key";

/// Exit codes of the executor itself; every other code is the user's. A user's code in this range is told apart by
/// the termination message.
pub mod exit {
    /// The executor itself failed (its message says how).
    pub const INTERNAL: i32 = 210;
    /// Lost race: the fence said no; nothing was run and nothing written.
    pub const LOST_RACE: i32 = 211;
    /// Code or environment could not be prepared; the task is failed with the reason.
    pub const PREPARE_FAILED: i32 = 212;
    /// The run was ended because the task was aborted, reset or taken over.
    pub const INTERRUPTED: i32 = 213;
}

/// What `prepare` hands to process 1. A failure is data, not an exit code: one reporter, one fence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepared {
    pub version: u32,
    /// One clear sentence if code could not be prepared.
    pub failure: Option<String>,
    /// Root of the checkout or of the stand-alone script's folder.
    pub code_root: String,
    /// The commit that was checked out, if there is a repository.
    pub commit: Option<String>,
    /// Bytes of the cache that repositories take.
    #[serde(default)]
    pub cached: u64,
    /// What was brought from git for the task's environment.
    #[serde(default)]
    pub requirements: Vec<Brought>,
}

/// A requirement from git, as it lies on the pod's volume; the task's container has neither git nor credentials.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Brought {
    /// Address without user name and password.
    pub url: String,
    /// Branch, tag or commit, as the requirement names it; empty: the default branch.
    pub revision: String,
    /// The commit that was checked out.
    pub commit: String,
    /// Where it lies.
    pub folder: String,
    /// Why it could not be brought; whether it is needed is seen where the environment is made.
    pub failure: Option<String>,
    /// The package's name, if no task asked for it but another requirement.
    pub inner: Option<String>,
}

/// How the executor says in its termination message how it ended; read by the diagnosis.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Termination {
    pub version: u32,
    /// `completed`, `failed`, `stopped`, `lost-race`, `interrupted`, `internal`.
    pub outcome: String,
    /// One sentence, as in the task's status message.
    pub message: String,
    /// Exit code of the user's process, if it ended by itself.
    pub exit_code: Option<i32>,
    /// Signal that ended the user's process.
    pub signal: Option<i32>,
    /// Whether the task's status on the server was already written.
    pub reported: bool,
    /// Last lines of the log, secrets masked, at most 2 KiB.
    pub last_lines: Vec<String>,
    /// When the first line of the task's own output was seen, by the node's clock (RFC 3339); absent if there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_line: Option<String>,
    /// Number of a fault (XID) that a GPU itself had while the run failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xid: Option<u64>,
    /// Whether a signal to the container was passed on to the user's process not long before its end. It may be how the
    /// pod was told to end, so the task's status is left to whoever sees the pod.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub signalled: bool,
    /// Whether the kernel killed processes of a run that failed for memory.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub out_of_memory: bool,
}

impl Termination {
    /// What the end of a run that failed is called: in the task, and on its Job.
    pub fn failure(&self) -> Category {
        match (self.exit_code, self.signal) {
            _ if self.out_of_memory => Category::OutOfMemory,
            (None, None) => Category::NotPrepared,
            _ if self.xid.is_some() => Category::GpuFault,
            (_, Some(_)) => Category::Signal,
            (Some(_), None) => Category::ExitCode,
        }
    }
}

/// The start fence has to be over this long after its first call was begun; later: lost race, nothing is run. The
/// quiet time of the claim covers it.
pub const FENCE_DEADLINE: Duration = Duration::from_secs(10);

/// What the pod has beyond the grace of the user's process: the executor reports, the sidecar sends the last lines.
pub const GRACE_MARGIN: Duration = Duration::from_secs(30);

/// How long a pod may take to end by itself once its task has ended without it (the SDK has completed it, or a user has
/// ended it), beside the grace of the user's process: the executor finds out, sends the last lines and takes its leave,
/// and Kubernetes tells of it. The controller deletes no Job sooner: with it would go the end of a log that a slow server
/// still takes, and the exit code.
pub const CLOSING: Duration = Duration::from_mins(2);

/// Version of [`Prepared`] and [`Termination`].
pub const VERSION: u32 = 1;

/// Labels on Jobs and pods (`queuebinding.yaml`).
pub mod label {
    pub const TASK: &str = "trainyard.dev/task";
    pub const QUEUE: &str = "trainyard.dev/queue";
    pub const BINDING: &str = "trainyard.dev/binding";
    pub const PROJECT: &str = "trainyard.dev/project";
    pub const USER: &str = "trainyard.dev/user";
    pub const PARENT: &str = "trainyard.dev/parent";
    pub const ATTEMPT: &str = "trainyard.dev/attempt";
    /// `intent`, `held`, `settled`.
    pub const STATE: &str = "trainyard.dev/state";
    /// On what makes the environment of a waiting task: the task. It has no [`TASK`], for it is no attempt of it.
    pub const AHEAD: &str = "trainyard.dev/ahead";
}

/// Values of [`label::STATE`].
pub mod state {
    pub const INTENT: &str = "intent";
    pub const HELD: &str = "held";
    pub const SETTLED: &str = "settled";
}

/// Values of [`annotation::OUTCOME`].
pub mod outcome {
    pub const SUCCESS: &str = "success";
    /// Failed, stopped, or taken away by a user.
    pub const FAILURE: &str = "failure";
}

/// Values of `app.kubernetes.io/component` on Jobs and pods.
pub mod component {
    pub const LABEL: &str = "app.kubernetes.io/component";
    /// An attempt of a task.
    pub const TASK: &str = "task";
    /// What makes the environment of a task that waits.
    pub const AHEAD: &str = "ahead";
}

/// Annotations on Jobs: names and facts that are no label values.
pub mod annotation {
    pub const TASK_NAME: &str = "trainyard.dev/task-name";
    pub const QUEUE_NAME: &str = "trainyard.dev/queue-name";
    pub const PROJECT_NAME: &str = "trainyard.dev/project-name";
    /// Set on an intent whose task carried a reason of ours when it was written (claim rule 5).
    pub const RETURNED: &str = "trainyard.dev/returned";
    /// How many attempts in a row before this one were interrupted and requeued.
    pub const REQUEUES: &str = "trainyard.dev/requeues";
    /// When its task was taken, and as which of that pass: tasks that go back stand in this order.
    pub const TURN: &str = "trainyard.dev/turn";
    /// How many of them failed by their own fault and were requeued.
    pub const FAILURES: &str = "trainyard.dev/failures";
    /// Hash of the template that the Job was made from.
    pub const TEMPLATE: &str = "trainyard.dev/template";
    /// Node on which the Job's pod was, once its end is settled; the next attempt may avoid it.
    pub const NODE: &str = "trainyard.dev/node";
    /// Category of the run's end (`docs/failures.md`), once it is settled.
    pub const ENDED: &str = "trainyard.dev/ended";
    /// Exit code of that end, 128 and its number for a signal; absent where nobody could tell.
    pub const EXIT_CODE: &str = "trainyard.dev/exit-code";
    /// What the task came to, once that is stored in it ([`super::outcome`]); absent on an attempt that was followed by
    /// another. It says which of the two times to live and limits of their number are the Job's.
    pub const OUTCOME: &str = "trainyard.dev/outcome";
    /// What the Job's pod requests of a node, `cpu=2,nvidia.com/gpu=1`; limits are summed up from it.
    pub const REQUESTS: &str = "trainyard.dev/requests";
    /// Which environment its task runs with, where it matters which node holds it.
    pub const ENVIRONMENT: &str = "trainyard.dev/environment";
}
