//! S7: what a task says that ran out of memory, how soon it says so, and how long its Job is kept.

use serde_json::{Value, json};

use crate::e2e::world::{World, wait};
use crate::{clock, times};

/// The stated figure: the task has ended so many seconds after the kernel's kill; five times of it are allowed.
const TOLD: f64 = 5.0;
/// `lifecycle.ttlAfterFailure` of these rows, and the same in seconds.
const KEPT: (&str, u64) = ("2h", 7200);
/// Begins the lines that the scripts write; each ends with the time.
const MARK: &str = "memory: ";

/// Takes 16 MiB more after each line, so that the kill follows the last one at once.
pub(super) const ALONE: &str = "import time\n\
    kept = []\n\
    while True:\n    \
        print('memory: holds', 16 * len(kept), 'MiB at', time.time(), flush=True)\n    \
        kept.append(bytearray(16 << 20))\n";

/// Has a child killed and lives on.
pub(super) const OF_A_CHILD: &str = "import subprocess, sys, time\n\
    child = subprocess.run([sys.executable, '-c', 'kept = []\\nwhile True: kept.append(bytearray(16 << 20))'])\n\
    print('memory: the child ended with', child.returncode, 'at', time.time(), flush=True)\n\
    sys.exit(5)\n";

pub(super) fn limit() -> Value {
    json!({"resources": {"limits": {"memory": "256Mi"}}})
}

pub(super) fn spec() -> Value {
    json!({"lifecycle": {"ttlAfterFailure": KEPT.0}})
}

/// What the table does not ask for of a task that failed so.
pub(super) fn judge(world: &World, row: &str, task: &str, document: &Value) {
    let pod = world.pod_of(task);
    let node = pod["spec"]["nodeName"]
        .as_str()
        .expect("the pod is on a node");
    let message = document["status_message"].as_str().unwrap_or_default();
    for words in ["OOMKilled", "256 MiB", node] {
        assert!(message.contains(words), "{row}: {words:?} in {message:?}");
    }

    world.has_sent_all(task);
    let output = world.output(task);
    let is_all = output.lines().all(|line| line.starts_with(MARK));
    assert!(is_all, "{row}: the script has written {output}");
    let last = output.lines().last().expect("the script has written");
    assert!(message.contains(last), "{row}: {last:?} in {message:?}");

    let late = clock::told(&document["status_changed"]) - time_of(last);
    times::told(
        "S7",
        "a task has ended after the kill for memory",
        late,
        TOLD,
    );
    assert!(
        late <= TOLD * 5.0,
        "{row}: ended {late:.1} s after the kill"
    );

    let job = wait(&format!("the Job of {row} is settled"), 60, || {
        let job = world.job_of(task);
        (job["metadata"]["labels"]["trainyard.dev/state"] == "settled").then_some(job)
    });
    assert_eq!(job["spec"]["ttlSecondsAfterFinished"], KEPT.1, "{row}");
    let called = &job["metadata"]["annotations"]["trainyard.dev/ended"];
    assert_eq!(called, "out-of-memory", "{row}: as in the task");
}

/// The time at the end of a line, in seconds.
fn time_of(line: &str) -> f64 {
    let time = line.rsplit_once(" at ").and_then(|(_, at)| at.parse().ok());
    time.unwrap_or_else(|| panic!("no time in {line:?}"))
}
