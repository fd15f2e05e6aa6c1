//! How long each phase of a task's way took, from its entry in a queue to its process, for the histograms.
//!
//! ```text
//! entry ─queued─▶ Job ─claimed─▶ released ─scheduled─▶ on a node ─prepared─▶ code is there ─started─▶ its process
//!   ─first-line─▶ what it says first
//! ```
//!
//! Read from the objects when the task's container is first seen to run, the last of them when it has ended; Kubernetes
//! keeps whole seconds.

use jiff::Timestamp;

use super::row::{JobRow, PodRow};

/// Since when this process looks: what began before was measured by the one before it.
#[derive(Debug)]
pub(super) struct Phases {
    since: Timestamp,
}

impl Default for Phases {
    fn default() -> Self {
        Self {
            since: Timestamp::now(),
        }
    }
}

impl Phases {
    /// The phases of a task whose container runs, in seconds; none if that was so before this process began.
    pub fn of(&self, job: &JobRow, pod: &PodRow) -> Vec<(&'static str, f64)> {
        let times = times(job, pod);
        match times.last() {
            Some((_, Some(started))) if *started >= self.since => lengths(&times),
            _ => Vec::new(),
        }
    }
}

/// From the start of the task's process to the first line of its output, in seconds.
pub(super) fn first_line(job: &JobRow, pod: &PodRow, line: Timestamp) -> Option<f64> {
    let started = times(job, pod).last().and_then(|(_, started)| *started)?;
    Some(line.duration_since(started).as_secs_f64().max(0.0))
}

/// When each phase ended, as far as it is known.
fn times(job: &JobRow, pod: &PodRow) -> [(&'static str, Option<Timestamp>); 5] {
    let times = pod.times();
    [
        ("created", job.created),
        ("claimed", job.started()),
        ("scheduled", times.scheduled),
        ("prepared", times.prepared),
        ("started", times.began),
    ]
}

/// How long each took whose both ends are known.
fn lengths(times: &[(&'static str, Option<Timestamp>)]) -> Vec<(&'static str, f64)> {
    times
        .windows(2)
        .filter_map(|pair| {
            let (before, (name, after)) = (pair[0].1?, pair[1]);
            let seconds = after?.duration_since(before).as_secs_f64();
            Some((name, seconds.max(0.0)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::controller::row::Row;
    use crate::controller::tests::begun_pod;

    fn objects() -> (JobRow, PodRow) {
        objects_with(|_| {})
    }

    fn objects_with(change: impl Fn(&mut serde_json::Value)) -> (JobRow, PodRow) {
        let job = json!({
            "metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"},
            "status": {"startTime": "2026-01-01T00:00:01Z"},
        });
        let mut pod = begun_pod();
        change(&mut pod);
        (
            JobRow::of(serde_json::from_value(job).unwrap()),
            PodRow::of(serde_json::from_value(pod).unwrap()),
        )
    }

    fn since(time: &str) -> Phases {
        Phases {
            since: time.parse().unwrap(),
        }
    }

    #[test]
    fn each_phase_is_as_long_as_the_objects_say() {
        let (job, pod) = objects();
        assert_eq!(
            since("2026-01-01T00:00:00Z").of(&job, &pod),
            [
                ("claimed", 1.0),
                ("scheduled", 2.0),
                ("prepared", 4.0),
                ("started", 8.0)
            ]
        );
    }

    #[test]
    fn a_task_that_ran_before_this_process_is_not_measured_again() {
        let (job, pod) = objects();
        assert!(since("2026-01-01T01:00:00Z").of(&job, &pod).is_empty());
    }

    #[test]
    fn the_first_line_counts_from_the_process() {
        let (job, pod) = objects();
        let line = |text: &str| first_line(&job, &pod, text.parse().unwrap());
        assert_eq!(line("2026-01-01T00:00:17.5Z"), Some(2.5));
        assert_eq!(line("2026-01-01T00:00:14.9Z"), Some(0.0), "another clock");
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let (job, pod) = objects_with(|pod| pod["status"]["initContainerStatuses"] = json!(null));
        let phases = since("2026-01-01T00:00:00Z").of(&job, &pod);
        assert_eq!(phases, [("claimed", 1.0), ("scheduled", 2.0)]);
    }
}
